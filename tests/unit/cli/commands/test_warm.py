"""`image-mirror warm` with emulated AWS."""

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from botocore.exceptions import EndpointConnectionError
from botocore.parsers import ResponseParserError
from typer.testing import CliRunner, Result

from image_mirror.cli import app, waiting
from image_mirror.cli.copy_progress import CopyProgress, progress_of
from image_mirror.cli.drawing import screen
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubernetes import Cluster, Refusal, RefusedError
from image_mirror.cli.plan import images_to_copy, pods_as_written
from image_mirror.lifecycle import after_push_event, refused, started
from image_mirror.pod_images import ORIGINALS, SKIP_LABEL
from image_mirror.record import Policy, Record, Status, new_record
from image_mirror.reference import Destination, destination_of, parse_reference
from image_mirror.table import Records
from support.cloud import REGISTRY
from support.ecr_registry import Registry
from support.operators import Operated
from support.reviews_data import MIRROR, sample
from support.waiting_pods import World, restarted
from support.waiting_pods import copied as waits
from support.waiting_pods import pod as waits_for_source

DIGEST = "sha256:" + "a" * 64


def wait_by(
    monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], None], monotonic: Callable[[], float] = time.monotonic
) -> None:
    """Replace the pause between two reads by `sleep`."""
    monkeypatch.setattr(waiting, "time", SimpleNamespace(sleep=sleep, monotonic=monotonic, time=time.time))


def manifest(*images: str) -> str:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}}
    )


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["warm", *arguments], input=stdin)


class Reconciler:
    """Advances each record by one step at each read, instead of the reconciler. Images in `refusing` fail."""

    def __init__(self, operated: Operated) -> None:
        self.records = Records(operated.cloud.dynamodb, "ImageListTable")
        self.operated = operated
        self.refusing: set[str] = set()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        for item in self.operated.cloud.items():
            record = self.records.get(item["repo"]["S"], item["tag"]["S"])
            assert record is not None
            self.records.replace(record, self._next(record))

    def _next(self, record: Record) -> Record:
        now = record.updated_at + 1
        if record.status is Status.REQUESTED:
            return started(record, "ImagePullProject:1", now)
        if record.status is Status.COPYING and record.source in self.refusing:
            return refused(record, "NOT_FOUND: manifest unknown", now)
        step = after_push_event(record, DIGEST, now, Policy())
        return getattr(step, "record", record)


