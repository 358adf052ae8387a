"""A deployment of an older release is updated in place to the shipped one, on both sides."""

import json

from e2e.harness.deployment import GLOBAL_STACK, STACK, Checkout, registry, store_key
from e2e.harness.sam import Json, Region
from e2e.harness.stage import TOKEN, routes
from e2e.harness.traffic import COPIES, REVIEW, admit, builds, ecr_event, expected_images, stream_batch

pytest_plugins = ["e2e.harness.deployed"]

# An older deployment: a table of repo and tag without stream and index, a function, another URL.
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

# The global side of an older deployment: its build installs skopeo. The secret is as every release has written it.
OLDER_GLOBAL_TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Parameters:
  Region: {Type: String, Default: cn-northwest-1}
  AccessKey: {Type: String, NoEcho: true, Default: ""}
  AccessKeySK: {Type: String, NoEcho: true, Default: ""}
  BuildTimeoutMinutes: {Type: Number, Default: 240}
Resources:
  ECRSecertManager:
    Type: AWS::SecretsManager::Secret
    DeletionPolicy: Delete
    UpdateReplacePolicy: Delete
    Properties:
      Name: ImagePullSecret
      SecretString: !Join
        - ""
        - - '{"Region": "'
          - !Ref Region
          - '", "AccessKey": "'
          - !Ref AccessKey
          - '", "AccessSecretKey": "'
          - !Ref AccessKeySK
          - '"}'
  CodeBuildRole:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: [{Effect: Allow, Principal: {Service: codebuild.amazonaws.com}, Action: sts:AssumeRole}]
  CodeBuildProject:
    Type: AWS::CodeBuild::Project
    Properties:
      Name: ImagePullProject
      Description: older
      TimeoutInMinutes: !Ref BuildTimeoutMinutes
      QueuedTimeoutInMinutes: 480
      LogsConfig: {CloudWatchLogs: {Status: ENABLED}}
      ServiceRole: !GetAtt CodeBuildRole.Arn
      Artifacts: {Type: NO_ARTIFACTS}
      Environment: {Type: LINUX_CONTAINER, ComputeType: BUILD_GENERAL1_SMALL, Image: aws/codebuild/standard:7.0}
      Source: {Type: NO_SOURCE, BuildSpec: "version: 0.2\\nphases: {build: {commands: [apt-get install skopeo]}}"}
  ImagePullUser:
    Type: AWS::IAM::User
