"""Runs checks: fetches all that they need at the same time, each in its own thread; then judges the answers."""

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
    """What was checked, its state, what was found, and what to do (None if nothing has to be done).

    `needs` is set if this check was skipped only because another one has no answer: it is the topic of that one.
    """

    topic: str
    state: State
    found: str
    remedy: str | None = None
    needs: str | None = None


def fine(topic: str, found: str) -> CheckResult:
    """Return the result of a check that found no fault."""
    return CheckResult(topic, State.OK, found)


def warn(topic: str, found: str, remedy: str) -> CheckResult:
    """Return a result about something that works, but may soon stop."""
    return CheckResult(topic, State.WARNING, found, remedy)


def fail(topic: str, found: str, remedy: str) -> CheckResult:
    """Return a result about something that does not work."""
    return CheckResult(topic, State.FAILED, found, remedy)


def skip(topic: str, reason: str, remedy: str | None = None) -> CheckResult:
    """Return a result about something that could not be checked, with the reason."""
    return CheckResult(topic, State.SKIPPED, reason, remedy)


def unless(faults: Iterable[CheckResult], sound: CheckResult) -> Sequence[CheckResult]:
    """Return the faults, or `sound` if there is none."""
    return list(faults) or [sound]


class UnansweredError(Exception):
    """A fetch that has no answer. `reason` and `remedy` are for people, and contain no secret.

    `what` is the topic of the check that reports this fetch, None if no check does. `needs` is set if this fetch needs
    another one that has no answer: it is the topic of the check that reports that one. `denied` is True if a permission
    is missing.
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
        super().__init__(reason)
        self.what = what
        self.reason = reason
        self.remedy = remedy
        self.needs = needs
        self.denied = denied


@dataclass(frozen=True, eq=False, slots=True)
class Fetch(Generic[T]):
    """Something to fetch: `call` fetches it, and may wait for other fetches through its context.

    `what` is the topic of the check that reports why there is no answer; with None, each check that needs the answer
    reports it. Two fetches are equal only if they are the same object.
    """

    what: str | None
    call: "Callable[[Context], T]"


def fetch(what: str | None) -> "Callable[[Callable[[Context], T]], Fetch[T]]":
    """Return a decorator that makes a Fetch of a function."""
    return lambda call: Fetch(what, call)


@dataclass(frozen=True)
class Context:
    """What one run checks. It stores the answers, so that nothing is fetched twice."""

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
        """Start to fetch, if that has not started yet, and return at once."""
        with self._lock:
            future = self._begun.get(wanted)
            if future is None:
                future = self._begun[wanted] = Future()
                # A daemon thread, so that Ctrl-C ends the command at once, without a wait for the slowest call.
                threading.Thread(target=self._fetch, args=(wanted, future), daemon=True).start()
        return future

    def answer(self, wanted: Fetch[T]) -> T:
        """Wait for the answer. Raises UnansweredError if there is none."""
        return self.begin(wanted).result()

    def answer_or_none(self, wanted: Fetch[T]) -> T | None:
        """Wait for the answer; return None if there is none."""
        try:
            return self.answer(wanted)
        except UnansweredError:
            return None

    def hide(self, *secrets: str) -> None:
        """Mask these texts in all results."""
        self._hidden.update(filter(None, secrets))

    def masked(self, text: str) -> str:
        """Return a text with the secrets masked that AWS or the cluster may have quoted in it."""
        for secret in sorted(self._hidden, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _fetch(self, wanted: Fetch[T], future: "Future[T]") -> None:
        try:
            future.set_result(wanted.call(self))
        except Exception as error:  # noqa: BLE001 - `answer` raises it again
            future.set_exception(_unanswered(wanted.what, error))


now: Fetch[datetime] = Fetch(None, lambda context: context.now)


@dataclass(frozen=True)
class Check:
    """One check: `judge` takes the answers to what it `needs`, then to what `helps` (None for a missing one).

    If an answer that it needs is missing, the check is skipped. A `required` check is skipped only if a permission is
    missing; without an answer for another reason it fails.
    """

    topic: str
    judge: Callable[..., Sequence[CheckResult]]
    needs: tuple[Fetch[Any], ...]
    helps: tuple[Fetch[Any], ...] = ()
    required: bool = False

    def results(self, context: Context) -> Sequence[CheckResult]:
        """Judge the answers; if one is missing, return a result that says why."""
        try:
            answers = [context.answer(each) for each in self.needs]
            return self.judge(*answers, *map(context.answer_or_none, self.helps))
        except UnansweredError as error:
            state = State.FAILED if self.required and not error.denied else State.SKIPPED
            needs = error.needs if error.what in (None, self.topic) else error.what
            return [CheckResult(self.topic, state, error.reason, error.remedy, needs)]
        except NoAnswerError as error:  # the stack lacks an output
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
            granted = f"ask for the permission {action} in the {error.response.get('Account', 'account')}"
            return UnansweredError(what, f"not permitted ({action})", granted, denied=True)
        case ClientError() | BotoCoreError():
            return UnansweredError(what, *parted(error))
        case ResponseParserError():  # its text is the whole page
            cause = "the answer is not from AWS, perhaps from a proxy"
            return UnansweredError(what, cause, "check the network and HTTPS_PROXY")
        case NoAnswerError():
            return UnansweredError(what, error.cause, error.remedy)
    return error  # a bug: do not hide it
