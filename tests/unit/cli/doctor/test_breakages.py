"""Each possible fault, one at a time, and the result of `image-mirror doctor` that names it."""

import base64
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from image_mirror.cli import doctor
from image_mirror.cli.doctor import webhook
from image_mirror.cli.doctor.keys import Absent
from image_mirror.cli.doctor.runner import CheckResult, Context, State
from image_mirror.cli.doctor.webhook import Reply
from image_mirror.record import MINUTE, Status
from image_mirror.slots import State as LaneState
from support.cloud import REGISTRY
from support.healthy import API, HINTS, RECONCILER, SCHEDULE, Answers, key
from support.lifecycle_policies import RELEASED
from support.operators import AUTH_SECRET, FAST_PROJECT, GLOBAL_OUTPUTS, PROFILES, PULL_USER, PUSH_USER

PULL_SECRET = GLOBAL_OUTPUTS["ImagePullSecretArn"]


def post(_: str, body: bytes) -> Reply:
    """A webhook that sends the pod to its copy."""
    request = json.loads(body)["request"]
    copy = f"{REGISTRY}/mirror/{request['object']['spec']['containers'][0]['image']}"
    patch = json.dumps([{"op": "replace", "path": "/spec/containers/0/image", "value": copy}]).encode()
    response = {"uid": request["uid"], "allowed": True, "patch": base64.b64encode(patch).decode()}
    return Reply(200, json.dumps({"response": response}).encode(), 0.1)


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Answers], list[CheckResult]]:
    """Run doctor with `answers` instead of both accounts and the webhook."""
    config = tmp_path / "aws-config"
    config.write_text(PROFILES)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    def examined(found: Answers) -> list[CheckResult]:
        monkeypatch.setattr(webhook, "_post", post)
        return list(doctor.examine(Context(found.account("china"), found.account("global"), None, "image-pulling")))

    return examined


def test_where_all_is_well_each_result_says_so(examine: Callable[[Answers], list[CheckResult]]) -> None:
    results = examine(Answers())
    assert [each for each in results if each.state is not State.OK] == []
    assert {each.topic for each in results} == {check.topic for check in doctor.CHECKS}


def configured(name: str, **changes: Any) -> Callable[[Answers], None]:
    def change(found: Answers) -> None:
        function = found.functions[name]
        assert function is not None
        function["Configuration"].update(changes)

    return change


def project(which: str = "project", **changes: Any) -> Callable[[Answers], None]:
    return lambda found: getattr(found, which)["environment"].update(changes)


def variable(name: str, value: str, which: str = "project") -> Callable[[Answers], None]:
    def change(found: Answers) -> None:
        variables = getattr(found, which)["environment"]["environmentVariables"]
        [one] = [each for each in variables if each["name"] == name]
        one["value"] = value

    return change


def table(**changes: Any) -> Callable[[Answers], None]:
    return lambda found: found.set(table={**(found.table or {}), **changes})


def due(minutes: int, status: Status, count: int = 1) -> Callable[[Answers], None]:
    """Return index entries that are due in so many minutes."""

    def change(found: Answers) -> None:
        due_at = int(time.time() * 1000) + minutes * MINUTE - 1000
        found.due = [(f"{REGISTRY}/mirror/gcr.io/x", str(number), due_at) for number in range(count)]
        found.statuses = Counter({status: count})

    return change


def lane_off(minutes: int) -> Callable[[Answers], None]:
    """Switch the fast lane off for so many minutes and a bit."""

    def change(found: Answers) -> None:
        until = int(time.time() * 1000) + minutes * MINUTE + 50_000
        found.set(state=LaneState(at=0, fast_off_until=until))

    return change


def waiting(found: Answers) -> None:
    found.quota = 2
    found.builds = [{"id": f"p:{each}", "buildStatus": "IN_PROGRESS", "currentPhase": "QUEUED"} for each in range(2)]
    due(1, Status.REQUESTED, 3)(found)


def logins(text: str | Absent) -> Callable[[Answers], None]:
    return lambda found: found.secrets.update({AUTH_SECRET: text})


def login(key: str, **entry: str) -> Callable[[Answers], None]:
    """Put a login beside a good one into the secret."""
    auths = {"quay.io": {"username": "robot", "password": "p"}, key: entry}
    return logins(json.dumps({"auths": auths}))


def secret_of_another_name(found: Answers, text: str | Absent) -> None:
    found.change_china(outputs={**found.china.outputs, "GlobalSecret": "Other"})
    found.secrets["Other"] = text


def missing_webhook_and_late_stream(found: Answers) -> None:
    found.resources.pop("ApiFunction")
    found.metrics[RECONCILER, "IteratorAge"] = [90_000.0]


def other_filter(found: Answers) -> None:
    found.mappings[0]["FilterCriteria"] = {"Filters": [{"Pattern": '{"eventName":["REMOVE"]}'}]}


def other_prefix_of_events(found: Answers) -> None:
    pattern = json.loads(found.rules[HINTS]["EventPattern"])
    pattern["detail"]["repository-name"] = [{"prefix": "others/"}]
    found.rules[HINTS]["EventPattern"] = json.dumps(pattern)


