"""`image-mirror doctor` on stacks that the SAM CLI has deployed, run as an operator runs it, with the deployed webhook.

It calls the webhook by its public name, through a proxy and over TLS. What moto lacks appears in the healthy results.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from e2e.fakes.adapter import Gateway, gateway
from e2e.fakes.tunnel import Tunnels, tunnels
from e2e.harness.control_plane import Cluster, namespace
from e2e.harness.deployment import GLOBAL_STACK, STACK, Checkout, registry
from e2e.harness.processes import free_port
from e2e.harness.sam import KEY, Json, Region
from e2e.harness.stage import TOKEN
from image_mirror.cli.webhook_manifest import Choices, shipped_configuration
from image_mirror.record import MINUTE
from image_mirror.slots import State
from image_mirror.state_item import StateItem

pytest_plugins = ["e2e.harness.deployed"]

# moto has no IAM simulator, no account settings of Lambda, and only VPC's quotas in Service Quotas.
LACKING = {
    "build quota": "gives no applied value",
    "fast build quota": "gives no applied value",
    "Lambda concurrency": "GetAccountSettings",
    "ECR permissions": "the answer is not from AWS",
}
SCHEDULE, HINTS, FUNCTION = "ReconcilerFunctionEveryMinute", "ReconcilerFunctionEcrHints", "ReconcilerFunction"
Break = Callable[["Operation"], AbstractContextManager[object]]


@dataclass
class Operation:
    """Both stacks, the gateway in front of the deployed webhook, the proxy to it, and an operator's environment."""

    china: Region
    global_region: Region
    gate: Gateway
    proxy: Tunnels
    environment: dict[str, str]
    secrets: list[str] = field(default_factory=list)

    def doctor(self, *arguments: str, **changes: str) -> tuple[int, list[Json]]:
        """Run doctor with changes to the environment ("" removes a variable); it must print no secret."""
        environment = {name: value for name, value in (self.environment | changes).items() if value}
        regions = ("--china-region", self.china.name, "--global-region", self.global_region.name)
        command = [sys.executable, "-m", "image_mirror.cli", "doctor", "--output", "json", *regions, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.stdout, done.stderr
        assert not [secret for secret in self.secrets if secret in done.stdout + done.stderr]
        results: list[Json] = json.loads(done.stdout)
        return done.returncode, results

    def name(self, logical_id: str) -> str:
        return self.china.resource(STACK, logical_id)

    def output(self, name: str) -> str:
        return self.china.outputs(STACK)[name]

    @contextmanager
    def answering(self, status: int, body: bytes, **headers: str) -> Iterator[None]:
        """Make the gateway give this answer instead of the webhook."""
        handler = self.gate.handler
        self.gate.handler = lambda _: {"statusCode": status, "body": body.decode(), "headers": headers}
        yield
        self.gate.handler = handler


@pytest.fixture(scope="module")
def operation(
    built: Checkout, china: Region, global_region: Region, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operation]:
    folder = tmp_path_factory.mktemp("doctor")
    url = urlsplit(china.outputs(STACK)["APIGatewayURL"])
    routes = [each["RouteKey"] for each in china.routes()]
    with ExitStack() as stack:
        webhook = stack.enter_context(built.start(china, "ApiFunction"))
        gate = stack.enter_context(gateway(folder, routes, webhook, url.netloc))
        port = urlsplit(gate.url).port
        assert port is not None
        proxy = stack.enter_context(tunnels(port))
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "IMAGE_MIRROR_"))}
        environment = outside | {
            **KEY,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": china.endpoint,
            "HTTPS_PROXY": proxy.url,
            "SSL_CERT_FILE": str(folder / "gateway.pem"),
        }
        found = Operation(china, global_region, gate, proxy, environment)
        found.secrets = [TOKEN, *_keys(china, "GlobalAKSK"), *_keys(global_region, "ImagePullSecret")]
        _measure(found, FUNCTION, "Invocations", 15.0)
        yield found


