"""Both stacks go from keys to federation and back by updates of their parameters alone, in the emulated AWS."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.deployment import GLOBAL_STACK, STACK, cloud
from e2e.harness.processes import free_port
from e2e.harness.sam import Region
from e2e.harness.stacks import CHINA, GLOBAL
from image_mirror.federation import AUDIENCE
from support.templates import ROOT

CHINA_ISSUER, GLOBAL_ISSUER = "1111.tokens.sts.global.api.aws", "2222.tokens.sts.global.api.aws"
CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]


class Deployed:
    """A stack of the emulated AWS."""

    def __init__(self, endpoint: str, region: str, name: str) -> None:
        self.region, self.name = Region(endpoint, region), name
        self._parameters: set[str] = set()

    def create(self, text: str, **parameters: str) -> None:
        self._change("CREATE", TemplateBody=text, Parameters=listed(parameters))
        described = self.region.client("cloudformation").get_template_summary(TemplateBody=text)
        self._parameters = {each["ParameterKey"] for each in described["Parameters"]}

    def set(self, **parameters: str) -> None:
        """Update the stack to these parameters, with the template and all other values that it has."""
        kept = [{"ParameterKey": name, "UsePreviousValue": True} for name in self._parameters - parameters.keys()]
        self._change("UPDATE", UsePreviousTemplate=True, Parameters=[*kept, *listed(parameters)])

    def _change(self, kind: str, **more: Any) -> None:
        formation = self.region.client("cloudformation")
        named = {"StackName": self.name, "ChangeSetName": "c"}
        formation.create_change_set(**named, ChangeSetType=kind, Capabilities=CAPABILITIES, **more)
        formation.execute_change_set(**named)

    @property
    def outputs(self) -> dict[str, str]:
        return self.region.outputs(self.name)

    def role(self, logical_id: str) -> dict[str, Any]:
        """Return the trust policy's statement of a role, and the actions that its policies allow."""
        iam, name = self.region.client("iam"), self.region.resource(self.name, logical_id)
        role = iam.get_role(RoleName=name)["Role"]
        [trust] = role["AssumeRolePolicyDocument"]["Statement"]
        documents = [
            iam.get_role_policy(RoleName=name, PolicyName=each)["PolicyDocument"]
            for each in iam.list_role_policies(RoleName=name)["PolicyNames"]
        ]
        for each in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            version = iam.get_policy(PolicyArn=each["PolicyArn"])["Policy"]["DefaultVersionId"]
            found = iam.get_policy_version(PolicyArn=each["PolicyArn"], VersionId=version)
            documents.append(found["PolicyVersion"]["Document"])
        statements = [each for document in documents for each in document["Statement"] if each["Effect"] == "Allow"]
        actions = [each["Action"] if isinstance(each["Action"], list) else [each["Action"]] for each in statements]
        return {"trust": trust, "actions": {action for each in actions for action in each}}

    def providers(self) -> dict[str, list[str]]:
        """Return the audiences of each OIDC provider of the account, by its URL."""
        iam = self.region.client("iam")
        arns = [each["Arn"] for each in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]]
        found = [iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn) for arn in arns]
        return {each["Url"]: each["ClientIDList"] for each in found}

    def buildspec(self) -> str:
        """Return the buildspec of ImagePullProject."""
        [project] = self.region.client("codebuild").batch_get_projects(names=["ImagePullProject"])["projects"]
        text: str = project["source"]["buildspec"]
        return text


def listed(parameters: dict[str, str]) -> list[dict[str, str]]:
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[tuple[Deployed, Deployed]]:
    port = free_port()
    endpoint = f"http://localhost:{port}"
    with cloud(port, tmp_path / "cloud.log"):
        china = Deployed(endpoint, CHINA.region, STACK)
        s3, archive = china.region.client("s3"), io.BytesIO()
        with zipfile.ZipFile(archive, "w") as code:
            code.writestr("handler.py", "")
        s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": CHINA.region})
        s3.put_object(Bucket="code", Key="code.zip", Body=archive.getvalue())
        text = (ROOT / "sam-template.yaml").read_text().replace("CodeUri: src/", "CodeUri: s3://code/code.zip")
        china.create(text, WebhookToken="t" * 32)
        world = Deployed(endpoint, GLOBAL.region, GLOBAL_STACK)
        world.create((ROOT / "image-pulling.yaml").read_text(), Region=CHINA.region)
        yield china, world


def trust(stack: Deployed, issuer: str, subject: str, partition: str) -> dict[str, Any]:
    account = stack.region.client("sts").get_caller_identity()["Account"]
    return {
        "Effect": "Allow",
        "Principal": {"Federated": f"arn:{partition}:iam::{account}:oidc-provider/{issuer}"},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {f"{issuer}:aud": AUDIENCE, f"{issuer}:sub": subject}},
    }


