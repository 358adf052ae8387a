"""Makes the real handlers do everything that the two functions can do, on emulated AWS, and records each call."""

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
from moto.ecr.models import ecr_backends

from e2e.harness.federated import START, federation_of, functions_environment
from e2e.harness.recording import Call, Recorder
from e2e.harness.stacks import GLOBAL, Stack
from image_mirror import reconciler, webhook
from image_mirror.cli.emulation import ACCOUNT, REGION, TABLE, Context, Emulation, emulated_aws, http_event
from image_mirror.record import MOST_ATTEMPTS, Status
from image_mirror.table import Records
from support.lifecycle_policies import RELEASED
from support.slots import run_twenty_builds

REVIEWS = Path(__file__).parents[2] / "reviews"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"  # of ImagePullUser
Json = dict[str, Any]


@dataclass
class Functions:
    """Both handlers, with the emulated AWS and the recorder of their calls."""

    aws: Emulation
    records: Records
    recorder: Recorder
    webhook_role: str
    reconciler_role: str

    def review(self, name: str = "create-pod", **request: Any) -> None:
        """Answer a captured review in a new execution environment, with empty caches."""
        webhook.load.cache_clear()
        self.recorder.acting_as(self.webhook_role)
        review = json.loads((REVIEWS / f"{name}.json").read_text())
        review["request"] |= request
        answer = webhook.handler(http_event(review), None)
        assert answer["statusCode"] == 200, answer

    def reconcile(self, event: Json) -> None:
        """Pass an event to the reconciler, which must report no failed record of a batch."""
        self.recorder.acting_as(self.reconciler_role)
        assert not reconciler.handler(event, Context()).get("batchItemFailures")

    def statuses(self) -> set[str | None]:
        """Return the statuses of the records; an item of an older deployment has the status None."""
        return {record.status for record in self.aws.records()}

    def change(self, **values: Any) -> None:
        """Write `values` into all records."""
        for record in self.aws.records():
            assert self.records.replace(record, replace(record, **values))


def record_all_calls(china: Stack, world: Stack) -> list[Call]:
    """Run everything with the environment that China's stack gives its functions, and return the calls.

    The calls with a session of another role have that role's name in the global stack as their principal.
    """
    recorder = Recorder()
    sessions: dict[str, str] = {}
    try:
        with ExitStack() as stack:
            aws = stack.enter_context(emulated_aws())
            stack.enter_context(mock.patch.dict(os.environ, china.environment()))
            stack.enter_context(recorder.recording())
            if os.environ["G_START_ROLE_ARN"]:
                federation = federation_of(china, world)
                signed_in = stack.enter_context(functions_environment(federation, china, "ReconcilerFunction"))
                stack.enter_context(mock.patch.dict(os.environ, signed_in))
                boto3.client("secretsmanager").delete_secret(SecretId="GlobalAKSK", ForceDeleteWithoutRecovery=True)
            else:
                _store_key(os.environ["GLOBAL_AKSK"])
            if fast_project := os.environ["G_FAST_PROJECT_NAME"]:
                _make_project(fast_project)
            recorder.acting_as(china.role_of("ReconcilerFunction"))
            reconciler.load()
            records = Records(boto3.client("dynamodb"), TABLE)
            functions = Functions(
                aws, records, recorder, china.role_of("ApiFunction"), china.role_of("ReconcilerFunction")
            )
            for part in (_request, _inherit, _copy, _renew, _lose, _expire):
                part(functions)
            if os.environ["G_START_ROLE_ARN"]:
                sessions = {key: "StartRole" for key, each in federation.sessions.items() if each.role_arn == START}
    finally:
        for function in (webhook, reconciler):
            function.load.cache_clear()  # the loaded clients belong to this emulation
    return [replace(call, principal=sessions.get(call.principal, call.principal)) for call in recorder.calls]


def _store_key(name: str) -> None:
    """Put the global key into the secret of that name, and delete the other secret, which must not be read."""
    secrets = boto3.client("secretsmanager")
    secrets.delete_secret(SecretId="GlobalAKSK", ForceDeleteWithoutRecovery=True)
    key = {"G_AWS_REGION": GLOBAL.region, "G_ACCESS_KEY": KEY_ID, "G_SECRET_KEY": "emulated"}
    secrets.create_secret(Name=name, SecretString=json.dumps(key))