def _keys(region: Region, secret: str) -> list[str]:
    text = region.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"]
    return [value for name, value in json.loads(text).items() if "egion" not in name and "REGION" not in name]


def _measure(operation: Operation, logical_id: str, metric: str, value: float) -> None:
    data = {
        "MetricName": metric,
        "Dimensions": [{"Name": "FunctionName", "Value": operation.name(logical_id)}],
        "Value": value,
        "Timestamp": datetime.now(UTC) - timedelta(minutes=3),
    }
    operation.china.client("cloudwatch").put_metric_data(Namespace="AWS/Lambda", MetricData=[data])


def of(results: list[Json], topic: str) -> list[Json]:
    return [each for each in results if each["topic"] == topic]


def test_where_all_is_well_only_what_moto_lacks_is_not_looked_at(operation: Operation) -> None:
    before = operation.china.items()  # what other tests have left in this region
    code, results = operation.doctor()
    skipped = {each["topic"]: each["found"] for each in results if each["state"] == "skipped"}
    assert skipped.keys() == LACKING.keys()
    assert all(LACKING[topic] in skipped[topic] for topic in LACKING)
    assert [each for each in results if each["state"] not in ("ok", "skipped")] == []
    assert code == 0
    [call] = of(results, "webhook call")
    assert f"sends the pod to {registry(operation.china)}/mirror/" in call["found"]
    assert operation.proxy.asked[-1].startswith(urlsplit(operation.output("APIGatewayURL")).netloc)
    assert operation.china.items() == before, "a dry run records nothing"


@contextmanager
def disabled_rule(operation: Operation, logical_id: str) -> Iterator[None]:
    events, name = operation.china.client("events"), operation.name(logical_id)
    events.disable_rule(Name=name)
    yield
    events.enable_rule(Name=name)


@contextmanager
def without_target(operation: Operation) -> Iterator[None]:
    events, name = operation.china.client("events"), operation.name(SCHEDULE)
    targets = events.list_targets_by_rule(Rule=name)["Targets"]
    events.remove_targets(Rule=name, Ids=[each["Id"] for each in targets])
    yield
    events.put_targets(Rule=name, Targets=targets)


@contextmanager
def other_pattern(operation: Operation) -> Iterator[None]:
    events, name = operation.china.client("events"), operation.name(HINTS)
    pattern = events.describe_rule(Name=name)["EventPattern"]
    events.put_rule(Name=name, EventPattern=pattern.replace("mirror/", "mirrors/"))
    yield
    events.put_rule(Name=name, EventPattern=pattern)


@contextmanager
def without_permission(operation: Operation) -> Iterator[None]:
    functions, name = operation.china.client("lambda"), operation.name(FUNCTION)
    rule = operation.china.client("events").describe_rule(Name=operation.name(SCHEDULE))["Arn"]
    policy = json.loads(functions.get_policy(FunctionName=name)["Policy"])
    [statement] = [each for each in policy["Statement"] if rule in json.dumps(each)]
    functions.remove_permission(FunctionName=name, StatementId=statement["Sid"])
    yield
    functions.add_permission(
        FunctionName=name,
        StatementId=statement["Sid"],
        Action="lambda:InvokeFunction",
        Principal="events.amazonaws.com",
        SourceArn=rule,
    )


@contextmanager
def disabled_mapping(operation: Operation) -> Iterator[None]:
    functions = operation.china.client("lambda")
    [mapping] = functions.list_event_source_mappings(FunctionName=operation.name(FUNCTION))["EventSourceMappings"]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    yield
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)


@contextmanager
def secret_of(operation: Operation, name: str, change: Callable[[Json], object]) -> Iterator[None]:
    region = operation.china if name == "GlobalAKSK" else operation.global_region
    client = region.client("secretsmanager")
    text = client.get_secret_value(SecretId=name)["SecretString"]
    entries = json.loads(text)
    change(entries)
    client.put_secret_value(SecretId=name, SecretString=json.dumps(entries))
    yield
    client.put_secret_value(SecretId=name, SecretString=text)