BREAKAGES = [
    pytest.param(
        lambda found: found.change_china(outputs={}),
        "china stack",
        "failed",
        "lacks the outputs APIGatewayURL",
        "deploy both",
        id="an-older-release-in-china",
    ),
    pytest.param(
        lambda found: found.change_global(outputs={"ProjectName": "ImagePullProject"}),
        "global stack",
        "failed",
        "lacks the outputs GlobalRegion, ImagePullSecretArn, ImagePullUserName",
        "deploy both",
        id="an-older-global-release",
    ),
    pytest.param(
        lambda found: found.change_china(status="UPDATE_ROLLBACK_COMPLETE"),
        "china stack",
        "warning",
        "its last update failed and was rolled back",
        "describe-stack-events --profile china --region cn-northwest-1 --stack-name image-mirror",
        id="rolled-back",
    ),
    pytest.param(
        lambda found: found.change_china(status="ROLLBACK_COMPLETE"),
        "china stack",
        "failed",
        "its creation failed and was rolled back",
        "delete the stack",
        id="never-created",
    ),
    pytest.param(
        lambda found: found.change_china(status="DELETE_FAILED"),
        "china stack",
        "failed",
        "it is partly deleted and accepts no update",
        "delete the stack again",
        id="half-deleted",
    ),
    pytest.param(
        lambda found: found.change_china(status="UPDATE_IN_PROGRESS"),
        "china stack",
        "warning",
        "is UPDATE_IN_PROGRESS",
        "wait",
        id="under-way",
    ),
    pytest.param(
        lambda found: found.change_china(status="UPDATE_ROLLBACK_FAILED"),
        "china stack",
        "failed",
        "its rollback failed; it accepts no update until that is finished",
        "continue-update-rollback --profile china --region cn-northwest-1 --stack-name image-mirror",
        id="half-rolled-back",
    ),
    pytest.param(
        lambda found: found.change_global(status="ROLLBACK_COMPLETE"),
        "global stack",
        "failed",
        "its creation failed and was rolled back",
        "delete the stack, deploy again",
        id="a-global-stack-never-created",
    ),
    pytest.param(
        lambda found: found.change_china(MirrorRules="gcr.io, quay.io/, *"),
        "MirrorRules",
        "failed",
        "rule 'quay.io/': ",
        "sam deploy --profile china --region cn-northwest-1 --stack-name image-mirror --parameter-overrides "
        """'MirrorRules="<all rules, this one corrected>"'""",
        id="a-wrong-rule",
    ),
    pytest.param(
        lambda found: found.change_global(RepositoryPrefix="other"),
        "both stacks",
        "failed",
        "RepositoryPrefix of the global stack is other, China's is mirror",
        "--profile global --region us-west-2 --stack-name image-pulling --template-file image-pulling.yaml "
        "--capabilities CAPABILITY_IAM --parameter-overrides RepositoryPrefix=mirror",
        id="another-prefix-of-the-global-stack",
    ),
    pytest.param(
        lambda found: found.change_global(Region="cn-north-1"),
        "both stacks",
        "failed",
        "Region of the global stack is cn-north-1, China's is cn-northwest-1",
        "image-mirror connect",
        id="another-region",
    ),
    pytest.param(
        lambda found: found.change_global(ChinaAccountId="210987654321"),
        "both stacks",
        "failed",
        "is 210987654321, China's account is 123456789012",
        "ChinaAccountId=123456789012",
        id="another-account",
    ),
    pytest.param(
        lambda found: found.change_global(ChinaAccountId=""),
        "both stacks",
        "warning",
        "any account",
        "ChinaAccountId=123456789012",
        id="any-account",
    ),
    pytest.param(
        lambda found: found.change_china(GlobalProjectName="Other"),
        "both stacks",
        "failed",
        "China's GlobalProjectName is Other, the global stack's project is ImagePullProject",
        "GlobalProjectName=ImagePullProject",
        id="another-project",
    ),
    pytest.param(
        lambda found: found.secrets.update(GlobalAKSK=Absent.GONE),
        "GlobalAKSK: secret",
        "failed",
        "it does not exist",
        "image-mirror connect",
        id="no-secret",
    ),
    pytest.param(
        lambda found: found.secrets.update(GlobalAKSK=Absent.MARKED),
        "GlobalAKSK: secret",
        "failed",
        "it is marked for deletion",
        "restore it with `aws secretsmanager restore-secret --profile china --region cn-northwest-1 "
        "--secret-id GlobalAKSK`",
        id="a-secret-marked-for-deletion",
    ),
    pytest.param(
        lambda found: secret_of_another_name(found, Absent.GONE),
        "GlobalAKSK: secret",
        "failed",
        "Other does not exist",
        "image-mirror connect",
        id="no-secret-of-another-name",
    ),
    pytest.param(
        lambda found: secret_of_another_name(
            found, '{"G_AWS_REGION": "eu-west-1", "G_ACCESS_KEY": "AKIAGLOBALEXAMPLE001", "G_SECRET_KEY": "x"}'
        ),
        "GlobalAKSK: secret",
        "failed",
        "G_AWS_REGION in Other is eu-west-1, the stack's region is us-west-2",
        "image-mirror connect",
        id="another-region-in-a-secret-of-another-name",
    ),
    pytest.param(
        lambda found: found.secrets.update({PULL_SECRET: Absent.MARKED}),
        "ImagePullSecret: secret",
        "failed",
        "it is marked for deletion",
        "restore-secret --profile global --region us-west-2 --secret-id ImagePullSecret`",
        id="the-stacks-secret-marked-for-deletion",
    ),
    pytest.param(
        lambda found: found.secrets.update({PULL_SECRET: Absent.GONE}),
        "ImagePullSecret: secret",
        "failed",
        "it does not exist",
        "--deployment-mode REVERT_DRIFT undoes it; then: `image-mirror connect` creates a key and stores it",
        id="the-stacks-secret-gone",
    ),
    pytest.param(
        lambda found: found.secrets.update(GlobalAKSK="AKIAIOSFODNN7EXAMPLE"),
        "GlobalAKSK: secret",
        "failed",
        "is not a JSON object",
        "image-mirror connect",
        id="a-secret-of-no-json",
    ),
    pytest.param(
        lambda found: found.give("GlobalAKSK", G_SECRET_KEY=" "),
        "GlobalAKSK: secret",
        "failed",
        "has no value for G_SECRET_KEY",
        "image-mirror connect",
        id="a-secret-without-its-key",
    ),
    pytest.param(
        lambda found: found.give("GlobalAKSK", G_AWS_REGION="eu-west-1"),
        "GlobalAKSK: secret",
        "failed",
        "G_AWS_REGION is eu-west-1, the stack's region is us-west-2",
        "image-mirror connect",
        id="a-secret-of-another-region",
    ),
    pytest.param(
        lambda found: found.give("GlobalAKSK", G_AWS_REGION="Oregon"),
        "GlobalAKSK: secret",
        "failed",
        "has no valid region in G_AWS_REGION",
        "image-mirror connect",
        id="a-secret-of-no-region",
    ),
    pytest.param(
        lambda found: found.give(PULL_SECRET, AccessKey="", AccessSecretKey=""),
        "ImagePullSecret: secret",
        "failed",
        "it has no value for AccessKey, AccessSecretKey",
        "image-mirror connect",
        id="a-placeholder",
    ),
    pytest.param(
        lambda found: found.give(PULL_SECRET, AccessKey="<the ID>"),
        "ImagePullSecret: secret",
        "failed",
        "has no value for AccessKey",
        "image-mirror connect",
        id="what-instructions-say",
    ),
    pytest.param(
        lambda found: found.give(PULL_SECRET, AccessKey="AKIA"),
        "ImagePullSecret: secret",
        "failed",
        "has no valid access key ID in AccessKey",
        "image-mirror connect",
        id="half-a-key",
    ),
    pytest.param(
        lambda found: found.keys.update({PULL_USER: [key("AKIAANOTHEREXAMPLE01")]}),
        "GlobalAKSK: key",
        "failed",
        f"...E001 does not belong to {PULL_USER}",
        "image-mirror connect",
        id="another-users-key",
    ),
    pytest.param(
        lambda found: found.keys.update({PUSH_USER: [key("AKIACHINAEXAMPLE0001", status="Inactive")]}),
        "ImagePullSecret: key",
        "failed",
        f"...0001 of {PUSH_USER} is Inactive",
        "image-mirror connect",
        id="an-inactive-key",
    ),
    pytest.param(
        lambda found: (found.keys[PULL_USER] or []).append(key("AKIASECONDEXAMPLE001")),
        "GlobalAKSK: key",
        "warning",
        f"{PULL_USER} has a second active key",
        "image-mirror connect",
        id="a-second-key",
    ),
    pytest.param(
        lambda found: found.keys.update({PULL_USER: [key("AKIAGLOBALEXAMPLE001", days=91)]}),
        "GlobalAKSK: key",
        "warning",
        "is 91 days old",
        "connect --rotate",
        id="an-old-key",
    ),
    pytest.param(
        logins(Absent.GONE),
        "source logins",
        "failed",
        "the secret of RegistryAuthSecretArn (RegistryAuth) does not exist, so every build fails",
        "--parameter-overrides 'RegistryAuthSecretArn=<its ARN>'`",
        id="no-secret-with-logins",
    ),
    pytest.param(
        logins(Absent.MARKED),
        "source logins",
        "failed",
        "(RegistryAuth) is marked for deletion, so every build fails",
        "restore-secret --profile global --region us-west-2 --secret-id RegistryAuth`",
        id="a-secret-with-logins-marked-for-deletion",
    ),
    pytest.param(
        lambda found: found.change_global(RegistryAuthSecretArn=AUTH_SECRET.replace("us-west-2", "eu-west-1")),
        "source logins",
        "failed",
        "(RegistryAuth) is in eu-west-1, not in the stack's region us-west-2",
        "in a secret in us-west-2",
        id="a-secret-with-logins-in-another-region",
    ),
    pytest.param(
        logins(" "),
        "source logins",
        "failed",
        "(RegistryAuth) has no text, so builds read the sources without a login",
        "store a registry auth file",
        id="a-secret-without-logins",
    ),
    pytest.param(
        logins(json.dumps({"auths": {"ghcr.io": {"username": "robot", "password": "p" * 4_000}}})),
        "source logins",
        "failed",
        "has 4,061 characters, and a build gets at most 4,000",
        "keep only the logins",
        id="a-secret-with-too-many-logins",
    ),
    pytest.param(
        logins('{"ghcr.io":{"auth":"cm9ib3Q6ZXhhbXBsZQ=="}}'),
        "source logins",
        "failed",
        'the secret of RegistryAuthSecretArn (RegistryAuth) is an old .dockercfg without "auths"',
        'put its content under "auths"',
        id="an-old-dockercfg",
    ),
    pytest.param(
        logins(
            '{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/dockerconfigjson",'
            '"data":{".dockerconfigjson":"eyJhdXRocyI6e319"}}'
        ),
        "source logins",
        "failed",
        "(RegistryAuth) is a whole Secret of Kubernetes",
        "store the decoded text of its .dockerconfigjson",
        id="a-whole-secret-of-kubernetes",
    ),
    pytest.param(
        logins('{"auths": {}, "credsStore": "desktop"}'),
        "source logins",
        "failed",
        "(RegistryAuth) only names a credential store (credsStore, credHelpers)",
        "without a credential store",
        id="only-a-credential-store",
    ),
    pytest.param(
        logins('{"credHelpers": {"ghcr.io": "ecr-login"}}'),
        "source logins",
        "failed",
        "(RegistryAuth) only names a credential store (credsStore, credHelpers)",
        "without a credential store",
        id="only-credential-helpers",
    ),
    pytest.param(
        login("ghcr.io", auth="%"),
        "source logins",
        "failed",
        '(RegistryAuth) has a login for ghcr.io whose "auth" is not base64',
        "encode USER:PASSWORD in base64",
        id="a-login-of-broken-base64",
    ),
    pytest.param(
        login("ghcr.io", auth=base64.b64encode(b"robot").decode()),
        "source logins",
        "failed",
        '(RegistryAuth) has a login for ghcr.io whose "auth" is not USER:PASSWORD',
        "encode USER:PASSWORD in base64",
        id="a-login-without-a-colon",
    ),
    pytest.param(
        login("https://ghcr.io"),
        "source logins",
        "failed",
        "(RegistryAuth) has no login for https://ghcr.io",
        'give it "auth"',
        id="a-login-that-is-in-a-credential-store",
    ),
    pytest.param(
        login("*.pkg.dev", username="robot", password="p"),
        "source logins",
        "warning",
        "(RegistryAuth) has login number 2 under a name that no image begins with",
        "without a wildcard",
        id="a-login-for-a-wildcard",
    ),
    pytest.param(
        lambda found: found.set(project=None),
        "project",
        "failed",
        "ImagePullProject does not exist",
        "image-pulling.yaml",
        id="no-project",
    ),
    pytest.param(
        project(privilegedMode=True),
        "project",
        "warning",
        "runs privileged",
        "image-pulling.yaml",
        id="a-privileged-project",
    ),
    pytest.param(
        project(environmentVariables=[]),
        "project",
        "failed",
        "no variables DOCKER_IMAGE, NEW_DOCKER_IMAGE, TARGET_REGISTRY, REPOSITORY_PREFIX",
        "image-pulling.yaml",
        id="a-project-without-variables",
    ),
    pytest.param(
        variable("TARGET_REGISTRY", "210987654321.dkr.ecr.cn-northwest-1.amazonaws.com.cn"),
        "project",
        "failed",
        "copies to 210987654321.dkr.ecr.cn-northwest-1",
        "image-pulling.yaml",
        id="a-project-for-another-account",
    ),
    pytest.param(
        variable("REPOSITORY_PREFIX", "other"),
        "project",
        "failed",
        "copies below other/, not below mirror/",
        "image-pulling.yaml",
        id="a-project-for-another-prefix",
    ),
    pytest.param(
        lambda found: (found.project or {})["source"].update(buildspec="COPY_RESULT COPY_REASON skopeo copy"),
        "project",
        "warning",
        "copies with skopeo",
        "image-pulling.yaml",
        id="a-buildspec-that-copies-with-skopeo",
    ),
    pytest.param(
        variable("SOURCE_REGISTRIES", "docker.io *.gcr.io"),
        "project",
        "failed",
        "builds may not read from gcr.io, registry.k8s.io, quay.io, ",
        "SourceRegistries",
        id="a-project-that-may-not-read-from-a-rules-hosts",
    ),
    pytest.param(
        lambda found: (found.project or {})["source"].update(buildspec="version: 0.2"),
        "project",
        "failed",
        "another release's buildspec",
        "image-pulling.yaml",
        id="another-buildspec",
    ),
    pytest.param(
        lambda found: found.set(quota=1),
        "build quota",
        "warning",
        "1 builds at once",
        "--profile global --region us-west-2 --service-code codebuild --quota-code L-9D07B6EF --desired-value 20",
        id="a-new-accounts-quota",
    ),
    pytest.param(
        lambda found: found.set(quota=0),
        "build quota",
        "failed",
        "no copy can be made",
        "L-9D07B6EF",
        id="no-quota",
    ),
    pytest.param(
        waiting,
        "build quota",
        "warning",
        "2 builds at once (Linux/Small), and 5 copies wait",
        "L-9D07B6EF",
        id="more-copies-than-the-quota",
    ),
    pytest.param(
        lambda found: found.change_china(GlobalFastProjectName="Other"),
        "both stacks",
        "warning",
        f"China's GlobalFastProjectName is Other, the global stack's is {FAST_PROJECT}: no copy is made in the fast",
        f"--stack-name image-mirror --parameter-overrides GlobalFastProjectName={FAST_PROJECT}`",
        id="another-fast-project",
    ),
    pytest.param(
        lambda found: found.change_global(outputs=GLOBAL_OUTPUTS),
        "both stacks",
        "warning",
        f"China's GlobalFastProjectName is {FAST_PROJECT}, the global stack has no fast lane",
        """--parameter-overrides 'GlobalFastProjectName=""'`""",
        id="a-fast-lane-that-is-no-longer-there",
    ),
    pytest.param(
        lane_off(30),
        "fast lane",
        "warning",
        f"(in 30m), because CodeBuild refused or did not answer calls for {FAST_PROJECT}, or builds there",
        "aws logs tail --profile china --region cn-northwest-1 --since 1h image-mirror-ReconcilerLogs-1A2B3C",
        id="a-fast-lane-that-is-off",
    ),
    pytest.param(
        lambda found: found.set(fast_project=None),
        "fast project",
        "warning",
        f"{FAST_PROJECT} does not exist",
        "image-pulling.yaml",
        id="no-fast-project",
    ),
    pytest.param(
        project("fast_project", type="LINUX_CONTAINER", computeType="BUILD_GENERAL1_SMALL"),
        "fast project",
        "warning",
        "runs on LINUX_CONTAINER BUILD_GENERAL1_SMALL, not on LINUX_LAMBDA_CONTAINER BUILD_LAMBDA_2GB",
        "REVERT_DRIFT",
        id="a-fast-project-on-other-compute",
    ),
    pytest.param(
        variable("FAST_LANE", "false", "fast_project"),
        "fast project",
        "warning",
        "has no variable FAST_LANE=true",
        "image-pulling.yaml",
        id="a-fast-project-that-does-not-know-it",
    ),
    pytest.param(
        variable("REPOSITORY_PREFIX", "other", "fast_project"),
        "fast project",
        "warning",
        f"{FAST_PROJECT} copies below other/, not below mirror/",
        "image-pulling.yaml",
        id="a-fast-project-for-another-prefix",
    ),
    pytest.param(
        lambda found: (found.fast_project or {})["source"].update(buildspec="version: 0.2"),
        "fast project",
        "warning",
        f"{FAST_PROJECT} has another release's buildspec",
        "image-pulling.yaml",
        id="another-buildspec-in-the-fast-lane",
    ),
    pytest.param(
        lambda found: found.set(fast_quota=0),
        "fast build quota",
        "warning",
        "0 builds at once (Linux Lambda/2GB): no copy is made in the fast lane",
        "--region us-west-2 --service-code codebuild --quota-code L-1DFDD5F9 --desired-value 10",
        id="no-quota-in-the-fast-lane",
    ),
    pytest.param(
        lambda found: found.set(fast_quota=300),
        "fast build quota",
        "warning",
        "300 builds at once (Linux Lambda/2GB), but FastBuildQuota is 1: the rest of the quota is not used",
        "FastBuildQuota=300",
        id="a-quota-of-the-fast-lane-that-is-not-used",
    ),
    pytest.param(
        due(1, Status.REQUESTED, 11),
        "fast build quota",
        "warning",
        "1 builds at once (Linux Lambda/2GB), and 11 copies wait",
        "--quota-code L-1DFDD5F9 --desired-value 11",
        id="more-copies-than-the-fast-lane-makes",
    ),
    pytest.param(
        lambda found: found.set(fast_quota=None),
        "fast build quota",
        "skipped",
        "Service Quotas gives no applied value",
        "CodeBuild's console",
        id="an-unknown-quota-of-the-fast-lane",
    ),
    pytest.param(
        lambda found: found.set(table=None),
        "table",
        "failed",
        "ImageListTable does not exist",
        "from a backup",
        id="no-table",
    ),
    pytest.param(
        table(GlobalSecondaryIndexes=[]),
        "table",
        "failed",
        "has no index DueIndex",
        "deploy China's stack again; if that finds no changes",
        id="no-index",
    ),
    pytest.param(
        table(StreamSpecification={"StreamEnabled": False}),
        "table",
        "failed",
        "has no stream",
        "deploy China's stack",
        id="no-stream",
    ),
    pytest.param(
        table(StreamSpecification={"StreamEnabled": False}, RestoreSummary={"RestoreInProgress": False}),
        "table",
        "failed",
        "ImageListTable was restored, and has no stream of new images",
        "--parameter-overrides TableName=ImageListTable2` makes an empty table",
        id="a-restored-table",
    ),
    pytest.param(
        due(-16, Status.COPYING),
        "due records",
        "warning",
        "mirror/gcr.io/x:0 has been due for 16m; 1 are due within the hour: 1 COPYING",
        "aws logs tail --profile china --region cn-northwest-1 --since 1h image-mirror-ReconcilerLogs-1A2B3C",
        id="a-record-long-due",
    ),
    pytest.param(
        lambda found: found.set(quota=1),
        "build quota",
        "warning",
        "1 builds at once (Linux/Small), but BuildQuota is 20",
        "BuildQuota=1",
        id="a-new-accounts-quota-below-the-setting",
    ),
    pytest.param(
        waiting,
        "build quota",
        "warning",
        "2 builds at once (Linux/Small), but BuildQuota is 20",
        "BuildQuota=2",
        id="a-quota-below-the-setting-while-copies-wait",
    ),
    pytest.param(
        lambda found: found.set(quota=2000),
        "build quota",
        "warning",
        "2000 builds at once (Linux/Small), but BuildQuota is 20",
        "BuildQuota=1000",
        id="a-quota-above-the-largest-setting",
    ),
    pytest.param(
        lambda found: found.set(quota=50),
        "build quota",
        "warning",
        "50 builds at once (Linux/Small), but BuildQuota is 20: the rest of the quota is not used",
        "--region cn-northwest-1 --stack-name image-mirror --parameter-overrides BuildQuota=50",
        id="a-quota-that-is-not-used",
    ),
    pytest.param(
        lambda found: found.set(quota=5),
        "build quota",
        "warning",
        "5 builds at once (Linux/Small), but BuildQuota is 20: more builds wait in its queue",
        "BuildQuota=5",
        id="a-quota-below-the-setting",
    ),
    pytest.param(
        lambda found: found.mappings.clear(),
        "stream mapping",
        "failed",
        "nothing reads the table's stream",
        "deploy China's stack",
        id="no-mapping",
    ),
    pytest.param(
        lambda found: found.mappings[0].update(EventSourceArn="arn:aws-cn:dynamodb:x:1:table/Other/stream/1"),
        "stream mapping",
        "failed",
        "another table's stream",
        "deploy China's stack",
        id="a-mapping-of-another-table",
    ),
    pytest.param(
        lambda found: (found.table or {}).update(
            LatestStreamArn="arn:aws-cn:dynamodb:x:1:table/ImageListTable/stream/2"
        ),
        "stream mapping",
        "failed",
        "an older stream of ImageListTable, which was restored",
        "--stack-name image-mirror --parameter-overrides TableName=ImageListTable2` makes an empty table",
        id="a-mapping-of-an-older-stream",
    ),
    pytest.param(
        lambda found: (found.table or {}).pop("LatestStreamArn"),
        "stream mapping",
        "failed",
        "an older stream of ImageListTable, which was restored",
        "TableName=ImageListTable2",
        id="a-mapping-of-a-stream-that-is-gone",
    ),
    pytest.param(
        lambda found: found.mappings[0].update(State="Disabled"),
        "stream mapping",
        "failed",
        "it is Disabled",
        "update-event-source-mapping --profile china --region cn-northwest-1 --enabled --uuid e1b2c3d4",
        id="a-disabled-mapping",
    ),
    pytest.param(
        lambda found: found.mappings[0].update(LastProcessingResult="PROBLEM: Function call failed"),
        "stream mapping",
        "warning",
        "PROBLEM: Function call failed",
        "aws logs tail",
        id="a-mapping-with-a-problem",
    ),
    pytest.param(
        other_filter,
        "stream mapping",
        "warning",
        "its filter is not the template's",
        "deploy China's",
        id="another-filter",
    ),
    pytest.param(
        lambda found: found.mappings[0].update(FunctionResponseTypes=[]),
        "stream mapping",
        "warning",
        "does not report single failures",
        "deploy China's stack",
        id="whole-batches-are-repeated",
    ),
    pytest.param(
        lambda found: found.metrics.update({(RECONCILER, "IteratorAge"): [90_000.0]}),
        "stream lag",
        "warning",
        "up to 90 seconds old",
        "reconciler",
        id="a-late-stream",
    ),
    pytest.param(
        missing_webhook_and_late_stream,
        "stream lag",
        "warning",
        "up to 90 seconds old",
        "reconciler",
        id="a-late-stream-beside-a-missing-function",
    ),
    pytest.param(
        lambda found: found.rules[SCHEDULE].update(State="DISABLED"),
        "schedule",
        "failed",
        f"{SCHEDULE} is DISABLED",
        f"aws events enable-rule --profile china --region cn-northwest-1 --name {SCHEDULE}",
        id="a-disabled-schedule",
    ),
    pytest.param(
        lambda found: found.rules[SCHEDULE].update(ScheduleExpression="rate(1 hour)"),
        "schedule",
        "failed",
        "has rate(1 hour), not rate(1 minute)",
        "deploy China's stack",
        id="a-slow-schedule",
    ),
    pytest.param(
        lambda found: found.targets.clear(),
        "schedule",
        "failed",
        "does not call the reconciler",
        "deploy China's stack",
        id="a-schedule-without-target",
    ),
    pytest.param(
        lambda found: found.policy["Statement"].pop(0),
        "schedule",
        "failed",
        "may not call the reconciler",
        "deploy China's stack",
        id="a-schedule-without-permission",
    ),
    pytest.param(
        lambda found: found.rules.pop(SCHEDULE),
        "schedule",
        "failed",
        "its rule does not exist",
        "deploy China's stack",
        id="no-schedule",
    ),
    pytest.param(
        other_prefix_of_events,
        "ECR events",
        "failed",
        'has [{"prefix": "others/"}], not [{"prefix": "mirror/"}]',
        "deploy China's stack",
        id="events-of-another-prefix",
    ),
    pytest.param(
        lambda found: found.functions.update({API: None}),
        "webhook function",
        "failed",
        "it does not exist",
        "deploy China's stack",
        id="no-function",
    ),
    pytest.param(
        configured(API, State="Failed", StateReason="The role is gone."),
        "webhook function",
        "failed",
        f"{API} is Failed: The role is gone.",
        "deploy China's stack",
        id="a-failed-function",
    ),
    pytest.param(
        configured(API, State="Pending"),
        "webhook function",
        "warning",
        "is Pending",
        "wait",
        id="a-pending-function",
    ),
    pytest.param(
        configured(RECONCILER, LastUpdateStatus="Failed", LastUpdateStatusReason="No such key."),
        "reconciler function",
        "failed",
        f"the last update of {RECONCILER}: Failed: No such key.",
        "deploy China's stack",
        id="a-failed-update",
    ),
    pytest.param(
        lambda found: (found.functions[API] or {}).update(Concurrency={"ReservedConcurrentExecutions": 0}),
        "webhook function",
        "failed",
        "its reserved concurrency is 0",
        f"delete-function-concurrency --profile china --region cn-northwest-1 --function-name {API}",
        id="a-stopped-function",
    ),
    pytest.param(
        lambda found: found.metrics.update({(API, "Errors"): [2.0, 1.0]}),
        "webhook function",
        "warning",
        "3 of 12 runs in the last hour ended in an error",
        "image-mirror-WebhookLogs-1A2B3C",
        id="errors",
    ),
    pytest.param(
        lambda found: found.metrics.update({(API, "Throttles"): [2.0]}),
        "webhook function",
        "warning",
        "Lambda throttled 2 runs in the last hour",
        "Service Quotas",
        id="throttles",
    ),
    pytest.param(
        lambda found: found.metrics.pop((RECONCILER, "Invocations")),
        "reconciler function",
        "warning",
        "did not run in the last hour",
        "schedule",
        id="a-reconciler-that-does-not-run",
    ),
    pytest.param(
        lambda found: found.set(concurrency=10),
        "Lambda concurrency",
        "warning",
        "runs 10 functions at once",
        "Service Quotas",
        id="a-new-accounts-concurrency",
    ),
    pytest.param(
        lambda found: found.set(letters=3),
        "dead letters",
        "warning",
        "3 batches of the stream could not be handled",
        "purge-queue --profile china --region cn-northwest-1 --queue-url https://sqs.cn-northwest-1",
        id="dead-letters",
    ),
    pytest.param(
        lambda found: found.set(letters=None),
        "dead letters",
        "failed",
        "the queue does not exist",
        "deploy China's stack",
        id="no-queue",
    ),
    pytest.param(
        lambda found: found.denied.add("ecr:CreateRepository"),
        "ECR permissions",
        "failed",
        "the reconciler's role may not ecr:CreateRepository (implicitDeny)",
        "permissions boundary",
        id="a-denied-role",
    ),
    pytest.param(
        lambda found: found.denied.add("ecr:PutImage"),
        "ECR permissions",
        "failed",
        f"{PUSH_USER} may not ecr:PutImage",
        "permissions boundary",
        id="a-denied-user",
    ),
    pytest.param(
        lambda found: found.keys.update({PULL_USER: None}),
        "GlobalAKSK: key",
        "failed",
        f"the user {PULL_USER} does not exist",
        "deploy its stack again",
        id="no-user",
    ),
    pytest.param(
        lambda found: found.key_errors.update({"global": ("InvalidClientTokenId", "The security token is invalid.")}),
        "GlobalAKSK: call",
        "failed",
        "AWS does not accept the key: BatchGetBuilds of ImagePullProject in us-west-2: InvalidClientTokenId",
        "image-mirror connect",
        id="a-refused-key",
    ),
    pytest.param(
        lambda found: found.key_errors.update({"china": ("AccessDeniedException", "no")}),
        "ImagePullSecret: call",
        "failed",
        "but its user may not make the call that it needs: ECR login in cn-northwest-1: AccessDeniedException: no",
        "another key does not help",
        id="a-key-without-rights",
    ),
    pytest.param(
        lambda found: (found.project or {}).update(concurrentBuildLimit=5),
        "project",
        "warning",
        "has a limit of its own, 5 builds",
        "image-pulling.yaml",
        id="a-limited-project",
    ),
    pytest.param(
        lambda found: found.set(quota=None),
        "build quota",
        "skipped",
        "Service Quotas gives no applied value",
        "CodeBuild's console",
        id="an-unknown-quota",
    ),
    pytest.param(
        table(TableStatus="ARCHIVED"),
        "table",
        "failed",
        "ImageListTable is ARCHIVED",
        "DynamoDB's console",
        id="an-archived-table",
    ),
    pytest.param(
        table(KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}]),
        "table",
        "failed",
        "other keys than repo and tag",
        "another TableName",
        id="another-table",
    ),
    pytest.param(
        lambda found: (found.table or {})["GlobalSecondaryIndexes"][0].update(IndexStatus="CREATING"),
        "table",
        "warning",
        "the index DueIndex of ImageListTable is CREATING",
        "wait",
        id="an-index-being-built",
    ),
    pytest.param(
        lambda found: found.mappings[0].update(State="Creating"),
        "stream mapping",
        "warning",
        "it is Creating",
        "wait",
        id="a-new-mapping",
    ),
    pytest.param(
        lambda found: found.resources.pop("ReconcilerFunctionEveryMinute"),
        "schedule",
        "skipped",
        "the stack has no ReconcilerFunctionEveryMinute",
        "",
        id="an-older-template",
    ),
    pytest.param(
        lambda found: found.repositories.update({"mirror/gcr.io/x": RELEASED.replace("90 days", "a few days")}),
        "lifecycle policies",
        "warning",
        "1 of 3 repositories have a lifecycle policy that is not the mirror's, which may delete or archive copies that "
        "pods use: mirror/gcr.io/x",
        "--repository-name mirror/gcr.io/x`",
        id="a-lifecycle-policy-of-somebody-else",
    ),
    pytest.param(
        lambda found: found.repositories.update({f"mirror/gcr.io/x{each:03}": "{}" for each in range(600)}),
        "lifecycle policies",
        "warning",
        "498 of the first 500 of 602 repositories have a lifecycle policy that is not the mirror's, which may delete "
        "or archive copies that pods use: mirror/gcr.io/x000, mirror/gcr.io/x001, mirror/gcr.io/x002, "
        "mirror/gcr.io/x003, mirror/gcr.io/x004 and 493 more",
        "--repository-name mirror/gcr.io/x000`",
        id="very-many-lifecycle-policies",
    ),
]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lane_off(-1), id="on-again"),
        pytest.param(lane_off(200), id="written-by-hand"),
        pytest.param(lambda found: found.set(state=None), id="no-state"),
    ],
)
def test_a_fast_lane_that_is_not_off_now_is_in_order(
    change: Callable[[Answers], None], examine: Callable[[Answers], list[CheckResult]]
) -> None:
    found = Answers()
    change(found)
    [lane] = [each for each in examine(found) if each.topic == "fast lane"]
    assert (lane.state, lane.found) == (State.OK, f"copies are also made in {FAST_PROJECT}")


