"""What is asked about one of the two keys: the secret on one side, the user on the other, and a call with the key."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from image_mirror.aws import AccessKey
from image_mirror.cli.doctor import key_readings, keys
from image_mirror.cli.doctor.asking import Asker, Question, SharedAccount, UnansweredError, examine
from image_mirror.cli.doctor.findings import Finding
from image_mirror.cli.doctor.keys import Absent, Kind
from image_mirror.cli.keys.probe import Verdict
from image_mirror.cli.stacks import Stack
from image_mirror.review import Json


@dataclass(frozen=True, slots=True)
class End:
    """One end of a key's way: the account, its stack, and the output that names the secret or the user there."""

    account: SharedAccount
    stack: Question[Stack]
    output: str

    @property
    def name(self) -> str:
        """The secret's or the user's name. Raises UnansweredError, NoAnswerError."""
        return self.stack.answer().output(self.output)


class Credentials:
    """One key. All about it has been asked once this is made; `findings` waits for the answers."""

    def __init__(self, asker: Asker, kind: Kind, kept: End, owned: End, call: Callable[[AccessKey], Verdict]) -> None:
        """Ask about the key whose secret is at `kept` and whose user at `owned`. `call` makes a call with it."""
        self._kind, self._kept, self._owned, self._now = kind, kept, owned, datetime.now(UTC)
        ask = asker.ask
        self._text = ask(kind.secret, lambda: key_readings.secret_text(kept.account, kept.name))
        self._key = ask(kind.secret, self._read)
        self._listed = ask(kind.key, lambda: key_readings.user_keys(owned.account, owned.name))
        self._used = ask(kind.key, lambda: key_readings.last_use(owned.account, self._key.answer().access_key_id))
        self._verdict = ask(kind.call, lambda: self._try(call))

    def findings(self) -> Iterator[Finding]:
        """Yield the findings about the secret, the key, and the call with it."""
        kind = self._kind

        def judge_secret(text: str | Absent, stack: Stack) -> Sequence[Finding]:
            owner = self._owned.stack.answer_or_none()
            return keys.judge_secret(kind, stack, self._kept.name, text, owner.account.region if owner else None)

        def judge_key(found: AccessKey, listed: Sequence[Json] | None) -> Sequence[Finding]:
            return keys.judge_key(kind, self._owned.name, found, listed, self._used.answer_or_none(), self._now)

        yield from examine(kind.secret, judge_secret, self._text, self._kept.stack)
        yield from examine(kind.key, judge_key, self._key, self._listed)
        yield from examine(kind.call, lambda verdict: keys.judge_call(kind, verdict), self._verdict)

    def secrets(self) -> Sequence[str]:
        """Return what must never be printed."""
        key = self._key.answer_or_none()
        return [key.access_key_id, key.secret_access_key] if key else []

    def _read(self) -> AccessKey:
        key, _ = keys.read_key(self._kind, self._text.answer())
        if key is None:
            raise UnansweredError(self._kind.secret, "the secret holds no key")
        return key

    def _try(self, call: Callable[[AccessKey], Verdict]) -> Verdict:
        self._used.answer_or_none()  # this call is to be none of the uses
        return call(self._key.answer())