@contextmanager
def inactive_key(operation: Operation) -> Iterator[None]:
    iam, user = operation.china.client("iam"), operation.output("ImagePushUserName")
    key = {"UserName": user, "AccessKeyId": _keys(operation.global_region, "ImagePullSecret")[0]}
    iam.update_access_key(**key, Status="Inactive")
    yield
    iam.update_access_key(**key, Status="Active")


@contextmanager
def second_key(operation: Operation) -> Iterator[None]:
    iam, user = (
        operation.global_region.client("iam"),
        operation.global_region.outputs(GLOBAL_STACK)["ImagePullUserName"],
    )
    made = iam.create_access_key(UserName=user)["AccessKey"]
    yield
    iam.delete_access_key(UserName=user, AccessKeyId=made["AccessKeyId"])


@contextmanager
def dead_letter(operation: Operation) -> Iterator[None]:
    sqs, queue = operation.china.client("sqs"), operation.output("DeadLetterQueueUrl")
    sqs.send_message(QueueUrl=queue, MessageBody="{}")
    yield
    sqs.purge_queue(QueueUrl=queue)


@contextmanager
def overdue(operation: Operation) -> Iterator[None]:
    table, repo = operation.china.client("dynamodb"), f"{registry(operation.china)}/mirror/gcr.io/x"
    item = {
        "repo": {"S": repo},
        "tag": {"S": "1"},
        "status": {"S": "COPIED"},
        "due": {"S": "DUE"},
        "due_at": {"N": str(int((time.time() - 3600) * 1000))},
    }
    table.put_item(TableName="ImageListTable", Item=item)
    yield
    table.delete_item(TableName="ImageListTable", Key={"repo": item["repo"], "tag": item["tag"]})


@contextmanager
def without_project(operation: Operation) -> Iterator[None]:
    """moto's API cannot create the template's project again, so only its list of names is changed."""
    client = operation.global_region.client("codebuild")
    [project] = client.batch_get_projects(names=["ImagePullProject"])["projects"]
    client.delete_project(name="ImagePullProject")
    yield
    client.create_project(
        name=project["name"],
        source={**project["source"], "location": "moto asks for one"},
        artifacts=project["artifacts"],
        environment=project["environment"],
        serviceRole=project["serviceRole"],
    )


BREAKAGES = [
    pytest.param(
        lambda op: disabled_rule(op, SCHEDULE), "schedule", "failed", "is DISABLED", "enable-rule", id="schedule"
    ),
    pytest.param(
        lambda op: disabled_rule(op, HINTS), "ECR events", "failed", "is DISABLED", "enable-rule", id="events"
    ),
    pytest.param(without_target, "schedule", "failed", "does not call the reconciler", "deploy", id="no-target"),
    pytest.param(without_permission, "schedule", "failed", "may not call the reconciler", "deploy", id="no-permission"),
    pytest.param(other_pattern, "ECR events", "failed", "mirrors/", "deploy", id="events-of-another-prefix"),
    pytest.param(
        disabled_mapping, "stream mapping", "failed", "it is Disabled", "update-event-source-mapping", id="mapping"
    ),
    pytest.param(
        lambda op: secret_of(op, "GlobalAKSK", lambda entries: entries.pop("G_SECRET_KEY")),
        "GlobalAKSK: secret", "failed", "has no value for G_SECRET_KEY", "connect", id="half-a-secret",
    ),
    pytest.param(
        lambda op: secret_of(op, "ImagePullSecret", lambda entries: entries.update(Region="cn-north-1")),
        "ImagePullSecret: secret", "failed", "Region is cn-north-1", "connect",
        id="a-secret-of-another-region",
    ),
    pytest.param(inactive_key, "ImagePullSecret: key", "failed", "is Inactive", "connect", id="inactive-key"),
    pytest.param(second_key, "GlobalAKSK: key", "warning", "a second active key", "connect", id="second-key"),
    pytest.param(dead_letter, "dead letters", "warning", "1 batches", "purge-queue", id="dead-letter"),
    pytest.param(overdue, "due records", "warning", "has been due for 1h", "aws logs tail", id="long-due"),
    pytest.param(
        lambda op: op.answering(403, b'{"message":"Forbidden"}'), "webhook call", "failed", "no ICP licence",
        "AWS China's support", id="icp",
    ),
    pytest.param(
        lambda op: op.answering(404, b'{"message":"Not Found"}'), "webhook call", "failed", "another token",
        "new WebhookToken", id="token",
    ),
    pytest.param(
        lambda op: op.answering(500, b'{"message":"Internal Server Error"}'), "webhook call", "failed", "500:",
        "aws logs tail --region cn-northwest-1 --since 1h", id="webhook-failed",
    ),
    pytest.param(
        without_project, "project", "failed", "ImagePullProject does not exist", "image-pulling.yaml", id="no-project"
    ),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "topic", "state", "words", "remedy"), BREAKAGES)
