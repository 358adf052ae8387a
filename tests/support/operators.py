"""What an operator has: profiles for two accounts, and both stacks deployed. Emulated in the test's process."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from image_mirror.cli.accounts import Account
from support.cloud import REGISTRY, Cloud
from support.templates import load_template, parameters_of

if TYPE_CHECKING:
    from types_boto3_iam import IAMClient
    from types_boto3_secretsmanager import SecretsManagerClient

TOKEN = "0123456789abcdef0123456789abcdef"
URL = f"https://a1b2c3d4e5.execute-api.cn-northwest-1.amazonaws.com.cn/{TOKEN}"
PUSH_USER, PULL_USER = "image-mirror-ImagePushUser-1A2B3C", "image-pulling-ImagePullUser-4D5E6F"
CHINA_OUTPUTS = {
    "APIGatewayURL": URL,
    "ImagePushUserName": PUSH_USER,
    "CopiesPrefix": f"{REGISTRY}/mirror/",
    "GlobalSecret": "GlobalAKSK",
    "ImageListTableName": "ImageListTable",
    "WebhookLogGroup": "image-mirror-WebhookLogs-1A2B3C",
    "ReconcilerLogGroup": "image-mirror-ReconcilerLogs-1A2B3C",
    "SwapWhenRoutes": "always, copied, paused",
    "DashboardName": "image-mirror-cn-northwest-1",
    "DeadLetterQueueUrl": "https://sqs.cn-northwest-1.amazonaws.com.cn/123456789012/image-mirror-DeadLetters-1A2B3C",
}
GLOBAL_OUTPUTS = {
    "ImagePullUserName": PULL_USER,
    "GlobalRegion": "us-west-2",
    "ProjectName": "ImagePullProject",
    "ImagePullSecretArn": "arn:aws:secretsmanager:us-west-2:123456789012:secret:ImagePullSecret-AbCdEf",
    "BuildLogGroup": "image-pulling-BuildLogs-4D5E6F",
}
FAST_PROJECT = "ImagePullProjectFast"
"""The output FastProjectName of a global stack with a fast lane, which GLOBAL_OUTPUTS does not have."""
AUTH_SECRET = "arn:aws:secretsmanager:us-west-2:123456789012:secret:RegistryAuth-AbCdEf"
"""The secret of RegistryAuthSecretArn."""

PROFILES = """\
[profile china]
region = cn-northwest-1
aws_access_key_id = AKIACHINAEXAMPLE0000
aws_secret_access_key = china
[profile global]
region = us-west-2
aws_access_key_id = AKIAGLOBALEXAMPLE000
aws_secret_access_key = global
"""
_NOTHING = {"Nothing": {"Type": "AWS::SNS::Topic"}}


class Operated(SimpleNamespace):
    """The emulated cloud, and clients with which tests check what commands did."""

    cloud: Cloud
    china_iam: "IAMClient"
    global_iam: "IAMClient"
    global_secrets: "SecretsManagerClient"

    def deploy(self, template: str, region: str, name: str, outputs: dict[str, str], **parameters: str) -> None:
        """Create or update a stack that has the parameters of `template` and these outputs."""
        shown = load_template(template)["Parameters"]
        body = {
            "Parameters": {each: {"Type": "String", "Default": ""} for each in shown},
            "Resources": _NOTHING,
            "Outputs": {each: {"Value": value} for each, value in outputs.items()},
        }
        given = parameters_of(load_template(template), **parameters)
        client = boto3.client("cloudformation", region_name=region)
        names = [each["StackName"] for each in client.describe_stacks()["Stacks"]]
        change = client.update_stack if name in names else client.create_stack
        change(
            StackName=name,
            TemplateBody=json.dumps(body),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        )


@pytest.fixture
def operated(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operated:
    """Both stacks with their users, secrets, project and table, and the profiles china and global."""
    config = tmp_path / "aws-config"
    config.write_text(PROFILES)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("IMAGE_MIRROR_CHINA_PROFILE", "china")
    monkeypatch.setenv("IMAGE_MIRROR_GLOBAL_PROFILE", "global")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-northwest-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    parts = Operated(
        cloud=cloud,
        china_iam=boto3.client("iam", region_name="cn-northwest-1"),
        global_iam=boto3.client("iam", region_name="us-west-2"),
        global_secrets=boto3.client("secretsmanager", region_name="us-west-2"),
    )
    parts.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, WebhookToken=TOKEN)
    parts.deploy("image-pulling.yaml", "us-west-2", "image-pulling", GLOBAL_OUTPUTS, ChinaAccountId="123456789012")
    parts.china_iam.create_user(UserName=PUSH_USER)
    parts.global_iam.create_user(UserName=PULL_USER)
    placeholder = {"Region": "cn-northwest-1", "AccessKey": "", "AccessSecretKey": ""}
    parts.global_secrets.create_secret(Name="ImagePullSecret", SecretString=json.dumps(placeholder))
    return parts


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make AWS refuse an operation of a service: `refuse("dynamodb", "Scan")`; by default permission is denied."""
    refused: dict[tuple[str, str], dict[str, str]] = {}
    client = Account.client

    def refusing(self: Account, service: str, *key: Any) -> Any:
        made = client(self, service, *key)

        def answer(model: Any, **_: object) -> tuple[Any, dict[str, Any]] | None:
            error = refused.get((service, model.name))
            if error is None:
                return None
            return SimpleNamespace(status_code=400), {"Error": dict(error), "ResponseMetadata": {"HTTPStatusCode": 400}}

        made.meta.events.register("before-call", answer)
        return made

    def add(service: str, operation: str, code: str = "AccessDeniedException", message: str = "") -> None:
        text = message or f"User: arn:aws:iam::123456789012:user/o is not authorized to perform: {service}:{operation}"
        refused[service, operation] = {"Code": code, "Message": text}

    monkeypatch.setattr(Account, "client", refusing)
    return add


Reply = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def answer(
    refuse: Callable[..., None],  # noqa: ARG001 - for its place before this one
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, str, Reply], None]:
    """Answer an operation instead of AWS: `answer("ecr", "DescribeImages", lambda asked: {...})`.

    `asked` has the members of a JSON or query request, or the path of a request without such a body. An answer with an
    "Error" is an error. Operations that `refuse` refuses are still refused.
    """
    replies: dict[tuple[str, str], Reply] = {}
    client = Account.client

    def answering(self: Account, service: str, *key: Any) -> Any:
        made = client(self, service, *key)

        def reply(model: Any, params: dict[str, Any], **_: object) -> tuple[Any, dict[str, Any]] | None:
            if (service, model.name) not in replies:
                return None
            answered = replies[service, model.name](_asked(params))
            code = 400 if "Error" in answered else 200
            return SimpleNamespace(status_code=code), {"ResponseMetadata": {"HTTPStatusCode": code}, **answered}

        made.meta.events.register("before-call", reply)
        return made

    def add(service: str, operation: str, reply: Reply) -> None:
        replies[service, operation] = reply

    monkeypatch.setattr(Account, "client", answering)
    return add


def _asked(params: dict[str, Any]) -> dict[str, Any]:
    body = params["body"]
    try:
        return dict(body) if isinstance(body, dict) else dict(json.loads(body))
    except ValueError:  # nothing, or CBOR
        return {"path": params["url_path"]}
