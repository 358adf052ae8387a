"""`image-mirror selftest` on the emulated AWS: what it refuses, what it removes, and what it says of the rest."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.client import BaseClient

from image_mirror.cli import stacks
from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.selftest import command, copies, removal, reviews
from image_mirror.cli.commands.selftest.copies import Run
from image_mirror.cli.commands.selftest.removal import Removal
from image_mirror.cli.commands.selftest.results import Result
from image_mirror.cli.commands.selftest.samples import IMAGES, Before, Sample, choose, taken
from image_mirror.cli.doctor.runner import State
from image_mirror.cli.doctor.webhook import Reply, Silence
from image_mirror.cli.forgetting import Builds
from image_mirror.record import Lane, Record, Status, new_record
from image_mirror.table import Records
from support.operators import CHINA_OUTPUTS, GLOBAL_OUTPUTS, TOKEN, Operated
from support.recorded import now, run

REPOSITORY = "mirror/registry.k8s.io/pause"
ROLES = {
    "ReconcilerRoleArn": "arn:aws-cn:iam::123456789012:role/r",
    "WebhookRoleArn": "arn:aws-cn:iam::123456789012:role/w",
}
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Deployed:
    """Both stacks, and a run whose samples have been requested."""

    operated: Operated
    run: Run
    samples: list[Sample]
    before: Before

    @property
    def ecr(self) -> Any:
        return self.operated.cloud.ecr

    def remove(self) -> Any:
        return Removal(self.run, self.before, Builds("global", None)).carry_out()

    def record(self, sample: Sample, **values: Any) -> Record:
        made = new_record(sample.copy.destination, sample.copy.source, now(), self.run.requester)
        return self.run.records.create(replace(made, **values))

    def push(self, tag: str | None, content: dict[str, Any], kind: str = MANIFEST) -> str:
        given = {"imageTag": tag} if tag else {}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, **content})
        pushed = self.ecr.put_image(
            repositoryName=REPOSITORY, imageManifest=manifest, imageManifestMediaType=kind, **given
        )
        digest: str = pushed["image"]["imageId"]["imageDigest"]
        return digest

    def tags(self) -> list[str]:
        found = self.ecr.describe_images(repositoryName=REPOSITORY)["imageDetails"]
        return sorted(tag for each in found for tag in each.get("imageTags", ["untagged"]))

    def look(self) -> None:
        """See what ECR has now as what was there before the run."""
        self.before, _ = taken(self.samples, self.run.records, self.ecr)


@pytest.fixture
def deployed(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    for name in ("_PAUSE", "IN_FLIGHT"):
        monkeypatch.setattr(removal, name, 0.0)
    monkeypatch.setattr(copies, "_PAUSE", 0.0)
    operated.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS | ROLES, WebhookToken=TOKEN)
    outputs = GLOBAL_OUTPUTS | {"BuildRoleArn": "arn:aws:iam::123456789012:role/b"}
    operated.deploy("image-pulling.yaml", "us-west-2", "image-pulling", outputs, ChinaAccountId="123456789012")
    china = stacks.china_stack(Account("china", "china"), None)
    world = stacks.global_stack(Account("global", "global"), "image-pulling")
    records = stacks.records_of(china)
    samples = choose(stacks.mirror_of(china), [Lane.MAIN])
    made = Run(china, world, records, "selftest-1", time.monotonic() + 60, list(samples))
    return Deployed(operated, made, samples, Before({REPOSITORY: None}))


# ---- before anything is done ----


@pytest.mark.usefixtures("deployed")
def test_a_dry_run_prints_the_plan_with_the_builds_and_the_price_and_does_nothing() -> None:
    done = run("selftest", "--dry-run")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == (
        f"send 6 dry runs of a pod with {IMAGES[0]} to the webhook; they record nothing"
    )
    assert done.stdout.splitlines()[-1] == (
        "this starts 2 builds, at most 4; it gives up after 15 minutes; it costs at most 0.11 USD, and about 0.09 USD "
        "for each GB of larger images"
    )
    assert TOKEN not in done.output


@pytest.mark.usefixtures("deployed")
def test_the_plan_is_no_part_of_the_json() -> None:
    done = run("selftest", "--dry-run", "--output", "json")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("send 6 dry runs of a pod")


def test_without_a_terminal_nothing_is_done_without_yes(deployed: Deployed) -> None:
    done = run("selftest")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == "Nothing has been changed; --yes does it."
    assert deployed.operated.cloud.items() == []
    as_json = run("selftest", "--output", "json")
    assert (as_json.exit_code, as_json.stdout) == (0, "")


def by_a_pod(deployed: Deployed) -> None:
    deployed.record(deployed.samples[0], requested_by="default/Pod/x", status=Status.FAILED)


def by_another_run(deployed: Deployed) -> None:
    deployed.record(deployed.samples[0])


def in_ecr(deployed: Deployed) -> None:
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    deployed.push("3.2", {})


@pytest.mark.parametrize(
    ("had", "words"),
    [
        pytest.param(by_a_pod, "it has a record already; choose another image with --image", id="a-record"),
        pytest.param(in_ecr, "ECR has a copy of it already; choose another image with --image", id="a-copy"),
        pytest.param(
            by_another_run,
            "another selftest has requested it. Wait for its end; if it was killed, remove its record with "
            f"`image-mirror forget --force {IMAGES[0]}`",
            id="another-run",
        ),
    ],
)
def test_an_image_that_is_used_already_is_refused_and_left(
    had: Callable[[Deployed], None], words: str, deployed: Deployed
) -> None:
    had(deployed)
    items = deployed.operated.cloud.items()
    done = run("selftest", "--yes")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"Error: {IMAGES[0]}: {words}\n"
    assert deployed.operated.cloud.items() == items


def test_stacks_that_do_not_fit_together_are_reported_first(deployed: Deployed) -> None:
    outputs = GLOBAL_OUTPUTS | {"ProjectName": "Other"}
    deployed.operated.deploy("image-pulling.yaml", "us-west-2", "image-pulling", outputs, ChinaAccountId="123456789012")
    done = run("selftest", "--yes")
    assert done.exit_code == 1
    assert "the global stack's project is Other: no copy is started" in done.stderr


# ---- a run that fails ----


def test_a_webhook_that_is_silent_and_an_account_that_may_not_be_asked_fail_the_run(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, refuse: Callable[..., None]
) -> None:
    refuse("iam", "SimulatePrincipalPolicy")
    for module in (reviews, copies):
        monkeypatch.setattr(module, "send", lambda *_: Silence("the name is not found", "check DNS"))
    done = run("selftest", "--yes", "--output", "json")
    assert done.exit_code == 1
    assert [(row["check"], row["state"]) for row in json.loads(done.stdout)] == [
        ("webhook", "failed"),
        ("permissions", "skipped"),
        ("permissions", "skipped"),
        ("copy", "failed"),
        ("missing image", "failed"),
        ("removal", "ok"),
    ]
    assert deployed.operated.cloud.items() == []
    assert TOKEN not in done.output


def test_ctrl_c_while_a_review_is_answered_removes_the_record_that_it_wrote(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, refuse: Callable[..., None]
) -> None:
    def recorded(_: str, review: Any) -> Silence:
        if not review["request"]["dryRun"]:
            name = review["request"]["name"]
            deployed.record(deployed.samples[0], requested_by=f"image-mirror-selftest/Pod/{name}")
            refuse("codebuild", "ListBuildsForProject")
            raise KeyboardInterrupt
        return Silence("the name is not found", "check DNS")

    for module in (reviews, copies):
        monkeypatch.setattr(module, "send", recorded)
    refuse("iam", "SimulatePrincipalPolicy")
    done = run("selftest", "--yes", "--output", "json")
    assert done.exit_code == 130
    [*_, removed] = json.loads(done.stdout)
    assert removed["state"] == "failed"
    assert "builds of ImagePullProject" in removed["found"]
    assert "`aws codebuild list-builds-for-project --profile global" in removed["found"]
    assert deployed.operated.cloud.items() == []


def test_an_error_that_nobody_foresaw_removes_what_was_made_and_shows_the_results(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, refuse: Callable[..., None]
) -> None:
    def broken(_: str, review: Any) -> Silence:
        if not review["request"]["dryRun"]:
            name = review["request"]["name"]
            deployed.record(deployed.samples[0], requested_by=f"image-mirror-selftest/Pod/{name}", error="NOT_FOUND: x")
            raise ZeroDivisionError
        return Silence("the name is not found", "check DNS")

    for module in (reviews, copies):
        monkeypatch.setattr(module, "send", broken)
    refuse("iam", "SimulatePrincipalPolicy")
    done = run("selftest", "--yes", "--output", "json")
    assert isinstance(done.exception, ZeroDivisionError)
    assert [row["check"] for row in json.loads(done.stdout)][-1] == "removal"
    assert deployed.operated.cloud.items() == []


def test_ctrl_c_while_the_first_one_is_reported_removes_what_was_made_too(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def checks() -> Iterator[list[Result]]:
        yield [Result("copy", State.OK, "x")]
        raise KeyboardInterrupt

    deployed.record(deployed.samples[0], error="NOT_FOUND: x")
    monkeypatch.setattr(command, "say", interrupted)
    with pytest.raises(KeyboardInterrupt):
        command._carry_out(checks(), Removal(deployed.run, deployed.before, Builds("global", None)))
    assert deployed.operated.cloud.items() == []


@pytest.mark.parametrize(
    ("by", "fault"),
    [
        pytest.param(None, "no record was written; run this again in two minutes", id="a run just before this"),
        pytest.param("default/Pod/x", "somebody has requested it in this moment", id="a pod"),
    ],
)
def test_a_request_without_a_record_of_its_own_is_not_followed(
    by: str | None, fault: str, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = deployed.samples[0]

    def right(_: str, review: Any) -> Reply:
        if by:
            deployed.record(sample, requested_by=by)
        pod = review["request"]["object"]
        whole = reviews.expected(pod, str(sample.copy.destination))
        patch = [{"op": "replace", "path": f"/{name}", "value": whole[name]} for name in ("metadata", "spec")]
        response = {"uid": review["request"]["uid"], "allowed": True}
        response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
        return Reply(200, json.dumps({"response": response}).encode(), 0.1)

    monkeypatch.setattr(copies, "send", right)
    [followed] = deployed.run.copy([sample])
    assert followed.fault is not None
    assert fault in "; ".join(filter(None, followed.fault))


def test_nothing_is_requested_when_the_time_is_over(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: str, review: Any) -> Silence:
        assert review["request"]["dryRun"]
        return Silence("the name is not found", "check DNS")

    for module in (reviews, copies):
        monkeypatch.setattr(module, "send", silent)
    deployed.run.deadline = time.monotonic()
    deployed.run.requested.clear()
    steps = command._steps(deployed.run, deployed.samples, [], 15, deployed.ecr)
    found = [each for some in steps for each in some if each.check in ("copy", "missing image")]
    assert [(each.state, each.lane) for each in found] == [(State.FAILED, "main")] * 2
    assert found[0].found == f"{IMAGES[0]}: not requested: the 15 minutes were over"
    assert deployed.run.requested == []


def test_a_build_that_codebuild_does_not_know_is_not_waited_for(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slept(_: float) -> None:
        raise AssertionError

    monkeypatch.setattr("time.sleep", slept)
    record = deployed.record(deployed.samples[0], status=Status.FAILED, build_id="ImagePullProject:1")
    followed = copies.Followed(deployed.samples[0], latest=record)
    deployed.run._look_at_builds([followed])
    assert followed.build is None


# ---- the removal ----


def test_what_a_run_made_is_removed_with_its_platforms_and_signatures_and_nothing_else(deployed: Deployed) -> None:
    sample = deployed.samples[0]
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    deployed.push("theirs", {"of": "theirs"})
    shared = deployed.push(None, {"of": "theirs too"})
    deployed.look()
    platform = deployed.push(None, {"of": "a platform"})
    listed = {"manifests": [{"digest": platform}, {"digest": shared}]}
    digest = deployed.push("3.2", listed, INDEX)
    deployed.push(f"{digest.replace(':', '-')}.sig", {"of": "a signature"})
    deployed.push(None, {"of": "another pusher"})
    deployed.record(sample, status=Status.COPIED, digest=digest, build_id="ImagePullProject:1")
    result = deployed.remove()
    assert (result.state, result.found) == (
        State.OK,
        "the records, builds, tags and repositories of this run are gone",
    )
    assert deployed.operated.cloud.items() == []
    assert deployed.tags() == ["theirs", "untagged", "untagged"]
    digests = {each["imageDigest"] for each in deployed.ecr.describe_images(repositoryName=REPOSITORY)["imageDetails"]}
    assert shared in digests
    assert platform not in digests


def test_an_index_is_asked_for_as_an_index(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    deployed.push("3.2", {"manifests": []}, INDEX)
    asked: list[tuple[str, list[str]]] = []
    call: Any = vars(BaseClient)["_make_api_call"]

    def called(self: BaseClient, operation: str, given: dict[str, Any]) -> Any:
        asked.append((operation, given.get("acceptedMediaTypes", [])))
        return call(self, operation, given)

    monkeypatch.setattr(BaseClient, "_make_api_call", called)
    assert deployed.remove().state is State.OK
    [types] = [given for operation, given in asked if operation == "BatchGetImage"]
    assert INDEX in types


def test_a_repository_that_the_run_made_is_removed_unless_somebody_uses_it_now(deployed: Deployed) -> None:
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    deployed.push("3.2", {})
    deployed.push("theirs", {"of": "theirs"})
    result = deployed.remove()
    assert result.state is State.OK
    assert f"the repository {REPOSITORY} stays, because it has images that this run has not made" in result.found
    assert deployed.tags() == ["theirs"]
    deployed.ecr.batch_delete_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": "theirs"}])
    assert deployed.remove().found.endswith("are gone")
    assert deployed.ecr.describe_repositories()["repositories"] == []


def test_what_somebody_else_has_requested_meanwhile_is_left_with_its_copy(deployed: Deployed) -> None:
    sample = deployed.samples[0]
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    deployed.push("3.2", {})
    deployed.record(sample, requested_by="default/Pod/x")
    result = deployed.remove()
    assert result.state is State.OK
    assert f"{sample.image} is left, because somebody else has requested it meanwhile" in result.found
    assert (len(deployed.operated.cloud.items()), deployed.tags()) == (1, ["3.2"])


def test_a_pod_that_requests_an_image_during_the_removal_keeps_its_record_its_build_and_its_copy(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = deployed.samples[0]
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    deployed.push("3.2", {})
    deployed.record(sample, error="NOT_FOUND: x")
    stop, asked = Removal._stop, list[str]()

    def stopped(self: Removal, project: str) -> str | None:
        if not asked:
            deployed.record(sample, requested_by="default/Pod/x")
        asked.append(project)
        return stop(self, project)

    monkeypatch.setattr(Removal, "_stop", stopped)
    result = deployed.remove()
    assert result.state is State.OK
    assert f"{sample.image} is left, because somebody else has requested it meanwhile" in result.found
    assert (len(deployed.operated.cloud.items()), deployed.tags()) == (1, ["3.2"])


def test_a_record_that_becomes_a_pods_while_it_is_removed_is_left(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = deployed.samples[0]
    deployed.record(sample, error="NOT_FOUND: x")
    remove, tried = Records.remove, list[Record]()

    def removed(self: Records, old: Record) -> bool:
        tried.append(old)
        if len(tried) > 1:
            return remove(self, old)
        remove(self, old)
        deployed.record(sample, requested_by="default/Pod/x")
        return False

    monkeypatch.setattr(Records, "remove", removed)
    assert deployed.remove().state is State.OK
    assert [item["requested_by"]["S"] for item in deployed.operated.cloud.items()] == ["default/Pod/x"]


def test_an_image_that_was_there_before_under_another_tag_loses_only_the_new_tag(deployed: Deployed) -> None:
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    digest = deployed.push("theirs", {"of": "theirs"})
    deployed.look()
    deployed.push("3.2", {"of": "theirs"})
    deployed.push(f"{digest.replace(':', '-')}.sig", {"of": "a signature"})
    assert deployed.remove().state is State.OK
    assert deployed.tags() == [f"{digest.replace(':', '-')}.sig", "theirs"]


def test_an_image_that_was_there_before_without_a_tag_is_not_deleted_with_the_new_one(deployed: Deployed) -> None:
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    deployed.push(None, {"of": "a pod by digest"})
    deployed.look()
    deployed.push("3.2", {"of": "a pod by digest"})
    result = deployed.remove()
    assert result.state is State.OK
    assert "the tag 3.2" in result.found
    assert deployed.tags() == ["3.2"]


def test_an_empty_repository_stays_while_a_pod_waits_for_another_image_of_it(deployed: Deployed) -> None:
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    deployed.record(deployed.samples[0], tag="3.9", requested_by="default/Pod/x")
    result = deployed.remove()
    assert result.state is State.OK
    assert f"the repository {REPOSITORY} stays, because other images of it are requested" in result.found
    assert len(deployed.ecr.describe_repositories()["repositories"]) == 1


@pytest.mark.parametrize(
    ("service", "operation", "command"),
    [
        pytest.param(
            "ecr",
            "BatchDeleteImage",
            f"`aws ecr batch-delete-image --profile china --region cn-northwest-1 --repository-name {REPOSITORY} "
            "--image-ids imageTag=3.2`",
            id="a-tag",
        ),
        pytest.param(
            "ecr",
            "DeleteRepository",
            f"`aws ecr delete-repository --profile china --region cn-northwest-1 --repository-name {REPOSITORY}`",
            id="a-repository",
        ),
        pytest.param("dynamodb", "DeleteItem", f"`image-mirror forget --force {IMAGES[0]}`", id="a-record"),
    ],
)
def test_what_cannot_be_removed_is_named_with_the_command_and_the_rest_is_removed(
    service: str, operation: str, command: str, deployed: Deployed, refuse: Callable[..., None]
) -> None:
    refuse(service, operation)
    deployed.run.records = Records(deployed.run.china.account.client("dynamodb"), "ImageListTable")
    deployed.ecr.create_repository(repositoryName=REPOSITORY)
    deployed.push("3.2", {})
    deployed.record(deployed.samples[0], error="NOT_FOUND: x")
    result = deployed.remove()
    assert result.state is State.FAILED
    assert result.found.count("; run ") == result.found.count(command) == 1
    assert operation in result.found


def test_ctrl_c_during_the_removal_names_all_that_may_be_left(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(removal, "images_of", interrupted)
    deployed.record(deployed.samples[0], error="NOT_FOUND: x")
    result = deployed.remove()
    assert result.state is State.FAILED
    assert result.found.count("the removal was interrupted; run `aws ecr ") == 3
    assert deployed.operated.cloud.items() == []


def test_a_record_that_the_webhook_writes_after_ctrl_c_is_removed_too(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Record] = []

    def sleep(_: float) -> None:
        if not written:
            written.append(deployed.record(deployed.samples[0]))

    monkeypatch.setattr("time.sleep", sleep)
    assert deployed.remove().state is State.OK
    assert len(written) == 1
    assert deployed.operated.cloud.items() == []


def test_a_run_that_has_requested_nothing_removes_nothing(deployed: Deployed) -> None:
    deployed.run.requested.clear()
    by_a_pod(deployed)
    assert deployed.remove().found == "nothing was made, so nothing is removed"
    assert len(deployed.operated.cloud.items()) == 1