def test_what_is_broken_is_named_and_nothing_else(
    operation: Operation, broken: Break, topic: str, state: str, words: str, remedy: str
) -> None:
    with broken(operation):
        code, results = operation.doctor()
    assert any(
        each["state"] == state and words in each["found"] and remedy in each["remedy"] for each in of(results, topic)
    )
    # A key that is not in the secret cannot be tested, and a project that does not exist has no builds.
    after = {"GlobalAKSK: secret": ["GlobalAKSK: key", "GlobalAKSK: call"], "project": ["builds"]}
    about = {topic, *after.get(topic, ()), *LACKING}
    assert [each for each in results if each["state"] != "ok" and each["topic"] not in about] == []
    assert code == int(state == "failed")


@contextmanager
def fast_lane(operation: Operation, built: Checkout) -> Iterator[None]:
    """Let China's stack use the project of the fast lane that the global stack has."""
    project = operation.global_region.outputs(GLOBAL_STACK)["FastProjectName"]
    built.deploy(operation.china.name, "--parameter-overrides", f"GlobalFastProjectName={project}")
    yield
    built.deploy(operation.china.name, "--parameter-overrides", 'GlobalFastProjectName=""')


def test_the_fast_lane_is_checked_if_it_is_used(operation: Operation, built: Checkout) -> None:
    [unused] = of(operation.doctor()[1], "fast lane")
    assert unused["found"].endswith("is there: `image-mirror connect` switches it on")
    state, now = StateItem(operation.china.client("dynamodb"), "ImageListTable"), int(time.time() * 1000)
    with fast_lane(operation, built):
        code, results = operation.doctor()
        assert [each for each in results if each["state"] != "ok" and each["topic"] not in LACKING] == []
        assert [each["found"] for topic in ("fast lane", "fast project") for each in of(results, topic)] == [
            "copies are also made in ImagePullProjectFast",
            "ImagePullProjectFast matches the template",
        ]
        state.write(State(at=now, fast_off_until=now + 40 * MINUTE), anyway=True)
        _, results = operation.doctor()
        state.write(State(at=now), anyway=True)
    [off] = [each for each in results if each["state"] == "warning"]
    assert (off["topic"], code) == ("fast lane", 0)
    assert re.search(r"^off until .* \(in \d+m\), because CodeBuild refused or did not answer calls", off["found"])


def test_errors_and_a_late_stream_are_read_from_cloudwatch(operation: Operation) -> None:
    _measure(operation, "ApiFunction", "Errors", 2.0)
    _measure(operation, FUNCTION, "IteratorAge", 75_000.0)
    code, results = operation.doctor()
    assert "2 of 0 runs in the last hour ended in an error" in of(results, "webhook function")[1]["found"]
    assert "up to 75 seconds old" in of(results, "stream lag")[0]["found"]
    assert code == 0


