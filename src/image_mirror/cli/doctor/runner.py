"""Runs checks: all that they need is fetched at once, each in a thread of its own; then the answers are judged."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from image_mirror.cli.doctor.accounts import ACTION, SharedAccount, is_denied
from image_mirror.cli.errors import NoAnswerError, parted
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.terminal import bar
from image_mirror.messages import printable

T = TypeVar("T")


class State(StrEnum):
    """The state of what was checked. SKIPPED: it could not be checked, and `found` says why."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What was checked, its state, what was found, and what to do, or None where there is nothing to do.

    `needs` is the topic of another check, where this one was skipped only because that one has no answer.
    """

    topic: str
    state: State
    found: str
    remedy: str | None = None
    needs: str | None = None


def fine(topic: str, found: str) -> CheckResult:
    """A thing is as it must be."""
    return CheckResult(topic, State.OK, found)


def warn(topic: str, found: str, remedy: str) -> CheckResult:
    """A thing works, but may soon stop."""
    return CheckResult(topic, State.WARNING, found, remedy)


def fail(topic: str, found: str, remedy: str) -> CheckResult:
    """A thing does not work."""
    return CheckResult(topic, State.FAILED, found, remedy)


def skip(topic: str, reason: str, remedy: str | None = None) -> CheckResult:
    """A thing was not checked; say why."""
    return CheckResult(topic, State.SKIPPED, reason, remedy)


def unless(faults: Iterable[CheckResult], sound: CheckResult) -> Sequence[CheckResult]:
    """Return the faults, or `sound` if there is none."""
    return list(faults) or [sound]


class UnansweredError(Exception):
    """A fetch without an answer. `reason` and `remedy` are for people, and hold no secret.

    `what` names the check that is about this fetch, None if there is none; `needs` the check that is about another
    one, whose missing answer it needs; `denied` says that a permission is missing.
    """

    def __init__(
        self,
        what: str | None,
        reason: str,
        remedy: str | None = None,
        *,
        needs: str | None = None,
        denied: bool = False,
    ) -> None:
        """Keep what is printed about it."""
        super().__init__(reason)
        self.what = what
        self.reason = reason
        self.remedy = remedy
        self.needs = needs
        self.denied = denied


@dataclass(frozen=True, eq=False, slots=True)
class Fetch(Generic[T]):
    """Something to fetch: `call` fetches it, and may wait for other fetches by its context.

    `what` names the check that will say why there is no answer; with None, each check that needs it does. It is equal
    to itself alone.
    """

    what: str | None
    call: "Callable[[Context], T]"


def fetch(what: str | None) -> "Callable[[Callable[[Context], T]], Fetch[T]]":
    """Return what makes a Fetch of a function: a decorator."""
    return lambda call: Fetch(what, call)


@dataclass(frozen=True)
class Context:
    """What one run is about. It keeps what was fetched, so that each is fetched once."""

    china_account: SharedAccount
    global_account: SharedAccount
    stack_name: str | None
    global_stack_name: str
    cluster: Cluster | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    _begun: "dict[Fetch[Any], Future[Any]]" = field(default_factory=dict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _hidden: set[str] = field(default_factory=set, init=False, repr=False)

    def begin(self, wanted: Fetch[T]) -> "Future[T]":
        """Begin to fetch, unless that has begun, and return at once."""
        with self._lock:
            future = self._begun.get(wanted)
            if future is None:
                future = self._begun[wanted] = Future()
                # Daemons, so that Ctrl-C ends the command at once and not when the slowest call has timed out.
                threading.Thread(target=self._fetch, args=(wanted, future), daemon=True).start()
        return future

    def answer(self, wanted: Fetch[T]) -> T:
        """Wait for the answer. Raises UnansweredError if there is none."""
        return self.begin(wanted).result()

    def answer_or_none(self, wanted: Fetch[T]) -> T | None:
        """Wait for an answer that can be done without."""
        try:
            return self.answer(wanted)
        except UnansweredError:
            return None

    def hide(self, *secrets: str) -> None:
        """Have these texts masked in all results."""
        self._hidden.update(filter(None, secrets))

    def masked(self, text: str) -> str:
        """Return a text, into which AWS or the cluster may have quoted a secret, without it."""
        for secret in sorted(self._hidden, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _fetch(self, wanted: Fetch[T], future: "Future[T]") -> None:
        try:
            future.set_result(wanted.call(self))
        except Exception as error:  # noqa: BLE001 - raised again where the answer is waited for
            future.set_exception(_unanswered(wanted.what, error))


now: Fetch[datetime] = Fetch(None, lambda context: context.now)


@dataclass(frozen=True)
class Check:
    """One check: `judge` takes the answers to what it `needs`, then to what `helps`, None for one that is missing.

    Without an answer that it needs, nothing is known, and nothing has failed; but where it is `required`, only a
    missing permission is not a failure.
    """

    topic: str
    judge: Callable[..., Sequence[CheckResult]]
    needs: tuple[Fetch[Any], ...]
    helps: tuple[Fetch[Any], ...] = ()
    required: bool = False

    def results(self, context: Context) -> Sequence[CheckResult]:
        """Judge the answers; where one is missing, say why."""
        try:
            answers = [context.answer(each) for each in self.needs]
            return self.judge(*answers, *map(context.answer_or_none, self.helps))
        except UnansweredError as error:
            state = State.FAILED if self.required and not error.denied else State.SKIPPED
            needs = error.needs if error.what in (None, self.topic) else error.what
            return [CheckResult(self.topic, state, error.reason, error.remedy, needs)]
        except NoAnswerError as error:  # an output that a stack lacks
            return [skip(self.topic, error.cause, error.remedy)]


def run(checks: Sequence[Check], context: Context) -> Sequence[CheckResult]:
    """Run the checks; return their results in the same order, each once, with secrets masked."""
    fetches = dict.fromkeys(each for check in checks for each in (*check.needs, *check.helps))
    begun = [context.begin(each) for each in fetches]
    with bar("Asking", len(begun)) as advance:
        for _ in as_completed(begun):
            advance(1)
    results = [result for check in checks for result in check.results(context)]
    mask = context.masked
    masked = (replace(each, found=mask(each.found), remedy=each.remedy and mask(each.remedy)) for each in results)
    return list(dict.fromkeys(masked))


def _unanswered(what: str | None, error: Exception) -> Exception:
    match error:
        case UnansweredError(what=None):
            return UnansweredError(what, error.reason, error.remedy, needs=error.needs, denied=error.denied)
        case UnansweredError():
            return UnansweredError(what, f'not asked: it needs "{error.what}"', needs=error.what)
        case ClientError() if is_denied(error.response["Error"]):
            named = ACTION.search(error.response["Error"].get("Message", ""))
            action = printable(named[1] if named else error.operation_name)
            granted = f"have {action} granted to you in the {error.response.get('Account', 'account')}"
            return UnansweredError(what, f"not permitted ({action})", granted, denied=True)
        case ClientError() | BotoCoreError():
            return UnansweredError(what, *parted(error))
        case ResponseParserError():  # whose text is the whole page
            return UnansweredError(what, "what answers is not AWS", "check the network, and HTTPS_PROXY")
        case NoAnswerError():
            return UnansweredError(what, error.cause, error.remedy)
    return error  # a bug, which is not to be hidden
