"""Asks many questions at the same time, each in a thread of its own; a question may wait for another's answer."""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from image_mirror.aws import AccessKey
from image_mirror.cli.accounts import Account
from image_mirror.cli.doctor.findings import Finding, State
from image_mirror.cli.errors import DENIED, EXPIRED, KEYS_REFUSED, NoAnswerError, parted
from image_mirror.cli.terminal import bar
from image_mirror.messages import printable

_UNKNOWN = KEYS_REFUSED | EXPIRED  # to whoever answers: it does not say how the account is
_ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)")

T = TypeVar("T")


@dataclass(frozen=True)
class SharedAccount(Account):
    """An account whose clients many threads use: each is made once, for botocore's sessions are made for one thread."""

    _clients: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _reached: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    @property
    def reached(self) -> bool:
        """Whether anything that was asked of this account has been answered, and not refused."""
        return self._reached.is_set()

    def client(self, service: str, key: AccessKey | None = None) -> Any:
        """Return the one client of `service`; with a `key`, a new one. Raises NoAnswerError, BotoCoreError."""
        with self._lock:
            if key:
                return super().client(service, key)
            if service not in self._clients:
                made = super().client(service)
                made.meta.events.register("after-call", self._note)
                self._clients[service] = made
            return self._clients[service]

    def _note(self, parsed: dict[str, Any], **_: object) -> None:
        error = parsed.get("Error", {})
        if error.get("Code") not in _UNKNOWN and not _is_denied(error):
            self._reached.set()


class UnansweredError(Exception):
    """A question without an answer. `reason` and `remedy` are for people, and hold no secret.

    `what` names the finding that is about this question, None where there is none; `denied` says that it was refused
    for want of a permission.
    """

    def __init__(self, what: str | None, reason: str, remedy: str | None = None, *, denied: bool = False) -> None:
        """Keep what is told of it."""
        super().__init__(reason)
        self.what = what
        self.reason = reason
        self.remedy = remedy
        self.denied = denied


class Question(Generic[T]):
    """A question that has been asked."""

    def __init__(self, future: "Future[T]") -> None:
        """Take what will hold the answer."""
        self._future = future

    def answer(self) -> T:
        """Wait for the answer. Raises UnansweredError where there is none."""
        return self._future.result()

    def answer_or_none(self) -> T | None:
        """Wait for an answer that can be done without."""
        try:
            return self.answer()
        except UnansweredError:
            return None


class Asker:
    """Asks, and shows on a terminal how far it is."""

    def __init__(self) -> None:
        """Start with nothing asked."""
        self._futures: list[Future[Any]] = []

    def ask(self, what: str | None, call: Callable[[], T]) -> Question[T]:
        """Begin to ask `call`, which may wait for other questions, and return at once.

        `what` names the finding that will say why there is no answer; with None, each finding that needs it does.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 - raised again where the answer is waited for
                future.set_exception(_unanswered(what, error))

        self._futures.append(future)
        # Daemons, so that Ctrl-C ends the command at once and not when the slowest call has timed out.
        threading.Thread(target=run, daemon=True).start()
        return Question(future)

    def wait(self) -> None:
        """Return when everything is answered, or known to get no answer."""
        with bar("Asking", len(self._futures)) as advance:
            for _ in as_completed(self._futures):
                advance(1)


def examine(
    topic: str, judge: Callable[..., Sequence[Finding]], *questions: Question[Any], required: bool = False
) -> Sequence[Finding]:
    """Judge the answers to `questions`; where one is missing, say why.

    Without an answer nothing is known, and nothing has failed; but where it is `required`, only a want of permission is
    no failure.
    """
    try:
        return judge(*[question.answer() for question in questions])
    except UnansweredError as error:
        state = State.FAILED if required and not error.denied else State.SKIPPED
        return [Finding(topic, state, error.reason, error.remedy)]
    except NoAnswerError as error:  # an output that a stack lacks
        return [Finding(topic, State.SKIPPED, error.cause, error.remedy)]


def _unanswered(what: str | None, error: Exception) -> Exception:
    match error:
        case UnansweredError(what=None):
            return UnansweredError(what, error.reason, error.remedy, denied=error.denied)
        case UnansweredError():
            return UnansweredError(what, f'not asked, for want of "{error.what}"')
        case ClientError() if _is_denied(error.response["Error"]):
            named = _ACTION.search(error.response["Error"].get("Message", ""))
            action = printable(named[1] if named else error.operation_name)
            granted = f"have {action} granted to you in the {error.response.get('Account', 'account')}"
            return UnansweredError(what, f"not permitted ({action})", granted, denied=True)
        case ClientError() | BotoCoreError():
            return UnansweredError(what, *parted(error))
        case ResponseParserError():  # whose text is the whole page
            return UnansweredError(what, "what answers is not AWS", "see to the network, and to HTTPS_PROXY")
        case NoAnswerError():
            return UnansweredError(what, error.cause, error.remedy)
    return error  # a bug, which is not to be hidden


def _is_denied(error: Mapping[str, Any]) -> bool:
    # Some services have codes of their own for it, and the same words.
    return error.get("Code") in DENIED or _ACTION.search(error.get("Message", "")) is not None
