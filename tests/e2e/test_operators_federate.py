"""`image-mirror connect --federate` with both stacks in the emulated AWS, from nothing, from keys, and from half-way.

STS is the modelled one, with the roles and providers as the stacks have them at each moment. Builds run the shipped
buildspec, and the reconciler is the shipped handler with the variables of the stack's function.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from e2e.fakes.codebuild_service import CodeBuildService, Project, Respond, codebuild_service
from e2e.fakes.federation import (
    Account,
    Federation,
    RefusedError,
    Role,
    Session,
    issuers_over_http,
    security_token_service,
)
from e2e.fakes.outbound_federation import ISSUERS
from e2e.fakes.policies import Request as Asked
from e2e.fakes.servers import Answer, Request, serving
from e2e.harness.federated import credentials
from e2e.harness.processes import program
from e2e.harness.stacks import CHINA, GLOBAL
from e2e.test_federation_deployed import Deployed, trust
from e2e.test_federation_deployed import stacks as stacks
from image_mirror.cli import app, consent, probe_builds, stack_updates
from image_mirror.cli.commands import connect as command
from image_mirror.cli.federation import carry_out, examine
from image_mirror.cli.federation.plan import Action
from image_mirror.record import Status, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.table import Records
from support.buildspec_runner import CodeBuild, Reply, Run
from support.operators import PROFILES
from support.operators import refuse as refuse
from support.templates import ROOT

IMAGE = parse_reference("gcr.io/team/app:1")
PROJECT = "arn:aws:codebuild:us-west-2:123456789012:project/ImagePullProject"
BY_HAND = (ROOT / "docs" / "by-hand.md").read_text(encoding="utf-8")
CHINA_ISSUER, GLOBAL_ISSUER = ISSUERS["aws-cn"], ISSUERS["aws"]
_HANDLER = """
import json, sys
from image_mirror import reconciler
class Context:
    def get_remaining_time_in_millis(self): return 120_000