@pytest.fixture
def reconciler(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> Reconciler:
    made = Reconciler(operated)
    wait_by(monkeypatch, made.sleep)
    return made


def destination(image: str) -> Destination:
    return destination_of(parse_reference(image), REGISTRY, "mirror")


def keep(operated: Operated, image: str, change: Callable[[Record], Record]) -> None:
    """Write the record that `change` makes of a new request for `image`."""
    Records(operated.cloud.dynamodb, "ImageListTable").create(
        change(new_record(destination(image), parse_reference(image), 1))
    )


def fail(record: Record) -> Record:
    for _ in range(5):
        record = refused(record, "NOT_FOUND: manifest unknown", 1)
    return record


def test_each_image_is_recorded_once_and_waited_for(reconciler: Reconciler) -> None:
    result = run("-", "--output", "json", stdin=manifest("nginx", "docker.io/library/nginx:latest", "gcr.io/a/b:1"))
    assert result.exit_code == 0, result.output
    copies = json.loads(result.stdout)
    assert [(each["image"], each["copy"], each["state"]) for each in copies] == [
        ("docker.io/library/nginx:latest", f"{REGISTRY}/mirror/docker.io/library/nginx:latest", "COPIED"),
        ("gcr.io/a/b:1", f"{REGISTRY}/mirror/gcr.io/a/b:1", "COPIED"),
    ]
    assert set(copies[0]) == set(CopyProgress.__dataclass_fields__)
    assert len(reconciler.operated.cloud.items()) == 2
    assert reconciler.slept == [5.0, 5.0]


@pytest.mark.usefixtures("reconciler")
def test_each_change_is_a_line_where_there_is_no_terminal() -> None:
    result = run("-", stdin=manifest("gcr.io/a/b:1", "my.registry/x", "$IMAGE"))
    assert result.stderr.splitlines() == [
        "REQUESTED gcr.io/a/b:1",
        "COPYING   gcr.io/a/b:1",
        "COPIED    gcr.io/a/b:1",
        "my.registry/x stays as written: no rule names it",
        "$IMAGE stays as written: it is a variable that nobody filled in",
        "1 image: 1 there, 2 left unchanged.",
    ]
    assert result.stdout.splitlines() == ["STATE   IMAGE         REASON", "COPIED  gcr.io/a/b:1"]


@pytest.mark.usefixtures("reconciler")
def test_only_the_wide_table_has_the_name_of_the_copy() -> None:
    result = run("-", "-o", "wide", stdin=manifest("gcr.io/a/b:1"))
    assert result.stdout.splitlines() == [
        f"STATE   IMAGE         {'COPY':<{len(REGISTRY) + 20}}  REASON",
        f"COPIED  gcr.io/a/b:1  {REGISTRY}/mirror/gcr.io/a/b:1",
    ]


@pytest.mark.usefixtures("reconciler")
def test_images_are_named_without_a_manifest_and_beside_one(operated: Operated) -> None:
    options = ("--image", "nginx", "--image", "gcr.io/a/b:1", "--image", "my.registry/x")
    result = run(*options)
    assert (result.exit_code, result.stdout.splitlines()[1:]) == (
        0,
        ["COPIED  docker.io/library/nginx:latest", "COPIED  gcr.io/a/b:1"],
    )
    assert result.stderr.splitlines()[-2:] == [
        "my.registry/x stays as written: no rule names it",
        "2 images: 2 there, 1 left unchanged.",
    ]
    assert len(operated.cloud.items()) == 2
    result = run("-", *options, "-o", "name", stdin=manifest("gcr.io/a/c:1", "nginx"))
    assert result.stdout.splitlines() == ["gcr.io/a/c:1", "docker.io/library/nginx:latest", "gcr.io/a/b:1"]


class Kubectl:
    """What kubectl answers about a cluster with these images, and about its own configuration."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *images: str) -> None:
        self.config: dict[str, Any] = {
            "current-context": "production",
            "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443"}}],
        }
        self.images = images
        monkeypatch.setattr(Cluster, "_run", lambda _, verb, __, what: self.answer(verb, what))

    def answer(self, verb: str, what: tuple[str, ...]) -> tuple[dict[str, Any], str]:
        if verb == "config":
            if not self.config:
                raise NoAnswerError("the cluster (kubectl's own configuration): error: current-context must exist")
            return self.config, ""
        return {"items": [pod(f"p{n}", image) for n, image in enumerate(self.images)] if what[0] == "pods" else []}, ""


@pytest.mark.parametrize(
    ("config", "cluster"),
    [
        pytest.param(True, "the context production (https://10.0.0.1:6443)", id="a-kubeconfig"),
        pytest.param(False, "the cluster of kubectl's own configuration", id="none"),
    ],
)
def test_a_dry_run_counts_and_says_what_it_asked(
    config: bool, cluster: str, operated: Operated, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = Kubectl(monkeypatch, *(f"gcr.io/a/b:{n}" for n in range(60)), "my.registry/x", "gcr.io/a/b:1")
    kubectl.config = kubectl.config if config else {}
    for number in range(57):
        keep(
            operated, f"gcr.io/a/b:{number}", copied if number else lambda made: started(made, "ImagePullProject:1", 1)
        )
        registry.push("mirror/gcr.io/a/b", str(number))
    result = run("--cluster", "--dry-run")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-2:] == [
        "60 images: 3 to copy, 1 being copied, 56 there, 1 left unchanged.",
        f"Asked: {cluster} and the stack image-mirror in cn-northwest-1. Nothing was changed.",
    ]
    result = run("--dry-run", "--image", "gcr.io/a/b:1", "--image", "gcr.io/a/b:2")
    assert result.stderr.splitlines() == [
        "2 images: 2 there.",
        "Asked: the stack image-mirror in cn-northwest-1. Nothing was changed.",
    ]


@pytest.mark.usefixtures("operated")
def test_a_cluster_in_the_configuration_file_is_asked_only_if_the_call_wants_a_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text('context = "of-the-file"')
    monkeypatch.setenv("IMAGE_MIRROR_CONFIG", str(tmp_path / "config.toml"))
    asked: list[str | None] = []

    def run_kubectl(self: Cluster, verb: str, *_: object) -> tuple[dict[str, Any], str]:
        asked.append(self.context)
        return {"items": []} if verb == "get" else {}, ""

    monkeypatch.setattr(Cluster, "_run", run_kubectl)
    for arguments in (["--image", "gcr.io/a/b:1"], ["-"]):
        result = run(*arguments, "--dry-run", stdin=manifest("gcr.io/a/b:1"))
        assert (result.exit_code, asked) == (0, []), result.output
    assert run("--dry-run").exit_code == 2
    assert run("--cluster", "--dry-run").exit_code == 0
    assert set(asked) == {"of-the-file"}


@pytest.mark.usefixtures("operated")
def test_without_an_image_to_copy_the_ones_that_stay_are_counted() -> None:
    result = run("--image", "my.registry/x")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines()[-1] == "There is no image to copy, 1 left unchanged."


@pytest.mark.usefixtures("reconciler")
def test_a_request_by_an_operator_names_no_pod(operated: Operated) -> None:
    keep(operated, "gcr.io/a/b:1", lambda made: fail(replace(made, requested_by="shop/Pod/p")))
    assert run("-", stdin=manifest("gcr.io/a/b:1", "gcr.io/a/c:1")).exit_code == 0
    assert [item.get("requested_by") for item in operated.cloud.items()] == [None, None]


@pytest.mark.usefixtures("reconciler")
def test_all_images_are_requested_however_many_there_are(operated: Operated) -> None:
    result = run("-", stdin=manifest(*(f"gcr.io/a/b:{number}" for number in range(120))))
    assert result.exit_code == 0, result.output
    assert len(operated.cloud.items()) == 120


def test_an_image_that_is_never_pulled_is_not_requested(reconciler: Reconciler) -> None:
    result = run(str(sample("pull-policy-never.yaml")))
    assert result.exit_code == 0, result.output
    assert [item["source"]["S"] for item in reconciler.operated.cloud.items()] == ["quay.io/team/tool:1"]
    assert "team-tool:dev stays as written: its pull policy is Never" in result.stderr
    assert "ghcr.io/team/model:1 stays as written: its pull policy is Never" in result.stderr


def test_a_copy_that_fails_for_good_ends_with_1_and_its_reason(reconciler: Reconciler) -> None:
    reconciler.refusing.add("gcr.io/a/gone:1")
    result = run("-", stdin=manifest("gcr.io/a/b:1", "gcr.io/a/gone:1"))
    assert result.exit_code == 1
    assert "NOT_FOUND: manifest unknown" in result.stdout.splitlines()[2]
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["COPIED", "FAILED"]
    assert result.stderr.splitlines()[-1] == "2 images: 1 there, 1 failed."


@pytest.mark.usefixtures("reconciler")
def test_a_failed_copy_is_requested_again_and_one_that_is_there_is_not_copied_again(
    operated: Operated, registry: Registry
) -> None:
    registry.push("mirror/gcr.io/a/there", "1", digest=DIGEST)
    keep(operated, "gcr.io/a/failed:1", fail)
    keep(
        operated,
        "gcr.io/a/there:1",
        lambda record: getattr(after_push_event(record, DIGEST, 1, Policy()), "record", record),
    )
    before = {item["tag"]["S"] + item["repo"]["S"]: item for item in operated.cloud.items()}
    result = run("-", "--dry-run", stdin=manifest("gcr.io/a/failed:1", "gcr.io/a/there:1", "gcr.io/a/new:1"))
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["NEW", "COPIED", "NEW"]
    assert "it failed before: NOT_FOUND" in result.stdout
    assert {item["tag"]["S"] + item["repo"]["S"]: item for item in operated.cloud.items()} == before
    assert run("-", stdin=manifest("gcr.io/a/failed:1", "gcr.io/a/there:1")).exit_code == 0
    builds = {item["repo"]["S"].rpartition("/")[2]: item.get("build_id") for item in operated.cloud.items()}
    assert builds == {"failed": {"S": "ImagePullProject:1"}, "there": None}


def copied(record: Record) -> Record:
    return replace(record, status=Status.COPIED, digest=DIGEST)


def lost(operated: Operated, registry: Registry) -> list[str]:
    """Write records of copies that ECR lost, in different ways, and return their images."""
    keep(operated, "gcr.io/a/gone:1", copied)
    keep(operated, "gcr.io/a/archived:1", copied)
    registry.push("mirror/gcr.io/a/archived", "1", digest=DIGEST).status = "ARCHIVED"
    keep(operated, "gcr.io/a/refreshed:1", lambda made: started(replace(made, digest=DIGEST), "ImagePullProject:2", 1))
    keep(operated, "gcr.io/a/delayed:1", lambda made: replace(made, digest=DIGEST, due_at=1 << 50, waits=3))
    return [f"gcr.io/a/{name}:1" for name in ("gone", "archived", "refreshed", "delayed")]


def test_a_copy_that_ecr_lost_is_made_and_waited_for(
    reconciler: Reconciler, operated: Operated, registry: Registry
) -> None:
    result = run("-", stdin=manifest(*lost(operated, registry)))
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[:4] == [
        "REQUESTED gcr.io/a/gone:1",
        "REQUESTED gcr.io/a/archived:1",
        "COPYING   gcr.io/a/refreshed:1",
        "REQUESTED gcr.io/a/delayed:1",
    ]
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["COPIED"] * 4
    builds = {item["repo"]["S"].rpartition("/")[2]: item["build_id"]["S"] for item in operated.cloud.items()}
    first = "ImagePullProject:1"
    expected = {"gone": first, "archived": first, "refreshed": "ImagePullProject:2", "delayed": first}
    assert builds == expected, "the build that ran is not started again"
    assert reconciler.slept


def test_a_dry_run_says_what_ecr_lost_and_writes_nothing(operated: Operated, registry: Registry) -> None:
    images = lost(operated, registry)
    before = operated.cloud.items()
    result = run("-", "--dry-run", "--output", "json", stdin=manifest(*images))
    assert result.exit_code == 0
    assert [(each["state"], each["reason"]) for each in json.loads(result.stdout)] == [
        ("NEW", "ECR no longer holds it"),
        ("NEW", "ECR has archived it, so it cannot be pulled"),
        ("NEW", "ECR no longer holds it"),
        ("NEW", "ECR no longer holds it"),
    ]
    assert operated.cloud.items() == before


@pytest.mark.usefixtures("reconciler", "registry")
def test_a_lost_copy_whose_item_changes_in_what_a_record_does_not_keep_is_requested_all_the_same(
    operated: Operated, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(operated, "gcr.io/a/gone:1", copied)
    replace_, first = Records.replace, iter([True])

    def raced(self: Records, old: Record, new: Record) -> Record | None:
        return replace(old) if next(first, False) else replace_(self, old, new)

    monkeypatch.setattr(Records, "replace", raced)
    result = run("-", stdin=manifest("gcr.io/a/gone:1"))
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == "REQUESTED gcr.io/a/gone:1"


def test_a_lost_copy_whose_record_is_removed_meanwhile_is_reported(
    operated: Operated, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(operated, "gcr.io/a/gone:1", copied)
    replace_ = Records.replace

    def raced(self: Records, old: Record, new: Record) -> Record | None:
        assert self.remove(old)
        return replace_(self, old, new)

    monkeypatch.setattr(Records, "replace", raced)
    result = run("-", stdin=manifest("gcr.io/a/gone:1"))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].startswith("GONE ")
    assert registry.repositories == {}


def test_the_waiting_ends_after_the_time_of_the_option(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 40))
    wait_by(monkeypatch, lambda _: None, lambda: float(next(clock)))
    result = run("-", "--timeout", "1", stdin=manifest("gcr.io/a/b:1"))
    assert (result.exit_code, len(operated.cloud.items())) == (1, 1)
    assert result.stdout.splitlines()[1].startswith("REQUESTED  gcr.io/a/b:1")


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(EndpointConnectionError(endpoint_url="https://dynamodb"), id="no-network"),
        pytest.param(ResponseParserError("<html>"), id="a-proxy"),
    ],
)
def test_reads_that_fail_while_waiting_are_reported_once_and_the_waiting_goes_on(
    error: Exception, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = Records.get
    looks = iter(range(6))

    def unreachable(_: Records, *__: str) -> Record | None:
        raise error

    def sleep(seconds: float) -> None:
        look = next(looks)
        monkeypatch.setattr(Records, "get", get)
        if look < 5:
            if look == 2:
                reconciler.sleep(seconds)
            monkeypatch.setattr(Records, "get", get if look == 2 else unreachable)
        else:
            reconciler.sleep(seconds)

    wait_by(monkeypatch, sleep)
    result = run("-", stdin=manifest("gcr.io/a/b:1", "gcr.io/a/c:1"))
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["COPIED", "COPIED"]
    notes = [
        line
        for line in result.stderr.splitlines()
        if line.startswith("Note: the records cannot be read now, trying again: ")
    ]
    assert len(notes) == 2, "reads 0, 1, 3 and 4 fail, and 2 does not"
    assert "<html>" not in result.stderr


def test_an_older_deployments_record_is_planned_as_a_new_request(operated: Operated) -> None:
    Records(operated.cloud.dynamodb, "ImageListTable").create(
        Record(repo=destination("gcr.io/a/b:1").repo, tag=destination("gcr.io/a/b:1").tag)
    )
    result = run("-", "--dry-run", stdin=manifest("gcr.io/a/b:1"))
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["NEW"]


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.usefixtures("reconciler")
def test_images_that_are_left_unchanged_are_printed_in_both_forms(output: str) -> None:
    result = run("-", "--output", output, stdin=manifest("gcr.io/a/b:1", "my.registry/x"))
    assert "my.registry/x stays as written: no rule names it" in result.stderr.splitlines()


def test_a_record_that_vanishes_is_reported(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(_: float) -> None:
        for item in operated.cloud.items():
            operated.cloud.dynamodb.delete_item(
                TableName="ImageListTable", Key={name: item[name] for name in ("repo", "tag")}
            )

    wait_by(monkeypatch, forget)
    result = run("-", stdin=manifest("gcr.io/a/b:1"))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1].startswith("GONE ")


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        pytest.param([], "", "give manifests (- for standard input), --image or --cluster", id="nothing"),
        pytest.param(["-", "--cluster"], "", "give either manifests (- for standard input) or --cluster", id="both"),
        pytest.param(
            ["--image", "gcr.io/a/b:1", "--context", "prod"],
            "",
            "--context and --kubeconfig say which cluster: give --cluster or --nudge too",
            id="context-of-nothing",
        ),
        pytest.param(
            ["--image", "nginx", "--image", "gcr.io/X:1"],
            "",
            "Invalid value for --image: 'gcr.io/X:1' is not an image reference: the repository has upper case",
            id="no-image",
        ),
        pytest.param(["--image", "$IMAGE"], "", "Invalid value for --image: '$IMAGE' is not", id="a-variable"),
        pytest.param(["--image", ""], "", "Invalid value for --image: '' is not", id="an-empty-image"),
        pytest.param(["-"], "kind: [", "not valid YAML", id="no-yaml"),
        pytest.param(["no-such-file"], "", "no-such-file: cannot be read", id="no-file"),
        pytest.param(["-", "--timeout", "0"], "", "--timeout", id="no-time"),
    ],
)
def test_bad_input_ends_with_2_before_aws_is_asked(arguments: list[str], stdin: str, words: str) -> None:
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())


@pytest.mark.usefixtures("reconciler")
@pytest.mark.parametrize(("options", "state"), [([], "COPIED"), (["--dry-run"], "NEW")], ids=["copied", "dry-run"])
def test_a_bad_manifest_hides_none_and_the_others_are_copied(tmp_path: Path, options: list[str], state: str) -> None:
    (tmp_path / "a.yaml").write_text("kind: [")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b.yaml").write_text(manifest("gcr.io/a/b:1"))
    (tmp_path / "below" / "kustomization.yaml").write_text("resources: [b.yaml]")
    result = run("-R", str(tmp_path), *options)
    assert result.exit_code == 2
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["STATE", "IMAGE"], [state, "gcr.io/a/b:1"]]
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert errors[0].startswith(f"Error: {tmp_path}/a.yaml: document 1: line 2: not valid YAML: ")
    assert errors[1:] == [
        "Error: 1 document or file could not be read, as said above; the images of the others were read"
    ]
    assert "Note: passed over: " in result.stderr


@pytest.mark.usefixtures("reconciler")
def test_images_outside_pod_templates_are_copied() -> None:
    result = run(str(sample("argo-and-tekton.yaml")), "--dry-run", "--output", "json")
    assert result.exit_code == 0, result.output
    assert [copy["image"] for copy in json.loads(result.stdout)] == [
        "docker.io/team/one:1",
        "docker.io/library/python:3.12",
        "quay.io/team/three:1",
        "docker.io/library/redis:7",
        "gcr.io/kaniko-project/executor:v1.23.0",
    ]


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        pytest.param("cloudformation", "DescribeStacks", id="the-stack"),
        pytest.param("dynamodb", "PutItem", id="the-record"),
        pytest.param("ecr", "DescribeImages", id="the-copy"),
    ],
)
def test_a_denied_permission_is_named(
    service: str, operation: str, operated: Operated, refuse: Callable[..., None]
) -> None:
    keep(operated, "gcr.io/a/b:1", copied)
    refuse(service, operation)
    result = run("-", stdin=manifest("gcr.io/a/b:1"))
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"not authorized to perform: {service}:{operation}; ask for this permission" in result.stderr


@pytest.mark.usefixtures("operated")
def test_without_a_network_the_remedy_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    result = run("-", stdin=manifest("gcr.io/a/b:1"))
    assert result.exit_code == 3
    assert "check the network" in result.stderr


def test_ctrl_c_says_that_the_copies_go_on(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    wait_by(monkeypatch, interrupt)
    result = run("-", stdin=manifest("gcr.io/a/b:1"))
    assert result.exit_code == 130
    assert "The requested copies continue" in result.stderr
    assert len(operated.cloud.items()) == 1


@pytest.fixture
def waiting_pods(world: World, registry: Registry, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch) -> World:
    """Pods that wait for one copy that is made and for one that is not; ECR has the copy when its build has ended."""
    world.pods = [waits("b", "gcr.io/a/b:1"), waits("other", "gcr.io/a/other:1"), waits_for_source("m", "gcr.io/a/b:1")]
    world.pods[1]["metadata"]["namespace"] = "else"
    registry.push("mirror/gcr.io/a/other", "1", digest=DIGEST)
    sleep = reconciler.sleep

    def build(seconds: float) -> None:
        sleep(seconds)
        registry.push("mirror/gcr.io/a/b", "1", digest=DIGEST)

    wait_by(monkeypatch, build)
    return world


def test_nudge_lets_the_pods_pull_that_wait_for_these_copies_and_no_others(waiting_pods: World) -> None:
    result = run("-", "--nudge", "--context", "east", "-o", "json", stdin=manifest("gcr.io/a/b:1"))
    assert result.exit_code == 0, result.output
    assert [each["state"] for each in json.loads(result.stdout)] == ["COPIED"]
    becomes = f"{REGISTRY}/mirror/gcr.io/a/b:1@{DIGEST}"
    body = {"metadata": {"resourceVersion": "1"}, "spec": {"containers": [{"name": "app", "image": becomes}]}}
    assert waiting_pods.patched == [("shop/b", body)]
    assert "--all-namespaces" in waiting_pods.asked[0]
    assert result.stderr.splitlines()[-2:] == [
        "shop/b containers/app gcr.io/a/b:1: patched",
        "Pods: 1 patched; 1 other image waits: image-mirror pods says for what",
    ]


def test_nudge_that_may_not_patch_names_the_permission_after_the_copies_are_there(waiting_pods: World) -> None:
    cause = "the permission `patch pods` is missing in the namespace shop"
    waiting_pods.late = [RefusedError(Refusal.NO_PERMISSION, cause)]
    result = run("-", "--nudge", stdin=manifest("gcr.io/a/b:1"))
    assert result.exit_code == 3
    assert "COPIED  gcr.io/a/b:1" in result.stdout
    assert result.stderr.splitlines()[-1].startswith(f"Error: {cause}")


def test_nudge_finds_a_container_that_has_run_before(waiting_pods: World) -> None:
    waiting_pods.pods[0] = restarted(waiting_pods.pods[0])
    result = run("-", "--nudge", stdin=manifest("gcr.io/a/b:1"))
    assert (result.exit_code, [name for name, _ in waiting_pods.patched]) == (0, ["shop/b"])


def test_nudge_that_is_stopped_says_what_was_done(waiting_pods: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("image_mirror.cli.terminal.PARALLEL", 1)
    waiting_pods.pods.append(waits("c", "gcr.io/a/b:1"))
    patch = waiting_pods.patch_pod

    def patch_pod(*what: Any) -> None:
        if waiting_pods.patched:
            raise KeyboardInterrupt
        patch(*what)

    monkeypatch.setattr(waiting_pods, "patch_pod", patch_pod)
    result = run("-", "--nudge", stdin=manifest("gcr.io/a/b:1"))
    assert result.exit_code == 130
    assert "shop/b containers/app gcr.io/a/b:1: patched" in result.stderr


def test_nudge_that_leaves_a_pod_ends_with_1_and_a_dry_run_with_0(waiting_pods: World) -> None:
    waiting_pods.pods[0]["spec"]["restartPolicy"] = "Never"
    result = run("-", "--nudge", stdin=manifest("gcr.io/a/b:1"))
    assert (result.exit_code, waiting_pods.patched) == (1, [])
    waiting_pods.pods[0]["spec"]["restartPolicy"] = "Always"
    result = run("-", "--nudge", "--dry-run", stdin=manifest("gcr.io/a/b:1"))
    assert (result.exit_code, waiting_pods.patched) == (0, [])
    assert "shop/b containers/app gcr.io/a/b:1: would be patched" in result.stderr


def test_nudge_after_a_copy_of_the_cluster_s_images(waiting_pods: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "pods", lambda _: waiting_pods.pods)
    waiting_pods.namespaces = []
    result = run("--cluster", "--nudge")
    assert result.exit_code == 0, result.output
    assert {name for name, _ in waiting_pods.patched} == {"shop/b", "else/other"}


def pod(name: str, image: str, namespace: str = "default", **metadata: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "app", "image": image}]}
    return {"metadata": {"name": name, "namespace": namespace, **metadata}, "spec": spec}


def test_a_clusters_pods_count_as_their_authors_wrote_them() -> None:
    copied = f"{MIRROR.registry}/mirror/quay.io/a/b:1"
    pods = [
        pod("new", "gcr.io/a/b:1"),
        pod("rewritten", copied, annotations={ORIGINALS: json.dumps({"containers/app": "quay.io/a/b:1"})}),
        pod("lying", copied, annotations={ORIGINALS: json.dumps({"containers/app": "quay.io/a/other:2"})}),
        pod("opted-out", "gcr.io/a/c:1", labels={SKIP_LABEL: "true"}),
        pod("in-an-opted-out-namespace", "gcr.io/a/d:1", "off"),
    ]
    found = images_to_copy(pods_as_written(pods, [{"metadata": {"name": "off"}}], MIRROR), MIRROR)
    assert [str(copy.source) for copy in found.copies.values()] == ["gcr.io/a/b:1", "quay.io/a/b:1"]
    assert set(found.not_copied) == {copied, "gcr.io/a/c:1", "gcr.io/a/d:1"}


def test_a_terminal_shows_what_is_waited_for_and_counts_the_rest() -> None:
    from rich.console import Console

    record = new_record(destination("gcr.io/a/b:1"), parse_reference("gcr.io/a/b:1"), 1)
    copies = [progress_of(destination("gcr.io/a/b:1"), f"gcr.io/a/b:{number}", record, 75) for number in range(30)]
    copies.append(progress_of(destination("gcr.io/a/b:1"), "gcr.io/a/failed:1", fail(record), 75))
    console = Console(width=90, height=12, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(copies, 90, 12))
    lines = captured.get().splitlines()
    assert len(lines) <= 12
    assert "0 of 31 copied, 1 failed" in lines[0]
    assert lines[1].split()[:3] == ["FAILED", "1:15", "gcr.io/a/failed:1"]
    assert lines[-1] == "and 22 more"


@pytest.mark.parametrize(
    ("image", "reason", "line"),
    [
        pytest.param(
            "registry.k8s.io/ingress-nginx/controller:v1.11.3",
            None,
            "COPYING     1:15  registry.k8s.io/ingress-nginx/controller:v1.11.3",
            id="a-name-that-fits-is-whole",
        ),
        pytest.param(
            "registry.k8s.io/ingress-nginx/controller:v1.11.3",
            "the source refuses: toomanyrequests",
            "COPYING     1:15  registry.k8s.io/ingress-nginx/controller:v1.11.3  the source …",
            id="the-reason-gets-what-is-left",
        ),
        pytest.param(
            f"registry.k8s.io/{'a' * 60}/controller:v1.11.3",
            "the source refuses",
            f"COPYING     1:15  registry.k8s.io/aaaa…{'a' * 22}/controller:v1.11.3",
            id="a-long-name-is-cut-in-its-middle",
        ),
    ],
)
def test_eighty_columns_show_the_tag_first(image: str, reason: str | None, line: str) -> None:
    from rich.console import Console

    console = Console(width=80, height=24, force_terminal=False)
    with console.capture() as captured:
        console.print(screen([CopyProgress(image, "x", "COPYING", 0, None, reason, 75)], 80, 24))
    assert captured.get().splitlines()[1:] == [line]


def test_a_terminal_is_given_a_live_display_and_a_pipe_is_not() -> None:
    program = """
from image_mirror.cli.copy_progress import CopyProgress
from image_mirror.cli.waiting import display
with display() as show:
    show([CopyProgress("gcr.io/a/b:1", "x", "COPYING", 0, None, None, 1)])
"""
    master, terminal = pty.openpty()
    read = bytearray()

    def drain() -> None:
        try:
            while part := os.read(master, 4096):
                read.extend(part)
        except OSError:
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    environ = {**os.environ, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", program], stderr=terminal, check=True, env=environ)
    os.close(terminal)
    reader.join(60)
    assert b"0 of 1 copied" in read
    assert b"\x1b[" in read
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert piped.stderr == "COPYING   gcr.io/a/b:1\n"