"""


def test_an_older_global_stack_is_updated_in_place_and_keeps_its_rotated_key(built: Checkout) -> None:
    (built.folder / "older-global.yaml").write_text(OLDER_GLOBAL_TEMPLATE)

    def deploy(template: str, *parameters: str) -> Region:
        names = ("--template-file", template, "--stack-name", GLOBAL_STACK)
        return built.deploy("us-east-2", *names, "--parameter-overrides", "Region=cn-north-1", *parameters)

    region = deploy("older-global.yaml", "AccessKey=AKIAOLD", "AccessKeySK=old")
    user, secrets = region.resource(GLOBAL_STACK, "ImagePullUser"), region.client("secretsmanager")
    rotated = json.dumps({"Region": "cn-north-1", "AccessKey": "AKIANEW", "AccessSecretKey": "new"})
    secrets.put_secret_value(SecretId="ImagePullSecret", SecretString=rotated)

    deploy("image-pulling.yaml", "AccessKey=AKIAOLD", "AccessKeySK=old")
    assert secrets.get_secret_value(SecretId="ImagePullSecret")["SecretString"] == rotated
    assert region.resource(GLOBAL_STACK, "ImagePullUser") == user
    [project] = region.client("codebuild").batch_get_projects(names=["ImagePullProject"])["projects"]
    assert "skopeo" not in project["source"]["buildspec"]
    assert "copy.pyz" in project["source"]["buildspec"]
    names = {each["name"] for each in project["environment"]["environmentVariables"]}
    assert {"CRANE_URL", "CRANE_SHA256", "WITH_SIGNATURES"} <= names
    outputs = region.outputs(GLOBAL_STACK)
    assert outputs["ImagePullUserName"] == user
    assert (outputs["ProjectName"], outputs["FastProjectName"]) == ("ImagePullProject", "ImagePullProjectFast")
    in_fast_lane = [outputs["FastProjectName"]]
    [fast] = region.client("codebuild").batch_get_projects(names=in_fast_lane)["projects"]
    assert fast["environment"]["type"] == "LINUX_LAMBDA_CONTAINER"
    assert fast["source"]["buildspec"] == project["source"]["buildspec"]

    deploy("image-pulling.yaml", "AccessKey=AKIAOLD", "AccessKeySK=old", "FastLane=false")
    assert region.client("codebuild").batch_get_projects(names=in_fast_lane)["projects"] == []
    assert "FastProjectName" not in region.outputs(GLOBAL_STACK)
    assert secrets.get_secret_value(SecretId="ImagePullSecret")["SecretString"] == rotated


def test_an_older_stack_is_upgraded_in_place_and_its_items_are_kept(built: Checkout, global_region: Region) -> None:
    (built.folder / "older.yaml").write_text(OLDER_TEMPLATE)
    region = built.deploy("cn-north-1", "--template-file", "older.yaml")
    function_name = region.resource(STACK, "ApiFunction")
    here = registry(region)
    wanted = [(f"{here}/{repository}", tag) for _, repository, tag in (COPIES["containers/a"], COPIES["containers/b"])]
    # A copy with our kind of name that no pod needs now, and copies with names of the older deployment.
    left_unchanged = [
        (f"{here}/mirror/ghcr.io/org/tool", "v1"),
        (f"{here}/gcr.io/google-samples/hello-app", "1.0"),
        (f"{here}/quay/prometheus/busybox", "latest"),
        ("docker.io/library/nginx", "latest"),
        ("nginx", "latest"),
    ]
    for repo, tag in (*wanted, *left_unchanged):
        region.client("dynamodb").put_item(TableName="ImageListTable", Item=key(repo, tag))
    before = region.items()

    built.deploy_china("cn-north-1")
    store_key(region, global_region)
    assert region.items() == before
    assert region.resource(STACK, "ApiFunction") == function_name
    assert {each["RouteKey"] for each in region.routes()} == set(routes())

    with built.start(region, "ApiFunction") as webhook:
        assert admit(webhook, f"POST /{TOKEN}", REVIEW) == expected_images(region)
    requested = by_key(region)
    assert len(requested) == len(before) + 2
    for source, repository, tag in COPIES.values():
        item = requested[f"{here}/{repository}", tag]
        assert (item["status"]["S"], item["source"]["S"]) == ("REQUESTED", source)
    untouched = {destination: key(*destination) for destination in left_unchanged}
    assert {destination: requested[destination] for destination in left_unchanged} == untouched

    batch, started = stream_batch(region), builds(global_region)
    assert len(batch["Records"]) == len(COPIES)
    # Even with an event that names them, as after a write by somebody else.
    strangers = [
        {"eventName": "MODIFY", "dynamodb": {"Keys": key(*destination), "SequenceNumber": str(number)}}
        for number, destination in enumerate(left_unchanged)
    ]
    with built.start(region, "ReconcilerFunction") as reconciler:
        assert reconciler({"Records": [*batch["Records"], *strangers]}) == {"batchItemFailures": []}
        assert reconciler(ecr_event("mirror/ghcr.io/org/tool", "v1")) == {}
        assert reconciler(ecr_event("gcr.io/google-samples/hello-app", "1.0")) == {}
        assert reconciler({"source": "aws.events"}) == {}
    after = by_key(region)
    assert {destination: after[destination] for destination in left_unchanged} == untouched
    ours = [item for destination, item in after.items() if destination not in untouched]
    assert {item["status"]["S"] for item in ours} == {"COPYING"}
    assert {item["build_id"]["S"] for item in ours} == builds(global_region) - started
    assert len(ours) == len(COPIES)


def key(repo: str, tag: str) -> Json:
    return {"repo": {"S": repo}, "tag": {"S": tag}}


def by_key(region: Region) -> dict[tuple[str, str], Json]:
    return {(item["repo"]["S"], item["tag"]["S"]): item for item in region.items()}
