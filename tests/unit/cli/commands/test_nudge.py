"""`image-mirror nudge` with emulated AWS and a cluster of plain objects."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubernetes import NotFoundError, Refusal, RefusedError
from image_mirror.cli.nudging import Result, Row, shown
from image_mirror.pod_images import ORIGINALS
from image_mirror.record import Status
from support.clock import NOON
from support.ecr_registry import Registry
from support.operators import Operated
from support.recorded import DIGEST, record, run, write
from support.waiting_pods import COPIES, World, copied, pod, restarted, running

pytestmark = pytest.mark.usefixtures("noon", "operated")

SVC, REDIS, LOST = "ghcr.io/acme/svc:2026.11", "docker.io/library/redis:7.2", "gcr.io/lost/app:1"
LIVING = "--field-selector=status.phase!=Succeeded,status.phase!=Failed"
CONFLICT = RefusedError(Refusal.CONFLICT, "somebody else keeps changing the pod")
NUDGED = f"{COPIES}/{SVC}@{DIGEST}"
Json = dict[str, Any]


@pytest.fixture
def night(world: World, operated: Operated, registry: Registry) -> World:
    """Two pods whose copy is there, a Job's, one that waits for its copy, and one that was missed; all in back-off."""
    registry.push("mirror/ghcr.io/acme/svc", "2026.11", digest=DIGEST)
    registry.push("mirror/gcr.io/lost/app", "1", digest=DIGEST)
    write(operated.cloud.dynamodb, [record(SVC, at=NOON), record(REDIS, Status.REQUESTED, at=NOON)])
    job = {"ownerReferences": [{"kind": "Job", "name": "j", "controller": True}]}
    world.pods = [
        copied("svc-0", SVC),
        copied("svc-1", SVC),
        copied("job-0", SVC),
        copied("redis", REDIS),
        pod("lost", LOST),
        running(pod("runs", LOST)),
    ]
    world.pods[2]["metadata"] |= job
    return world


def nudged(*arguments: str, code: int = 0) -> list[Json]:
    result = run("nudge", *arguments, "-o", "json")
    assert result.exit_code == code, result.output
    rows: list[Json] = json.loads(result.stdout)
    return rows


def test_pods_whose_copy_is_there_are_patched_and_the_others_are_named_or_counted(night: World) -> None:
    result = run("nudge", "-A")
    assert result.stdout.startswith("RESULT  ")
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in result.stdout.splitlines()[1:]]
    assert rows == [
        ["not patched", "shop/job-0", "containers/app", SVC, "a pod that runs once, such as a Job's", "add --jobs"],
        ["patched", "shop/svc-0", "containers/app", SVC],
        ["patched", "shop/svc-1", "containers/app", SVC],
    ]
    assert result.stderr == ("Pods: 1 not patched, 2 patched; 2 other images wait: image-mirror pods says for what\n")
    assert result.exit_code == 1, "a Job's pod still waits"
    body = {"metadata": {"resourceVersion": "1"}, "spec": {"containers": [{"name": "app", "image": NUDGED}]}}
    assert sorted(night.patched, key=str) == [("shop/svc-0", body), ("shop/svc-1", body)]
    assert night.asked[0] == ("pods", LIVING, "--all-namespaces")
    asked = {each[0] for each in night.asked}
    assert asked == {"pods", "events"}, "the webhook's configuration does not matter for a copy"


def test_json_has_a_row_for_each_image(night: World) -> None:
    night.pods = night.pods[:1]
    [row] = nudged()
    assert row == {
        "result": "patched",
        "namespace": "shop",
        "pod": "svc-0",
        "field": "containers/app",
        "image": SVC,
        "becomes": NUDGED,
        "why": None,
        "do": None,
    }
    assert set(row) == set(Row.__dataclass_fields__)
    assert run("nudge", "-o", "name").stdout == "pod/svc-0\n"
    assert run("nudge", "-A", "-o", "name").stdout == "shop pod/svc-0\n"


def test_a_dry_run_patches_nothing_and_ends_with_0(night: World) -> None:
    rows = nudged("--dry-run")
    assert [(row["pod"], row["result"]) for row in rows] == [
        ("job-0", "not patched"),
        ("svc-0", "would be patched"),
        ("svc-1", "would be patched"),
    ]
    assert night.patched == []


def test_jobs_are_patched_if_asked_for(night: World) -> None:
    assert {row["pod"]: row["result"] for row in nudged("--jobs")} == dict.fromkeys(
        ("job-0", "svc-0", "svc-1"), "patched"
    )
    assert {name for name, _ in night.patched} == {"shop/job-0", "shop/svc-0", "shop/svc-1"}