@pytest.mark.parametrize(
    ("changes", "words", "remedy"),
    [
        pytest.param({"SSL_CERT_FILE": ""}, "is not trusted: self", "SSL_CERT_FILE", id="an-untrusted-certificate"),
        pytest.param({"HTTPS_PROXY": ""}, "is not found", "DNS", id="no-such-name"),
        pytest.param({"HTTPS_PROXY": f"http://127.0.0.1:{free_port()}"}, "refused", "HTTPS_PROXY", id="no-proxy"),
    ],
)
def test_errors_on_the_way_to_the_webhook_have_different_messages(
    operation: Operation, changes: Mapping[str, str], words: str, remedy: str
) -> None:
    code, results = operation.doctor(**changes)
    [call] = of(results, "webhook call")
    assert call["state"] == "failed"
    assert words in call["found"]
    assert remedy in call["remedy"]
    assert code == 1


@contextmanager
def guarded(operation: Operation) -> Iterator[None]:
    """Make moto check each call's signature and action while the context is active."""
    _reset_auth(operation, "0")
    try:
        yield
    finally:
        _reset_auth(operation, "inf")


def _reset_auth(operation: Operation, count: str) -> None:
    """Make moto check all requests after the first `count`."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{operation.china.endpoint}/moto-api/reset-auth", count.encode(), plain)
    urllib.request.urlopen(request, timeout=60).close()


def _operator(region: Region, *actions: str) -> str:
    """Make an operator with these permissions, and return the operator's profile."""
    iam, side = region.client("iam"), "china" if region.name.startswith("cn-") else "global"
    iam.create_user(UserName="operator")
    allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="operator", PolicyName="some", PolicyDocument=policy)
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    return (
        f"[profile {side}]\nregion = {region.name}\naws_access_key_id = {key['AccessKeyId']}\n"
        f"aws_secret_access_key = {key['SecretAccessKey']}\n"
    )


def test_doctor_names_the_permissions_that_an_operator_lacks(operation: Operation, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        _operator(operation.china, "cloudformation:DescribeStacks", "dynamodb:DescribeTable", "sqs:GetQueueAttributes")
        + _operator(operation.global_region, "cloudformation:DescribeStacks", "codebuild:BatchGetProjects")
    )
    own = dict.fromkeys(KEY, "") | {"AWS_CONFIG_FILE": str(tmp_path / "config")}
    with guarded(operation):
        code, results = operation.doctor("--china-profile", "china", "--global-profile", "global", **own)
    well = {each["topic"] for each in results if each["state"] == "ok"}
    assert well >= {"china stack", "global stack", "both stacks", "table", "dead letters", "project"}
    for topic, action in (
        ("GlobalAKSK: secret", "secretsmanager:GetSecretValue"),
        ("due records", "dynamodb:Query"),
        ("schedule", "cloudformation:ListStackResources"),
        ("builds", "codebuild:ListBuildsForProject"),
    ):
        [result] = of(results, topic)
        assert (result["state"], result["found"]) == ("skipped", f"not permitted ({action})")
        assert f"ask for the permission {action} in the" in result["remedy"]
    # The webhook's own calls are not signed with a key that moto knows here.
    assert [each["topic"] for each in results if each["state"] == "failed"] == ["webhook call"]
    assert code == 1


@pytest.fixture
def kubeconfig(cluster: Cluster, operation: Operation) -> tuple[str, ...]:
    program, _, file = cluster._command
    operation.environment["PATH"] = f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"
    return ("--kubeconfig", file, "--context", "x")


