"""The real SAM CLI builds, validates and deploys the shipped templates; the artefact alone runs both functions."""

import base64
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import jsonpatch
import pytest
from artefact import Function, function
from moto.events.models import EventPattern
from processes import free_port, listening, running, wait_for
from sam import Json, Region, Sam, python_program

from image_mirror.cli.emulation import http_event
from reviews_data import DIGEST, HEX, captured, images_of
from templates import ROOT

TOKEN = "0123456789abcdef0123456789abcdef"
ACCOUNT = "123456789012"
STACK, GLOBAL_STACK = "image-mirror", "image-pulling"
SHIPPED = ("sam-template.yaml", "samconfig.toml", "image-pulling.yaml")
REVIEW = captured("create-pod.json")
# Its images by field: what is copied, and the repository below the registry and the tag that it is copied to.
COPIES = {
    "containers/a": ("docker.io/library/nginx:latest", "mirror/docker.io/library/nginx", "latest"),
    "containers/b": (f"gcr.io/distroless/static@{DIGEST}", "mirror/gcr.io/distroless/static", f"digest-sha256-{HEX}"),
    "initContainers/i": ("quay.io/prometheus/busybox:latest", "mirror/quay.io/prometheus/busybox", "latest"),
    "volumes/v": ("registry.k8s.io/pause:3.9", "mirror/registry.k8s.io/pause", "3.9"),
}

# An older deployment: a table of repo and tag with neither stream nor index, a function, another URL.
OLDER_TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Resources:
  ImageListTable:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: ImageListTable
      AttributeDefinitions: [{AttributeName: repo, AttributeType: S}, {AttributeName: tag, AttributeType: S}]
      KeySchema: [{AttributeName: repo, KeyType: HASH}, {AttributeName: tag, KeyType: RANGE}]
      ProvisionedThroughput: {ReadCapacityUnits: 5, WriteCapacityUnits: 5}
  ApiFunction:
    Type: AWS::Serverless::Function
    Properties:
      Handler: index.handler
      Runtime: python3.12
      InlineCode: "def handler(event, context): ..."
  OlderApi:
    Type: AWS::ApiGatewayV2::Api
    Properties: {Name: older, ProtocolType: HTTP}
  OlderRoute:
    Type: AWS::ApiGatewayV2::Route
    Properties: {ApiId: !Ref OlderApi, RouteKey: POST /}
