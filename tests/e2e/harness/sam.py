"""The SAM CLI, run as a user runs it, and a region of the AWS to which it deploys."""

import os
import shutil
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3

from e2e.harness.processes import absent
from image_mirror.table import STATE_REPO
from support.templates import ROOT

Json = dict[str, Any]
KEY = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


def sam_program() -> Path:
    """Return the SAM CLI: the checkout's own, or the one on PATH."""
    own = ROOT / ".venv-sam" / "bin" / "sam"
    found = own if own.exists() else shutil.which("sam")
    if found is None:
        absent("the SAM CLI is not installed: make .venv-sam/.done")
    return Path(str(found))


def python_program() -> Path:
    """Return a Python of the functions' runtime: the one on PATH, or one of pyenv's."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates: list[str | Path] = [*filter(None, [shutil.which("python3.13")]), *versions.glob("3.13*/bin/python3.13")]
    # pyenv's shim is on PATH even if there is no such Python.
    answers = (
        subprocess.run([each, "-c", "import sys; print(sys.executable)"], capture_output=True, text=True, check=False)
        for each in candidates
    )
    found = next((answer.stdout.strip() for answer in answers if answer.returncode == 0), None)
    if found is None:
        absent("there is no python3.13, the functions' runtime, which sam build needs")
    return Path(str(found))


class Sam:
    """The SAM CLI as a user runs it, in a folder, against AWS at `endpoint`."""

    def __init__(self, folder: Path, endpoint: str, python: Path) -> None:
        self._program = sam_program()
        self._folder = folder
        outside = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._environment = outside | {
            **KEY,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "SAM_CLI_POLL_DELAY": "0.2",
            "SAM_CLI_TELEMETRY": "0",
            "__SAM_CLI_APP_DIR": str(folder / "sam"),
        }

    def __call__(self, *arguments: str) -> str:
        """Run a command, which must succeed, and return what it printed."""
        done = subprocess.run(
            [self._program, *arguments],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"sam {' '.join(arguments)}:\n{done.stdout}"
        return done.stdout


class Region:
    """A region of the deployed stacks' AWS."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.endpoint = endpoint
        self.name = name

    def client(self, service: str) -> Any:
        """Return a client of one service."""
        make: Any = boto3.client  # typed by the services' names, which are not known here
        key = {name.lower(): value for name, value in KEY.items()}
        return make(service, region_name=self.name, endpoint_url=self.endpoint, **key)

    def outputs(self, stack: str) -> dict[str, str]:
        """Return a stack's outputs."""
        [described] = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}

    def resource(self, stack: str, logical_id: str) -> str:
        """Return the name or ID of a stack's resource."""
        answer = self.client("cloudformation").describe_stack_resource(StackName=stack, LogicalResourceId=logical_id)
        found: str = answer["StackResourceDetail"]["PhysicalResourceId"]
        return found

    def function(self, stack: str, logical_id: str) -> Json:
        """Return a function's configuration; its variables are texts, as in Lambda."""
        name = self.resource(stack, logical_id)
        found: Json = self.client("lambda").get_function_configuration(FunctionName=name)
        variables = found["Environment"]["Variables"]
        found["Environment"]["Variables"] = {key: str(value) for key, value in variables.items()}
        return found

    def routes(self) -> list[Json]:
        """Return each route of each HTTP API."""
        gateway = self.client("apigatewayv2")
        apis = gateway.get_apis()["Items"]
        return [route for api in apis for route in gateway.get_routes(ApiId=api["ApiId"])["Items"]]

    def items(self) -> list[Json]:
        """Return the items of all records, in the order of their keys."""
        found: list[Json] = self.client("dynamodb").scan(TableName="ImageListTable")["Items"]
        records = [item for item in found if item["repo"]["S"] != STATE_REPO]
        return sorted(records, key=lambda item: (item["repo"]["S"], item["tag"]["S"]))

    def code(self, stack: str, logical_id: str) -> Json:
        """Return the place of a function's code in the template: its S3Bucket and S3Key."""
        template = self.client("cloudformation").get_template(StackName=stack)["TemplateBody"]
        code: Json = template["Resources"][logical_id]["Properties"]["Code"]
        return code

    def unpack(self, stack: str, logical_id: str, folder: Path) -> None:
        """Unpack the code of a function, as the template gives it to Lambda, into `folder`."""
        code = self.code(stack, logical_id)
        answer = self.client("s3").get_object(Bucket=code["S3Bucket"], Key=code["S3Key"])
        with zipfile.ZipFile(BytesIO(answer["Body"].read())) as archive:
            archive.extractall(folder)
