"""China's template and the cluster's configuration fit the code, existing deployments and the rules of AWS."""

import inspect
import json
import re
from fnmatch import fnmatchcase
from typing import Any

import pytest

from image_mirror import settings as settings_module
from image_mirror.federation import AUDIENCE
from image_mirror.pod_images import SKIP_LABEL
from image_mirror.reconciler import RESERVE
from image_mirror.reference import PREFIX
from image_mirror.rules import DEFAULT_RULES, parse_rules
from image_mirror.settings import Settings
from image_mirror.swap_when import VALUES
from image_mirror.table import DUE_INDEX, STATE_REPO
from support.cloud import ENVIRONMENT
from support.templates import ROOT, carry_out, parameters_of, sam_template, webhook_configuration

Json = dict[str, Any]
TEMPLATE = sam_template()
RESOURCES: Json = TEMPLATE["Resources"]
PARAMETERS: Json = TEMPLATE["Parameters"]
WEBHOOK: Json = webhook_configuration()["webhooks"][0]
KEY = "arn:${AWS::Partition}:kms:${AWS::Region}:${AWS::AccountId}:key/${RepositoryKmsKeyId}"
ECR_COPIES = "arn:${AWS::Partition}:ecr:${AWS::Region}:${AWS::AccountId}:repository/${RepositoryPrefix}/*"


def statements(name: str) -> dict[str, Json]:
    """Return the statements of the only policy of a role or user, by Sid."""
    [policy] = RESOURCES[name]["Properties"]["Policies"]
    listed = [each["Fn::If"][1:] if "Fn::If" in each else [each] for each in policy["PolicyDocument"]["Statement"]]
    return {statement["Sid"]: statement for each in listed for statement in each if "Sid" in statement}


def actions(statement: Json) -> set[str]:
    found = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    return {action["Fn::If"][1] if isinstance(action, dict) else action for action in found}


# ---- the table ----


