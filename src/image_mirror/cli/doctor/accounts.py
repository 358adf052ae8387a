"""An account that doctor's threads share, and what AWS's errors mean: not permitted, or does not exist."""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.aws_errors import ABSENT, DENIED, EXPIRED, KEY_REFUSED, code_of
from image_mirror.cli.accounts import Account

T = TypeVar("T")

ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)")
"""Finds the missing permission in the text of AWS's error."""
_UNKNOWN = KEY_REFUSED | EXPIRED  # these answers say nothing about the account itself


@dataclass(frozen=True)
class SharedAccount(Account):
    """An account whose clients many threads use.

    Each client is created only once, under a lock, because a botocore session is not safe for several threads.
    """

    _clients: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _reached: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    @property
    def reached(self) -> bool:
        """Whether this account has answered a call, other than with a refusal."""
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
        if error.get("Code") not in _UNKNOWN and not is_denied(error):
            self._reached.set()


def is_denied(error: Mapping[str, Any]) -> bool:
    """Say whether an error of AWS is about a permission."""
    # Some services have codes of their own for it, but use the same words.
    return error.get("Code") in DENIED or ACTION.search(error.get("Message", "")) is not None


def or_none(call: Callable[[], T]) -> T | None:
    """Return what `call` returns, or None if AWS says that the resource does not exist."""
    try:
        return call()
    except ClientError as error:
        if code_of(error) in ABSENT:
            return None
        raise
