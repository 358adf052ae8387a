"""`image-mirror connect` where the global stack has a fast lane that China's stack does not use yet."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

from image_mirror.cli import app, probe_builds, stack_updates
from support.operators import CHINA_OUTPUTS, FAST_PROJECT, GLOBAL_OUTPUTS, TOKEN, Operated, Reply

Json = dict[str, Any]
Answer = Callable[[str, str, Reply], None]
Refuse = Callable[..., None]
BUILD = f"{FAST_PROJECT}:12345678-0000-4000-8000-000000000000"
PROBED = {"buildStatus": "SUCCEEDED", "exportedEnvironmentVariables": [{"name": "COPY_RESULT", "value": "PROBED"}]}
QUEUED = {"buildStatus": "IN_PROGRESS", "currentPhase": "QUEUED"}
RULES = "gcr.io quay.io"
QUOTA = "--service-code codebuild --quota-code L-1DFDD5F9 --desired-value 10"


@dataclass
class Lane:
    """Both stacks, and CodeBuild: `looks` is what BatchGetBuilds answers in turn, the last one for ever.

    `started` and `stopped` are the requests that it got.
    """

    operated: Operated
    looks: list[Json] = field(default_factory=lambda: [PROBED])
    started: list[Json] = field(default_factory=list)
    stopped: list[Json] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    when_asleep: Callable[[], None] = lambda: None

    def connect(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, ["connect", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def parameters(self) -> dict[str, str]:
        client: Any = boto3.client("cloudformation", region_name="cn-northwest-1")
        [stack] = client.describe_stacks(StackName="image-mirror")["Stacks"]
        return {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}

    def start(self, asked: Json) -> Json:
        self.started.append(asked)
        return {"build": {"id": BUILD, "buildStatus": "IN_PROGRESS", "currentPhase": "SUBMITTED"}}

    def look(self, asked: Json) -> Json:
        if asked["ids"] != [BUILD]:
            return {"builds": []}  # the test of a key
        now = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return {"builds": [{"id": BUILD, **now}] if now else []}

    def stop(self, asked: Json) -> Json:
        self.stopped.append(asked)
        return {}

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.when_asleep()


@pytest.fixture
def lane(operated: Operated, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> Lane:
    """Both stacks and no keys; the clock of the fast lane is advanced only by the command's own pauses."""
    arn = operated.global_secrets.describe_secret(SecretId="ImagePullSecret")["ARN"]
    outputs = GLOBAL_OUTPUTS | {"ImagePullSecretArn": arn, "FastProjectName": FAST_PROJECT}
    operated.deploy("image-pulling.yaml", "us-west-2", "image-pulling", outputs, ChinaAccountId="123456789012")
    given = {"WebhookToken": TOKEN, "MirrorRules": RULES}
    operated.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, **given)
    operated.cloud.secrets.delete_secret(SecretId="GlobalAKSK", ForceDeleteWithoutRecovery=True)
    found = Lane(operated)
    for operation, reply in (("StartBuild", found.start), ("BatchGetBuilds", found.look), ("StopBuild", found.stop)):
        answer("codebuild", operation, reply)
    clock = SimpleNamespace(monotonic=lambda: sum(found.slept), sleep=found.sleep)
    for module in (probe_builds, stack_updates):
        monkeypatch.setattr(module, "time", clock)
    return found


def test_a_probe_runs_after_the_keys_work_and_then_one_parameter_of_chinas_stack_is_changed(lane: Lane) -> None:
    before = lane.parameters()
    lane.looks = [{}, QUEUED, {"buildStatus": "IN_PROGRESS", "currentPhase": "BUILD"}, PROBED]
    done = lane.connect()
    assert done.exit_code == 0
    assert done.stderr.splitlines() == ["Waiting for the update of the stack image-mirror, at most 10 minutes ..."]
    lines = done.stdout.splitlines()
    assert lines[
        lines.index("Both accounts are connected; `image-mirror selftest` copies a small image to show it.") + 1 :
    ] == [
        f"fast lane: started the probe {BUILD}; it has 5 minutes",
        "fast lane: the probe is SUBMITTED",
        "fast lane: the probe is QUEUED",
        "fast lane: the probe is BUILD",
        "fast lane: the probe has logged in to ECR",
        "fast lane: began to update the stack image-mirror (china)",
        f"fast lane: the stack image-mirror (china) uses {FAST_PROJECT}",
    ]
    [asked] = lane.started
    assert asked["projectName"] == FAST_PROJECT
    assert asked["environmentVariablesOverride"] == [{"name": "COPY_PROBE", "value": "login", "type": "PLAINTEXT"}]
    assert before["GlobalFastProjectName"] == ""
    assert lane.parameters() == before | {"GlobalFastProjectName": FAST_PROJECT}
    assert (before["MirrorRules"], before["WebhookToken"]) == (RULES, TOKEN)
    again = lane.connect()
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout.splitlines()[-1] == "Both accounts are connected; there is nothing to change."
    assert (len(lane.started), lane.stopped) == (1, [])