@contextmanager
def applied(cluster: Cluster, url: str, change: Callable[[Json], object], choices: Choices) -> Iterator[None]:
    configuration = shipped_configuration(url, choices)
    change(configuration["webhooks"][0])
    cluster.apply(configuration)
    try:
        yield
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", configuration["metadata"]["name"])


def test_a_pause_and_labels_without_effect_are_named_on_a_real_cluster(
    operation: Operation, cluster: Cluster, kubeconfig: tuple[str, ...]
) -> None:
    url = operation.output("APIGatewayURL")
    with namespace(cluster, "labelled", **{"image-mirror/swap-when": "copied"}):
        with applied(cluster, url, lambda _: None, Choices(modes=("paused",))):
            _, results = operation.doctor(*kubeconfig)
        assert {each["state"] for each in of(results, "webhook configuration")} == {"ok"}
        [warning] = of(results, "namespace labels")
        assert "the label image-mirror/swap-when=copied of labelled has no effect" in warning["found"]
        assert "--modes=copied,paused" in warning["remedy"]
        with applied(cluster, url, lambda _: None, Choices(modes=("copied",), paused=True)):
            _, results = operation.doctor(*kubeconfig)
    [label] = of(results, "namespace labels")
    assert label["state"] == "ok"
    [warning] = [each for each in of(results, "webhook configuration") if each["state"] != "ok"]
    assert warning["found"].startswith("image-mirror is paused")
    assert "--modes=copied" in warning["remedy"]
    assert "--pause" not in warning["remedy"]


@pytest.mark.parametrize(
    ("change", "choices", "state", "words"),
    [
        pytest.param(lambda _: None, Choices(), "ok", "is the shipped one, with failurePolicy Ignore", id="as-shipped"),
        pytest.param(
            lambda _: None, Choices(namespaces=("shop",), timeout=7), "ok", "7 seconds; namespaces: ", id="as-chosen"
        ),
        pytest.param(
            lambda each: each["clientConfig"].update(url=each["clientConfig"]["url"][:-1] + "z"), Choices(), "failed",
            "another token, than the stack's", id="an-older-token",
        ),
        pytest.param(
            lambda each: each.pop("matchConditions"), Choices(), "failed", "lack an-image-is-new", id="unconditional"
        ),
        pytest.param(
            lambda each: each.pop("reinvocationPolicy"), Choices(), "failed", "reinvocationPolicy is Never", id="never"
        ),
        pytest.param(lambda _: None, Choices(failure_policy="Fail"), "warning", "for kube-system too", id="fail"),
        pytest.param(lambda each: each.pop("timeoutSeconds"), Choices(), "warning", "wait 10 seconds", id="timeout"),
    ],
)  # fmt: skip
def test_a_real_cluster_s_configuration_is_compared(
    operation: Operation,
    cluster: Cluster,
    kubeconfig: tuple[str, ...],
    change: Callable[[Json], object],
    choices: Choices,
    state: str,
    words: str,
) -> None:
    with applied(cluster, operation.output("APIGatewayURL"), change, choices):
        _, results = operation.doctor(*kubeconfig)
    assert of(results, "cluster version")[0]["found"].startswith("v1.36")
    [result] = of(results, "webhook configuration")
    assert result["state"] == state, result
    assert words in result["found"]


def test_a_cluster_without_a_configuration_and_one_that_is_not_there(
    operation: Operation, kubeconfig: tuple[str, ...]
) -> None:
    code, results = operation.doctor(*kubeconfig)
    [result] = of(results, "webhook configuration")
    assert (result["state"], code) == ("failed", 1)
    assert f"webhook-config --china-region={operation.china.name}" in result["remedy"]
    assert f"kubectl apply --kubeconfig={kubeconfig[1]} --context=x -f -`" in result["remedy"]
    code, results = operation.doctor(*kubeconfig[:2], "--context", "no-such")
    assert of(results, "cluster version")[0]["state"] == "failed"
    assert "no-such" in of(results, "cluster version")[0]["found"]
    assert code == 1