def variables(china: Deployed) -> dict[str, str]:
    found: dict[str, str] = china.region.function(STACK, "ReconcilerFunction")["Environment"]["Variables"]
    return found


def test_both_stacks_federate_by_their_parameters_and_go_back(stacks: tuple[Deployed, Deployed]) -> None:
    china, world = stacks
    assert china.providers() == world.providers() == {}
    assert "PushRoleArn" not in china.outputs
    assert "StartRoleArn" not in world.outputs
    users = china.outputs["ImagePushUserName"], world.outputs["ImagePullUserName"]
    assert "secretsmanager:GetSecretValue" in china.role("ReconcilerRole")["actions"]
    with_key = world.buildspec()

    build = world.outputs["BuildRoleArn"]
    china.set(GlobalIssuer=GLOBAL_ISSUER, GlobalBuildRoleArn=build)
    assert china.providers() == {GLOBAL_ISSUER: [AUDIENCE]}
    push = china.role("PushRole")
    assert push["trust"] == trust(china, GLOBAL_ISSUER, build, "aws-cn")
    assert push["actions"] >= {"ecr:PutImage", "ecr:GetAuthorizationToken"}

    reconciler = china.outputs["ReconcilerRoleArn"]
    world.set(ChinaIssuer=CHINA_ISSUER, ChinaReconcilerRoleArn=reconciler)
    start = world.role("StartRole")
    assert start["trust"] == trust(world, CHINA_ISSUER, reconciler, "aws")
    assert start["actions"] == {"codebuild:StartBuild", "codebuild:BatchGetBuilds"}
    assert {"sts:GetWebIdentityToken", "secretsmanager:GetSecretValue"} <= world.role("CodeBuildRole")["actions"]
    assert world.buildspec() == with_key, "a build tests the role before others use it"

    world.set(ChinaPushRoleArn=china.outputs["PushRoleArn"])
    assert "secretsmanager:GetSecretValue" not in world.role("CodeBuildRole")["actions"]
    assert "ImagePullSecret" not in world.buildspec()
    china.set(GlobalStartRoleArn=world.outputs["StartRoleArn"], GlobalRegion=GLOBAL.region)
    assert variables(china)["G_START_ROLE_ARN"] == world.outputs["StartRoleArn"]
    assert "sts:GetWebIdentityToken" in china.role("ReconcilerRole")["actions"]
    assert "secretsmanager:GetSecretValue" not in china.role("ReconcilerRole")["actions"]

    assert (china.outputs["ImagePushUserName"], world.outputs["ImagePullUserName"]) == users, "the users stay"
    china.set(GlobalStartRoleArn="")
    world.set(ChinaPushRoleArn="")
    assert variables(china)["G_START_ROLE_ARN"] == ""
    assert "sts:GetWebIdentityToken" not in china.role("ReconcilerRole")["actions"]
    assert "secretsmanager:GetSecretValue" in china.role("ReconcilerRole")["actions"]
    assert world.buildspec() == with_key
    assert json.dumps(china.providers()) == json.dumps({GLOBAL_ISSUER: [AUDIENCE]})


def test_a_provider_that_exists_is_used_and_none_is_made_and_none_is_deleted(stacks: tuple[Deployed, Deployed]) -> None:
    china, _ = stacks
    build = stacks[1].outputs["BuildRoleArn"]
    made = china.region.client("iam").create_open_id_connect_provider(
        Url=f"https://{GLOBAL_ISSUER}", ClientIDList=["another", AUDIENCE]
    )["OpenIDConnectProviderArn"]
    china.set(GlobalIssuer=GLOBAL_ISSUER, GlobalBuildRoleArn=build, GlobalProviderArn=made)
    assert china.providers() == {GLOBAL_ISSUER: ["another", AUDIENCE]}
    assert china.role("PushRole")["trust"]["Principal"] == {"Federated": made}
    china.set(GlobalIssuer="")
    assert china.providers() == {GLOBAL_ISSUER: ["another", AUDIENCE]}
    assert "PushRoleArn" not in china.outputs


def test_the_provider_that_a_stack_has_made_stays_without_it(stacks: tuple[Deployed, Deployed]) -> None:
    china, world = stacks
    china.set(GlobalIssuer=GLOBAL_ISSUER, GlobalBuildRoleArn=world.outputs["BuildRoleArn"])
    china.set(GlobalIssuer="")
    assert china.providers() == {GLOBAL_ISSUER: [AUDIENCE]}