def test_the_update_keeps_the_template_and_all_other_values(lane: Lane, answer: Answer) -> None:
    asked: list[Json] = []
    answer("cloudformation", "UpdateStack", lambda request: asked.append(request) or {})  # type: ignore[func-returns-value]
    done = lane.connect()
    assert "GlobalFastProjectName of the stack image-mirror is empty after the update" in done.stderr
    [request] = asked
    assert request["UsePreviousTemplate"] == "true"
    capabilities = {value for name, value in request.items() if name.startswith("Capabilities.member.")}
    assert capabilities == {"CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"}
    names = {value for name, value in request.items() if name.endswith(".ParameterKey")}
    assert names == set(lane.parameters())
    assert [value for name, value in request.items() if name.endswith(".ParameterValue")] == [FAST_PROJECT]
    kept = [value for name, value in request.items() if name.endswith(".UsePreviousValue")]
    assert kept == ["true"] * (len(names) - 1)
    assert not {"Tags", "RoleARN", "NotificationARNs"} & {name.partition(".")[0] for name in request}


def test_a_dry_run_says_what_would_be_done_and_starts_no_build(lane: Lane) -> None:
    planned = lane.connect("--dry-run").stdout.splitlines()
    expected = [
        f"  fast lane: start a build of {FAST_PROJECT} that only logs in to ECR, as a probe (at most 5 minutes)",
        f"  fast lane: when it has succeeded, set GlobalFastProjectName={FAST_PROJECT} in the stack image-mirror "
        "(china), and change nothing else there",
    ]
    assert planned[-2:] == expected
    assert any("create a key" in line for line in planned)
    assert lane.started == []
    lane.looks = [{"buildStatus": "FAULT"}]
    lane.connect()
    assert lane.connect("--dry-run").stdout.splitlines()[-3:] == ["To do; with --dry-run nothing is done:", *expected]
    assert (len(lane.started), lane.parameters()["GlobalFastProjectName"]) == (1, "")


NOTE = "Note: copies are made in one lane, and the fast lane is not used: "


def not_used(lane: Lane, done: Result) -> str:
    """Return the note, after a check that the keys were stored all the same and the stack was not changed."""
    assert done.exit_code == 0
    assert (
        "Both accounts are connected; `image-mirror selftest` copies a small image to show it."
        in done.stdout.splitlines()
    )
    assert lane.operated.cloud.secrets.get_secret_value(SecretId="GlobalAKSK")["SecretString"]
    assert lane.parameters()["GlobalFastProjectName"] == ""
    note = done.stderr.splitlines()[-1]
    assert note.startswith(NOTE)
    return note.removeprefix(NOTE)