def test_one_pod_is_patched_by_its_name_in_any_phase(night: World) -> None:
    assert [(row["pod"], row["result"]) for row in nudged("svc-1", "-n", "shop")] == [("svc-1", "patched")]
    assert night.asked[0] == ("pod", "svc-1", "--namespace=shop")


def test_selectors_are_kubectls(night: World) -> None:
    run("nudge", "-n", "shop", "-l", "app=web")
    assert night.asked[0] == ("pods", LIVING, "--namespace=shop", "--selector=app=web")


def test_missed_pods_get_what_the_webhook_would_have_written(night: World) -> None:
    rows = nudged("--missed")
    assert [(row["pod"], row["result"], row["why"]) for row in rows] == [
        ("lost", "patched", None),
        ("runs", "not waiting", "it does not wait for an image"),
    ]
    assert night.patched == [
        (
            "shop/lost",
            {
                "metadata": {
                    "resourceVersion": "1",
                    "annotations": {ORIGINALS: f'{{"containers/app":"{LOST}"}}'},
                },
                "spec": {"containers": [{"name": "app", "image": f"{COPIES}/{LOST}"}]},
            },
        )
    ]
    assert LIVING in night.asked[0]


def test_what_does_not_wait_is_named_and_leaves_nothing_to_do(night: World) -> None:
    job = {"ownerReferences": night.pods[2]["metadata"]["ownerReferences"]}
    ends = {"deletionTimestamp": "2026-11-28T12:00:00Z"}
    debugged = running(pod("debugged", "registry.example.cn/x:1"))
    debugged["spec"]["ephemeralContainers"] = [{"name": "debug", "image": LOST}]
    begun = running(pod("begun", "registry.example.cn/x:1"))
    begun["spec"]["initContainers"] = [{"name": "first", "image": LOST}]
    begun["status"]["initContainerStatuses"] = [{"name": "first", "state": {"terminated": {"exitCode": 0}}}]
    works, ending = (running(pod(name, LOST, metadata=more)) for name, more in (("works", job), ("ending", ends)))
    night.pods = [works, ending, debugged, begun, running(pod("w", LOST))]
    assert [(row["pod"], row["result"], row["why"], row["do"]) for row in nudged("--missed")] == [
        ("begun", "not waiting", "the init container has ended", None),
        ("debugged", "not waiting", "an ephemeral container starts only once", None),
        ("w", "not waiting", "it does not wait for an image", "delete and create the pod again"),
        ("works", "not waiting", "its pod runs once", None),
    ]
    assert run("nudge", "--missed").stderr == "Pods: 4 not waiting\n"


def test_a_container_that_has_run_before_is_patched_too(night: World) -> None:
    night.pods = [restarted(night.pods[0]), running(night.pods[1])]
    assert [(row["pod"], row["result"]) for row in nudged("-A")] == [("svc-0", "patched")]
    assert [name for name, _ in night.patched] == ["shop/svc-0"]


def test_pods_that_run_well_cost_no_other_call(night: World) -> None:
    night.pods = [running(each) for each in night.pods]
    assert nudged("-A") == []
    assert [each[0] for each in night.asked] == ["pods"]


def test_a_namespace_that_is_opted_out_or_not_known_is_not_touched(night: World) -> None:
    night.namespaces[0]["metadata"]["labels"] = {"image-mirror/skip": "true"}
    assert nudged("--missed") == []
    night.refused.add("namespaces")
    result = run("nudge", "--missed")
    assert "so it may be opted out  ask for the permission in the note" in result.stdout
    assert "Note: the namespaces' labels are not known: the cluster: namespaces is forbidden" in result.stderr
    assert night.patched == []


def test_nothing_to_do_is_said(world: World) -> None:
    elsewhere = "; -A looks in all namespaces"
    assert (run("nudge").stdout, run("nudge").stderr) == ("", f"No pod waits for a copy that is in ECR{elsewhere}\n")
    world.pods = [copied("redis", REDIS)]
    said = "No pod waits for a copy that is in ECR; 1 other image waits: image-mirror pods says for what"
    assert run("nudge").stderr == f"{said}{elsewhere}\n"
    assert run("nudge", "-A").stderr == f"{said}\n"
    assert run("nudge", "--missed").stderr == f"No pod names a source that a rule copies{elsewhere}\n"
    assert run("nudge").exit_code == 0


