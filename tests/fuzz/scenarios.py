"""The conditions of a request besides its input: rules, settings, and the content of the table."""

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from fuzz.reading import REGISTRY
from fuzz.table import NOW, State, Table
from image_mirror.recorder import KnownRecords, Recorder
from image_mirror.rules import DEFAULT_RULES
from image_mirror.settings import Settings
from image_mirror.swap_when import SwapWhen
from image_mirror.table import Records
from image_mirror.webhook import Webhook

_REWRITES = (
    "gcr.io=mirror.example.com/gcr docker.io=hub.example.com !docker.io/library/redis quay.io/prometheus "
    "registry.k8s.io=docker.io/k8s *.example.org !a.example.org *.a.example.org/x/y localhost:5000"
)
_EACH: tuple[State, ...] = (
    *("absent", "requested", "copied", "copied long ago"),
    *("failed", "failed long ago", "legacy", "damaged", "refused"),
)


@dataclass(frozen=True)
class Scenario:
    """The rules, SwapWhen, the content of the table, and the route that is called.

    Each item of the table is in one of the states `before`; the route is /token and `route`.
    """

    rules: str = DEFAULT_RULES
    swap_when: SwapWhen = "always"
    before: tuple[State, ...] = ("absent",)
    route: str = ""

    @property
    def refuses(self) -> bool:
        """Whether the table refuses any call."""
        return "refused" in self.before


SCENARIOS = (
    Scenario(),
    Scenario(swap_when="copied", before=("copied", "absent")),
    Scenario(before=("failed", "failed long ago", "legacy", "damaged", "copied long ago")),
    Scenario(before=_EACH),
    Scenario(_REWRITES),
    Scenario(_REWRITES, "copied", _EACH),
    Scenario(swap_when="paused", before=tuple(state for state in _EACH if state != "refused")),
    Scenario(before=_EACH, route="/paused"),
    # Rules about the registry of the copies itself.
    Scenario(f"*.{REGISTRY.partition('.')[2]} {REGISTRY} *.io docker.io/library", before=("absent", "copied")),
)


def webhook_of(scenario: Scenario, table: Table) -> Webhook:
    """Return a webhook with `table` and an empty cache of records."""
    settings = _settings(scenario)
    records = Records(cast("Any", table), settings.table)
    recorder = Recorder(records, settings.policy, KnownRecords(), settings.max_new_images)
    return Webhook(settings, recorder, lambda: NOW / 1000)


@cache
def _settings(scenario: Scenario) -> Settings:
    environment = {"DDB_TABLE_NAME": "T", "GLOBAL_AKSK": "S", "G_PROJECT_NAME": "P", "ECR_REGISTRY": REGISTRY}
    return Settings.from_env(environment | {"MIRROR_RULES": scenario.rules, "SWAP_WHEN": scenario.swap_when})
