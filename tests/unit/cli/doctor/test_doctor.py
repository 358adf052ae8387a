"""`image-mirror doctor` as an operator runs it: healthy, denied, with bad input, without network, interrupted."""

import base64
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from image_mirror import webhook
from image_mirror.cli import app, doctor
from image_mirror.cli.doctor import webhook as doctors_webhook
from image_mirror.cli.doctor.webhook import Reply as Posted
from image_mirror.cli.emulation import http_event
from image_mirror.record import Status
from image_mirror.review import Json
from support.healthy import Answers
from support.operators import (
    CHINA_OUTPUTS,
    FAST_PROJECT,
    GLOBAL_OUTPUTS,
    PULL_USER,
    PUSH_USER,
    TOKEN,
    URL,
    Operated,
    Reply,
)
from support.templates import ROOT

Answer = Callable[[str, str, Reply], None]
TOPICS = {check.topic for check in doctor.CHECKS}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def found(*arguments: str) -> tuple[int, list[Json]]:
    result = run("--output", "json", *arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    results: list[Json] = json.loads(result.stdout)
    return result.exit_code, results


def of(results: list[Json], topic: str) -> list[Json]:
    return [each for each in results if each["topic"] == topic]


def post(_: str, body: bytes) -> Posted:
    """The real webhook, in this process."""
    answered = webhook.handler(http_event(json.loads(body)), None)
    return Posted(answered["statusCode"], answered["body"].encode(), 0.1, answered["headers"].get("Retry-After"))


@pytest.fixture
def well(operated: Operated, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> Operated:
    """A healthy deployment in moto; calls that moto lacks get prepared answers."""
    webhook.load.cache_clear()
    monkeypatch.setattr(doctors_webhook, "_post", post)
    operated.answers = answers = Answers()
    table = operated.cloud.dynamodb.describe_table(TableName="ImageListTable")["Table"]
    answers.mappings[0]["EventSourceArn"] = table["LatestStreamArn"]
    for service, operation, reply in answers.replies():
        answer(service, operation, reply)
    arn = operated.global_secrets.describe_secret(SecretId="ImagePullSecret")["ARN"]
    outputs = GLOBAL_OUTPUTS | {"ImagePullSecretArn": arn, "FastProjectName": FAST_PROJECT}
    login = {"auth": base64.b64encode(b"robot:logins-of-sources").decode()}
    auth = operated.global_secrets.create_secret(
        Name="RegistryAuth", SecretString=json.dumps({"auths": {"ghcr.io": login}})
    )
    operated.deploy(
        *("image-pulling.yaml", "us-west-2", "image-pulling", outputs),
        ChinaAccountId="123456789012",
        RegistryAuthSecretArn=auth["ARN"],
    )
    given = {"WebhookToken": TOKEN, "GlobalFastProjectName": FAST_PROJECT}
    operated.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, **given)
    pull = operated.global_iam.create_access_key(UserName=PULL_USER)["AccessKey"]
    push = operated.china_iam.create_access_key(UserName=PUSH_USER)["AccessKey"]
    pull_id, pull_secret = pull["AccessKeyId"], pull["SecretAccessKey"]
    push_id, push_secret = push["AccessKeyId"], push["SecretAccessKey"]
    operated.cloud.secrets.put_secret_value(
        SecretId="GlobalAKSK",
        SecretString=json.dumps({"G_AWS_REGION": "us-west-2", "G_ACCESS_KEY": pull_id, "G_SECRET_KEY": pull_secret}),
    )
    operated.global_secrets.put_secret_value(
        SecretId="ImagePullSecret",
        SecretString=json.dumps({"Region": "cn-northwest-1", "AccessKey": push_id, "AccessSecretKey": push_secret}),
    )
    operated.secrets = [pull_id, pull_secret, push_id, push_secret, TOKEN, "logins-of-sources", login["auth"]]
    return operated


def record(operated: Operated, tag: str, status: Status, seconds: int) -> None:
    """Write a record that is due in so many seconds."""
    item: Json = {
        "repo": {"S": "r"},
        "tag": {"S": tag},
        "status": {"S": status},
        "due": {"S": "DUE"},
        "due_at": {"N": str(int((time.time() + seconds) * 1000))},
    }
    operated.cloud.dynamodb.put_item(TableName="ImageListTable", Item=item)


def test_where_all_is_well_it_says_so_records_nothing_and_ends_with_0(well: Operated) -> None:
    code, results = found()
    assert [each for each in results if each["state"] != "ok"] == []
    assert (code, {each["topic"] for each in results}) == (0, TOPICS)
    assert well.cloud.items() == []


def test_the_table_has_a_line_each_with_the_remedy_at_its_end_and_the_count_beside_it(
    well: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    record(well, "late", Status.COPYING, -1000)
    record(well, "soon", Status.REQUESTED, 60)
    result = run()
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["STATE", "TOPIC", "FOUND", "->", "REMEDY"]
    rows = len(found()[1])
    assert len(lines) == 1 + rows
    [late] = [line for line in lines if line.startswith("warning")]
    assert "r:late has been due for 16m; 2 are due within the hour: 1 COPYING, 1 REQUESTED -> see" in late
    assert lines[-1] == late, "what needs attention is last"
    assert result.stderr.splitlines() == [
        "China: profile china (IMAGE_MIRROR_CHINA_PROFILE), region cn-northwest-1 (the profile china), "
        "stack image-mirror (samconfig.toml)",
        "Global: profile global (IMAGE_MIRROR_GLOBAL_PROFILE), region us-west-2 (the profile global), "
        "stack image-pulling (the default)",
        f"{rows - 1} ok, 1 warning, 0 failed, 0 skipped",
    ]
    assert result.exit_code == 0
    assert "1 copies wait" in next(line for line in lines if "build quota" in line)


def test_only_problems_are_shown_if_they_are_asked_for_and_the_rest_is_counted(
    well: Operated, refuse: Callable[..., None]
) -> None:
    record(well, "late", Status.COPYING, -1000)
    refuse("sqs", "GetQueueAttributes")
    rows = len(found()[1])
    result = run("--problems")
    heading, *lines = result.stdout.splitlines()
    assert heading.split()[0] == "STATE"
    assert [line.split()[:3] for line in lines] == [["warning", "due", "records"]]
    assert result.stderr.splitlines()[-1] == f"1 warning, 0 failed; not shown: {rows - 2} ok, 1 skipped"
    assert result.exit_code == 0
    assert [each["topic"] for each in found("--problems")[1]] == ["due records"]
    assert run("--problems", "-o", "name").stdout == "due records\n"


@pytest.mark.usefixtures("well")
def test_without_problems_only_their_count_is_printed() -> None:
    result = run("--problems")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines()[-1].startswith("0 warning, 0 failed; not shown: ")
    assert found("--problems") == (0, [])


def test_no_secret_is_printed_whatever_aws_quotes(well: Operated, refuse: Callable[..., None]) -> None:
    for each in ("GetFunction", "GetPolicy"):
        refuse("lambda", each, "ServiceException", f"It broke: {' '.join(well.secrets)}")
    for output in ("table", "json"):
        printed = run("--output", output).output
        assert "It broke: *** *** *** *** ***" in printed
        assert not [secret for secret in well.secrets if secret in printed]


def test_of_many_builds_the_latest_hundred_are_looked_at(well: Operated) -> None:
    phases = ["QUEUED", "BUILD", "BUILD"] + ["COMPLETED"] * 147
    well.answers.builds = [
        {
            "id": f"ImagePullProject:{number}",
            "buildStatus": "SUCCEEDED" if phase == "COMPLETED" else "IN_PROGRESS",
            "currentPhase": phase,
        }
        for number, phase in enumerate(phases)
    ]
    code, results = found()
    [builds] = of(results, "builds")
    assert (builds["state"], builds["found"], code) == ("ok", "2 running, 1 queued, of the latest 100", 0)


@pytest.mark.usefixtures("well")
def test_the_route_of_a_pause_is_called_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def plain_alone(url: str, body: bytes) -> Posted:
        asked.append(url)
        return post(url, body) if url == URL else Posted(404, b'{"message":"Not Found"}', 0.1)

    monkeypatch.setattr(doctors_webhook, "_post", plain_alone)
    [result] = of(found()[1], "webhook call")
    assert (sorted(asked), result["state"]) == ([URL, f"{URL}/paused"], "failed")
    assert "404 on the route of paused" in result["found"]


@pytest.mark.usefixtures("well")
def test_doctor_never_sends_to_itself(refuse: Callable[..., None]) -> None:
    refuse("sqs", "GetQueueAttributes", "InternalFailure", "It broke")
    _, results = found()
    [letters] = of(results, "dead letters")
    assert letters["state"] == "skipped"
    assert letters["found"].endswith("GetQueueAttributes: InternalFailure: It broke")


@pytest.mark.parametrize(
    "denied",
    [
        # Permissions whose denial affects only one result; each with the result that names it.
        pytest.param(
            {
                ("iam", "ListAccessKeys"): "ImagePullSecret: key",
                ("iam", "SimulatePrincipalPolicy"): "ECR permissions",
                ("codebuild", "BatchGetProjects"): "project",
                ("codebuild", "ListBuildsForProject"): "builds",
                ("service-quotas", "GetServiceQuota"): "build quota",
                ("dynamodb", "DescribeTable"): "table",
                ("dynamodb", "Query"): "due records",
                ("dynamodb", "GetItem"): "fast lane",
                ("lambda", "ListEventSourceMappings"): "stream mapping",
                ("lambda", "GetAccountSettings"): "Lambda concurrency",
                ("events", "DescribeRule"): "schedule",
                ("cloudwatch", "GetMetricData"): "stream lag",
                ("sqs", "GetQueueAttributes"): "dead letters",
            },
            id="single-ones",
        ),
        pytest.param(
            {
                ("secretsmanager", "GetSecretValue"): "GlobalAKSK: secret",
                ("lambda", "GetFunction"): "reconciler function",
                ("lambda", "GetPolicy"): "ECR events",
            },
            id="those-that-others-wait-for",
        ),
    ],
)
@pytest.mark.usefixtures("well")
def test_whatever_is_denied_is_skipped_with_its_permission_and_the_rest_is_looked_at(
    denied: dict[tuple[str, str], str], refuse: Callable[..., None]
) -> None:
    for service, operation in denied:
        refuse(service, operation)
    code, results = found()
    for (service, operation), topic in denied.items():
        printed = of(results, topic)
        assert any(f"not permitted ({service}:{operation})" in each["found"] for each in printed), printed
        assert any(
            f"ask for the permission {service}:{operation} in the " in (each["remedy"] or "") for each in printed
        )
    well = {each["topic"] for each in results if each["state"] == "ok"}
    assert well >= {"china stack", "global stack", "both stacks", "webhook call"}
    assert {each["state"] for each in results} == {"ok", "skipped"}
    assert code == 0


@pytest.mark.usefixtures("well")
def test_what_needs_a_denied_answer_names_the_permission_too(refuse: Callable[..., None]) -> None:
    refuse("cloudformation", "ListStackResources")
    refuse("iam", "GetAccessKeyLastUsed")
    refuse("dynamodb", "BatchGetItem")
    code, results = found()
    skipped = {each["topic"] for each in results if each["state"] == "skipped"}
    assert skipped >= {"stream mapping", "schedule", "ECR events", "webhook function", "reconciler function"}
    assert all(
        "cloudformation:ListStackResources" in each["found"]
        for topic in skipped
        for each in of(results, topic)
        if "it needs" not in each["found"]
    )
    # These two only say less.
    assert "its last use is not known" in of(results, "GlobalAKSK: key")[0]["found"]
    assert of(results, "due records")[0]["state"] == "ok"
    assert code == 0


@pytest.mark.usefixtures("well")
def test_a_stack_that_may_not_be_read_is_skipped_and_the_other_side_looked_at(
    refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGE_MIRROR_CHINA_PROFILE", "no-such")
    code, results = found()
    [stack] = of(results, "china stack")
    assert stack["state"] == "failed"
    assert stack["found"].endswith("config profile (no-such) could not be found")
    assert stack["remedy"] == "`aws configure list-profiles` prints the existing ones"
    assert of(results, "table")[0]["found"] == 'not asked: it needs "china stack"'
    assert of(results, "build quota")[0]["state"] == "ok"
    assert code == 1
    monkeypatch.setenv("IMAGE_MIRROR_CHINA_PROFILE", "china")
    refuse("cloudformation", "DescribeStacks")
    code, results = found()
    assert {each["state"] for topic in ("china stack", "global stack") for each in of(results, topic)} == {"skipped"}
    assert of(results, "Lambda concurrency")[0]["state"] == "ok"
    assert code == 0


def test_what_is_skipped_for_the_same_reason_is_one_row_and_json_has_all(
    operated: Operated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del operated  # needed for its environment, without the profiles
    for name in ("IMAGE_MIRROR_CHINA_PROFILE", "IMAGE_MIRROR_GLOBAL_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "aws-config").write_text("")
    result = run()
    heading, *lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    assert heading[0] == "STATE"
    assert [state for state, _ in lines] == ["skipped"] * 4 + ["failed"] * 2
    printed = [" ".join(words.split()) for _, words in (*lines[4:], *lines[:4])]
    grouped = re.fullmatch(r'(\d+) checks not asked: they need "china stack"', printed[2])
    others = re.fullmatch(r'(\d+) checks not asked: they need "global stack"', printed[3])
    assert grouped is not None
    assert others is not None
    # These two need no stack, but an account.
    assert printed[4].startswith("build quota global account: no region is set -> give --global-profile")
    assert printed[5].startswith("Lambda concurrency china account: no region is set -> give --china-profile")
    code, results = found()
    skipped = [each["found"] for each in results if each["state"] == "skipped"]
    assert f"0 ok, 0 warning, 2 failed, {len(skipped)} skipped" in result.stderr
    assert (len(skipped), len(results)) == (int(grouped[1]) + int(others[1]) + 2, len(skipped) + 2)
    assert int(grouped[1]) > int(others[1]) > 1
    assert (code, list(results[0])) == (3, ["topic", "state", "found", "remedy"])
    assert of(results, "GlobalAKSK: call")[0]["found"] == 'not asked: it needs "GlobalAKSK: secret"'


def test_a_stack_that_is_not_there_has_failed(well: Operated) -> None:
    code, results = found("--stack-name", "nowhere")
    [stack] = of(results, "china stack")
    assert (stack["state"], code) == ("failed", 1)
    assert stack["found"].endswith("there is no stack 'nowhere' in cn-northwest-1")
    assert stack["remedy"] == "deploy it, or name it by --stack-name, its region by --china-region"
    assert well.cloud.items() == []


def test_what_does_not_exist_has_failed_and_not_been_skipped(well: Operated, answer: Answer) -> None:
    missing = {"Error": {"Code": "ResourceNotFoundException", "Message": "It is not there."}}
    for service, operation in (("lambda", "GetFunction"), ("events", "DescribeRule")):
        answer(service, operation, lambda _: missing)
    answer("sqs", "GetQueueAttributes", lambda _: {"Error": {"Code": "AWS.SimpleQueueService.NonExistentQueue"}})
    answer("service-quotas", "GetServiceQuota", lambda _: {"Error": {"Code": "NoSuchResourceException"}})
    well.cloud.dynamodb.delete_table(TableName="ImageListTable")
    well.cloud.secrets.delete_secret(SecretId="GlobalAKSK")
    well.global_iam.delete_access_key(UserName=PULL_USER, AccessKeyId=well.secrets[0])
    well.global_iam.delete_user(UserName=PULL_USER)
    well.answers.project = None
    code, results = found()
    topics = ["table", "GlobalAKSK: secret", "project", "schedule", "ECR events", "webhook function", "dead letters"]
    assert {each["state"] for topic in topics for each in of(results, topic)[:1]} == {"failed"}
    assert of(results, "GlobalAKSK: secret")[0]["found"] == "it is marked for deletion"
    assert of(results, "build quota")[0]["found"] == "Service Quotas gives no applied value"
    assert of(results, "builds")[0]["found"] == "there is no project"
    assert of(results, "GlobalAKSK: call")[0]["found"] == 'not asked: it needs "GlobalAKSK: secret"'
    assert code == 1


@pytest.mark.parametrize(
    ("message", "found_is", "remedy"),
    [
        pytest.param(
            "Secrets Manager can't find the specified secret.",
            "it does not exist",
            "REVERT_DRIFT",
            id="no-secret",
        ),
        pytest.param(
            "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT",
            "is not a JSON object",
            "`image-mirror connect` creates a key",
            id="a-secret-without-a-value",
        ),
    ],
)
@pytest.mark.usefixtures("well")
def test_a_deleted_secret_and_one_without_a_value_have_different_messages(
    message: str, found_is: str, remedy: str, refuse: Callable[..., None]
) -> None:
    refuse("secretsmanager", "GetSecretValue", "ResourceNotFoundException", message)
    _, results = found()
    [secret] = of(results, "ImagePullSecret: secret")
    assert found_is in secret["found"]
    assert remedy in secret["remedy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--output", "xml"], "--output", id="output"),
        pytest.param(["--kubeconfig", "/nowhere/config"], "does not exist", id="kubeconfig"),
        pytest.param(["extra"], "unexpected extra argument", id="argument"),
    ],
)
def test_bad_input_calls_nothing(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


@pytest.mark.usefixtures("operated")
def test_without_network_it_says_so_for_both_and_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    code, results = found()
    for topic in ("china stack", "global stack"):
        [stack] = of(results, topic)
        assert stack["state"] == "failed"
        assert stack["remedy"] == "check the network, and HTTPS_PROXY if there is a proxy"
    assert {each["state"] for each in results} == {"failed", "skipped"}
    assert code == 3
    assert "neither account answers" in run().stderr


@pytest.mark.usefixtures("well")
def test_keys_that_aws_does_not_take_are_no_answer(refuse: Callable[..., None]) -> None:
    for service, operation in (
        ("cloudformation", "DescribeStacks"),
        ("lambda", "GetAccountSettings"),
        ("service-quotas", "GetServiceQuota"),
    ):
        refuse(service, operation, "InvalidClientTokenId", "The security token included in the request is invalid.")
    code, results = found()
    assert "AWS does not accept this profile's access key" in of(results, "china stack")[0]["remedy"]
    assert code == 3


# The calls that need no answer of another call; each has one connection.
ASKED_FIRST = ("china's DescribeStacks", "the global DescribeStacks", "GetAccountSettings", "GetServiceQuota")


def started(endpoint: str, tmp_path: Path, **streams: Any) -> "subprocess.Popen[str]":
    """Start doctor as a separate program, with AWS at `endpoint`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "IMAGE_MIRROR_"))}
    environ |= {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "TERM": "xterm",
    }
    regions = ("--china-region", "cn-north-1", "--global-region", "us-west-2")
    command = [sys.executable, "-m", "image_mirror.cli", "doctor", *regions]
    return subprocess.Popen(command, env=environ, text=True, **streams)


def test_on_a_terminal_there_is_progress_colour_and_the_summary(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    with started("http://localhost:1", tmp_path, stdin=end, stdout=end, stderr=end) as process:
        os.close(end)
        shown = b""
        with suppress(OSError):  # as the program ends
            while part := os.read(terminal, 65536):
                shown += part
    os.close(terminal)
    text = shown.decode()
    assert process.returncode == 3
    assert "Asking" in text
    assert "\x1b[31m\x1b[1mfailed  \x1b[0m \x1b[1mchina stack\x1b[0m: " in text
    assert "0 ok, 0 warning, 2 failed, " in text


def test_ctrl_c_ends_it_at_once_with_130_and_no_traceback(tmp_path: Path) -> None:
    """While nothing answers: it ends before any call is given up, for each would then be made again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with started(endpoint, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            connections = [silent.accept()[0]]  # it has asked
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
        silent.setblocking(False)
        with suppress(BlockingIOError):  # as there are no more
            while True:
                connections.append(silent.accept()[0])
    for each in connections:
        each.close()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert len(connections) <= len(ASKED_FIRST)


@pytest.mark.usefixtures("well")
def test_calls_are_made_at_the_same_time(answer: Answer) -> None:
    together = threading.Barrier(3)

    def meet(reply: Json) -> Reply:
        def answered(_: Json) -> Json:
            together.wait(60)
            return reply

        return answered

    answer("lambda", "GetAccountSettings", meet({"AccountLimit": {"ConcurrentExecutions": 1000}}))
    answer("sqs", "GetQueueAttributes", meet({"Attributes": {"ApproximateNumberOfMessages": "0"}}))
    quota, of_the_fast_lane = meet({"Quota": {"Value": 20.0}}), {"Quota": {"Value": 1.0}}
    answer(
        "service-quotas",
        "GetServiceQuota",
        lambda asked: quota(asked) if asked["QuotaCode"] == "L-9D07B6EF" else of_the_fast_lane,
    )
    code, results = found()
    assert (code, [each for each in results if each["state"] != "ok"]) == (0, [])
