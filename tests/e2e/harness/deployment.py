"""The shipped templates deployed by the SAM CLI from a checkout, as docs/install.md says, to an emulated AWS."""

import json
import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from e2e.harness.artefact import Function, function
from e2e.harness.processes import server
from e2e.harness.sam import Json, Region, Sam
from e2e.harness.stacks import CHINA
from e2e.harness.stage import TOKEN
from support.templates import ROOT

STACK, GLOBAL_STACK = "image-mirror", "image-pulling"


@dataclass(frozen=True)
class Checkout:
    """A copy of the shipped files, the SAM CLI in it, and the emulated AWS to which it deploys."""

    folder: Path
    sam: Sam
    endpoint: str
    python: Path

    def deploy(self, region: str, *arguments: str) -> Region:
        """Run `sam deploy` with more arguments, and return the region."""
        self.sam("deploy", "--region", region, "--no-confirm-changeset", *arguments)
        return Region(self.endpoint, region)

    def deploy_china(self, region: str) -> Region:
        """Deploy the built template as China's stack, with TOKEN."""
        return self.deploy(region, "--parameter-overrides", f"WebhookToken={TOKEN}")

    def start(self, region: Region, logical_id: str) -> AbstractContextManager[Function]:
        """Run a function from the code that the stack gives Lambda."""
        code = self.folder / "functions" / region.name / logical_id
        region.unpack(STACK, logical_id, code)
        return function(
            self.python, code, region.function(STACK, logical_id), region, code.with_name(f"{logical_id}.log")
        )


def cloud(port: int, log: Path) -> AbstractContextManager[object]:
    """Run the emulated AWS on a port while the context lasts, its output in the file `log`."""
    command = [sys.executable, "-m", "e2e.fakes.cloud", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    return server(command, log, port, "the emulated AWS", environment=environment)


def store_key(china: Region, global_region: Region) -> Json:
    """Store a new key of the global stack's user in the secret that China's stack names, and return the key."""
    outputs = global_region.outputs(GLOBAL_STACK)
    made: Json = global_region.client("iam").create_access_key(UserName=outputs["ImagePullUserName"])["AccessKey"]
    entries = {
        "G_AWS_REGION": outputs["GlobalRegion"],
        "G_ACCESS_KEY": made["AccessKeyId"],
        "G_SECRET_KEY": made["SecretAccessKey"],
    }
    name, text = china.outputs(STACK)["GlobalSecret"], json.dumps(entries)
    china.client("secretsmanager").create_secret(Name=name, SecretString=text)
    return made


def registry(region: Region) -> str:
    """Return the host of the account's ECR in a region of China."""
    return f"{CHINA.account}.dkr.ecr.{region.name}.amazonaws.com.cn"
