"""image-pulling.yaml: an update in place, least privilege, and no secret where it can be read."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.cli.commands.selftest.permissions import OVERRIDES
from image_mirror.federation import AUDIENCE
from image_mirror.reference import PREFIX
from support.buildspec_runner import FAST, MAIN, PROJECTS, REGISTRY, resolve, template
from support.templates import ROOT, carry_out, load_template, parameters_of

RESOURCES: dict[str, Any] = template()["Resources"]
PARAMETERS: dict[str, Any] = template()["Parameters"]
AUTH_ARN = "arn:aws:secretsmanager:us-west-2:210987654321:secret:registry/auth-AbCdEf"


def user_policy(**parameters: str) -> Any:
    return resolve(RESOURCES["StartCopies"]["Properties"]["PolicyDocument"], **parameters)


def role_statements(**parameters: str) -> list[Any]:
    policies = resolve(RESOURCES["CodeBuildRole"]["Properties"]["Policies"], **parameters)
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def denials(**parameters: str) -> list[Any]:
    return [statement for statement in user_policy(**parameters)["Statement"] if statement["Effect"] == "Deny"]


def project(name: str = MAIN, **parameters: str) -> Any:
    return resolve(RESOURCES[name]["Properties"], **parameters)


def variables(name: str, **parameters: str) -> dict[str, Any]:
    """Return the variables of a project, each without its name."""
    listed = project(name, **parameters)["Environment"]["EnvironmentVariables"]
    found = {each.pop("Name"): each for each in listed}
    assert len(found) == len(listed), "each once"
    return found


def has_fast_lane(**values: str) -> bool:
    """Return whether the stack makes the second project; a value can also be that of AWS::Region."""
    given = parameters_of(template()) | {"AWS::Region": "us-west-2"} | values
    found: bool = carry_out({"Condition": RESOURCES[FAST]["Condition"]}, template(), given, lambda *_: "")
    return found


def fits(parameter: str, value: str) -> bool:
    return re.fullmatch(PARAMETERS[parameter]["AllowedPattern"], value) is not None


def test_the_parts_are_in_their_order() -> None:
    parts = ["AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Conditions", "Resources", "Outputs"]
    assert list(template()) == [*parts, "Mappings"]  # the long text of the build comes last


def test_each_parameter_is_grouped_labelled_and_described() -> None:
    interface = template()["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(PARAMETERS)
    assert set(interface["ParameterLabels"]) == set(PARAMETERS)
    assert all(parameter["Description"] for parameter in PARAMETERS.values())
    assert all(
        "ConstraintDescription" in parameter for parameter in PARAMETERS.values() if "AllowedPattern" in parameter
    )


@pytest.mark.parametrize("name", ["image-pulling.yaml", "sam-template.yaml"])
def test_a_template_fits_a_direct_upload(name: str) -> None:
    assert len((ROOT / name).read_bytes()) < 51_200  # CloudFormation's limit for a template body


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ECRSecertManager", "AWS::SecretsManager::Secret"),
        ("CodeBuildRole", "AWS::IAM::Role"),
        ("CodeBuildProject", "AWS::CodeBuild::Project"),
    ],
)
def test_resources_of_an_older_stack_keep_their_logical_ids(name: str, kind: str) -> None:
    assert RESOURCES[name]["Type"] == kind
    assert project()["Name"] == "ImagePullProject"  # another name would replace the project


@pytest.mark.parametrize("name", ["Region", "AccessKey", "AccessKeySK"])
def test_parameters_of_an_older_stack_keep_their_names(name: str) -> None:
    assert PARAMETERS[name]["Type"] == "String"
    assert PARAMETERS[name].get("NoEcho", False) == (name != "Region")


def test_the_secret_is_made_of_the_same_text_in_every_release() -> None:
    # CloudFormation writes a secret again if any property of its resource differs from the last release, with the old
    # values of the parameters: a changed text would replace the current keys by old ones.
    assert RESOURCES["ECRSecertManager"]["Properties"] == {
        "Name": "ImagePullSecret",
        "SecretString": {
            "Fn::Join": [
                "",
                [
                    '{"Region": "',
                    {"Ref": "Region"},
                    '", "AccessKey": "',
                    {"Ref": "AccessKey"},
                    '", "AccessSecretKey": "',
                    {"Ref": "AccessKeySK"},
                    '"}',
                ],
            ]
        },
    }


@pytest.mark.parametrize(
    ("key", "secret_key"),
    [
        pytest.param("", "", id="placeholders"),
        pytest.param("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLE+=", id="keys"),
    ],
)
def test_the_secret_is_json_with_whatever_keys_the_parameters_allow(key: str, secret_key: str) -> None:
    assert fits("AccessKey", key)
    assert fits("AccessKeySK", secret_key)
    text = resolve(RESOURCES["ECRSecertManager"]["Properties"]["SecretString"], AccessKey=key, AccessKeySK=secret_key)
    assert json.loads(text) == {"Region": "cn-northwest-1", "AccessKey": key, "AccessSecretKey": secret_key}


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a b", "a\n"])
def test_keys_that_would_break_the_secret_are_refused(value: str) -> None:
    assert not fits("AccessKey", value)
    assert not fits("AccessKeySK", value)


@given(st.text(alphabet="ab0A._-/", max_size=8))
def test_a_prefix_is_allowed_just_where_the_package_allows_it(prefix: str) -> None:
    assert fits("RepositoryPrefix", prefix) == (PREFIX.fullmatch(prefix) is not None)


@pytest.mark.parametrize(
    ("parameter", "value", "allowed"),
    [
        pytest.param("ChinaAccountId", "", True, id="any account"),
        pytest.param("ChinaAccountId", "123456789012", True, id="an account"),
        pytest.param("ChinaAccountId", "12345678901", False, id="too short an account"),
        pytest.param("ChinaAccountId", "????????????", False, id="a glob"),
        pytest.param("RegistryAuthSecretArn", "", True, id="no auth file"),
        pytest.param("RegistryAuthSecretArn", AUTH_ARN, True, id="an ARN"),
        pytest.param("RegistryAuthSecretArn", "registry/auth", False, id="a name"),
        pytest.param("RegistryAuthSecretArn", AUTH_ARN.removesuffix("-AbCdEf"), False, id="half an ARN"),
        pytest.param("RegistryAuthSecretArn", AUTH_ARN.replace("registry/auth", "*"), False, id="a wildcard"),
    ],
)
def test_parameters_are_bounded(parameter: str, value: str, allowed: bool) -> None:
    assert fits(parameter, value) == allowed


def test_the_build_has_time_for_large_images() -> None:
    minutes = PARAMETERS["BuildTimeoutMinutes"]
    assert (minutes["MinValue"], minutes["Default"], minutes["MaxValue"]) == (5, 240, 2160)
    assert project()["TimeoutInMinutes"] == "240"
    assert project()["QueuedTimeoutInMinutes"] == 480
    assert "ConcurrentBuildLimit" not in project()  # with it, StartBuild errs instead of queueing


# CodeBuild's user guide, "Run builds on AWS Lambda compute".
LAMBDA_REGIONS = {
    *("ap-northeast-1", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "eu-central-1", "eu-west-1"),
    *("sa-east-1", "us-east-1", "us-east-2", "us-west-2"),
}


def test_the_second_project_is_in_the_regions_with_lambda_compute_and_in_no_other() -> None:
    regions = {*LAMBDA_REGIONS, "us-west-1", "ap-northeast-2", "ap-east-1", "eu-west-2", "ca-central-1", "cn-north-1"}
    assert {each for each in regions if has_fast_lane(**{"AWS::Region": each})} == LAMBDA_REGIONS
    assert len(template()["Conditions"]["HasLambdaCompute"]["Fn::Or"]) == 10, "CloudFormation takes no more"


def test_the_second_project_can_be_left_out() -> None:
    assert PARAMETERS["FastLane"] == PARAMETERS["FastLane"] | {"Default": "true", "AllowedValues": ["true", "false"]}
    assert has_fast_lane()
    assert not has_fast_lane(FastLane="false")
    assert template()["Outputs"]["FastProjectName"]["Condition"] == RESOURCES[FAST]["Condition"] == "HasFastLane"


def test_the_second_project_has_what_lambda_compute_takes_and_no_more() -> None:
    """CodeBuild refuses time-outs, privileged mode, a cache and a VPC there."""
    fast, environment = project(FAST), project(FAST)["Environment"]
    assert fast["Name"] == "ImagePullProjectFast"
    assert set(project(MAIN)) - set(fast) == {"TimeoutInMinutes", "QueuedTimeoutInMinutes"}
    assert set(fast) <= set(project(MAIN))
    assert {name: value for name, value in environment.items() if name != "EnvironmentVariables"} == {
        "Type": "LINUX_LAMBDA_CONTAINER",
        "ComputeType": "BUILD_LAMBDA_2GB",
        "Image": "aws/codebuild/amazonlinux-x86_64-lambda-standard:python3.13",
    }


def test_both_projects_run_the_same_build_with_the_same_role_and_log() -> None:
    for name in ("ServiceRole", "Artifacts", "LogsConfig", "Source"):
        assert project(FAST)[name] == project(MAIN)[name], name


OTHERS = {
    "ChinaAccountId": "123456789012",
    "Region": "cn-north-1",
    "RepositoryPrefix": "p",
    "RegistryAuthSecretArn": AUTH_ARN,
    "SourceRegistries": "gcr.io",
    "MaxImageGigabytes": "7",
    "BuildTimeoutMinutes": "77",
    "CopySignatures": "false",
    "CraneUrl": "https://x.example/c",
    "FastLaneGigabytes": "2",
}


@pytest.mark.parametrize(("parameters", "gigabytes"), [({}, "3"), (OTHERS, "2")], ids=["as shipped", "other values"])
def test_both_projects_have_the_same_variables_but_for_the_limits(parameters: dict[str, str], gigabytes: str) -> None:
    main, fast = variables(MAIN, **parameters), variables(FAST, **parameters)
    assert {name: value for name, value in fast.items() if main.get(name) != value} == {
        "MAX_IMAGE_GIGABYTES": {"Value": gigabytes},
        "BUILD_TIMEOUT_MINUTES": {"Value": "15"},
        "FAST_LANE": {"Value": "true"},
    }
    assert main.keys() == fast.keys() - {"FAST_LANE"}


def test_the_second_project_takes_small_images() -> None:
    limit = PARAMETERS["FastLaneGigabytes"]
    assert (limit["MinValue"], limit["Default"], limit["MaxValue"]) == (1, 3, 10)


def test_the_build_has_no_privileges_and_no_source() -> None:
    environment = project()["Environment"]
    assert environment["PrivilegedMode"] is False
    assert environment["Image"] == "aws/codebuild/standard:8.0"
    assert project()["Source"]["Type"] == "NO_SOURCE"


@pytest.mark.parametrize("name", PROJECTS)
@pytest.mark.parametrize(
    ("account", "registry"),
    [
        pytest.param("123456789012", REGISTRY, id="one account"),
        pytest.param("", "????????????.dkr.ecr.cn-northwest-1.amazonaws.com.cn", id="any account"),
    ],
)
def test_a_project_and_the_user_are_limited_to_the_same_target(name: str, account: str, registry: str) -> None:
    values = {each: variable["Value"] for each, variable in variables(name, ChinaAccountId=account).items()}
    assert values["TARGET_REGISTRY"] == registry
    (denial,) = (d for d in denials(ChinaAccountId=account) if "StringNotLike" in d["Condition"])
    key = "codebuild:environment.environmentVariables/NEW_DOCKER_IMAGE.value"
    assert denial["Condition"] == {"StringNotLike": {key: f"{registry}/{values['REPOSITORY_PREFIX']}/*"}}


def test_the_auth_file_is_a_variable_only_where_there_is_one() -> None:
    for name in PROJECTS:
        assert "REGISTRY_AUTH" not in variables(name)
        with_file = variables(name, RegistryAuthSecretArn=AUTH_ARN)
        assert with_file["REGISTRY_AUTH"] == {"Type": "SECRETS_MANAGER", "Value": AUTH_ARN}


def test_logs_are_kept_for_a_while_in_a_group_of_the_stack_own_making() -> None:
    group = RESOURCES["BuildLogs"]["Properties"]
    # No name: /aws/codebuild/ImagePullProject may exist from an older stack, and cannot be created twice.
    assert group == {"RetentionInDays": {"Ref": "LogRetentionDays"}}
    assert PARAMETERS["LogRetentionDays"]["Default"] in PARAMETERS["LogRetentionDays"]["AllowedValues"]
    assert project()["LogsConfig"] == {"CloudWatchLogs": {"Status": "ENABLED", "GroupName": "<BuildLogs>"}}


@pytest.mark.parametrize("auth", ["", AUTH_ARN])
def test_the_build_may_write_its_log_and_read_its_secrets_and_no_more(auth: str) -> None:
    secrets = ["<ECRSecertManager>", auth] if auth else ["<ECRSecertManager>"]
    logs = ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert role_statements(RegistryAuthSecretArn=auth) == [
        {"Effect": "Allow", "Action": logs, "Resource": "<BuildLogs.Arn>"},
        {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secrets},
    ]
    assert "ManagedPolicyArns" not in RESOURCES["CodeBuildRole"]["Properties"]


PUSH_ROLE = "arn:aws-cn:iam::123456789012:role/push"
RECONCILER = "arn:aws-cn:iam::123456789012:role/mirror-ReconcilerRole-1A2B"
ISSUER = "1b2c.tokens.sts.global.api.aws"


@pytest.mark.parametrize(
    ("parameters", "secrets", "asks"),
    [
        pytest.param({"ChinaIssuer": ISSUER}, ["<ECRSecertManager>"], True, id="a build tests the role first"),
        pytest.param({"ChinaPushRoleArn": PUSH_ROLE}, [], True, id="pushes with a role"),
        pytest.param(
            {"ChinaPushRoleArn": PUSH_ROLE, "RegistryAuthSecretArn": AUTH_ARN}, [AUTH_ARN], True, id="and logs in"
        ),
        pytest.param({}, ["<ECRSecertManager>"], False, id="pushes with a key"),
    ],
)
def test_a_build_that_pushes_with_a_role_may_not_read_the_key_and_may_ask_for_a_token(
    parameters: dict[str, str], secrets: list[str], asks: bool
) -> None:
    _, *more = role_statements(**parameters)
    read = [{"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secrets}] if secrets else []
    condition = {
        "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": [AUDIENCE]},
        "Null": {"sts:IdentityTokenAudience": "false"},
        "NumericLessThanEquals": {"sts:DurationSeconds": "300"},
        "StringEquals": {"sts:SigningAlgorithm": "ES384"},
    }
    ask = {"Effect": "Allow", "Action": "sts:GetWebIdentityToken", "Resource": "*", "Condition": condition}
    assert more == [*read, *([ask] if asks else [])]


def test_the_starting_role_has_the_user_s_policy_and_sessions_of_an_hour() -> None:
    properties = RESOURCES["StartRole"]["Properties"]
    assert properties["ManagedPolicyArns"] == RESOURCES["ImagePullUser"]["Properties"]["ManagedPolicyArns"]
    assert properties["MaxSessionDuration"] == 3600
    assert "Policies" not in properties


@pytest.mark.parametrize(
    ("provider", "arn"), [("", "<ChinaProvider>"), ("arn:aws:iam::210987654321:oidc-provider/x", None)]
)
def test_only_the_reconciler_of_this_issuer_takes_the_starting_role(provider: str, arn: str | None) -> None:
    given = {"ChinaIssuer": ISSUER, "ChinaReconcilerRoleArn": RECONCILER, "ChinaProviderArn": provider}
    [statement] = json.loads(resolve(RESOURCES["StartRole"]["Properties"]["AssumeRolePolicyDocument"], **given))[
        "Statement"
    ]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Federated": arn or provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{ISSUER}:aud": AUDIENCE, f"{ISSUER}:sub": RECONCILER}},
    }


def test_the_provider_of_an_issuer_stays_and_no_second_one_is_made() -> None:
    provider = RESOURCES["ChinaProvider"]
    assert (provider["DeletionPolicy"], provider["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert provider["Condition"] == "MakesProvider"
    assert provider["Properties"]["ClientIdList"] == [AUDIENCE]


@pytest.mark.parametrize(
    ("given", "true"),
    [
        pytest.param({}, {"KeyPushes", "UsersHaveKeys", "ReadsSecrets"}, id="an older stack"),
        pytest.param(
            {"ChinaReconcilerRoleArn": RECONCILER}, {"KeyPushes", "UsersHaveKeys", "ReadsSecrets"}, id="no issuer"
        ),
        pytest.param(
            {"ChinaIssuer": ISSUER, "ChinaReconcilerRoleArn": RECONCILER, "AccessKeyUsers": "false"},
            {"TrustsIssuer", "MakesProvider", "RoleStarts", "AsksForTokens", "KeyPushes", "ReadsSecrets"},
            id="federates, and still pushes with the key",
        ),
        pytest.param(
            {"ChinaIssuer": ISSUER, "ChinaProviderArn": "arn:x", "ChinaPushRoleArn": PUSH_ROLE},
            {"TrustsIssuer", "AsksForTokens", "RolePushes", "UsersHaveKeys"},
            id="with a provider that exists",
        ),
    ],
)
def test_federation_is_what_the_parameters_say(given: dict[str, str], true: set[str]) -> None:
    names = {
        *("TrustsIssuer", "MakesProvider", "RoleStarts", "RolePushes", "KeyPushes", "ReadsSecrets", "AsksForTokens"),
        "UsersHaveKeys",
    }
    assert {name for name in names if resolve(template()["Conditions"][name], **given)} == true


@pytest.mark.parametrize("name", ["GlobalIssuer", "GlobalBuildRoleArn", "GlobalProviderArn"])
def test_both_templates_take_the_same_values_for_federation(name: str) -> None:
    here = {
        "GlobalIssuer": "ChinaIssuer",
        "GlobalBuildRoleArn": "ChinaReconcilerRoleArn",
        "GlobalProviderArn": "ChinaProviderArn",
    }
    pattern = load_template("sam-template.yaml")["Parameters"][name]["AllowedPattern"]
    assert PARAMETERS[here[name]]["AllowedPattern"] == pattern
    assert PARAMETERS["ChinaPushRoleArn"]["AllowedPattern"] == PARAMETERS["ChinaReconcilerRoleArn"]["AllowedPattern"]


def test_only_codebuild_in_this_account_takes_the_role() -> None:
    (trust,) = resolve(RESOURCES["CodeBuildRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"])
    assert trust["Principal"] == {"Service": "codebuild.amazonaws.com"}
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": "210987654321"}}


@pytest.mark.parametrize(
    ("fast_lane", "projects"),
    [
        ("true", ["<CodeBuildProject.Arn>", "<FastCodeBuildProject.Arn>"]),
        ("false", ["<CodeBuildProject.Arn>"]),
    ],
)
def test_the_user_may_start_and_watch_the_builds_of_the_projects_that_there_are(
    fast_lane: str, projects: list[str]
) -> None:
    listed = user_policy(FastLane=fast_lane)["Statement"]
    allowed = [statement for statement in listed if statement["Effect"] == "Allow"]
    actions = ["codebuild:StartBuild", "codebuild:BatchGetBuilds"]
    assert allowed == [{"Effect": "Allow", "Action": actions, "Resource": projects}]
    # An update that changed the description would replace the policy.
    described = "Start and watch the copies of ImagePullProject, and change nothing about them."
    assert RESOURCES["StartCopies"]["Properties"]["Description"] == described
    assert RESOURCES["ImagePullUser"]["Properties"] == {"ManagedPolicyArns": [{"Ref": "StartCopies"}]}


def test_the_user_may_override_nothing_that_iam_can_forbid() -> None:
    # One statement for each key: a block with several keys matches only if all keys are present.
    by_null = [denial["Condition"] for denial in denials() if "Null" in denial["Condition"]]
    assert sorted(by_null, key=str) == sorted(({"Null": {key: "false"}} for key in OVERRIDES), key=str)
    (names,) = (denial["Condition"] for denial in denials() if "ForAnyValue:StringNotEquals" in denial["Condition"])
    allowed = ["DOCKER_IMAGE", "NEW_DOCKER_IMAGE"]
    assert names == {
        "ForAnyValue:StringNotEquals": {"codebuild:environment.environmentVariables.name": allowed},
    }
    for denial in denials():
        assert denial["Action"] == "codebuild:StartBuild"
        assert denial["Resource"] == "*"  # a denial is the wider the better


def test_everything_is_resource_stays_out_of_what_is_allowed() -> None:
    statements = [*user_policy()["Statement"], *role_statements(RegistryAuthSecretArn=AUTH_ARN)]
    for statement in statements:
        if statement["Effect"] == "Allow":
            assert "*" not in json.dumps(statement)


SOURCES = "codebuild:environment.environmentVariables/DOCKER_IMAGE.value"


def test_the_user_may_only_copy_from_the_hosts_that_are_named() -> None:
    (denial,) = [each for each in denials(SourceRegistries="gcr.io *.pkg.dev") if SOURCES in str(each)]
    assert denial == {
        "Effect": "Deny",
        "Action": "codebuild:StartBuild",
        "Resource": "*",
        "Condition": {"StringNotLike": {SOURCES: ["gcr.io/*", "*.pkg.dev/*"]}},
    }
    assert not [each for each in denials() if SOURCES in str(each)]


@pytest.mark.parametrize(
    ("hosts", "is_valid"),
    [
        pytest.param("*", True, id="all"),
        pytest.param("gcr.io", True, id="one"),
        pytest.param("gcr.io *.pkg.dev registry.local:5000", True, id="some"),
        pytest.param("", False, id="none"),
        pytest.param("gcr.io, quay.io", False, id="a comma"),
        pytest.param("gcr.io  quay.io", False, id="two spaces"),
        pytest.param("GCR.io", False, id="upper case"),
        pytest.param("gcr.io/a", False, id="a path"),
        pytest.param("gcr.io *", False, id="all beside one"),
        pytest.param("a.io", False, id="so short that too many would fit"),
    ],
)
def test_the_hosts_have_a_form(hosts: str, is_valid: bool) -> None:
    assert bool(re.fullmatch(PARAMETERS["SourceRegistries"]["AllowedPattern"], hosts)) is is_valid


def test_the_policies_stay_within_the_limits_of_iam() -> None:
    longest = {
        "ChinaAccountId": "123456789012",
        "Region": "cn-northwest-1",
        "RepositoryPrefix": "p" * PARAMETERS["RepositoryPrefix"]["MaxLength"],
        "SourceRegistries": " ".join(["gcr.io"] * (PARAMETERS["SourceRegistries"]["MaxLength"] // 7)),
    }
    policy = json.dumps(user_policy(**longest), separators=(",", ":"))
    assert "<FastCodeBuildProject.Arn>" in policy
    assert len(policy) + 200 < 6_144  # a managed policy without white space; 200 for the ARNs of both projects
    assert len(policy) > 2_048  # what all inline policies of a user share: why it is a managed one
    role = json.dumps(role_statements(RegistryAuthSecretArn=AUTH_ARN), separators=(",", ":"))
    assert len(role) + 1_000 < 10_240  # all inline policies of a role


def test_no_name_of_iam_is_fixed_so_that_capability_iam_suffices() -> None:
    for resource in RESOURCES.values():
        assert not {"UserName", "RoleName", "ManagedPolicyName"} & set(resource.get("Properties", {}))
        assert resource["Type"] != "AWS::IAM::AccessKey"


def test_no_output_contains_a_secret() -> None:
    outputs = json.dumps(template()["Outputs"])
    assert not any(name in outputs for name in ("SecretString", "resolve:", '"AccessKey"', '"AccessKeySK"'))
    assert {"ImagePullUserName", "GlobalRegion", "ProjectName", "ImagePullSecretArn"} <= set(template()["Outputs"])
    assert all(output["Description"] for output in template()["Outputs"].values())


def test_what_the_stack_leaves_behind_is_decided() -> None:
    # A secret with a fixed name or a log group that stays after a deletion would make the next stack fail.
    for name in ("ECRSecertManager", "BuildLogs"):
        assert (RESOURCES[name]["DeletionPolicy"], RESOURCES[name]["UpdateReplacePolicy"]) == ("Delete", "Delete")
