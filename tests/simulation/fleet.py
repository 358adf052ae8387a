"""A whole fleet: the services, the two functions with their triggers as in the template, and a cluster."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any

from image_mirror import reconciler, webhook
from image_mirror.settings import Settings
from simulation.account import Account
from simulation.clock import MINUTE
from simulation.cluster import ApiServer
from simulation.codebuild import EC2, LAMBDA, CodeBuild, Lane
from simulation.ecr import Registry
from simulation.expressions import Item
from simulation.faults import NO_FAULTS, Faults
from simulation.functions import Function, ReconcilerInstance, Services, WebhookInstance, deployed
from simulation.ledger import Ledger
from simulation.logs import watched
from simulation.patterns import matches
from simulation.prices import Usage
from simulation.sources import Sources
from simulation.stream import Stream
from simulation.table import Table
from simulation.world import World
from support.templates import sam_template

REGISTRY = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"
ONE_LANE = {"G_FAST_PROJECT_NAME": ""}
TWO_LANES = {"G_FAST_PROJECT_NAME": LAMBDA.project}


class Fleet:
    """All parts, connected with each other.

    CodeBuild runs `quota` builds of the main lane's project at once. It always has the fast lane's project too, with a
    quota of 1; settings make the product use it.
    """

    def __init__(self, world: World, *, quota: int, **settings: str) -> None:
        template = deepcopy(_resources())
        events = template["ReconcilerFunction"]["Properties"]["Events"]
        self._retries = int(template["ReconcilerFunction"]["Properties"]["EventInvokeConfig"]["MaximumRetryAttempts"])
        self._hints = events["EcrHints"]["Properties"]["Pattern"]
        self.world = world
        self._environment = {
            "DDB_TABLE_NAME": "ImageListTable",
            "GLOBAL_AKSK": "GlobalAKSK",
            "G_PROJECT_NAME": EC2.project,
            "ECR_REGISTRY": REGISTRY,
            **settings,
        }
        self.settings = Settings.from_env(self._environment)
        _give(self._hints, self.settings.mirror.prefix)
        self.table = Table(world)
        self.registry = Registry(world, self._hint)
        self.sources = Sources(world)
        self.main, self.fast = Lane(EC2, quota), Lane(LAMBDA, 1)
        self.codebuild = CodeBuild(world, self.registry, self.sources, self.main, self.fast)
        self.account = Account(world, self.codebuild)
        self.services = services = Services(world, self.table, self.registry, self.account, self.settings)
        self.webhook, self.reconciler = (
            Function(services, kind, handler, float(template[name]["Properties"]["Timeout"]))
            for kind, handler, name in (
                (WebhookInstance, webhook.handler, "ApiFunction"),
                (ReconcilerInstance, reconciler.handler, "ReconcilerFunction"),
            )
        )
        self.ledger = Ledger(world, self.table, self.registry, swap_when=self.settings.swap_when)
        self.stream = Stream(world, events["Requests"]["Properties"], self.reconciler.invoke)
        self.cluster = ApiServer(services, self.webhook, self.ledger)
        self.table.listeners += [self.ledger.changed, self.stream.changed]
        self._every = _minutes(events["EveryMinute"]["Properties"]["Schedule"])
        self._tick()

    def configure(self, **settings: str) -> None:
        """Deploy other settings. Invocations that run end with those that they began with."""
        self.world.note("configured", settings)
        self._environment |= settings
        self.settings = self.services.settings = Settings.from_env(self._environment)
        self.webhook.recycle()
        self.reconciler.recycle()

    def calm(self) -> None:
        """End all faults except the difference of the clocks, and those of CodeBuild's projects."""
        self.world.note("calm")
        self.world.faults = NO_FAULTS

    def usage(self, image_gigabytes: float = 0.0) -> Usage:
        """Return what the fleet has used so far, if each image has this size."""
        counts = self.world.counts
        return Usage(
            webhook_invocations=counts["Lambda webhook"],
            webhook_seconds=self.webhook.seconds,
            reconciler_invocations=counts["Lambda reconciler"],
            reconciler_seconds=self.reconciler.seconds,
            write_units=counts["write units"],
            read_units=counts["half read units"] / 2,
            build_minutes=counts["build minutes"],
            fast_build_seconds=counts["fast build seconds"],
            secret_calls=counts["Secrets Manager GetSecretValue"],
            pushes=sum(build.pushed for build in self.codebuild.builds.values()),
            images=len(self.table.items),
            image_gigabytes=image_gigabytes,
        )

    def put_by_hand(self, item: Item) -> None:
        """Write an item into the table as somebody does who is not the product."""
        key = item["repo"]["S"], item["tag"]["S"]
        before = self.table.items.get(key)
        self.table.put_by_hand(item)
        self.ledger.changed_by_hand(key)
        self.stream.changed(key, before, item)

    def _tick(self) -> None:
        """Deliver the schedule's event, and plan the next one."""
        self.world.deliver("schedule", self.run_schedule, delay=0.0)
        self.world.clock.after(self._every, self._tick)

    def run_schedule(self) -> None:
        """Invoke the reconciler as the schedule does."""
        self._invoke({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}, self._retries)

    def _hint(self, event: dict[str, Any]) -> None:
        if matches(self._hints, event):
            self._invoke(event, self._retries)

    def _invoke(self, event: dict[str, Any], retries: int) -> None:
        """Invoke the reconciler asynchronously: Lambda retries a failed event."""

        def done(answer: Any) -> None:
            if answer is None and retries:
                self.world.clock.after(MINUTE, lambda: self._invoke(event, retries - 1))

        self.reconciler.invoke(event, done)


@cache
def _resources() -> dict[str, Any]:
    resources: dict[str, Any] = sam_template()["Resources"]
    return resources


@contextmanager
def running(seed: int, faults: Faults, *, quota: int, keeps_history: bool = False, **settings: str) -> Iterator[Fleet]:
    """Yield a fleet that runs while the context is active."""
    world = World(seed, faults, keeps_history=keeps_history)
    with watched(world), deployed(world):
        yield Fleet(world, quota=quota, **settings)


def _minutes(rate: str) -> float:
    found = re.fullmatch(r"rate\((\d+) minutes?\)", rate)
    assert found is not None, f"the schedule {rate!r} is not modelled"
    return int(found[1]) * MINUTE


def _give(pattern: dict[str, Any], prefix: str) -> None:
    """Put the parameter into the pattern, as CloudFormation does."""
    [matcher] = pattern["detail"]["repository-name"]
    matcher["prefix"] = matcher["prefix"]["Fn::Sub"].replace("${RepositoryPrefix}", prefix)