def _make_project(name: str) -> None:
    """Make a second project like the first one."""
    codebuild = boto3.client("codebuild", region_name=GLOBAL.region)
    [project] = codebuild.batch_get_projects(names=[os.environ["G_PROJECT_NAME"]])["projects"]
    same: Json = {each: project[each] for each in ("source", "artifacts", "environment", "serviceRole")}
    codebuild.create_project(name=name, **same)


def _request(functions: Functions) -> None:
    """Images that are new, known already, named by digest, in a dry run, in an update and in a debug container."""
    functions.review("create-pod-dry-run")
    assert functions.aws.records() == []
    for name in sorted(path.stem for path in REVIEWS.glob("*.json")):
        functions.review(name)
        functions.review(name)
    assert functions.statuses() == {Status.REQUESTED}
    assert any(record.by_digest for record in functions.aws.records())


def _inherit(functions: Functions) -> None:
    """The repositories are there, with the lifecycle policy that an earlier release wrote."""
    ecr = boto3.client("ecr")
    for name in {record.repo.partition("/")[2] for record in functions.aws.records()}:
        ecr.create_repository(repositoryName=name)
        ecr.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=RELEASED)


def _copy(functions: Functions) -> None:
    """The stream's batch starts the builds; the schedule looks up one of them, and ECR's events report the others."""
    run_twenty_builds(functions.records)
    functions.reconcile(functions.aws.stream_batch())
    assert functions.statuses() == {Status.COPYING}
    first, *others = functions.aws.records()
    functions.aws.push(first)
    functions.records.replace(first, replace(first, due_at=1))
    functions.reconcile({})
    assert functions.statuses() == {Status.COPYING, Status.COPIED}
    for record in others:
        functions.reconcile(functions.aws.push(record))
    assert functions.statuses() == {Status.COPIED}


def _renew(functions: Functions) -> None:
    """A copy is refreshed, a pod requests a failed one again, and an item of an older deployment is adopted."""
    functions.change(requested_at=1)
    functions.review()
    assert Status.REQUESTED in functions.statuses()
    functions.change(due_at=1)
    functions.reconcile({})  # the schedule finds records that the stream has lost
    assert Status.REQUESTED not in functions.statuses()
    functions.change(status=Status.FAILED, attempts=MOST_ATTEMPTS, updated_at=1, digest=None, due_at=None)
    functions.review("create-pod-dry-run")
    functions.review()
    assert functions.statuses() == {Status.FAILED, Status.REQUESTED}
    dynamodb = boto3.client("dynamodb")
    for record in functions.aws.records():
        item = {"repo": {"S": record.repo}, "tag": {"S": record.tag}}
        dynamodb.put_item(TableName=TABLE, Item=item)
    assert functions.statuses() == {None}
    functions.review()
    assert functions.statuses() == {None, Status.REQUESTED}


def _lose(functions: Functions) -> None:
    """Records of copies that ECR no longer holds are removed, by the schedule or after ECR's event."""
    ecr = boto3.client("ecr")
    functions.change(status=Status.COPIED, digest="sha256:" + "a" * 64, requested_at=1, due_at=1)
    for record in functions.aws.records():
        repository = record.repo.partition("/")[2]
        ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": record.tag}])
    first, *others = functions.aws.records()
    detail = {"action-type": "DELETE", "result": "SUCCESS", "image-tag": first.tag}
    detail["repository-name"] = first.repo.partition("/")[2]
    functions.reconcile({"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": detail})
    assert functions.aws.records() == others
    functions.reconcile({})
    assert functions.aws.records() == []


def _expire(functions: Functions) -> None:
    """Copies that nobody has used since 1970 are deleted if the parameter says so, after their records."""
    functions.review()
    functions.reconcile(functions.aws.stream_batch())
    for record in functions.aws.records():
        functions.aws.push(record)
    for repository in ecr_backends[ACCOUNT][REGION].repositories.values():
        for image in repository.images:
            image.image_pushed_at = 1
    functions.change(status=Status.COPIED, requested_at=1, due_at=1)
    functions.reconcile({})
    by_tag = [record for record in functions.aws.records() if not record.by_digest]
    assert bool(by_tag) == (os.environ["EXPIRE_DAYS"] == "0")
