"""Lambda: instances of the two functions, which run the product's handlers, each with its own clock and memory."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from botocore.exceptions import BotoCoreError, ClientError

from image_mirror import reconciler, webhook
from image_mirror.codebuild import Builds
from image_mirror.counts import Counts
from image_mirror.ecr import Repositories
from image_mirror.global_access import GlobalAccount, SecretKey
from image_mirror.reconciler import Reconciler
from image_mirror.recorder import KnownRecords, Recorder
from image_mirror.settings import Settings
from image_mirror.state_item import StateItem
from image_mirror.table import Records
from simulation.account import Account, CodeBuildClient, Secrets
from simulation.ecr import ECR, Registry
from simulation.monitoring import OURS
from simulation.replacements import installed
from simulation.table import DynamoDB, Table
from simulation.threads import CrashError, Process
from simulation.world import World

Done = Callable[[Any], None]
_COMPUTING = 0.002


@dataclass(slots=True)
class Services:
    """The services that instances are connected to, and the settings of new instances."""

    world: World
    table: Table
    registry: Registry
    account: Account
    settings: Settings


class Instance:
    """An execution environment: its own clock, and the objects that the product's `load` makes once."""

    def __init__(self, services: Services) -> None:
        self._world = services.world
        self.calls: Counter[str] = Counter()  # to AWS, by service; its function counts them for all instances
        self._fast = self._world.dice.choice((-0.5, 0.5)) * self._world.clocks_differ

    def time(self) -> float:
        """Return the time of this instance's clock."""
        return self._world.clock.now + self._fast


class WebhookInstance(Instance):
    """An instance of the webhook, made like `image_mirror.webhook.load`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        settings = services.settings
        records = Records(_client(DynamoDB(services.world, services.table, webhook._LIMITS)), settings.table)
        recorder = Recorder(records, settings.policy, KnownRecords(), settings.max_new_images)
        self.loaded = webhook.Webhook(settings, recorder, self.time)


class ReconcilerInstance(Instance):
    """An instance of the reconciler, made like `image_mirror.reconciler.load`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        world, settings, limits = services.world, services.settings, reconciler._LIMITS
        dynamodb = _client(DynamoDB(world, services.table, reconciler._TABLE_LIMITS))
        records, state = Records(dynamodb, settings.table), StateItem(dynamodb, settings.table)
        secrets = _client(Secrets(world, services.account, limits))
        key = SecretKey(secrets, settings.secret, lambda: world.clock.now)
        account = GlobalAccount(key, lambda key: _client(CodeBuildClient(world, services.account, limits, key)))
        repositories = Repositories(_client(ECR(world, services.registry, limits)), settings)
        builds = Builds(account, settings.project, settings.fast_project)
        self.loaded = Reconciler(records, state, builds, repositories, settings, self.time)


class Function:
    """One function: an idle instance handles the next event, or a new instance after its cold start."""

    def __init__(
        self, services: Services, kind: Callable[[Services], Instance], handler: Callable[..., Any], timeout: float
    ) -> None:
        self._services = services
        self._world = services.world
        self._kind = kind
        self._handler = handler
        self._timeout = timeout
        self._idle: list[Instance] = []
        self.seconds = 0.0  # that it has run, as they are billed
        self.calls: Counter[str] = Counter()
        self.running = 0
        self.most_at_once = 0

    def invoke(self, event: Any, done: Done) -> None:
        """Run the handler with `event`; `done` is called with its result, or with None after a crash or the timeout."""
        world = self._world
        cold = 0.0 if self._idle else 0.4
        instance = self._idle.pop() if self._idle else self._kind(self._services)
        instance.calls = self.calls
        process, began, ended = Process(instance), world.clock.now, False
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)

        def end(answer: Any) -> None:
            nonlocal ended
            if not ended:
                ended = True
                self.running -= 1
                # Billed by the millisecond. The clock does not advance while an instance computes.
                self.seconds += ceil((world.clock.now - began + _COMPUTING) * 1000) / 1000
                done(answer)

        def run() -> None:
            try:
                world.threads.sleep(cold)
                deadline = began + cold + self._timeout
                context = SimpleNamespace(get_remaining_time_in_millis=lambda: int((deadline - world.clock.now) * 1000))
                answer = self._handler(event, context)
            except CrashError:
                end(None)
                raise
            except (ClientError, BotoCoreError) as error:
                world.note("failed", self._handler.__module__, error)
                answer = None
            self._idle.append(instance)
            end(answer)

        def time_out() -> None:
            if not ended:
                world.note("timeout", self._handler.__module__)
                world.counts["function timeouts"] += 1
                world.threads.crash(process)
                end(None)

        world.counts[f"Lambda {self._handler.__module__.rpartition('.')[2]}"] += 1
        world.threads.start(process, run)
        if world.faults.crashes or world.faults.times_out:
            world.clock.after(cold + self._timeout, time_out)

    def recycle(self) -> None:
        """Remove idle instances, as Lambda does now and then."""
        self._idle.clear()


@contextmanager
def deployed(world: World) -> Iterator[None]:
    """Make the product's handlers use the instance on which they run, with its clock, its threads and its metrics."""

    def loaded() -> Any:
        return world.threads.process.instance.loaded

    def publish(counts: Counts, *, every: float = 0.0) -> None:
        del every  # it saves lines of the log; here each value is published at its own time
        values, counts._values = counts._values, {}
        if not world.threads.process.crashed:
            for metric, some in values.items():
                world.metrics.add((OURS, metric.label), *some)

    time = SimpleNamespace(time=lambda: world.threads.process.instance.time())
    with (
        installed(world.threads),
        patch.object(webhook, "load", loaded),
        patch.object(reconciler, "load", loaded),
        patch.object(reconciler, "time", time),
        patch.object(webhook, "_counts", Counts()),
        patch.object(Counts, "publish", publish),
    ):
        yield


def _client(modelled: object) -> Any:
    """Return a modelled client with the type of a real one."""
    return modelled
