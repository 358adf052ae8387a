"""Reads the functions' logs for bugs: errors that the product survives, but that should not happen."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from botocore.exceptions import BotoCoreError, ClientError

from simulation.world import World


class _Watch(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        details = {
            name: getattr(record, name)
            for name in ("image", "before", "after", "reason", "record")
            if hasattr(record, name)
        }
        self._world.note("log", record.getMessage(), details, error or "")
        if error is not None and not isinstance(error, ClientError | BotoCoreError):
            self._world.violated(f"a bug was logged: {type(error).__name__}: {error}")


@contextmanager
def watched(world: World) -> Iterator[None]:
    """Read both functions' logs instead of printing them."""
    watch = _Watch(world)
    webhook, reconciler = logging.getLogger("webhook"), logging.getLogger("reconciler")
    with (
        patch.object(webhook, "handlers", [watch]),
        patch.object(webhook, "propagate", False),
        patch.object(reconciler, "handlers", [watch]),
        patch.object(reconciler, "propagate", False),
    ):
        yield