def test_the_table_keeps_the_key_the_name_and_the_data_of_older_deployments() -> None:
    table = RESOURCES["ImageListTable"]
    assert table["Type"] == "AWS::DynamoDB::Table"
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert table["Properties"]["KeySchema"] == [
        {"AttributeName": "repo", "KeyType": "HASH"},
        {"AttributeName": "tag", "KeyType": "RANGE"},
    ]
    assert table["Properties"]["TableName"] == {"Ref": "TableName"}
    assert PARAMETERS["TableName"]["Default"] == "ImageListTable"
    assert table["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


def test_the_table_has_the_stream_and_the_one_index_that_the_code_reads() -> None:
    properties = RESOURCES["ImageListTable"]["Properties"]
    assert properties["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    [index] = properties["GlobalSecondaryIndexes"]
    assert index["IndexName"] == DUE_INDEX
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["due", "due_at"]


# ---- the webhook's way in ----


def routes() -> dict[str, Json]:
    """Return the properties of each route, by its logical ID."""
    return {name: each["Properties"] for name, each in RESOURCES.items() if each["Type"] == "AWS::ApiGatewayV2::Route"}


def test_the_only_routes_are_post_to_the_token_and_one_for_each_value_of_swap_when() -> None:
    keys = {name: route["RouteKey"]["Fn::Sub"] for name, route in routes().items()}
    assert keys.pop("WebhookRoute") == "POST /${WebhookToken}"
    assert keys == {f"WebhookRoute{value.title()}": f"POST /${{WebhookToken}}/{value}" for value in VALUES}
    assert "Events" not in RESOURCES["ApiFunction"]["Properties"], "an event would create a second API"
    assert RESOURCES["WebhookIntegration"]["Properties"]["PayloadFormatVersion"] == "2.0"
    stage = RESOURCES["WebhookStage"]["Properties"]
    assert (stage["StageName"], stage["AutoDeploy"]) == ("$default", True)


def test_the_token_is_asked_for_hidden_and_long() -> None:
    token = PARAMETERS["WebhookToken"]
    assert token["NoEcho"] is True
    assert "Default" not in token
    assert (token["MinLength"], token["MaxLength"], token["AllowedPattern"]) == (32, 64, "[A-Za-z0-9]+")
    assert "openssl rand -hex 24" in token["ConstraintDescription"]


def test_the_token_is_in_the_route_and_the_one_output_and_nowhere_else() -> None:
    places = [name for name, each in RESOURCES.items() if "${WebhookToken}" in json.dumps(each)]
    assert places == list(routes())
    assert [name for name, each in TEMPLATE["Outputs"].items() if "WebhookToken" in json.dumps(each)] == [
        "APIGatewayURL"
    ]
    assert "WebhookToken" not in json.dumps(TEMPLATE["Globals"])


def test_the_parameter_and_the_output_have_the_values_that_the_webhook_knows() -> None:
    assert PARAMETERS["SwapWhen"]["AllowedValues"] == list(VALUES)
    assert TEMPLATE["Outputs"]["SwapWhenRoutes"]["Value"] == ", ".join(VALUES)


def test_the_url_of_the_output_is_the_route() -> None:
    url = TEMPLATE["Outputs"]["APIGatewayURL"]["Value"]["Fn::Sub"]
    assert url == "https://${WebhookApi}.execute-api.${AWS::Region}.${AWS::URLSuffix}/${WebhookToken}"


def test_only_this_api_may_call_the_webhook() -> None:
    permission = RESOURCES["WebhookPermission"]["Properties"]
    assert permission["Principal"] == "apigateway.amazonaws.com"
    assert permission["SourceArn"] == {
        "Fn::Sub": "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${WebhookApi}/*/POST/*"
    }


def test_the_permission_is_for_each_route_and_for_no_other_method_or_api() -> None:
    source = RESOURCES["WebhookPermission"]["Properties"]["SourceArn"]["Fn::Sub"]
    called = [route["RouteKey"]["Fn::Sub"].replace(" ", "") for route in routes().values()]
    api = source.partition("/")[0]
    assert len(called) == 1 + len(VALUES)
    assert all(fnmatchcase(f"{api}/$default/{each}", source) for each in called)
    assert not fnmatchcase(f"{api}/$default/GET/${{WebhookToken}}", source)
    assert not fnmatchcase(f"{api}x/$default/POST/${{WebhookToken}}", source)


def test_throttling_is_a_parameter_far_above_a_rollout() -> None:
    assert RESOURCES["WebhookStage"]["Properties"]["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "ThrottlingRate"},
        "ThrottlingBurstLimit": {"Ref": "ThrottlingBurst"},
    }
    assert (PARAMETERS["ThrottlingRate"]["Default"], PARAMETERS["ThrottlingBurst"]["Default"]) == (1000, 2000)


# ---- the functions ----


@pytest.mark.parametrize(
    ("name", "handler"),
    [("ApiFunction", "image_mirror.webhook.handler"), ("ReconcilerFunction", "image_mirror.reconciler.handler")],
)
def test_each_function_runs_a_handler_that_exists_and_logs_to_a_group_that_ends(name: str, handler: str) -> None:
    properties = RESOURCES[name]["Properties"]
    assert properties["Handler"] == handler
    module, _, function = handler.rpartition(".")
    assert callable(getattr(__import__(module, fromlist=[function]), function))
    group = RESOURCES[properties["LoggingConfig"]["LogGroup"]["Ref"]]
    assert group["Type"] == "AWS::Logs::LogGroup"
    assert group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}
    assert TEMPLATE["Globals"]["Function"]["Runtime"] == "python3.13"
    assert "Tracing" not in properties


def test_each_function_has_its_own_role_and_the_gateway_reaches_the_webhook_alone() -> None:
    roles = {"ApiFunction": "WebhookRole", "ReconcilerFunction": "ReconcilerRole"}
    for name, role in roles.items():
        assert RESOURCES[name]["Properties"]["Role"] == {"Fn::GetAtt": [role, "Arn"]}
    uri = RESOURCES["WebhookIntegration"]["Properties"]["IntegrationUri"]["Fn::Sub"]
    assert uri.endswith("/functions/${ApiFunction.Arn}/invocations")
    assert RESOURCES["WebhookPermission"]["Properties"]["FunctionName"] == {"Ref": "ApiFunction"}
    for route in routes().values():
        assert route["Target"] == {"Fn::Sub": "integrations/${WebhookIntegration}"}
        assert route["ApiId"] == {"Ref": "WebhookApi"}


def test_each_function_has_the_time_that_it_needs() -> None:
    reconciler = RESOURCES["ReconcilerFunction"]["Properties"]
    assert reconciler["Timeout"] >= 2 * RESERVE, "otherwise it would have no effect"
    assert RESOURCES["ApiFunction"]["Properties"]["Timeout"] >= 5
    assert RESOURCES["WebhookIntegration"]["Properties"]["TimeoutInMillis"] >= 5000
    assert reconciler["Events"]["Requests"]["Properties"]["MaximumRetryAttempts"] > 0, "-1 would block the stream"


def test_the_conditions_say_what_their_names_say() -> None:
    assert TEMPLATE["Conditions"] == {
        "AlarmsAreMailed": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmEmail"}, ""]}]},
        "AlarmsHaveTopic": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopicArn"}, ""]}]},
        "CopiesExpire": {"Fn::Not": [{"Fn::Equals": [{"Ref": "ExpireDays"}, 0]}]},
        "WebhookHasReserve": {"Fn::Not": [{"Fn::Equals": [{"Ref": "WebhookReservedConcurrency"}, 0]}]},
        "ReconcilerHasReserve": {"Fn::Not": [{"Fn::Equals": [{"Ref": "ReconcilerReservedConcurrency"}, 0]}]},
        "RepositoriesHaveKey": {"Fn::Not": [{"Fn::Equals": [{"Ref": "RepositoryKmsKeyId"}, ""]}]},
        "OtherAccountsPull": {"Fn::Not": [{"Fn::Equals": [{"Ref": "PullAccounts"}, ""]}]},
        "RoleStartsBuilds": {"Fn::Not": [{"Fn::Equals": [{"Ref": "GlobalStartRoleArn"}, ""]}]},
        "TrustsIssuer": {"Fn::Not": [{"Fn::Equals": [{"Ref": "GlobalIssuer"}, ""]}]},
        "MakesProvider": {
            "Fn::And": [{"Condition": "TrustsIssuer"}, {"Fn::Equals": [{"Ref": "GlobalProviderArn"}, ""]}]
        },
        "RolePushes": {
            "Fn::And": [
                {"Condition": "TrustsIssuer"},
                {"Fn::Not": [{"Fn::Equals": [{"Ref": "GlobalBuildRoleArn"}, ""]}]},
            ]
        },
        "UsersHaveKeys": {"Fn::Equals": [{"Ref": "AccessKeyUsers"}, "true"]},
    }


def test_the_webhook_has_the_memory_that_makes_it_fast() -> None:
    assert RESOURCES["ApiFunction"]["Properties"]["MemorySize"] == 1024


def test_every_setting_has_a_parameter_and_the_defaults_agree() -> None:
    variables: Json = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    variables = {name: value for name, value in variables.items() if not name.startswith("POWERTOOLS_")}
    assert set(variables) == set(settings_module._VARIABLES)
    environment = {
        "ECR_REGISTRY": "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        "DDB_TABLE_NAME": "ImageListTable",
    }
    for name, value in variables.items():
        if name not in environment:
            environment[name] = str(PARAMETERS[value["Ref"]]["Default"])
    given = Settings.from_env(environment)
    required = {name: environment[name] for name in ("ECR_REGISTRY", "DDB_TABLE_NAME", "GLOBAL_AKSK", "G_PROJECT_NAME")}
    assert given == Settings.from_env(required)
    assert variables["DDB_TABLE_NAME"] == {"Ref": "ImageListTable"}
    assert variables["ECR_REGISTRY"] == {"Fn::Sub": "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}"}


def test_the_default_rules_are_the_code_s() -> None:
    assert parse_rules(PARAMETERS["MirrorRules"]["Default"]) == parse_rules(DEFAULT_RULES)
    assert PARAMETERS["MirrorRules"]["Default"].split() == DEFAULT_RULES.split()


@pytest.mark.parametrize(
    "prefix", ["mirror", "team/mirror", "a", "a--b", "a__b", "Mirror", "1a", "a/", "/a", "a_", "a._b", "", "-a", "a/1"]
)
def test_the_prefix_parameter_takes_what_the_code_takes(prefix: str) -> None:
    allowed = re.fullmatch(PARAMETERS["RepositoryPrefix"]["AllowedPattern"], prefix) is not None
    assert allowed == (PREFIX.fullmatch(prefix) is not None)


def test_each_parameter_is_described_bounded_and_in_a_group() -> None:
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(PARAMETERS)
    for name, parameter in PARAMETERS.items():
        assert parameter["Description"], name
        bounded = {"AllowedValues", "AllowedPattern", "MaxValue", "MaxLength"} & set(parameter)
        assert bounded, name
        assert "Default" in parameter or name == "WebhookToken"


# ---- the reconciler's triggers ----

EVENTS: Json = RESOURCES["ReconcilerFunction"]["Properties"]["Events"]


def test_the_stream_brings_requests_alone_and_loses_none() -> None:
    stream = EVENTS["Requests"]["Properties"]
    [pattern] = stream["FilterCriteria"]["Filters"]
    assert json.loads(pattern["Pattern"]) == {
        "eventName": ["INSERT", "MODIFY"],
        "dynamodb": {"NewImage": {"status": {"S": ["REQUESTED"]}}},
    }
    assert stream["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert stream["BisectBatchOnFunctionError"] is True
    assert stream["StartingPosition"] == "TRIM_HORIZON"
    assert stream["DestinationConfig"]["OnFailure"] == {
        "Type": "SQS",
        "Destination": {"Fn::GetAtt": ["DeadLetters", "Arn"]},
    }


def test_the_schedule_looks_every_minute() -> None:
    assert EVENTS["EveryMinute"]["Properties"]["Schedule"] == "rate(1 minute)"


def test_ecr_s_events_are_those_under_the_prefix_with_a_tag() -> None:
    assert EVENTS["EcrHints"]["Properties"]["Pattern"] == {
        "source": ["aws.ecr"],
        "detail-type": ["ECR Image Action"],
        "detail": {
            "result": ["SUCCESS"],
            "action-type": ["PUSH", "DELETE"],
            "repository-name": [{"prefix": {"Fn::Sub": "${RepositoryPrefix}/"}}],
            "image-tag": [{"exists": True}],
        },
    }


# ---- who may do what ----


def test_the_webhook_may_read_and_write_records_and_nothing_else() -> None:
    found = statements("WebhookRole")
    assert set(found) == {"Records", "OwnLogs"}
    assert actions(found["Records"]) == {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}
    assert found["Records"]["Resource"] == {"Fn::GetAtt": ["ImageListTable", "Arn"]}


def test_the_reconciler_may_do_what_it_calls_on_the_prefix_the_table_and_the_one_secret() -> None:
    found = statements("ReconcilerRole")
    assert {sid: (actions(each), each["Resource"]) for sid, each in found.items()} == {
        "Records": (
            {"dynamodb:GetItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"},
            {"Fn::GetAtt": ["ImageListTable", "Arn"]},
        ),
        "State": ({"dynamodb:PutItem"}, {"Fn::GetAtt": ["ImageListTable", "Arn"]}),
        "WhatIsDue": ({"dynamodb:Query"}, {"Fn::Sub": "${ImageListTable.Arn}/index/DueIndex"}),
        "Stream": (
            {
                "dynamodb:DescribeStream",
                "dynamodb:GetRecords",
                "dynamodb:GetShardIterator",
                "dynamodb:ListStreams",
            },
            {"Fn::Sub": "${ImageListTable.Arn}/stream/*"},
        ),
        "Token": ({"sts:GetWebIdentityToken"}, "*"),
        "GlobalKey": (
            {"secretsmanager:GetSecretValue"},
            {
                "Fn::Sub": "arn:${AWS::Partition}:secretsmanager:${AWS::Region}:${AWS::AccountId}:"
                "secret:${GlobalSecretName}-??????"
            },
        ),
        "Repositories": (
            {
                "ecr:CreateRepository",
                "ecr:TagResource",
                "ecr:DescribeImages",
                "ecr:GetLifecyclePolicy",
                "ecr:DeleteLifecyclePolicy",
                "ecr:BatchDeleteImage",
                "ecr:SetRepositoryPolicy",
            },
            {"Fn::Sub": ECR_COPIES},
        ),
        "RepositoryKey": ({"kms:DescribeKey"}, {"Fn::Sub": KEY}),
        "RepositoryKeyForEcr": ({"kms:CreateGrant"}, {"Fn::Sub": KEY}),
        "DeadLetters": ({"sqs:SendMessage"}, {"Fn::GetAtt": ["DeadLetters", "Arn"]}),
        "OwnLogs": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"Fn::GetAtt": ["ReconcilerLogs", "Arn"]}),
    }