"""


# ---- the stacks, made as the README says ----


@dataclass(frozen=True)
class Checkout:
    """A copy of what is shipped, the SAM CLI in it, and the emulated AWS that it deploys to."""

    folder: Path
    sam: Sam
    endpoint: str
    python: Path

    def deploy(self, region: str, *arguments: str) -> Region:
        self.sam("deploy", "--region", region, "--no-confirm-changeset", *arguments)
        return Region(self.endpoint, region)

    def deploy_china(self, region: str) -> Region:
        return self.deploy(region, "--parameter-overrides", f"WebhookToken={TOKEN}")

    def start(self, region: Region, logical_id: str) -> AbstractContextManager[Function]:
        """Run a function from what the stack gives Lambda."""
        code = self.folder / "functions" / region.name / logical_id
        region.unpack(STACK, logical_id, code)
        return function(
            self.python, code, region.function(STACK, logical_id), region, code.with_name(f"{logical_id}.log")
        )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SHIPPED:
        shutil.copy(ROOT / name, folder)
    python, port = python_program(), free_port()
    endpoint = f"http://localhost:{port}"  # moto reads templates out of its S3 only by this name
    sam = Sam(folder, endpoint, python)
    cloud = Path(__file__).with_name("cloud.py")
    with running([sys.executable, cloud, str(port)], folder / "cloud.log"):
        wait_for(lambda: listening(port), "the emulated AWS is up", 60)
        yield Checkout(folder, sam, endpoint, python)


@pytest.fixture(scope="module")
def built(checkout: Checkout) -> Checkout:
    checkout.sam("build")
    return checkout


@pytest.fixture(scope="module")
def china(built: Checkout) -> Region:
    return built.deploy_china("cn-northwest-1")


@pytest.fixture(scope="module")
def push_key(china: Region) -> Json:
    """The key with which the global side pushes."""
    user = china.outputs(STACK)["ImagePushUserName"]
    made: Json = china.client("iam").create_access_key(UserName=user)["AccessKey"]
    return made


@pytest.fixture(scope="module")
def world(built: Checkout, china: Region, push_key: Json) -> Region:
    """The global side, and the key for it kept in China."""
    # The SAM CLI does with a template that needs no transform what "aws cloudformation deploy" does.
    region = built.deploy(
        "us-west-2",
        *("--template-file", "image-pulling.yaml", "--stack-name", GLOBAL_STACK, "--parameter-overrides"),
        *(f"Region={china.name}", f"ChinaAccountId={ACCOUNT}"),
        *(f"AccessKey={push_key['AccessKeyId']}", f"AccessKeySK={push_key['SecretAccessKey']}"),
    )
    keep_key(china, region)
    return region


def keep_key(china: Region, world: Region) -> Json:
    """Keep a new key of the global stack's user in the secret that China's stack names, and return the key."""
    outputs = world.outputs(GLOBAL_STACK)
    made: Json = world.client("iam").create_access_key(UserName=outputs["ImagePullUserName"])["AccessKey"]
    entries = {
        "G_AWS_REGION": outputs["GlobalRegion"],
        "G_ACCESS_KEY": made["AccessKeyId"],
        "G_SECRET_KEY": made["SecretAccessKey"],
    }
    name, text = china.outputs(STACK)["GlobalSecret"], json.dumps(entries)
    china.client("secretsmanager").create_secret(Name=name, SecretString=text)
    return made


def registry(region: Region) -> str:
    return f"{ACCOUNT}.dkr.ecr.{region.name}.amazonaws.com.cn"


# ---- what AWS and the API server do between the functions ----


def admit(webhook: Function, route: str, review: Json) -> dict[str, str]:
    """Send a review, again after a 503 that says when, and return the pod's images once it is admitted."""
    for _ in range(5):
        answer = webhook(http_event(review) | {"routeKey": route, "rawPath": route.removeprefix("POST ")})
        if answer["statusCode"] != 503:
            break
        time.sleep(int(answer["headers"]["Retry-After"]))
    assert answer["statusCode"] == 200, answer
    response = json.loads(answer["body"])["response"]
    assert (response["uid"], response["allowed"]) == (review["request"]["uid"], True)
    patch = jsonpatch.JsonPatch.from_string(base64.b64decode(response["patch"]).decode())
    images: dict[str, str] = images_of(patch.apply(review["request"]["object"]))
    return images


def stream_batch(region: Region) -> Json:
    """Return all that the mapped stream holds and the mapping's filter lets through."""
    streams = region.client("dynamodbstreams")
    [mapping] = region.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    stream = {"StreamArn": mapping["EventSourceArn"]}
    [shard] = streams.describe_stream(**stream)["StreamDescription"]["Shards"]
    start = {"ShardId": shard["ShardId"], "ShardIteratorType": mapping["StartingPosition"]}
    position = streams.get_shard_iterator(**stream, **start)["ShardIterator"]
    records = json.loads(json.dumps(streams.get_records(ShardIterator=position)["Records"], default=str))
    patterns = [json.loads(each["Pattern"]) for each in mapping["FilterCriteria"]["Filters"]]
    return {"Records": [record for record in records if any(passes(pattern, record) for pattern in patterns)]}


def passes(pattern: Json, event: Json) -> bool:
    return EventPattern(None, pattern).matches_event(event)  # type: ignore[arg-type]


def ecr_event(repository: str, tag: str | None) -> Json:
    detail = {"action-type": "PUSH", "result": "SUCCESS", "repository-name": repository, "image-digest": DIGEST}
    detail |= {} if tag is None else {"image-tag": tag}
    return {
        "version": "0",
        "source": "aws.ecr",
        "detail-type": "ECR Image Action",
        "account": ACCOUNT,
        "detail": detail,
    }


def builds(world: Region) -> set[str]:
    return set(world.client("codebuild").list_builds_for_project(projectName="ImagePullProject")["ids"])


