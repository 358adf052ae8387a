"""The whole way of an image: kubectl, API server, webhook, table, stream, reconciler, build, registry, pull."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.fakes.adapter import gateway
from e2e.harness.all_calls import KEY_ID
from e2e.harness.build import check_programs
from e2e.harness.circle import TWO_LANES, Circle, whole_circle
from e2e.harness.control_plane import Cluster
from e2e.harness.principals import FEDERATED
from e2e.harness.processes import wait_for
from e2e.harness.pulled import assert_pulled
from e2e.harness.recording import Call
from e2e.harness.refusals import CASE, RECONCILER, WEBHOOK, refused
from e2e.harness.source_images import docker_image, oci_index
from e2e.harness.stacks import CHINA, GLOBAL
from e2e.harness.stage import answer, configuration, configured, emptied, pods_of, routes
from image_mirror.lifecycle import BACKOFF
from image_mirror.record import Lane, Record, Status
from support.templates import ROOT

SOURCE = "gcr.io/google-samples/hello-app:1.0"
IMAGE = oci_index("the whole circle")
PROJECTS = {CASE: "ImagePullProject", TWO_LANES: "ImagePullProjectFast", FEDERATED: "ImagePullProject"}
"""The project in which a first copy is made, with one lane and with two."""


@pytest.fixture(params=list(PROJECTS), ids=["one lane", TWO_LANES, FEDERATED])
def circle(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Circle]:
    """All parts, with SOURCE in the source registry."""
    check_programs()
    with whole_circle(tmp_path, request.param) as running:
        running.source.push("gcr.io/google-samples/hello-app", "1.0", IMAGE)
        yield running


@pytest.fixture
def two_lanes(tmp_path: Path) -> Iterator[Circle]:
    """All parts, with both projects and SOURCE; a build of the fast lane ends when it has read more than 1 MB."""
    check_programs()
    limits = {"MAX_IMAGE_GIGABYTES": "0.001", "COPY_WATCH_SECONDS": "0"}
    with whole_circle(tmp_path, TWO_LANES, **limits) as running:
        running.source.push("gcr.io/google-samples/hello-app", "1.0", IMAGE)
        yield running


def test_a_deployment_s_image_arrives_in_the_registry_that_its_pods_name(
    cluster: Cluster, circle: Circle, tmp_path: Path
) -> None:
    """From `kubectl apply` to a pull by the rewritten name, without any call that a policy refuses."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    with (
        emptied(cluster),
        gateway(folder, routes(), answer) as gate,
        configured(cluster, gate, configuration(gate), host=circle.target.host),
    ):
        cluster.kubectl("apply", "-f", ROOT / "samples" / "nginx-gcr.yaml")
        wait_for(lambda: pods_of(cluster, "app=nginx-gcr"), "the Deployment has a pod")
        [pod] = pods_of(cluster, "app=nginx-gcr")
    name = pod["spec"]["containers"][0]["image"]
    assert name == f"{circle.target.host}/mirror/{SOURCE}"

    def arrived() -> bool:
        circle.turn()
        return [record.status for record in circle.records()] == [Status.COPIED]

    wait_for(arrived, "the copy has arrived", 60)
    circle.builds.wait()  # the event of the push comes before its build has ended
    [record] = circle.records()
    assert circle.seen == [Status.REQUESTED, Status.COPYING, Status.COPIED]
    assert (record.source, record.digest) == (SOURCE, IMAGE.manifest.digest)
    assert circle.mapping.dead_letters == []
    assert len(circle.builds.builds) == len(circle.builds.of(PROJECTS[circle.case])) == 1
    [run] = circle.runs
    assert (run.exit_code, run.exported["COPY_RESULT"]) == (0, "COPIED")
    assert_pulled(tmp_path / "node", circle.target, name, IMAGE)

    assert circle.refused() == []
    assert "dynamodb:PutItem" in circle.called(WEBHOOK)
    assert {"dynamodb:UpdateItem", "ecr:DescribeImages"} <= circle.called(RECONCILER)
    assert circle.called(circle.starter) == {"codebuild:StartBuild"}


def test_a_build_whose_event_is_lost_is_found_by_the_schedule(circle: Circle) -> None:
    built = build(circle, SOURCE)
    circle.push()
    circle.look(built)
    [copied] = circle.records()
    assert (copied.status, copied.digest) == (Status.COPIED, IMAGE.manifest.digest)
    assert circle.called(circle.starter) == {"codebuild:StartBuild", "codebuild:BatchGetBuilds"}
    assert circle.refused() == []


def test_a_tag_that_is_missing_at_the_source_costs_an_attempt_and_is_tried_again_later(circle: Circle) -> None:
    built = build(circle, SOURCE.replace(":1.0", ":2.0"))
    circle.look(built)
    [record] = circle.records()
    assert record.status is Status.REQUESTED
    assert (record.error or "").startswith("NOT_FOUND: ")
    assert (record.attempts, record.waits) == (1, 0)
    assert (record.due_at or 0) - record.updated_at == BACKOFF[0]
    assert circle.mapping.poll() >= 1, "the stream delivers the change itself too"
    assert circle.records() == [record], "the stream starts no build before the record is due"
    assert circle.target.catalogue() == {}
    assert circle.refused() == []