@pytest.mark.parametrize(
    ("error", "result", "why", "do", "code"),
    [
        pytest.param(
            RefusedError(Refusal.OTHER, "denied by a policy"), "failed", "denied by a policy", None, 1, id="denied"
        ),
        pytest.param(NotFoundError("the cluster: not found"), "no longer waits", "the pod is gone", None, 0, id="gone"),
        pytest.param(
            NoAnswerError("the cluster: i/o timeout", "x"),
            "failed",
            "the cluster: i/o timeout",
            "run the command again",
            1,
            id="no-answer",
        ),
    ],
)
def test_a_pod_that_is_not_patched_does_not_stop_the_others(
    night: World, error: Exception, result: str, why: str, do: str | None, code: int
) -> None:
    night.pods, night.late = night.pods[:2], [error]
    rows = nudged(code=code)
    assert sorted((row["result"], row["why"], row["do"]) for row in rows if row["result"] != "patched") == [
        (result, why, do)
    ]
    assert len(night.patched) == 1


def test_a_pod_that_has_changed_is_read_and_patched_once_more(night: World) -> None:
    night.pods, night.late = night.pods[:1], [CONFLICT]
    assert [row["result"] for row in nudged()] == ["patched"]
    assert night.asked[-1] == ("pod", "svc-0", "--namespace=shop")
    assert [body["metadata"]["resourceVersion"] for _, body in night.patched] == ["2"]
    night.late = [CONFLICT] * 2
    assert [(row["result"], row["do"]) for row in nudged(code=1)] == [("failed", "run the command again")]
    assert len(night.patched) == 1


def test_a_pod_that_runs_meanwhile_is_left(night: World, monkeypatch: pytest.MonkeyPatch) -> None:
    night.pods, night.late = night.pods[:1], [CONFLICT]
    read = night.get

    def get(*what: str) -> Json:
        answer = read(*what)
        return running(answer) if what[0] == "pod" else answer

    monkeypatch.setattr(night, "get", get)
    assert [(row["result"], row["why"]) for row in nudged()] == [("no longer waits", "the pod has changed meanwhile")]
    assert night.patched == []


def deleted(world: World) -> None:
    world.pods.clear()


def deleting(world: World) -> None:
    world.pods[0]["metadata"]["deletionTimestamp"] = "2026-11-28T12:00:00Z"