# ---- validation ----


@pytest.mark.parametrize("region", ["cn-north-1", "cn-northwest-1", "us-west-2"])
def test_sam_validate_finds_no_fault(checkout: Checkout, region: str) -> None:
    assert "is a valid SAM Template" in checkout.sam("validate", "--lint", "--region", region)


# ---- the deployed stacks ----


def test_the_table_has_its_stream_and_its_index(china: Region) -> None:
    table = china.client("dynamodb").describe_table(TableName=china.outputs(STACK)["ImageListTableName"])["Table"]
    assert table["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    [index] = table["GlobalSecondaryIndexes"]
    assert (index["IndexName"], index["Projection"]) == ("DueIndex", {"ProjectionType": "KEYS_ONLY"})
    assert [each["AttributeName"] for each in table["KeySchema"]] == ["repo", "tag"]
    assert [each["AttributeName"] for each in index["KeySchema"]] == ["due", "due_at"]


@pytest.mark.parametrize(
    ("logical_id", "handler", "role"),
    [
        pytest.param("ApiFunction", "image_mirror.webhook.handler", "WebhookRole", id="webhook"),
        pytest.param("ReconcilerFunction", "image_mirror.reconciler.handler", "ReconcilerRole", id="reconciler"),
    ],
)
def test_each_function_has_its_handler_its_role_and_its_settings(
    china: Region, logical_id: str, handler: str, role: str
) -> None:
    made = china.function(STACK, logical_id)
    assert (made["Handler"], made["Runtime"]) == (handler, "python3.13")
    assert made["Role"] == f"arn:aws-cn:iam::{ACCOUNT}:role/{china.resource(STACK, role)}"
    variables = made["Environment"]["Variables"]
    expected = {
        "DDB_TABLE_NAME": "ImageListTable",
        "GLOBAL_AKSK": "GlobalAKSK",
        "G_PROJECT_NAME": "ImagePullProject",
        "ECR_REGISTRY": registry(china),
        "REPOSITORY_PREFIX": "mirror",
        "REFRESH_HOURS": "24",
    }
    assert {name: variables.get(name) for name in expected} == expected


def test_the_one_route_is_the_token_and_leads_to_the_webhook(china: Region) -> None:
    gateway = china.client("apigatewayv2")
    [api] = gateway.get_apis()["Items"]
    [route] = china.routes()
    assert route["RouteKey"] == f"POST /{TOKEN}"
    [integration] = gateway.get_integrations(ApiId=api["ApiId"])["Items"]
    assert route["Target"] == f"integrations/{integration['IntegrationId']}"
    assert integration["PayloadFormatVersion"] == "2.0"
    webhook = china.function(STACK, "ApiFunction")["FunctionArn"]
    assert integration["IntegrationUri"].endswith(f"/functions/{webhook}/invocations")
    [stage] = gateway.get_stages(ApiId=api["ApiId"])["Items"]
    assert (stage["StageName"], stage["AutoDeploy"]) == ("$default", True)
    assert stage["DefaultRouteSettings"] == {"ThrottlingBurstLimit": 2000, "ThrottlingRateLimit": 1000}
    url = china.outputs(STACK)["APIGatewayURL"]
    assert url == f"https://{api['ApiId']}.execute-api.{china.name}.amazonaws.com.cn/{TOKEN}"


def test_only_this_gateway_may_call_the_webhook_and_the_permission_does_not_hold_the_token(china: Region) -> None:
    answer = china.client("lambda").get_policy(FunctionName=china.resource(STACK, "ApiFunction"))
    [statement] = json.loads(answer["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "apigateway.amazonaws.com"}
    source = f"arn:aws-cn:execute-api:{china.name}:{ACCOUNT}:{china.resource(STACK, 'WebhookApi')}/*/POST/*"
    assert statement["Condition"] == {"ArnLike": {"AWS:SourceArn": source}}


def test_the_stream_leads_to_the_reconciler_with_what_is_requested_alone(china: Region) -> None:
    [mapping] = china.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    table = china.client("dynamodb").describe_table(TableName="ImageListTable")["Table"]
    assert mapping["EventSourceArn"] == table["LatestStreamArn"]
    assert mapping["FunctionArn"] == china.function(STACK, "ReconcilerFunction")["FunctionArn"]
    assert (mapping["StartingPosition"], mapping["BisectBatchOnFunctionError"]) == ("TRIM_HORIZON", True)
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    queue = mapping["DestinationConfig"]["OnFailure"]["Destination"].rpartition(":")[2]
    assert china.outputs(STACK)["DeadLetterQueueUrl"].endswith(f"/{queue}")
    [pattern] = [json.loads(each["Pattern"]) for each in mapping["FilterCriteria"]["Filters"]]
    events = ("INSERT", "MODIFY", "REMOVE")
    requested, copying, older = (
        [passes(pattern, {"eventName": event, "dynamodb": {"NewImage": image}}) for event in events]
        for image in ({"status": {"S": "REQUESTED"}}, {"status": {"S": "COPYING"}}, {"repo": {"S": "r"}})
    )
    assert requested == [True, True, False]
    assert not any(copying + older)


def test_the_minute_and_ecr_lead_to_the_reconciler(china: Region) -> None:
    events = china.client("events")
    rules = {rule.get("ScheduleExpression", "ECR"): rule for rule in events.list_rules()["Rules"]}
    assert set(rules) == {"rate(1 minute)", "ECR"}
    for rule in rules.values():
        [target] = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        assert target["Arn"] == china.function(STACK, "ReconcilerFunction")["FunctionArn"]
        assert rule["State"] == "ENABLED"
    pattern = json.loads(rules["ECR"]["EventPattern"])
    assert passes(pattern, ecr_event("mirror/gcr.io/a/b", "1"))
    assert not passes(pattern, ecr_event("mirrors/gcr.io/a/b", "1"))
    assert not passes(pattern, ecr_event("mirror/gcr.io/a/b", None))


def test_the_global_stack_has_the_project_and_the_key_for_china(china: Region, world: Region, push_key: Json) -> None:
    outputs = world.outputs(GLOBAL_STACK)
    [project] = world.client("codebuild").batch_get_projects(names=[outputs["ProjectName"]])["projects"]
    assert project["name"] == china.function(STACK, "ReconcilerFunction")["Environment"]["Variables"]["G_PROJECT_NAME"]
    assert (project["source"]["type"], project["environment"]["privilegedMode"]) == ("NO_SOURCE", False)
    variables = {each["name"]: each["value"] for each in project["environment"]["environmentVariables"]}
    assert (variables["TARGET_REGISTRY"], variables["REPOSITORY_PREFIX"]) == (registry(china), "mirror")
    answer = world.client("secretsmanager").get_secret_value(SecretId=outputs["ImagePullSecretArn"])
    assert json.loads(answer["SecretString"]) == {
        "Region": china.name,
        "AccessKey": push_key["AccessKeyId"],
        "AccessSecretKey": push_key["SecretAccessKey"],
    }


# ---- the artefact ----


def expected_images(region: Region) -> dict[str, str]:
    return {
        field: f"{registry(region)}/{repository}" + (f"@{DIGEST}" if "@" in source else f":{tag}")
        for field, (source, repository, tag) in COPIES.items()
    }


def test_both_functions_run_from_the_artefact_alone(built: Checkout, china: Region, world: Region) -> None:
    [route] = china.routes()
    with built.start(china, "ApiFunction") as webhook:
        assert admit(webhook, route["RouteKey"], REVIEW) == expected_images(china)
        assert TOKEN not in webhook.log
    assert {item["source"]["S"]: (item["repo"]["S"], item["tag"]["S"]) for item in china.items()} == {
        source: (f"{registry(china)}/{repository}", tag) for source, repository, tag in COPIES.values()
    }
    assert {item["status"]["S"] for item in china.items()} == {"REQUESTED"}

    batch, before = stream_batch(china), builds(world)
    assert len(batch["Records"]) == len(COPIES)
    with built.start(china, "ReconcilerFunction") as reconciler:
        assert reconciler(batch) == {"batchItemFailures": []}
        assert {item["status"]["S"] for item in china.items()} == {"COPYING"}
        assert {item["build_id"]["S"] for item in china.items()} == builds(world) - before

        _, repository, tag = COPIES["volumes/v"]
        answer = china.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=MANIFEST)
        assert reconciler(ecr_event(repository, tag)) == {}
        [copied] = [item for item in china.items() if item["repo"]["S"].endswith(repository)]
        assert (copied["status"]["S"], copied["digest"]["S"]) == ("COPIED", answer["image"]["imageId"]["imageDigest"])

        assert reconciler({"source": "aws.events"}) == {}
        secret = json.loads(china.client("secretsmanager").get_secret_value(SecretId="GlobalAKSK")["SecretString"])
        assert "record changed" in reconciler.log
        assert secret["G_SECRET_KEY"] not in reconciler.log


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": DIGEST},
        "layers": [],
    }
)