def test_the_reconciler_may_put_the_state_and_no_record() -> None:
    condition = statements("ReconcilerRole")["State"]["Condition"]
    assert condition == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [STATE_REPO]}}


@pytest.mark.parametrize(
    ("function", "parameter"),
    [("ApiFunction", "WebhookReservedConcurrency"), ("ReconcilerFunction", "ReconcilerReservedConcurrency")],
)
def test_concurrency_is_reserved_only_where_it_is_asked_for(function: str, parameter: str) -> None:
    """An account with a small limit cannot reserve any: the deployment would fail."""
    condition = "WebhookHasReserve" if function == "ApiFunction" else "ReconcilerHasReserve"
    found = RESOURCES[function]["Properties"]["ReservedConcurrentExecutions"]
    assert found == {"Fn::If": [condition, {"Ref": parameter}, {"Ref": "AWS::NoValue"}]}
    assert PARAMETERS[parameter]["Default"] == 0


def test_copies_may_be_deleted_and_policies_written_only_where_parameters_ask_for_it() -> None:
    conditional = [
        each["Fn::If"] for each in statements("ReconcilerRole")["Repositories"]["Action"] if isinstance(each, dict)
    ]
    assert [(condition, action) for condition, action, _ in conditional] == [
        ("CopiesExpire", "ecr:BatchDeleteImage"),
        ("OtherAccountsPull", "ecr:SetRepositoryPolicy"),
    ]


