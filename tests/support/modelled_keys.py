"""IAM and Secrets Manager, by their API references, as far as two access keys need them; calls can be interrupted."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from botocore.exceptions import ClientError

from image_mirror.aws import AccessKey
from image_mirror.cli.accounts import Account
from image_mirror.cli.keys.probe import ProbeResult, Verdict
from image_mirror.cli.keys.rotation import KeySetup
from image_mirror.cli.keys.secret import KeySecret, Names

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NAMES = Names("Region", "AccessKey", "AccessSecretKey")
Json = dict[str, Any]


class CutOff(BaseException):
    """The run ends at once, as by Ctrl-C or by a power failure."""


@dataclass
class Aws:
    """One account's IAM user and the other account's secret, by their API references; a run can be interrupted.

    `cut` is the number of the writing call at which `error` is raised; `takes_effect` says whether that call is carried
    out; with `kills` every later call fails too.
    """

    keys: dict[str, Json] = field(default_factory=dict)
    versions: list[Json] = field(default_factory=list)  # the latest last
    exists: bool = True
    name: str = "user"
    cut: int = -1
    takes_effect: bool = False
    error: BaseException = field(default_factory=CutOff)
    kills: bool = False
    dead: bool = False
    calls: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)
    made: int = 0
    refusals: int = 0  # how often a new key is refused
    now: datetime = NOW

    def client(self, service: str) -> "Service":
        return Service(self, service)

    def label(self, name: str) -> Json | None:
        return next((version for version in self.versions if name in version["labels"]), None)

    def current(self) -> str:
        version = self.label("AWSCURRENT")
        return str(json.loads(version["text"]).get("AccessKey", "")) if version else ""

    def works(self) -> bool:
        """Return whether the secret contains a key that AWS accepts, with the right secret part."""
        version = self.label("AWSCURRENT")
        return version is not None and self.test_key(AccessKey("", *self.entries()[1:])).result is ProbeResult.WORKS

    def entries(self) -> tuple[str, str, str]:
        version = self.label("AWSCURRENT")
        assert version is not None
        found = json.loads(version["text"])
        return found["Region"], found["AccessKey"], found["AccessSecretKey"]

    def test_key(self, key: AccessKey) -> Verdict:
        found = self.keys.get(key.access_key_id)
        if found is None or found["Status"] != "Active" or key.secret_access_key != f"secret of {key.access_key_id}":
            return Verdict(ProbeResult.REFUSED, "")
        if found["refusals"]:
            found["refusals"] -= 1
            return Verdict(ProbeResult.REFUSED, "")
        found["used"] = self.now
        return Verdict(ProbeResult.WORKS, "")

    def setup(self) -> KeySetup:
        account = cast("Account", self)
        return KeySetup(
            user=self.name,
            owner=Account("china", None, "cn-north-1"),
            iam=self.client("iam"),
            secret=KeySecret(account, "s", NAMES, of_a_stack=None),
            region="cn-north-1",
            test_key=self.test_key,
            wait_for_users=lambda _: None,
        )

    side = "global"


@dataclass
class Service:
    """A client with the operations that the command calls."""

    aws: Aws
    name: str

    def __getattr__(self, operation: str) -> Any:
        def call(**parameters: Any) -> Any:
            aws = self.aws
            if aws.dead:
                raise CutOff
            changes = not operation.startswith(("get_", "list_", "describe_"))
            is_cut = changes and aws.calls == aws.cut
            aws.calls += changes
            if is_cut and aws.kills:
                aws.dead = True
            answer = getattr(self, f"_{operation}")(**parameters) if not is_cut or aws.takes_effect else None
            if is_cut:
                raise aws.error
            return answer

        return call

    def _list_access_keys(self, **_: str) -> Json:
        return {"AccessKeyMetadata": [dict(key) for key in self.aws.keys.values()]}

    def _get_access_key_last_used(self, AccessKeyId: str) -> Json:  # noqa: N803
        used = self.aws.keys[AccessKeyId]["used"]
        return {"AccessKeyLastUsed": {"LastUsedDate": used} if used else {}}

    def _create_access_key(self, **_: str) -> Json:
        assert len(self.aws.keys) < 2
        name = f"AKIA{next(self.aws.numbers):016}"
        self.aws.made += 1
        self.aws.keys[name] = {
            "AccessKeyId": name,
            "Status": "Active",
            "CreateDate": self.aws.now,
            "used": None,
            "refusals": self.aws.refusals,
        }
        return {"AccessKey": {"AccessKeyId": name, "SecretAccessKey": f"secret of {name}"}}

    def _delete_access_key(self, AccessKeyId: str, **_: str) -> None:  # noqa: N803
        if AccessKeyId not in self.aws.keys:
            raise ClientError({"Error": {"Code": "NoSuchEntity"}}, "DeleteAccessKey")
        del self.aws.keys[AccessKeyId]

    def _describe_secret(self, **_: str) -> Json:
        if not self.aws.exists:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "DescribeSecret")
        labels = {version["id"]: version["labels"] for version in self.aws.versions if version["labels"]}
        return {"LastChangedDate": self.aws.now, "VersionIdsToStages": labels}

    def _get_secret_value(self, VersionId: str, **_: str) -> Json:  # noqa: N803
        found = next(version for version in self.aws.versions if version["id"] == VersionId)
        return {"SecretString": found["text"], "CreatedDate": found["made"]}

    def _create_secret(self, SecretString: str, **_: str) -> None:  # noqa: N803
        assert not self.aws.exists
        self.aws.exists = True
        self._put_secret_value(SecretString)

    def _put_secret_value(self, SecretString: str, **more: Any) -> None:  # noqa: N803
        aws = self.aws
        # A secret's first version is current, whatever its labels.
        labels = {*more.get("VersionStages", ["AWSCURRENT"]), *(["AWSCURRENT"] if not aws.versions else [])}
        current = aws.label("AWSCURRENT")
        if "AWSCURRENT" in labels and current:
            for version in aws.versions:
                version["labels"].discard("AWSPREVIOUS")
            current["labels"].add("AWSPREVIOUS")
        for version in aws.versions:
            version["labels"] -= labels
        name = f"version {next(aws.numbers)}"
        aws.versions.append({"id": name, "text": SecretString, "made": aws.now, "labels": labels})


class Clock(datetime):
    """The clock that the command reads."""

    latest = NOW

    @classmethod
    def now(cls, tz: Any = None) -> "Clock":  # noqa: ARG003
        return cast("Clock", cls.latest)


def pass_time(sides: list[Aws], *, hours: int) -> None:
    Clock.latest = max(side.now for side in sides) + timedelta(hours=hours, seconds=1)
    for side in sides:
        side.now = Clock.latest


def write_again(side: Aws) -> None:
    """Write the secret as a person would who changes another entry of it."""
    version = side.label("AWSCURRENT")
    assert version is not None
    side.client("secretsmanager").put_secret_value(SecretString=version["text"])