print(json.dumps(reconciler.handler(json.loads(sys.stdin.read()), Context())))
"""


@dataclass
class Both:
    """Both stacks as deployed, and what is around them; `clock` is the commands' own."""

    china: Deployed
    world: Deployed
    federation: Federation
    folder: Path
    service: CodeBuildService | None = None
    sts: str = ""
    actions: list[tuple[Action, str]] = field(default_factory=list)
    clock: Callable[[], float] = time.monotonic

    def connect(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, ["connect", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def federate(self, *arguments: str) -> Result:
        """Federate without a question, which must succeed."""
        done = self.connect("--federate", "--yes", *arguments)
        assert done.exit_code == 0, done.output
        return done

    def parameters(self, stack: Deployed) -> dict[str, str]:
        [found] = stack.region.client("cloudformation").describe_stacks(StackName=stack.name)["Stacks"]
        return {each["ParameterKey"]: each["ParameterValue"] for each in found["Parameters"]}

    def federated(self) -> dict[str, str]:
        """The parameters about federation that are not empty."""
        both = self.parameters(self.china) | self.parameters(self.world)
        names = ("Issuer", "RoleArn", "ProviderArn", "GlobalRegion")
        return {name: value for name, value in both.items() if value and name.endswith(names)}

    def key_ids(self) -> list[list[str]]:
        """The IDs of the keys of both users."""
        users = (self.china, "ImagePushUserName"), (self.world, "ImagePullUserName")
        answers = [
            stack.region.client("iam").list_access_keys(UserName=stack.outputs[name])["AccessKeyMetadata"]
            for stack, name in users
        ]
        return [[each["AccessKeyId"] for each in answer] for answer in answers]

    def adjust(self) -> None:
        """Give the modelled STS the roles and providers that the stacks have now."""
        for account, stack, names in (
            (self.federation.accounts[0], self.china, ("ReconcilerRole", "PushRole")),
            (self.federation.accounts[1], self.world, ("CodeBuildRole", "StartRole")),
        ):
            iam = stack.region.client("iam")
            is_on = True
            try:
                iam.get_outbound_web_identity_federation_info()
            except iam.exceptions.FeatureDisabledException:
                is_on = False
            account.issuer = ISSUERS[account.partition] if is_on else ""
            account.providers = stack.providers()
            account.roles = {}
            summaries = stack.region.client("cloudformation").list_stack_resources(StackName=stack.name)
            ids = {each["LogicalResourceId"] for each in summaries["StackResourceSummaries"]}
            for name in ids & set(names):
                physical = stack.region.resource(stack.name, name)
                role = iam.get_role(RoleName=physical)["Role"]
                account.roles[physical] = Role(
                    role["AssumeRolePolicyDocument"], documents(iam, physical), role["MaxSessionDuration"]
                )

    def build(self, image: str, target: str, **variables: str) -> Run:
        """Run the shipped buildspec; its logins are those of the modelled STS."""
        self.adjust()
        role = variables.get("CHINA_PUSH_ROLE_ARN") or self.parameters(self.world).get("ChinaPushRoleArn", "")
        replies: dict[str, Reply] = {}
        secret = self.world.region.client("secretsmanager").get_secret_value(SecretId="ImagePullSecret")
        if role:
            try:
                own = self.federation.sign_in(self.world.outputs["BuildRoleArn"])
                asked = own, GLOBAL.region, ["image-mirror"], "ES384", 300
                token, _ = self.federation.get_web_identity_token(*asked)
                session = self.federation.assume_role_with_web_identity(role, token, 3600, CHINA.region)
                self.federation.check(session, Asked("ecr:GetAuthorizationToken", "*"))
            except RefusedError as error:
                text = f"An error occurred ({error.code}) when calling an operation: {error.message}"
                replies = {"aws ecr": Reply(status=254, stderr=text)}
        place = self.folder / f"build-{len(os.listdir(self.folder))}"
        place.mkdir()
        given = {name: value for name, value in self.parameters(self.world).items() if value}
        project = CodeBuild(place, parameters=given, secret=json.loads(secret["SecretString"]), replies=replies)
        return project.run(image, target, **variables)

    def invoke(self, request: Request) -> Answer:
        """Run the shipped handler with the variables that the stack's function has now."""
        if not request.path.endswith("/invocations"):
            return Answer(403, b'{"Message": "not emulated"}', {"x-amzn-errortype": "AccessDeniedException"})
        name = self.china.region.resource(self.china.name, "ReconcilerFunction")
        assert request.path.endswith(f"/functions/{name}/invocations")
        self.adjust()
        assert self.service
        found = self.china.region.function(self.china.name, "ReconcilerFunction")["Environment"]["Variables"]
        environment = {
            **found,
            **credentials(self.federation.sign_in(self.china.outputs["ReconcilerRoleArn"], 12 * 3600)),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests"))),
            "AWS_DEFAULT_REGION": CHINA.region,
            "AWS_ENDPOINT_URL": self.china.region.endpoint,
            "AWS_ENDPOINT_URL_STS": self.sts,
            "AWS_ENDPOINT_URL_CODEBUILD": self.service.url,
        }
        done = subprocess.run(
            [sys.executable, "-c", _HANDLER], input=request.body, env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return Answer(200, done.stdout.splitlines()[-1], {"Content-Type": "application/json"})

    def checked(self, respond: Respond) -> Respond:
        """Let sessions call CodeBuild only as their roles may; the operator and the users have keys."""

        def answer(request: Request) -> Answer:
            token = request.headers.get("x-amz-security-token")
            if token:
                key = request.headers["authorization"].partition("Credential=")[2].partition("/")[0]
                operation = request.headers["x-amz-target"].partition(".")[2]
                try:
                    self.federation.check(
                        self.federation.caller(key, token), Asked(f"codebuild:{operation}", PROJECT, {})
                    )
                except RefusedError as error:
                    return Answer(400, json.dumps({"__type": error.code, "message": error.message}).encode())
            return respond(request)

        return answer


def documents(iam: Any, role: str) -> list[Any]:
    """Return the documents of a role's policies."""
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    found = [iam.get_role_policy(RoleName=role, PolicyName=each)["PolicyDocument"] for each in names]
    for each in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        version = iam.get_policy(PolicyArn=each["PolicyArn"])["Policy"]["DefaultVersionId"]
        answer = iam.get_policy_version(PolicyArn=each["PolicyArn"], VersionId=version)
        found.append(answer["PolicyVersion"]["Document"])
    return found


@pytest.fixture
def both(stacks: tuple[Deployed, Deployed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    china, world = stacks
    world.set(ChinaAccountId="123456789012", FastLane="false")
    folder = tmp_path / "builds"
    folder.mkdir()
    accounts = [Account(place.partition, "123456789012", "") for place in (CHINA, GLOBAL)]
    federation = Federation(accounts, time.time)
    found = Both(china, world, federation, folder)
    (tmp_path / "config").write_text(PROFILES)
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with ExitStack() as stack:
        stack.enter_context(issuers_over_http(federation))
        found.sts = stack.enter_context(security_token_service(federation))
        project = Project("ImagePullProject", found.build)
        found.service = stack.enter_context(codebuild_service(project, checked=found.checked))
        functions = stack.enter_context(serving(found.invoke))
        for name, value in {
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "IMAGE_MIRROR_CHINA_PROFILE": "china",
            "IMAGE_MIRROR_GLOBAL_PROFILE": "global",
            "AWS_ENDPOINT_URL": china.region.endpoint,
            "AWS_ENDPOINT_URL_CODEBUILD": found.service.url,
            "AWS_ENDPOINT_URL_LAMBDA": f"http://localhost:{functions}",
        }.items():
            monkeypatch.setenv(name, value)
        # The pauses take no time, and the command's clock is that of its pauses. It looks four times in a minute.
        slept: list[float] = []
        clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
        found.clock = clock.monotonic
        for module in (stack_updates, carry_out):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(carry_out, "_PAUSE", 20.0)
        monkeypatch.setattr(probe_builds, "_PAUSE", 0.2)
        do = carry_out._do

        def recorded(step: Any, *rest: Any, **more: Any) -> Any:
            answer = do(step, *rest, **more)
            found.actions.append((step.action, step.side))
            return answer

        monkeypatch.setattr(carry_out, "_do", recorded)
        yield found


STEPS = [
    (Action.SWITCH_ON, "china"),
    (Action.SWITCH_ON, "global"),
    (Action.TRUST, "china"),
    (Action.TRUST, "global"),
    (Action.USE_PUSH, "global"),
    (Action.USE_START, "china"),
]


def expected(both: Both) -> dict[str, str]:
    """Return the parameters of two stacks that federate."""
    return {
        "GlobalIssuer": GLOBAL_ISSUER,
        "GlobalBuildRoleArn": both.world.outputs["BuildRoleArn"],
        "GlobalStartRoleArn": both.world.outputs["StartRoleArn"],
        "GlobalRegion": "us-west-2",
        "ChinaIssuer": CHINA_ISSUER,
        "ChinaReconcilerRoleArn": both.china.outputs["ReconcilerRoleArn"],
        "ChinaPushRoleArn": both.china.outputs["PushRoleArn"],
    }


def test_two_stacks_without_a_key_federate_and_never_get_one(both: Both) -> None:
    before = both.federated()
    planned = both.connect("--federate", "--dry-run")
    assert (planned.exit_code, both.actions, both.federated()) == (0, [], before)
    assert "china: switch outbound identity federation on; it concerns the whole account" in planned.stdout
    shown = both.connect("--federate")
    assert shown.stdout.endswith("Nothing has been changed; --yes does it.\n")
    assert (shown.exit_code, both.actions, both.federated()) == (0, [], before)

    done = both.federate()
    assert both.actions == STEPS
    assert both.federated() == expected(both)
    assert both.china.providers() == {GLOBAL_ISSUER: ["image-mirror"]}
    assert both.world.providers() == {CHINA_ISSUER: ["image-mirror"]}
    assert (
        "Both accounts are connected; `image-mirror selftest` copies a small image to show it."
        in done.stdout.splitlines()
    )
    assert both.key_ids() == [[], []]
    assert both.service
    [(request, _)] = both.service.tokens.values()
    given = {each["name"]: each["value"] for each in request["environmentVariablesOverride"]}
    assert given == {"COPY_PROBE": "login", "CHINA_PUSH_ROLE_ARN": both.china.outputs["PushRoleArn"]}

    again = both.federate()
    assert again.stdout.endswith("Both accounts are connected; there is nothing to change.\n")
    plain = both.connect()
    assert plain.stdout == (
        "Both directions use roles. No key is needed.\nBoth accounts are connected; there is nothing to change.\n"
    )
    assert (plain.exit_code, both.key_ids(), both.actions) == (0, [[], []], STEPS)


def test_accounts_with_keys_federate_and_their_keys_are_deleted_only_after_a_copy_without_them(both: Both) -> None:
    assert both.connect().exit_code == 0
    keys = both.key_ids()
    assert [len(each) for each in keys] == [1, 1]
    plain = both.connect()
    assert "`image-mirror connect --federate` connects the accounts without keys." in plain.stdout
    assert both.federated() == {}
    done = both.federate()
    assert (both.key_ids(), both.federated()) == (keys, expected(both))
    assert "`image-mirror connect --federate --delete-keys` deletes them." in done.stdout

    assert both.service
    for each in both.service.builds.values():
        each["startTime"] = time.time()
    refused = both.connect("--federate", "--delete-keys", "--yes")
    assert refused.exit_code == 1
    assert "no copy has been made without the keys yet" in refused.stderr
    assert both.key_ids() == keys
    copied(both, initiator=both.world.outputs["ImagePullUserName"])
    assert both.connect("--federate", "--delete-keys", "--yes").exit_code == 1
    copied(both, role="")
    assert both.connect("--federate", "--delete-keys", "--yes").exit_code == 1
    assert both.key_ids() == keys

    copied(both)
    both.service.builds["ImagePullProject:9"] = {**build("ImagePullProject:9", ""), "buildStatus": "IN_PROGRESS"}
    running = both.connect("--federate", "--delete-keys", "--yes")
    assert "builds that have the key are still running (ImagePullProject:9)" in running.stderr
    assert (running.exit_code, both.key_ids()) == (1, keys)
    del both.service.builds["ImagePullProject:9"]

    copied(both, startTime=time.time() - 3600)
    for each in list(both.service.builds.values())[:-1]:
        each["buildStatus"] = "FAILED"
    used = both.connect("--federate", "--delete-keys", "--yes")
    assert f"key ...{keys[0][0][-4:]} of {both.china.outputs['ImagePushUserName']} (china) was used at" in used.stderr
    assert "if another stack uses it, federate that one first" in used.stderr
    assert (used.exit_code, both.key_ids()) == (1, keys)
    copied(both)

    iam = both.china.region.client("iam")
    user = both.china.outputs["ImagePushUserName"]
    other = iam.create_access_key(UserName=user)["AccessKey"]["AccessKeyId"]
    deleted = both.federate("--delete-keys")
    assert both.key_ids() == [[other], []]
    assert f"{user} (china): deleted key ...{keys[0][0][-4:]}" in deleted.stdout.splitlines()
    assert f"key ...{other[-4:]} (active" in deleted.stdout
    assert all(key not in deleted.output for ids in keys for key in ids)


def build(name: str, role: str) -> dict[str, Any]:
    variables = {"CHINA_PUSH_ROLE_ARN": role, "NEW_DOCKER_IMAGE": "r.example/mirror/gcr.io/team/app:1"}
    return {
        "id": name,
        "buildStatus": "SUCCEEDED",
        "currentPhase": "COMPLETED",
        "startTime": 1_800_000_000.0,
        "initiator": "image-pulling-StartRole-1A2B3C/image-mirror",
        "environment": {"environmentVariables": [{"name": name, "value": value} for name, value in variables.items()]},
    }


def copied(both: Both, role: str | None = None, **more: Any) -> None:
    """Write the record of a copy, and the build that made it: by this role, with more entries of the build."""
    assert both.service
    name = f"ImagePullProject:{len(both.service.builds)}"
    both.service.builds[name] = build(name, both.china.outputs["PushRoleArn"] if role is None else role) | more
    records = Records(both.china.region.client("dynamodb"), "ImageListTable")
    requested = new_record(destination_of(IMAGE, "r.example", "mirror"), IMAGE, 1_800_000_000_000)
    existing = records.create(requested)
    record = replace(requested, status=Status.COPIED, build_id=name, digest="sha256:" + "a" * 64)
    assert records.replace(existing, record) is record


@pytest.mark.parametrize("done", range(len(STEPS)))
def test_after_ctrl_c_the_same_command_goes_on_with_the_step_that_is_left(
    both: Both, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    do = carry_out._do

    def interrupted(*arguments: Any, **more: Any) -> Any:
        if len(both.actions) == done:
            raise KeyboardInterrupt
        return do(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(carry_out, "_do", interrupted)
        first = both.connect("--federate", "--yes")
    assert first.exit_code == 130
    assert first.stderr.splitlines()[-1].endswith("To continue, run the same command.")
    assert both.actions == STEPS[:done]
    both.federate()
    assert both.actions == STEPS, "no step is done twice"
    assert both.federated() == expected(both)


UPDATES = [step for step in STEPS if step[0] is not Action.SWITCH_ON]
"""The steps that update a stack."""


@pytest.mark.parametrize("number", range(len(UPDATES)))
def test_accounts_with_keys_federate_also_if_ctrl_c_comes_while_a_stack_is_updated(
    both: Both, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert both.connect().exit_code == 0
    keys, waited = both.key_ids(), []

    def wait_or_be_interrupted(*arguments: Any) -> None:
        waited.append(arguments)
        if len(waited) > number:
            raise KeyboardInterrupt
        wait(*arguments)

    wait = stack_updates._wait
    with monkeypatch.context() as patched:
        patched.setattr(stack_updates, "_wait", wait_or_be_interrupted)
        assert both.connect("--federate", "--yes").exit_code == 130
    both.federate()
    # The update has ended by itself, and what the reconciler answers first proves its role.
    others = [step for step in STEPS if step != UPDATES[number]]
    assert (both.actions, both.federated(), both.key_ids()) == (others, expected(both), keys)


def change_audience(stack: Deployed, change: str) -> None:
    """Add the audience to the account's one provider, or remove it, by hand."""
    iam = stack.region.client("iam")
    [provider] = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    given = {"OpenIDConnectProviderArn": provider["Arn"], "ClientID": "image-mirror"}
    getattr(iam, f"{change}_open_id_connect_provider")(**given)


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def without_trust(stack: Deployed, role: str) -> None:
    """Make a role of a stack trust somebody else, by hand."""
    statement = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    name = stack.region.resource(stack.name, role)
    stack.region.client("iam").update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(document))


def test_a_role_that_was_set_and_not_proven_is_proven_by_the_next_run_and_taken_back_if_it_does_not_work(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(carry_out, "_proven", interrupt)
        assert both.connect("--federate", "--yes").exit_code == 130
    assert both.federated() == expected(both)
    without_trust(both.world, "StartRole")
    failed = both.connect("--federate", "--yes")
    assert failed.exit_code == 1
    start = both.world.outputs["StartRoleArn"]
    [error] = [line for line in failed.stderr.splitlines() if line.startswith("Error: ")]
    assert error.startswith(
        f"Error: the reconciler does not use {start}: federation: {start} does not exist or does not"
    )
    assert both.federated() == {name: each for name, each in expected(both).items() if name != "GlobalStartRoleArn"}
    assert "china: GlobalStartRoleArn of the stack image-mirror is empty again" in failed.stdout.splitlines()


@pytest.mark.parametrize(
    ("stack", "parameter", "stale"),
    [
        pytest.param("world", "ChinaPushRoleArn", "arn:aws-cn:iam::123456789012:role/of-a-deleted-stack", id="push"),
        pytest.param("china", "GlobalStartRoleArn", "arn:aws:iam::123456789012:role/of-a-deleted-stack", id="start"),
    ],
)
def test_a_role_of_a_deleted_stack_is_taken_back_alone_if_the_new_one_does_not_work(
    both: Both, stack: str, parameter: str, stale: str
) -> None:
    both.federate()
    keys, providers = both.key_ids(), [each.providers() for each in (both.china, both.world)]
    using, trusting = (both.world, both.china) if stack == "world" else (both.china, both.world)
    using.set(**{parameter: stale})
    without_trust(trusting, "PushRole" if stack == "world" else "StartRole")
    failed = both.connect("--federate", "--yes")
    assert failed.exit_code == 1
    assert both.federated() == {name: value for name, value in expected(both).items() if name != parameter}
    assert f"{parameter} of the stack {using.name} is empty again" in failed.stdout
    assert (both.key_ids(), [each.providers() for each in (both.china, both.world)]) == (keys, providers)
    assert both.actions == STEPS, "no step has succeeded since"


def test_what_cannot_be_taken_back_is_told_and_the_reason_is_that_of_the_proof(
    both: Both, refuse: Callable[..., None]
) -> None:
    both.federate()
    without_trust(both.world, "StartRole")
    refuse("cloudformation", "UpdateStack")
    failed = both.connect("--federate", "--yes")
    assert failed.exit_code == 1
    assert "china: GlobalStartRoleArn could not be taken back: the stack image-mirror is not updated" in failed.stdout
    [error] = [line for line in failed.stderr.splitlines() if line.startswith("Error: ")]
    assert "the reconciler does not use " in error
    assert both.federated() == expected(both)


def unknown_at_first(both: Both, monkeypatch: pytest.MonkeyPatch, role: str, times: int) -> None:
    """Let STS not know a role the first times that it is asked for it."""
    adjust, asked = both.adjust, []

    def late() -> None:
        adjust()
        for account in both.federation.accounts:
            for name in [each for each in account.roles if f"-{role}-" in each]:
                asked.append(name)
                if len(asked) <= times:
                    del account.roles[name]

    monkeypatch.setattr(both, "adjust", late)


def test_a_new_role_may_be_unknown_to_sts_for_a_minute(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown_at_first(both, monkeypatch, "PushRole", 1)
    done = both.federate()
    assert "a new role can be unknown for a minute, so it is tried once more" in done.stdout
    assert both.federated() == expected(both)


@pytest.mark.parametrize(
    ("seconds", "code"), [pytest.param(55, 0, id="known then"), pytest.param(65, 1, id="still unknown")]
)
def test_the_reconciler_is_asked_for_a_minute_whether_it_can_use_its_role(
    both: Both, monkeypatch: pytest.MonkeyPatch, seconds: float, code: int
) -> None:
    prove, adjust, began = carry_out._proven, both.adjust, list[float]()

    def timed(*arguments: Any) -> Any:
        began.append(both.clock())
        return prove(*arguments)

    def late() -> None:
        adjust()
        if began and both.clock() - began[0] < seconds:
            both.federation.accounts[1].roles.clear()

    monkeypatch.setattr(carry_out, "_proven", timed)
    monkeypatch.setattr(both, "adjust", late)
    assert both.connect("--federate", "--yes").exit_code == code
    assert ("GlobalStartRoleArn" in both.federated()) is (code == 0)
    assert both.federated().keys() >= {"ChinaIssuer", "GlobalIssuer", "ChinaPushRoleArn"}


@pytest.mark.parametrize(
    ("looks", "code"), [pytest.param(5, 0, id="seen then"), pytest.param(6, 1, id="still not seen")]
)
def test_a_change_of_iam_may_be_seen_a_minute_later(
    both: Both, monkeypatch: pytest.MonkeyPatch, looks: int, code: int
) -> None:
    """Here an account is looked at twice before the first step, and then four times in a minute."""
    seen, look = [], examine.issuer_of

    def late(account: Any) -> str | None:
        seen.append(account.side)
        return None if seen.count("china") <= looks else look(account)

    monkeypatch.setattr(examine, "issuer_of", late)
    done = both.connect("--federate", "--yes")
    assert done.exit_code == code
    if code:
        assert "a minute later, this is still to be done: china: switch outbound identity federation on" in done.stderr
    assert both.actions == (STEPS[:1] if code else STEPS), "it is not switched on twice"


def test_builds_do_not_use_a_role_that_cannot_log_in(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    use = carry_out._use_push

    def sabotaged(*arguments: Any, **more: Any) -> None:
        without_trust(both.china, "PushRole")
        use(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(carry_out, "_use_push", sabotaged)
        failed = both.connect("--federate", "--yes")
    assert failed.exit_code == 1
    push = both.china.outputs["PushRoleArn"]
    [error] = [line for line in failed.stderr.splitlines() if line.startswith("Error: ")]
    assert error.startswith(f"Error: builds do not use {push}: the probe ImagePullProject:")
    assert "TARGET_LOGIN: An error occurred (AccessDenied)" in error
    kept = ("GlobalIssuer", "GlobalBuildRoleArn", "ChinaIssuer", "ChinaReconcilerRoleArn")
    assert both.federated() == {name: each for name, each in expected(both).items() if name in kept}
    assert both.service
    assert len(both.service.builds) == 2, "a new role can be unknown for a minute"
    assert both.actions == STEPS[:4]
    trusting = trust(both.china, GLOBAL_ISSUER, both.world.outputs["BuildRoleArn"], "aws-cn")
    name = both.china.region.resource(both.china.name, "PushRole")
    both.china.region.client("iam").update_assume_role_policy(
        RoleName=name, PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trusting]})
    )
    both.federate()
    assert (both.actions, both.federated()) == (STEPS, expected(both)), "it goes on where it stopped"


def test_a_provider_that_an_account_has_is_used_and_gets_the_audience(both: Both) -> None:
    arns = {}
    for stack, issuer in ((both.china, GLOBAL_ISSUER), (both.world, CHINA_ISSUER)):
        iam = stack.region.client("iam")
        made = iam.create_open_id_connect_provider(Url=f"https://{issuer}", ClientIDList=["another"])
        arns[stack.name] = made["OpenIDConnectProviderArn"]
    both.federate()
    assert both.china.providers() == {GLOBAL_ISSUER: ["another", "image-mirror"]}
    assert both.world.providers() == {CHINA_ISSUER: ["another", "image-mirror"]}
    used = {"GlobalProviderArn": arns["image-mirror"], "ChinaProviderArn": arns["image-pulling"]}
    assert both.federated() == expected(both) | used
    assert (
        both.actions.count((Action.ADD_AUDIENCE, "china")) == both.actions.count((Action.ADD_AUDIENCE, "global")) == 1
    )


def test_a_provider_that_another_stack_makes_while_the_operator_reads_the_plan_is_used(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stack in (both.china, both.world):
        stack.region.client("iam").enable_outbound_web_identity_federation()
    iam = both.china.region.client("iam")

    def think(_: str, **__: bool) -> bool:
        iam.create_open_id_connect_provider(Url=f"https://{GLOBAL_ISSUER}", ClientIDList=["image-mirror"])
        return True

    monkeypatch.setattr(consent, "is_terminal", lambda: True)
    monkeypatch.setattr(consent, "ask", think)
    done = both.connect("--federate")
    assert done.exit_code == 0, done.output
    [provider] = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    assert both.federated() == expected(both) | {"GlobalProviderArn": provider["Arn"]}


def test_an_audience_that_was_removed_is_added_again(both: Both) -> None:
    both.federate()
    change_audience(both.world, "remove_client_id_from")
    del both.actions[:]
    both.federate()
    assert both.actions[0] == (Action.ADD_AUDIENCE, "global")
    assert both.world.providers() == {CHINA_ISSUER: ["image-mirror"]}
    assert both.federated() == expected(both)


def test_half_federated_accounts_get_no_key_by_accident(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(carry_out, "_use_start", interrupt)
        assert both.connect("--federate", "--yes").exit_code == 130
    assert both.federated().keys() >= {"ChinaPushRoleArn"}
    plain = both.connect()
    assert plain.exit_code == 1
    assert "one direction uses a role already; run `image-mirror connect --federate`, or with --keys" in plain.stderr
    assert both.key_ids() == [[], []]
    assert both.connect("--keys").exit_code == 0
    assert [len(each) for each in both.key_ids()] == [1, 1]


@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        pytest.param("iam", "GetOutboundWebIdentityFederationInfo", 3, id="to read the issuer"),
        pytest.param("iam", "GetOpenIDConnectProvider", 3, id="to read a provider"),
        pytest.param("iam", "AddClientIDToOpenIDConnectProvider", 3, id="to add the audience"),
        pytest.param("codebuild", "BatchGetBuilds", 1, id="to follow the probe"),
        pytest.param("iam", "EnableOutboundWebIdentityFederation", 3, id="to switch federation on"),
        pytest.param("iam", "ListOpenIDConnectProviders", 3, id="to list providers"),
        pytest.param("lambda", "Invoke", 3, id="to invoke the reconciler"),
        pytest.param("cloudformation", "UpdateStack", 1, id="to update a stack"),
        pytest.param("codebuild", "StartBuild", 1, id="to start the probe"),
    ],
)
def test_a_permission_that_is_missing_is_named_with_the_way_by_hand(
    both: Both, refuse: Callable[..., None], service: str, operation: str, code: int
) -> None:
    for stack, issuer in ((both.china, GLOBAL_ISSUER), (both.world, CHINA_ISSUER)):
        iam = stack.region.client("iam")
        iam.create_open_id_connect_provider(Url=f"https://{issuer}", ClientIDList=["another"])
    refuse(service, operation)
    done = both.connect("--federate", "--yes")
    assert done.exit_code == code
    [error] = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert f"{service}:{operation}" in error
    assert error.endswith("or see docs/by-hand.md")


def on_a_terminal(both: Both, monkeypatch: pytest.MonkeyPatch, answers: str) -> Result:
    """Run plain `connect` as on a terminal on which these lines are typed."""
    with monkeypatch.context() as patched:
        for each in (command, consent):
            patched.setattr(each, "is_terminal", lambda: True)
        result = CliRunner().invoke(app, ["connect"], input=answers)
    assert both.service
    return result


def test_accounts_without_keys_are_offered_federation_first(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    offer = "There are no keys yet. Connect the accounts by federation, which needs none?"
    changed_their_mind = on_a_terminal(both, monkeypatch, "y\nn\n")
    assert offer in changed_their_mind.stdout
    assert changed_their_mind.stdout.endswith("Nothing has been changed.\n")
    assert (changed_their_mind.exit_code, both.key_ids(), both.federated()) == (0, [[], []], {})
    assert on_a_terminal(both, monkeypatch, "y\ny\n").exit_code == 0
    assert (both.key_ids(), both.federated()) == ([[], []], expected(both))
    assert offer not in on_a_terminal(both, monkeypatch, "").stdout


def test_who_declines_federation_gets_keys(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_a_terminal(both, monkeypatch, "n\n").exit_code == 0
    assert ([len(each) for each in both.key_ids()], both.federated()) == ([1, 1], {})
    with_keys = on_a_terminal(both, monkeypatch, "")
    assert with_keys.stdout.endswith("Both accounts are connected; there is nothing to change.\n")


def test_accounts_without_users_for_keys_can_only_federate(both: Both) -> None:
    both.china.set(AccessKeyUsers="false")
    both.world.set(AccessKeyUsers="false")
    plain = both.connect()
    assert plain.exit_code == 1
    assert "there is no user for keys (AccessKeyUsers is false); run `image-mirror connect --federate`" in plain.stderr
    both.federate("--delete-keys")
    assert both.federated() == expected(both)


class Shell:
    """A shell that runs commands of a page block by block, with the stacks' outputs in the place of <NAMES>."""

    def __init__(self, both: Both) -> None:
        self._both = both
        program("aws", "pip install awscli")
        self._process = subprocess.Popen(
            ["bash", "-uo", "pipefail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, block: str) -> str:
        """Run a block, and return what it prints."""
        known = self._both.china.outputs | self._both.world.outputs
        commands = re.sub(r"<([A-Za-z]+)>", lambda found: known[found[1]], block)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{commands}\necho END $?\n")
        self._process.stdin.flush()
        lines: list[str] = []
        for line in self._process.stdout:
            if line.startswith("END "):
                return "".join(lines) + line
            lines.append(line)
        pytest.fail(f"the shell has ended: {lines}")

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def test_the_way_by_hand_leads_to_the_same(both: Both) -> None:
    section = BY_HAND.partition("\n## Without keys: federation\n")[2].partition("\n## ")[0]
    switch_on, look, trust, probe, use, take_back = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    start, watch = re.split(r"^(?=aws codebuild batch-get-builds)", probe, flags=re.MULTILINE)
    with Shell(both) as shell:
        assert shell.run(switch_on).endswith("END 0\n")
        assert "FeatureEnabled" in shell.run(switch_on)
        assert shell.run(look).splitlines() == ["none in China", "none", "END 0"]
        assert shell.run(trust).endswith("END 0\n")
        assert "oidc-provider/" in shell.run(look)
        shell.run(start)
        assert both.service
        both.service.wait()
        assert shell.run(watch).split() == ["SUCCEEDED", "COMPLETED", "PROBED", "END", "0"]
        answer = shell.run(use)
        assert both.federated() == expected(both)
        assert f'{{"probe": {{"role": "{both.world.outputs["StartRoleArn"]}", "error": null}}}}' in answer
        assert both.connect("--federate").stdout.endswith("Both accounts are connected; there is nothing to change.\n")
        shell.run(take_back)
    assert "GlobalStartRoleArn" not in both.federated()


def test_sessions_that_were_made_before_are_ended_by_hand(both: Both) -> None:
    both.federate()
    section = BY_HAND.partition("\n## Ending stolen sessions\n")[2].partition("\n## ")[0]
    [end_sessions] = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    asked = {
        "PushRoleArn": Asked("ecr:GetAuthorizationToken", "*"),
        "StartRoleArn": Asked("codebuild:BatchGetBuilds", PROJECT),
    }
    arns = both.china.outputs | both.world.outputs

    def sessions(seconds: int) -> dict[str, Session]:
        """Return a session of each role, made so many seconds from now."""
        both.federation.clock = lambda: time.time() + seconds
        return {name: both.federation.sign_in(arns[name]) for name in asked}

    both.adjust()
    stolen = sessions(-60)
    for name, request in asked.items():
        both.federation.check(stolen[name], request)
    with Shell(both) as shell:
        assert shell.run(end_sessions).endswith("END 0\n")
    both.adjust()
    later = sessions(60)
    for name, request in asked.items():
        with pytest.raises(RefusedError, match="explicit deny"):
            both.federation.check(stolen[name], request)
        both.federation.check(later[name], request)


def examined(both: Both, *topics: str) -> list[tuple[str, str]]:
    """Return the state and the text of doctor's rows about these topics."""
    done = CliRunner().invoke(app, ["doctor", "--output", "json"])
    rows = [each for each in json.loads(done.stdout) if each["topic"].startswith(topics)]
    assert both.service
    return [(each["state"], each["found"]) for each in rows]


def test_doctor_finds_nothing_wrong_with_accounts_that_federate_and_names_what_was_changed_by_hand(
    both: Both, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    [keys] = examined(both, "federation")
    assert keys == ("ok", "not used: the accounts reach each other by keys")
    both.federate()
    push, start = both.china.outputs["PushRoleArn"], both.world.outputs["StartRoleArn"]
    assert examined(both, "federation") == [
        ("ok", "both directions use roles, and no key"),
        ("ok", f"{push} trusts {both.world.outputs['BuildRoleArn']} alone, by {GLOBAL_ISSUER}"),
        ("ok", f"{start} trusts {both.china.outputs['ReconcilerRoleArn']} alone, by {CHINA_ISSUER}"),
        ("ok", f"the reconciler calls CodeBuild by {start}"),
    ]
    assert examined(both, "GlobalAKSK", "ImagePullSecret") == [], "nothing uses a key"

    iam = both.china.region.client("iam")
    iam.create_access_key(UserName=both.china.outputs["ImagePushUserName"])
    change_audience(both.china, "remove_client_id_from")
    without_trust(both.world, "StartRole")
    requested = new_record(destination_of(IMAGE, "r.example", "mirror"), IMAGE, int(time.time() * 1000))
    reason = "TARGET_LOGIN: An error occurred (AccessDenied) when calling the GetAuthorizationToken operation"
    Records(both.china.region.client("dynamodb"), "ImageListTable").create(replace(requested, error=reason))
    (tmp_path / "samconfig.toml").write_text("[default.deploy.parameters]\nparameter_overrides = 'GlobalIssuer=\"\"'\n")
    unwell = [found for state, found in examined(both, "federation") if state != "ok"]
    assert len(unwell) == 6
    for words in (
        "lacks the audience image-mirror",
        f"the trust policy of {start} is not that of the template",
        f"the reconciler cannot call CodeBuild: federation: {start} does not exist or does not trust",
        f"a copy waits because an exchange has failed, the last time with: {reason}",
        "keys that nothing needs: ...",
        "samconfig.toml sets GlobalIssuer to empty",
    ):
        assert [each for each in unwell if words in each], unwell