def deleted_a_little_later(world: World) -> None:
    world.late.append(NotFoundError("the cluster: not found"))


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        pytest.param(deleted, "the pod is gone", id="gone-before-it-is-read-again"),
        pytest.param(deleted_a_little_later, "the pod is gone", id="gone-after-it-is-read-again"),
        pytest.param(deleting, "the pod has changed meanwhile", id="being-deleted"),
    ],
)
def test_a_pod_that_ends_meanwhile_leaves_nothing_to_do(
    night: World, happens: Callable[[World], None], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.pods, night.late = night.pods[:1], [CONFLICT]
    read = night.get

    def get(*what: str) -> Json:
        if what[0] == "pod":
            happens(night)
        return read(*what)

    monkeypatch.setattr(night, "get", get)
    assert [(row["result"], row["why"], row["do"]) for row in nudged()] == [("no longer waits", why, None)]
    assert night.patched == []


def test_a_pod_that_does_not_exist_is_named_as_kubectl_does(night: World) -> None:
    result = run("nudge", "none", "-n", "shop")
    assert (result.exit_code, result.stdout) == (3, "")
    assert 'pods "none" not found' in result.stderr
    assert night.patched == []


def stop_after(count: int, night: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C stop the command when so many pods are patched; one pod after the other."""
    monkeypatch.setattr("image_mirror.cli.terminal.PARALLEL", 1)
    patch = night.patch_pod

    def patch_pod(*what: Any) -> None:
        if len(night.patched) == count:
            raise KeyboardInterrupt
        patch(*what)

    monkeypatch.setattr(night, "patch_pod", patch_pod)


@pytest.mark.parametrize("options", [(), ("-w",)], ids=["once", "watching"])
def test_ctrl_c_prints_what_was_done_until_then(
    night: World, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    night.pods = [copied(f"svc-{number}", SVC) for number in range(6)]
    stop_after(3, night, monkeypatch)
    result = run("nudge", "-A", *options)
    assert result.exit_code == 130
    assert [line for line in result.stdout.splitlines() if "patched" in line] != []
    for number in range(6):
        assert (f"shop/svc-{number}" in result.stdout) == (number < 3)


def test_a_missing_permission_ends_it_with_3_and_no_other_pod_of_the_namespace_is_tried(
    night: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image_mirror.cli.terminal.PARALLEL", 1)
    cause = "the permission `patch pods` is missing in the namespace shop"
    night.late = [RefusedError(Refusal.NO_PERMISSION, cause)]
    result = run("nudge")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == f"Error: {cause}; ask for it, or use another context"
    assert result.stdout.count("failed ") == 2
    assert night.patched == []


@pytest.mark.parametrize(
    ("service", "operation"),
    [("cloudformation", "DescribeStacks"), ("dynamodb", "BatchGetItem"), ("ecr", "DescribeImages")],
)
def test_without_a_permission_of_aws_nothing_is_patched(
    night: World, refuse: Callable[..., None], service: str, operation: str
) -> None:
    refuse(service, operation)
    result = run("nudge")
    assert (result.exit_code, result.stdout) == (3, "")
    assert operation in result.stderr
    assert night.patched == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("-n", "a", "-A"), "--all-namespaces: cannot be combined with --namespace", id="two-scopes"),
        pytest.param(("p", "-A"), "POD: cannot be combined with -A or -l", id="a-pod-and-all-namespaces"),
        pytest.param(("p", "-l", "a=b"), "POD: cannot be combined with -A or -l", id="a-pod-and-labels"),
        pytest.param(("-w", "-o", "name"), "--output name: cannot be combined with --watch", id="name-and-watch"),
    ],
)
def test_wrong_input_is_named_and_ends_with_2(world: World, arguments: tuple[str, ...], words: str) -> None:
    result = run("nudge", *arguments)
    assert (result.exit_code, words in result.stderr) == (2, True)
    assert world.asked == []


def test_watching_patches_each_pod_when_its_copy_arrives_and_prints_each_result_once(
    night: World, operated: Operated, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.pods = night.pods[2:4]

    def pause(_: float) -> None:
        if night.patched:
            raise KeyboardInterrupt
        if len([each for each in night.asked if each[0] == "pods"]) == 2:
            registry.push("mirror/docker.io/library/redis", "7.2", digest=DIGEST)
            write(operated.cloud.dynamodb, [record(REDIS, at=NOON)])

    monkeypatch.setattr(time, "sleep", pause)
    result = run("nudge", "-w")
    assert result.exit_code == 130
    lines = [line.partition("  ")[2] for line in result.stdout.splitlines()]
    assert lines == [
        f"shop/job-0 containers/app {SVC}: not patched: a pod that runs once, such as a Job's; add --jobs",
        f"shop/redis containers/app {REDIS}: patched",
    ]


@pytest.mark.parametrize(
    ("output", "read"),
    [
        pytest.param("json", lambda text: [json.loads(line) for line in text.splitlines()], id="json"),
        pytest.param("yaml", lambda text: list(yaml.safe_load_all(text)), id="yaml"),
    ],
)
def test_watching_prints_each_new_result_as_a_document(
    night: World, monkeypatch: pytest.MonkeyPatch, output: str, read: Callable[[str], list[Json]]
) -> None:
    def pause(_: float) -> None:
        if len([each for each in night.asked if each[0] == "pods"]) == 2:
            raise KeyboardInterrupt

    once = run("nudge", "--dry-run", "-o", "json").stdout
    night.asked.clear()
    monkeypatch.setattr(time, "sleep", pause)
    result = run("nudge", "--dry-run", "-w", "-o", output)
    assert result.exit_code == 130
    assert json.loads(once)
    assert read(result.stdout) == json.loads(once)


def test_watching_ends_if_the_permission_is_missing(night: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def pause(_: float) -> None:
        raise AssertionError("it goes on")

    monkeypatch.setattr(time, "sleep", pause)
    cause = "the permission `patch pods` is missing in the namespace shop"
    night.late = [RefusedError(Refusal.NO_PERMISSION, cause)] * 2
    result = run("nudge", "-w")
    assert result.exit_code == 3
    assert cause in result.stderr


ROW = Row(
    Result.KEPT, "shop", "web-7d4b9c-x2x", "containers/app", SVC, None, "the image of a volume cannot change", "wait"
)


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_no_line_is_too_long_and_no_word_is_broken(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    rows = [ROW, replace(ROW, result=Result.FAILED, why="x" * 20 + " y" * 60)]
    lines = shown(rows)
    assert all(len(line) <= width for line in lines)
    assert " ".join(" ".join(lines).split()).count(SVC) == 2
    monkeypatch.setenv("COLUMNS", "300")
    assert shown(rows)[0].startswith("RESULT")
