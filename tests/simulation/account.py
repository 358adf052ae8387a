"""The global account as the China side sees it: a secret with a key, which may be rotated, and clients of that key."""

import json
from collections.abc import Callable
from typing import Any

from image_mirror.aws import AccessKey, CallLimits
from simulation.codebuild import CodeBuild
from simulation.network import Client, refusal
from simulation.world import World


class Account:
    """The key that AWS accepts, and the one in the secret, which is older during a rotation."""

    def __init__(self, world: World, codebuild: CodeBuild) -> None:
        self._world = world
        self.codebuild = codebuild
        self.valid = "key-0"
        self.announced = "key-0"

    def rotate(self, seconds: float) -> None:
        """Make a new key; the old one is refused at once, and the secret has the new one `seconds` later."""
        self.valid = f"key-{int(self.valid[4:]) + 1}"
        self._world.note("rotated", self.valid)
        self._world.counts["keys rotated"] += 1
        self._world.clock.after(seconds, self._announce)

    def secret(self) -> dict[str, Any]:
        """Answer GetSecretValue."""
        entries = {"G_AWS_REGION": "us-west-2", "G_ACCESS_KEY": self.announced, "G_SECRET_KEY": "x"}
        return {"SecretString": json.dumps(entries)}

    def _announce(self) -> None:
        self.announced = self.valid


class Secrets(Client):
    """The client of Secrets Manager."""

    def __init__(self, world: World, account: Account, limits: CallLimits) -> None:
        super().__init__(world, "Secrets Manager", limits, latency=0.01)
        self._account = account

    def get_secret_value(self, **_: Any) -> dict[str, Any]:
        return self.call("GetSecretValue", self._account.secret)


class CodeBuildClient(Client):
    """The client of CodeBuild across the Pacific, with one key."""

    def __init__(self, world: World, account: Account, limits: CallLimits, key: AccessKey) -> None:
        super().__init__(world, "CodeBuild", limits, latency=0.25)
        self._account = account
        self._key = key.access_key_id

    def start_build(self, **request: Any) -> dict[str, Any]:
        variables = {entry["name"]: entry["value"] for entry in request["environmentVariablesOverride"]}
        token = request["idempotencyToken"]

        def start() -> dict[str, Any]:
            build = self._account.codebuild.start(request["projectName"], variables, token)
            return {"build": {"id": build.build_id}}

        return self._authorized("StartBuild", start)

    def batch_get_builds(self, *, ids: list[str]) -> dict[str, Any]:
        if not 1 <= len(ids) <= 100:
            raise refusal("InvalidInputException", "BatchGetBuilds", "1 to 100 ids")
        return self._authorized("BatchGetBuilds", lambda: self._account.codebuild.describe(ids))

    def _authorized(self, operation: str, effect: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        def authorized() -> dict[str, Any]:
            if self._key != self._account.valid:
                self.world.counts["keys refused"] += 1
                raise refusal("UnrecognizedClientException", operation)
            return effect()

        return self.call(operation, authorized)