def lane_not_used(found: Answers) -> None:
    found.change_china(GlobalFastProjectName="")
    found.set(fast_project=None)


def no_lane(found: Answers) -> None:
    lane_not_used(found)
    found.change_global(outputs=GLOBAL_OUTPUTS)


def older_release(found: Answers) -> None:
    lane_not_used(found)
    found.china = replace(
        found.china,
        parameters={name: value for name, value in found.china.parameters.items() if name != "GlobalFastProjectName"},
    )


FAST_TOPICS = {check.topic for check in doctor.fast_lane.CHECKS}


@pytest.mark.parametrize(
    ("change", "quota", "rows"),
    [
        pytest.param(
            lane_not_used,
            0,
            {
                "fast lane": f"not used, although {FAST_PROJECT} is there: `image-mirror connect` switches it on",
                "fast build quota": "0 builds at once (Linux Lambda/2GB)",
            },
            id="there-and-not-used",
        ),
        pytest.param(
            no_lane,
            0,
            {"fast lane": "there is none: the stack image-pulling has no project for it"},
            id="not-there",
        ),
        pytest.param(
            older_release,
            300,
            {
                "fast lane": "not used: the stack image-mirror is of an older release",
                "fast build quota": "300 builds at once (Linux Lambda/2GB)",
            },
            id="an-older-release-in-china",
        ),
    ],
)
def test_a_fast_lane_that_is_not_used_is_no_reason_for_a_warning(
    change: Callable[[Answers], None],
    quota: int,
    rows: dict[str, str],
    examine: Callable[[Answers], list[CheckResult]],
) -> None:
    found = Answers(fast_quota=quota)
    change(found)
    due(1, Status.REQUESTED, 15)(found)
    results = [each for each in examine(found) if each.topic in FAST_TOPICS or each.state is not State.OK]
    assert {each.topic: each.found for each in results} == rows
    assert {each.state for each in results} == {State.OK}