def test_the_key_of_repositories_may_be_used_only_where_one_is_set_and_by_ecr_alone() -> None:
    [policy] = RESOURCES["ReconcilerRole"]["Properties"]["Policies"]
    conditional = [each["Fn::If"] for each in policy["PolicyDocument"]["Statement"] if "Fn::If" in each]
    of_a_key = [each for each in conditional if "RoleStartsBuilds" not in each]
    assert [(condition, statement["Sid"], otherwise) for condition, statement, otherwise in of_a_key] == [
        ("RepositoriesHaveKey", "RepositoryKey", {"Ref": "AWS::NoValue"}),
        ("RepositoriesHaveKey", "RepositoryKeyForEcr", {"Ref": "AWS::NoValue"}),
    ]
    assert statements("ReconcilerRole")["RepositoryKeyForEcr"]["Condition"] == {
        "Bool": {"kms:GrantIsForAWSResource": "true"}
    }


@pytest.mark.parametrize(
    "key",
    [
        *("", "1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-" + "0a" * 16, "mrk-0a", "alias/copies"),
        *("arn:aws-cn:kms:cn-north-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab", "*", "1234abcd-12ab"),
    ],
)
def test_the_key_parameter_takes_what_the_code_takes(key: str) -> None:
    allowed = re.fullmatch(PARAMETERS["RepositoryKmsKeyId"]["AllowedPattern"], key) is not None
    assert allowed == (key == "" or settings_module._KMS_KEY_ID.fullmatch(key) is not None)