# ---- an older stack ----


def test_an_older_stack_is_upgraded_in_place_and_its_items_are_kept(built: Checkout, world: Region) -> None:
    (built.folder / "older.yaml").write_text(OLDER_TEMPLATE)
    region = built.deploy("cn-north-1", "--template-file", "older.yaml")
    function_name = region.resource(STACK, "ApiFunction")
    here = registry(region)
    wanted = [(f"{here}/{repository}", tag) for _, repository, tag in (COPIES["containers/a"], COPIES["containers/b"])]
    # Ours, but no pod needs it now; and what the older deployment named in its own way.
    left_alone = [
        (f"{here}/mirror/ghcr.io/org/tool", "v1"),
        (f"{here}/gcr.io/google-samples/hello-app", "1.0"),
        (f"{here}/quay/prometheus/busybox", "latest"),
        ("docker.io/library/nginx", "latest"),
        ("nginx", "latest"),
    ]
    for repo, tag in (*wanted, *left_alone):
        region.client("dynamodb").put_item(TableName="ImageListTable", Item=key(repo, tag))
    before = region.items()

    built.deploy_china("cn-north-1")
    keep_key(region, world)
    assert region.items() == before
    assert region.resource(STACK, "ApiFunction") == function_name
    [route] = region.routes()
    assert route["RouteKey"] == f"POST /{TOKEN}"

    with built.start(region, "ApiFunction") as webhook:
        assert admit(webhook, route["RouteKey"], REVIEW) == expected_images(region)
    requested = by_key(region)
    assert len(requested) == len(before) + 2
    for source, repository, tag in COPIES.values():
        item = requested[f"{here}/{repository}", tag]
        assert (item["status"]["S"], item["source"]["S"]) == ("REQUESTED", source)
    untouched = {home: key(*home) for home in left_alone}
    assert {home: requested[home] for home in left_alone} == untouched

    batch, started = stream_batch(region), builds(world)
    assert len(batch["Records"]) == len(COPIES)
    # Even an event that names them, as a stranger's write would bring.
    strangers = [
        {"eventName": "MODIFY", "dynamodb": {"Keys": key(*home), "SequenceNumber": str(number)}}
        for number, home in enumerate(left_alone)
    ]
    with built.start(region, "ReconcilerFunction") as reconciler:
        assert reconciler({"Records": [*batch["Records"], *strangers]}) == {"batchItemFailures": []}
        assert reconciler(ecr_event("mirror/ghcr.io/org/tool", "v1")) == {}
        assert reconciler(ecr_event("gcr.io/google-samples/hello-app", "1.0")) == {}
        assert reconciler({"source": "aws.events"}) == {}
    after = by_key(region)
    assert {home: after[home] for home in left_alone} == untouched
    ours = [item for home, item in after.items() if home not in untouched]
    assert {item["status"]["S"] for item in ours} == {"COPYING"}
    assert {item["build_id"]["S"] for item in ours} == builds(world) - started
    assert len(ours) == len(COPIES)


def key(repo: str, tag: str) -> Json:
    return {"repo": {"S": repo}, "tag": {"S": tag}}


def by_key(region: Region) -> dict[tuple[str, str], Json]:
    return {(item["repo"]["S"], item["tag"]["S"]): item for item in region.items()}