def test_a_probe_that_fails_leaves_one_lane_and_says_why(lane: Lane) -> None:
    phase = {"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [{"message": "exit status 41"}]}
    lane.looks = [QUEUED, {"buildStatus": "FAILED", "phases": [phase]}]
    note = not_used(lane, lane.connect())
    assert note == f"the probe {BUILD} failed: TARGET_LOGIN: exit status 41; when that is corrected, run this again"
    assert lane.stopped == []


def test_a_probe_that_stays_in_the_queue_is_stopped_after_five_minutes(lane: Lane) -> None:
    lane.looks = [QUEUED]
    note = not_used(lane, lane.connect())
    assert note.startswith(f"the probe was still QUEUED after 5 minutes; the probe {BUILD} is stopped; ask for builds")
    assert f"--profile global --region us-west-2 {QUOTA}`; then run this again" in note
    assert [each["id"] for each in lane.stopped] == [BUILD]
    assert 300 <= sum(lane.slept) < 310


def test_a_probe_that_runs_for_too_long_is_stopped_too_and_the_quota_is_not_the_cause(lane: Lane) -> None:
    lane.looks = [{"buildStatus": "IN_PROGRESS", "currentPhase": "BUILD"}]
    note = not_used(lane, lane.connect())
    assert note == f"the probe was still BUILD after 5 minutes; the probe {BUILD} is stopped; later, run this again"


def test_an_account_without_such_builds_is_told_how_to_ask_for_them(lane: Lane, refuse: Refuse) -> None:
    text = "Cannot have more than 0 builds in queue for the account"
    refuse("codebuild", "StartBuild", "AccountLimitExceededException", text)
    note = not_used(lane, lane.connect())
    assert f"StartBuild: AccountLimitExceededException: {text}" in note
    assert f"{QUOTA}`; then run this again" in note
    assert lane.stopped == []


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        pytest.param("codebuild", "StartBuild", id="the-probe"),
        pytest.param("cloudformation", "UpdateStack", id="the-update"),
    ],
)
def test_without_a_permission_the_note_names_it_and_the_way_by_hand(
    lane: Lane, refuse: Refuse, service: str, operation: str
) -> None:
    refuse(service, operation)
    note = not_used(lane, lane.connect())
    assert f"not authorized to perform: {service}:{operation}; ask for this permission, or name another profile" in note
    assert note.endswith("; or see docs/by-hand.md")


def test_without_the_permission_to_look_at_it_the_probe_is_stopped(lane: Lane, answer: Answer) -> None:
    denied = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}
    answer("codebuild", "BatchGetBuilds", lambda asked: denied if asked["ids"] == [BUILD] else {"builds": []})
    done = lane.connect()
    assert "BatchGetBuilds: AccessDeniedException" in not_used(lane, done)
    assert f"the probe {BUILD} is stopped" in done.stderr.splitlines()


@pytest.mark.parametrize(
    ("can_stop", "said"),
    [
        pytest.param(True, f"the probe {BUILD} is stopped", id="stopped"),
        pytest.param(False, f"the probe {BUILD} could not be stopped (", id="not-permitted-to-stop-it"),
    ],
)
def test_ctrl_c_during_the_probe_leaves_all_as_it_is_and_says_what_became_of_the_build(
    lane: Lane, refuse: Refuse, can_stop: bool, said: str
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    lane.when_asleep = interrupt
    if not can_stop:
        refuse("codebuild", "StopBuild")
    done = lane.connect()
    assert done.exit_code == 130
    stopped, last = done.stderr.splitlines()
    assert stopped.startswith(said)
    assert last == "Both accounts are connected. To continue with the fast lane, run the same command."
    assert (len(lane.stopped), lane.parameters()["GlobalFastProjectName"]) == (int(can_stop), "")
    lane.when_asleep = lambda: None
    assert lane.connect().exit_code == 0
    assert lane.parameters()["GlobalFastProjectName"] == FAST_PROJECT


def test_ctrl_c_during_the_update_says_that_it_goes_on(lane: Lane) -> None:
    def interrupt() -> None:
        if lane.parameters()["GlobalFastProjectName"]:
            raise KeyboardInterrupt

    lane.when_asleep = interrupt
    done = lane.connect()
    assert done.exit_code == 130
    assert (
        "The update of the stack image-mirror continues; see `aws cloudformation describe-stack-events" in done.stderr
    )
    assert lane.stopped == []


def status_of_the_update(answer: Answer, *statuses: str, project: str = "") -> None:
    """Make an UpdateStack after which the stack uses `project`, and is in each of these statuses in turn."""
    client: Any = boto3.client("cloudformation", region_name="cn-northwest-1")
    [found] = client.describe_stacks(StackName="image-mirror")["Stacks"]
    left = list(statuses)
    given = {each["ParameterKey"]: each["ParameterValue"] for each in found["Parameters"]}
    given["GlobalFastProjectName"] = project
    found["Parameters"] = [{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()]

    def update(_: Json) -> Json:
        def describe(asked: Json) -> Json:
            status = left.pop(0) if len(left) > 1 else left[0]
            assert asked["StackName"] == "image-mirror"
            return {"Stacks": [{**found, "StackStatus": status}]}

        answer("cloudformation", "DescribeStacks", describe)
        return {}

    answer("cloudformation", "UpdateStack", update)


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        pytest.param(
            ["UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS"],
            "the update has failed: the stack image-mirror is UPDATE_ROLLBACK_IN_PROGRESS; see `aws cloudformation "
            "describe-stack-events --profile china --region cn-northwest-1 --stack-name image-mirror`",
            id="rolled-back",
        ),
        pytest.param(
            ["UPDATE_IN_PROGRESS"],
            "the stack image-mirror is still UPDATE_IN_PROGRESS after 10 minutes; see `aws cloudformation ",
            id="too-slow",
        ),
    ],
)
def test_an_update_that_does_not_succeed_is_named_with_its_events(
    lane: Lane, answer: Answer, statuses: list[str], words: str
) -> None:
    status_of_the_update(answer, *statuses)
    done = lane.connect()
    assert done.exit_code == 0
    assert done.stderr.splitlines()[-1].startswith(NOTE + words)
    assert sum(lane.slept) < 1000