def test_the_pushing_user_has_no_name_no_key_and_only_the_push() -> None:
    user = RESOURCES["ImagePushUser"]
    assert user["Type"] == "AWS::IAM::User"
    assert set(user["Properties"]) == {"Policies"}
    assert not [each for each in RESOURCES.values() if each["Type"] == "AWS::IAM::AccessKey"]
    found = statements("ImagePushUser")
    assert actions(found["Push"]) == {
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:CompleteLayerUpload",
        "ecr:InitiateLayerUpload",
        "ecr:PutImage",
        "ecr:UploadLayerPart",
    }
    assert found["Push"]["Resource"] == {"Fn::Sub": ECR_COPIES}
    assert (actions(found["Login"]), found["Login"]["Resource"]) == ({"ecr:GetAuthorizationToken"}, "*")
    assert TEMPLATE["Outputs"]["ImagePushUserName"]["Value"] == {"Ref": "ImagePushUser"}


def test_the_pushing_role_may_do_what_the_pushing_user_may_do() -> None:
    assert statements("PushRole") == statements("ImagePushUser")
    assert RESOURCES["PushRole"]["Properties"]["MaxSessionDuration"] == 43200


def test_the_reconciler_may_read_the_key_or_ask_for_a_token_and_never_both() -> None:
    [policy] = RESOURCES["ReconcilerRole"]["Properties"]["Policies"]
    [chosen] = [
        each["Fn::If"]
        for each in policy["PolicyDocument"]["Statement"]
        if "Fn::If" in each and "RoleStartsBuilds" in each["Fn::If"]
    ]
    assert [each if isinstance(each, str) else each["Sid"] for each in chosen] == [
        "RoleStartsBuilds",
        "Token",
        "GlobalKey",
    ]
    assert statements("ReconcilerRole")["Token"]["Condition"] == {
        "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": [AUDIENCE]},
        "Null": {"sts:IdentityTokenAudience": "false"},
        "NumericLessThanEquals": {"sts:DurationSeconds": "300"},
        "StringEquals": {"sts:SigningAlgorithm": "ES384"},
    }