def test_a_quota_of_one_is_in_order_and_its_row_says_how_to_ask_for_more(
    examine: Callable[[Answers], list[CheckResult]],
) -> None:
    [quota] = [each for each in examine(Answers()) if each.topic == "fast build quota"]
    assert (quota.state, quota.found) == (State.OK, "1 builds at once (Linux Lambda/2GB)")
    assert "request-service-quota-increase" in (quota.remedy or "")


def test_no_row_says_its_topic_twice(examine: Callable[[Answers], list[CheckResult]]) -> None:
    for each in examine(Answers()):
        assert each.topic.split()[-1] != each.found.split()[0], each
        assert not each.found.startswith(tuple(each.topic.split(": "))), each


@pytest.mark.parametrize(("breakage", "topic", "state", "words", "remedy"), BREAKAGES)
def test_what_is_broken_is_named_with_its_remedy(
    breakage: Callable[[Answers], object],
    topic: str,
    state: str,
    words: str,
    remedy: str,
    examine: Callable[[Answers], list[CheckResult]],
) -> None:
    found = Answers()
    breakage(found)
    results = examine(found)
    named = [each for each in results if (each.topic, each.state) == (topic, state)]
    unwell = [each for each in results if each.state is not State.OK]
    assert any(words in each.found and remedy in (each.remedy or "") for each in named), unwell
    assert {each.topic for each in results} >= {"china stack", "table", "project", "build quota", "webhook call"}