@pytest.mark.parametrize(
    ("statuses", "least"),
    [
        pytest.param(["UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"] * 5 + ["UPDATE_COMPLETE"], 15, id="it ends"),
        pytest.param(["UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"], 600, id="it takes long"),
    ],
)
def test_a_stack_that_cleans_up_is_waited_for_because_it_accepts_no_other_update(
    lane: Lane, answer: Answer, statuses: list[str], least: int
) -> None:
    status_of_the_update(answer, *statuses, project=FAST_PROJECT)
    done = lane.connect()
    assert done.exit_code == 0
    assert done.stdout.endswith(f"fast lane: the stack image-mirror (china) uses {FAST_PROJECT}\n")
    assert least <= sum(lane.slept) < least + 20


@pytest.mark.parametrize(
    ("message", "words"),
    [
        pytest.param(
            "Stack:arn is in UPDATE_IN_PROGRESS state and can not be updated.",
            "the stack image-mirror is not updated: china account (profile china): UpdateStack: ValidationError: "
            "Stack:arn is in UPDATE_IN_PROGRESS state and can not be updated",
            id="another-update-runs",
        ),
        pytest.param("No updates are to be performed.", "No updates are to be performed", id="nothing-to-do"),
    ],
)
def test_an_update_that_is_not_accepted_is_named(lane: Lane, refuse: Refuse, message: str, words: str) -> None:
    refuse("cloudformation", "UpdateStack", "ValidationError", message)
    note = not_used(lane, lane.connect())
    assert words in note
    assert note.endswith("; then run this again")


def test_if_somebody_else_has_made_the_same_change_meanwhile_all_is_well(lane: Lane, refuse: Refuse) -> None:
    given = {"WebhookToken": TOKEN, "GlobalFastProjectName": FAST_PROJECT}

    def meanwhile() -> None:
        lane.operated.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, **given)

    lane.when_asleep = meanwhile
    refuse("cloudformation", "UpdateStack", "ValidationError", "No updates are to be performed.")
    done = lane.connect()
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"fast lane: the stack image-mirror (china) uses {FAST_PROJECT}"


def test_keys_that_do_not_work_come_first(lane: Lane, refuse: Refuse) -> None:
    refuse("iam", "CreateAccessKey")
    assert lane.connect().exit_code == 3
    assert lane.started == []


def test_a_lane_that_is_used_and_no_longer_there_is_named_with_the_command_that_empties_the_parameter(
    lane: Lane,
) -> None:
    lane.connect()
    arn = lane.operated.global_secrets.describe_secret(SecretId="ImagePullSecret")["ARN"]
    outputs = GLOBAL_OUTPUTS | {"ImagePullSecretArn": arn}
    given = {"ChinaAccountId": "123456789012"}
    lane.operated.deploy("image-pulling.yaml", "us-west-2", "image-pulling", outputs, **given)
    done = lane.connect()
    assert (done.exit_code, len(lane.started)) == (0, 1)
    [note] = done.stderr.splitlines()
    assert note.startswith(f"Note: China's GlobalFastProjectName is {FAST_PROJECT}, the global stack has no fast lane")
    assert note.endswith("""--stack-name image-mirror --parameter-overrides 'GlobalFastProjectName=""'`""")