def test_the_provider_of_an_issuer_stays_and_no_second_one_is_made() -> None:
    provider = RESOURCES["GlobalProvider"]
    assert (provider["DeletionPolicy"], provider["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert provider["Condition"] == "MakesProvider"
    assert provider["Properties"]["ClientIdList"] == [AUDIENCE]


def test_a_stack_of_an_older_release_is_updated_without_federation_and_keeps_its_user() -> None:
    defaults = {name: each.get("Default") for name, each in PARAMETERS.items()}
    names = ("GlobalIssuer", "GlobalBuildRoleArn", "GlobalProviderArn", "GlobalStartRoleArn", "GlobalRegion")
    assert [defaults[name] for name in names] == [""] * 5
    assert defaults["AccessKeyUsers"] == "true"
    assert "Condition" not in RESOURCES["ReconcilerRole"]


@pytest.mark.parametrize("parameter", ["GlobalBuildRoleArn", "GlobalStartRoleArn"])
@pytest.mark.parametrize(
    "role",
    [
        *("", "arn:aws:iam::210987654321:role/a", "arn:aws:iam::210987654321:role/path/a+=,.@_-", "role/a", "*"),
        *("arn:aws:iam::210987654321:user/a", 'arn:aws:iam::210987654321:role/a"}', "arn:aws:iam::21:role/a"),
    ],
)
def test_the_role_parameters_take_what_the_code_takes(parameter: str, role: str) -> None:
    allowed = re.fullmatch(PARAMETERS[parameter]["AllowedPattern"], role) is not None
    assert allowed == (role == "" or settings_module._ROLE.fullmatch(role) is not None)


@pytest.mark.parametrize(
    ("issuer", "allowed"),
    [
        ("", True),
        ("1b2c.tokens.sts.global.api.aws", True),
        ("oidc.example.com.cn/id/1B2C", True),
        ("https://1b2c.tokens.sts.global.api.aws", False),
        ('a.b":"c', False),
        ("a.b/", False),
        ("*", False),
    ],
)
def test_an_issuer_cannot_change_the_trust_policy_around_it(issuer: str, allowed: bool) -> None:
    assert (re.fullmatch(PARAMETERS["GlobalIssuer"]["AllowedPattern"], issuer) is not None) == allowed


@pytest.mark.parametrize(
    ("provider", "allowed"),
    [
        ("", True),
        ("arn:aws-cn:iam::123456789012:oidc-provider/1b2c.tokens.sts.global.api.aws", True),
        ("arn:aws-cn:iam::123456789012:oidc-provider/oidc.example.com.cn/id/1B2C", True),
        ('arn:aws-cn:iam::123456789012:oidc-provider/a","AWS":"*', False),
        ("arn:aws-cn:iam::123456789012:oidc-provider/a\\", False),
        ("arn:aws-cn:iam::123456789012:oidc-provider/${AWS::Region}", False),
    ],
)
def test_a_provider_cannot_change_the_trust_policy_around_it(provider: str, allowed: bool) -> None:
    assert (re.fullmatch(PARAMETERS["GlobalProviderArn"]["AllowedPattern"], provider) is not None) == allowed


@pytest.mark.parametrize(
    ("role", "region", "is_refused"),
    [
        pytest.param("", "", False, id="keys"),
        pytest.param("arn:aws:iam::210987654321:role/start", "us-west-2", False, id="both"),
        pytest.param("", "us-west-2", False, id="the role was taken back"),
        pytest.param("arn:aws:iam::210987654321:role/start", "", True, id="no region: no function would start"),
    ],
)
def test_a_starting_role_without_its_region_is_refused_before_it_is_deployed(
    role: str, region: str, is_refused: bool
) -> None:
    [rule] = TEMPLATE["Rules"].values()
    values = parameters_of(TEMPLATE, GlobalStartRoleArn=role, GlobalRegion=region)
    applies, asserted = (
        carry_out(part, TEMPLATE, values, lambda *_: None)
        for part in (rule["RuleCondition"], rule["Assertions"][0]["Assert"])
    )
    assert (applies and not asserted) == is_refused
    variables = {"G_START_ROLE_ARN": role, "G_REGION": region}
    try:
        Settings.from_env({**ENVIRONMENT, **variables})
    except settings_module.SettingsError:
        assert is_refused
    else:
        assert not is_refused


@pytest.mark.parametrize("region", ["us-west-2", "us-gov-west-1", "eusc-de-east-1", "ap-southeast-2"])
def test_every_partition_s_regions_can_be_the_global_one(region: str) -> None:
    assert re.fullmatch(PARAMETERS["GlobalRegion"]["AllowedPattern"], region)
    assert settings_module.REGION.fullmatch(region)


def test_nothing_is_granted_by_a_managed_policy_or_on_everything() -> None:
    text = json.dumps(RESOURCES)
    assert "ManagedPolicyArns" not in text
    assert "FullAccess" not in text
    anywhere = [
        statement["Sid"]
        for name in ("WebhookRole", "ReconcilerRole", "ImagePushUser", "PushRole")
        for statement in statements(name).values()
        if statement["Resource"] == "*"
    ]
    assert anywhere == ["Token", "Login", "Login"]


def test_no_partition_or_dns_suffix_is_written_out() -> None:
    text = (ROOT / "sam-template.yaml").read_text()
    assert not re.search(r"arn:aws|amazonaws\.com\.cn", text)
    assert set(re.findall(r"\S*amazonaws\.com\S*", text)) == {"lambda.amazonaws.com}", "apigateway.amazonaws.com"}


def test_the_template_uses_no_yaml_alias_which_cloudformation_refuses() -> None:
    for name in ("sam-template.yaml", "image-pulling.yaml"):
        assert not re.search(r"(^|[\s\[{,:-])[&*][A-Za-z]\w+\s", (ROOT / name).read_text()), name


# ---- the cluster's side ----


def test_the_cluster_sends_pods_and_ephemeral_containers() -> None:
    assert [(rule["operations"], rule["resources"]) for rule in WEBHOOK["rules"]] == [
        (["CREATE", "UPDATE"], ["pods"]),
        (["UPDATE"], ["pods/ephemeralcontainers"]),
    ]
    assert WEBHOOK["admissionReviewVersions"] == ["v1", "v1beta1"]


def test_the_configuration_says_how_the_webhook_behaves() -> None:
    assert WEBHOOK["clientConfig"] == {"url": "<WEB-HOOK-URL>"}
    assert WEBHOOK["sideEffects"] == "NoneOnDryRun"
    assert WEBHOOK["failurePolicy"] == "Ignore"
    assert WEBHOOK["timeoutSeconds"] == 5
    assert WEBHOOK["reinvocationPolicy"] == "IfNeeded"


@pytest.mark.parametrize("selector", ["namespaceSelector", "objectSelector"])
def test_namespaces_and_pods_opt_out_by_the_label_that_the_webhook_knows(selector: str) -> None:
    assert WEBHOOK[selector] == {"matchExpressions": [{"key": SKIP_LABEL, "operator": "NotIn", "values": ["true"]}]}


def test_updates_without_a_new_image_and_mirror_pods_stay_in_the_api_server() -> None:
    conditions = {each["name"]: " ".join(each["expression"].split()) for each in WEBHOOK["matchConditions"]}
    assert conditions == {
        "not-a-mirror-pod": "!('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))",
        "an-image-is-new": "request.operation != 'UPDATE' || "
        "['containers', 'initContainers', 'ephemeralContainers'].exists(kind, "
        "object.spec[?kind].orValue([]).map(c, c.?image.orValue('')) != "
        "oldObject.spec[?kind].orValue([]).map(c, c.?image.orValue(''))) || "
        "object.spec.?volumes.orValue([]).map(v, v.?image.?reference.orValue('')) != "
        "oldObject.spec.?volumes.orValue([]).map(v, v.?image.?reference.orValue(''))",
    }


def test_the_bundle_holds_what_the_functions_import() -> None:
    requirements = (ROOT / "src" / "requirements.in").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)", requirements, re.MULTILINE))
    assert names == {"botocore", "aws-lambda-powertools"}
    assert "import boto3" not in inspect.getsource(__import__("image_mirror.aws", fromlist=["aws"]))
