"""The real SAM CLI builds, validates and deploys the shipped templates, and the stacks are right."""

import json

import pytest

from e2e.fakes.event_source_mapping import passes
from e2e.harness.deployment import GLOBAL_STACK, STACK, Checkout, registry
from e2e.harness.sam import Json, Region
from e2e.harness.stacks import CHINA
from e2e.harness.stage import TOKEN, routes
from e2e.harness.traffic import ecr_event

pytest_plugins = ["e2e.harness.deployed"]


@pytest.mark.parametrize("region", ["cn-north-1", "cn-northwest-1", "us-west-2"])
def test_sam_validate_finds_no_fault(checkout: Checkout, region: str) -> None:
    assert "is a valid SAM Template" in checkout.sam("validate", "--lint", "--region", region)


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
    assert made["Role"] == f"arn:aws-cn:iam::{CHINA.account}:role/{china.resource(STACK, role)}"
    variables = made["Environment"]["Variables"]
    expected = {
        "DDB_TABLE_NAME": "ImageListTable",
        "GLOBAL_AKSK": "GlobalAKSK",
        "G_PROJECT_NAME": "ImagePullProject",
        "ECR_REGISTRY": registry(china),
        "REPOSITORY_PREFIX": "mirror",
        "MAX_NEW_IMAGES": "50",
        "REFRESH_HOURS": "24",
    }
    assert {name: variables.get(name) for name in expected} == expected


def test_the_routes_are_the_token_and_its_values_and_lead_to_the_webhook(china: Region) -> None:
    gateway = china.client("apigatewayv2")
    [api] = gateway.get_apis()["Items"]
    assert {each["RouteKey"] for each in china.routes()} == set(routes())
    [integration] = gateway.get_integrations(ApiId=api["ApiId"])["Items"]
    assert {each["Target"] for each in china.routes()} == {f"integrations/{integration['IntegrationId']}"}
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
    source = f"arn:aws-cn:execute-api:{china.name}:{CHINA.account}:{china.resource(STACK, 'WebhookApi')}/*/POST/*"
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


def test_the_dashboard_and_the_alarms_have_the_stack_s_name_and_send_no_mail(china: Region) -> None:
    cloudwatch = china.client("cloudwatch")
    [dashboard] = cloudwatch.list_dashboards()["DashboardEntries"]
    assert dashboard["DashboardName"] == f"{STACK}-{china.name}" == china.outputs(STACK)["DashboardName"]
    body = json.loads(cloudwatch.get_dashboard(DashboardName=dashboard["DashboardName"])["DashboardBody"])
    alarms = cloudwatch.describe_alarms()["MetricAlarms"]
    assert sorted(body["widgets"][0]["properties"]["alarms"]) == sorted(alarm["AlarmArn"] for alarm in alarms)
    assert all(alarm["AlarmName"].startswith(f"{STACK}-") for alarm in alarms)
    assert not any(alarm["AlarmActions"] + alarm["OKActions"] for alarm in alarms)
    assert china.client("sns").list_topics()["Topics"] == []
    text = json.dumps(body)
    for name in ("ApiFunction", "ReconcilerFunction", "WebhookApi", "ImageListTable"):
        assert f'"{china.resource(STACK, name)}"' in text
    assert "$" not in text


def test_with_an_address_or_a_topic_each_alarm_is_sent(built: Checkout, china: Region) -> None:
    region = built.deploy(china.name, "--parameter-overrides", "AlarmEmail=ops@example.com")
    try:
        [topic] = [each["TopicArn"] for each in region.client("sns").list_topics()["Topics"]]
        [subscription] = region.client("sns").list_subscriptions()["Subscriptions"]
        assert (subscription["TopicArn"], subscription["Protocol"]) == (topic, "email")
        assert subscription["Endpoint"] == "ops@example.com"
        alarms = region.client("cloudwatch").describe_alarms()["MetricAlarms"]
        assert len(alarms) == 9
        assert all(alarm["AlarmActions"] == alarm["OKActions"] == [topic] for alarm in alarms)
        given = region.client("sns").create_topic(Name="chat")["TopicArn"]
        region = built.deploy(china.name, "--parameter-overrides", f"AlarmTopicArn={given}")
        alarms = region.client("cloudwatch").describe_alarms()["MetricAlarms"]
        both = [region.resource(STACK, "AlarmTopic"), given]
        assert all(alarm["AlarmActions"] == alarm["OKActions"] == both for alarm in alarms)
    finally:
        built.deploy(china.name, "--parameter-overrides", 'AlarmEmail=""', 'AlarmTopicArn=""')


def test_the_global_stack_has_the_project_and_the_key_for_china(
    china: Region, global_region: Region, push_key: Json
) -> None:
    outputs = global_region.outputs(GLOBAL_STACK)
    [project] = global_region.client("codebuild").batch_get_projects(names=[outputs["ProjectName"]])["projects"]
    assert project["name"] == china.function(STACK, "ReconcilerFunction")["Environment"]["Variables"]["G_PROJECT_NAME"]
    assert (project["source"]["type"], project["environment"]["privilegedMode"]) == ("NO_SOURCE", False)
    variables = {each["name"]: each["value"] for each in project["environment"]["environmentVariables"]}
    assert (variables["TARGET_REGISTRY"], variables["REPOSITORY_PREFIX"]) == (registry(china), "mirror")
    answer = global_region.client("secretsmanager").get_secret_value(SecretId=outputs["ImagePullSecretArn"])
    assert json.loads(answer["SecretString"]) == {
        "Region": china.name,
        "AccessKey": push_key["AccessKeyId"],
        "AccessSecretKey": push_key["SecretAccessKey"],
    }