def test_a_copy_that_finds_the_fast_lane_full_is_made_in_the_main_lane(two_lanes: Circle) -> None:
    circle, other = two_lanes, oci_index("another")
    circle.source.push("gcr.io/team/other", "1", other)
    circle.admit(SOURCE)
    circle.admit("gcr.io/team/other:1")
    assert circle.mapping.poll() == 2
    assert circle.mapping.poll() == 2, "the stream delivers the claims too, and nothing is done for them"
    circle.builds.wait()
    for _ in range(2):
        circle.push()
    for record in circle.records():
        circle.look(record)
    records = circle.records()
    assert {record.status for record in records} == {Status.COPIED}
    assert {record.digest for record in records} == {IMAGE.manifest.digest, other.manifest.digest}
    assert sorted(str(record.lane) for record in records) == ["fast", "main"]
    for project in ("ImagePullProject", "ImagePullProjectFast"):
        assert len(circle.builds.of(project)) == 1
    assert [run.exported["COPY_RESULT"] for run in circle.runs] == ["COPIED"] * 2
    assert circle.refused() == []


def test_an_image_that_is_too_large_for_the_fast_lane_is_copied_in_the_main_lane_at_no_attempt(
    two_lanes: Circle,
) -> None:
    circle, large = two_lanes, docker_image(os.urandom(10_000_000).hex())
    circle.source.push("gcr.io/team/large", "1", large)
    fast = build(circle, "gcr.io/team/large:1")
    assert fast.lane is Lane.FAST
    circle.look(fast)
    assert circle.mapping.poll() >= 1, "it goes on at once"
    circle.builds.wait()
    [main] = circle.records()
    assert (main.status, main.lane, main.not_fast) == (Status.COPYING, Lane.MAIN, "TOO_LARGE")
    assert "FastLaneGigabytes" in circle.runs[0].exported["COPY_REASON"]
    circle.push()
    circle.look(main)
    [copied] = circle.records()
    assert (copied.status, copied.digest) == (Status.COPIED, large.manifest.digest)
    assert (copied.attempts, copied.waits) == (0, 0)
    assert [run.exported["COPY_RESULT"] for run in circle.runs] == ["TOO_LARGE", "COPIED"]
    assert [len(circle.builds.of(PROJECTS[case])) for case in (CASE, TWO_LANES)] == [1, 1]
    assert circle.refused() == []


def test_a_fast_lane_that_the_key_may_not_use_stops_no_copy(two_lanes: Circle) -> None:
    """CodeBuild refuses the fast project alone: the copy goes on in the main lane, and no key is called refused."""
    circle = two_lanes
    circle.builds.denied.add("ImagePullProjectFast")
    circle.schedule()
    circle.admit(SOURCE)
    assert circle.mapping.poll() == 1, "it goes on at once"
    circle.builds.wait()
    circle.push()
    [copying] = circle.records()
    circle.look(copying)
    [copied] = circle.records()
    assert (copied.status, copied.digest, copied.lane) == (Status.COPIED, IMAGE.manifest.digest, Lane.MAIN)
    assert (copied.attempts, copied.waits) == (0, 0)
    assert circle.builds.of("ImagePullProjectFast") == []


def build(circle: Circle, image: str) -> Record:
    """Make a pod with `image`; return the record of its copy, whose build has ended without an event."""
    circle.admit(image)
    assert circle.mapping.poll() == 1
    circle.builds.wait()
    [copying] = circle.records()
    assert copying.status is Status.COPYING
    return copying


STARTED = {
    "projectName": "ImagePullProject",
    "environmentVariablesOverride": [
        {"name": "DOCKER_IMAGE", "value": SOURCE, "type": "PLAINTEXT"},
        {"name": "NEW_DOCKER_IMAGE", "value": f"localhost:5000/mirror/{SOURCE}", "type": "PLAINTEXT"},
    ],
    "idempotencyToken": "token",
}


@pytest.mark.parametrize(
    ("call", "registry", "decisions"),
    [
        pytest.param(
            Call(WEBHOOK, CHINA.region, "dynamodb", "DeleteItem", {"TableName": "ImageListTable"}),
            "localhost:5000",
            ["allowed by no statement"],
            id="another role's call",
        ),
        pytest.param(
            Call(RECONCILER, CHINA.region, "ecr", "DescribeImages", {"repositoryName": "mirrors/a"}),
            "localhost:5000",
            ["allowed by no statement"],
            id="a repository elsewhere",
        ),
        pytest.param(Call(KEY_ID, GLOBAL.region, "codebuild", "StartBuild", STARTED), "localhost:5000", [], id="none"),
        pytest.param(
            Call(KEY_ID, GLOBAL.region, "codebuild", "StartBuild", STARTED),
            "localhost:5001",
            ["denied by a statement"],
            id="a copy for another registry",
        ),
    ],
)
def test_a_recorded_call_that_a_policy_refuses_is_found(call: Call, registry: str, decisions: list[str]) -> None:
    assert [text.rpartition(": ")[2] for text in refused([call], registry)] == decisions
