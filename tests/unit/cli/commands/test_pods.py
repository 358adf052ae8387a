"""`image-mirror pods` with emulated AWS and a cluster of plain objects."""

import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import yaml

from image_mirror.cli.commands.pods import groups, one, watch
from image_mirror.cli.commands.pods.groups import Group
from image_mirror.cli.pod_causes import Code
from image_mirror.cli.webhook_manifest import Choices, shipped_configuration
from image_mirror.record import MINUTE, Status
from image_mirror.swap_when import LABEL
from support.clock import NOON
from support.cloud import REGISTRY
from support.ecr_registry import Registry
from support.operators import URL, Operated, Reply
from support.recorded import DIGEST, record, run, write
from support.waiting_pods import COPIES, NOT_FOUND, World, at, copied, pod, restarted, running

pytestmark = pytest.mark.usefixtures("noon", "operated")

NGINX, SVC, REDIS = "docker.io/library/nginx:9.99", "ghcr.io/acme/svc:2026.11", "docker.io/library/redis:7.2"
Json = dict[str, Any]


@pytest.fixture
def night(world: World, operated: Operated, registry: Registry) -> World:
    """Twelve pods that all read ImagePullBackOff, for five causes."""
    registry.push("mirror/ghcr.io/acme/svc", "2026.11", digest=DIGEST)
    write(
        operated.cloud.dynamodb,
        [
            record(NGINX, Status.REQUESTED, at=NOON, attempts=2, error="NOT_FOUND: manifest unknown", due_at=NOON + 1),
            record(SVC, Status.COPIED, at=NOON),
            record(REDIS, Status.REQUESTED, at=NOON, waits=3, error="RATE_LIMITED: slow", due_at=NOON + 20 * MINUTE),
        ],
    )
    world.pods = [
        *(copied(f"nginx-{number}", NGINX) for number in range(4)),
        *(copied(f"svc-{number}", SVC) for number in range(4)),
        *(copied(f"redis-{number}", REDIS) for number in range(2)),
        pod("lost", "gcr.io/lost/app:1"),
        pod("off", "gcr.io/off/app:1", metadata={"labels": {"image-mirror/skip": "true"}}),
    ]
    world.events = [
        {"involvedObject": {"uid": "uid-svc-1"}, "message": f'Pulling image "{COPIES}/{SVC}"', "lastTimestamp": at(1)}
    ]
    return world


def listed(*arguments: str) -> list[Json]:
    result = run("pods", *arguments, "-o", "json")
    assert result.exit_code == 0, result.output
    found: list[Json] = json.loads(result.stdout)
    return found


def test_pods_are_grouped_by_image_and_cause_the_most_first(night: World) -> None:
    result = run("pods", "-A")
    assert result.exit_code == 0, result.output
    later = datetime.fromtimestamp((NOON + 20 * MINUTE) / 1000).astimezone().strftime("%H:%M")
    soon = datetime.fromtimestamp(NOON / 1000).astimezone().strftime("%H:%M")
    rows = [line.split("  ") for line in result.stdout.splitlines()]
    assert [[cell.strip() for cell in row if cell] for row in rows] == [
        ["PODS", "IMAGE", "WHY", "DO"],
        [
            "4",
            NGINX,
            f"requested, 2 of 5 attempts refused: NOT_FOUND, next try {soon}",
            "correct the name in the manifest",
        ],
        ["4", SVC, "the copy is there; the kubelet tries within 5 minutes", "wait, or image-mirror nudge -A"],
        ["2", REDIS, f"delayed 3 times: RATE_LIMITED, next try {later}", "wait, or set RegistryAuthSecretArn"],
        [
            "1",
            "gcr.io/lost/app:1",
            "probably made while the webhook did not answer",
            "image-mirror warm --cluster, then image-mirror nudge -A --missed",
        ],
        ["1", "gcr.io/off/app:1", "opted out by the pod's label; its registry does not have it", "-"],
    ]
    assert result.stderr == "12 pods cannot pull: 5 causes\n"
    assert night.asked[0] == ("pods", "--field-selector=status.phase=Pending", "--all-namespaces")


def test_json_names_the_pods_and_what_the_kubelet_says(night: World) -> None:
    night.pods = [copied("svc-1", SVC)]
    [group] = listed()
    assert group == {
        "image": SVC,
        "cause": "copied",
        "why": "the copy is there; the kubelet tries within 5 minutes",
        "do": "wait, or image-mirror nudge",
        "copy": f"{COPIES}/{SVC}",
        # The try after the first, which was a minute ago, would be over.
        "next_try": at(-5),
        "count": 1,
        "pods": [
            {
                "namespace": "shop",
                "name": "svc-1",
                "phase": "Pending",
                "node": "n1",
                "field": "containers/app",
                "reason": "ImagePullBackOff",
                "message": NOT_FOUND.format(f"{COPIES}/{SVC}"),
            }
        ],
    }
    assert set(group) == set(Group.__dataclass_fields__)


def test_the_kubelets_next_try_comes_from_its_events(night: World) -> None:
    night.pods = [copied("svc-1", SVC)]
    night.events[0] |= {"count": 4}  # 80 s and a sync after the last one, a minute ago
    assert listed()[0]["why"] == "the copy is there; the kubelet tries within a minute"
    night.pods = [copied("svc-1", SVC), copied("svc-2", SVC)]
    assert listed()[0]["why"] == "the copy is there; the kubelet tries within 5 minutes", "true of both"


def test_the_words_of_an_older_kubelet_come_from_its_events(world: World) -> None:
    made = pod("p", "my.example/x:1")
    made["status"]["containerStatuses"][0]["state"]["waiting"]["message"] = 'Back-off pulling image "my.example/x:1"'
    message = 'Failed to pull image "my.example/x:1": rpc error: code = Unknown desc = 403 Forbidden'
    world.pods = [made]
    world.events = [{"involvedObject": {"uid": "uid-p"}, "message": message, "lastTimestamp": at(1)}]
    [group] = listed()
    assert group["why"] == "left as written: no rule names it; its registry refuses the node"
    assert group["pods"][0]["message"].endswith("403 Forbidden")


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        pytest.param({"image-mirror/skip": "true"}, "opted out by the namespace's label", id="opted-out"),
        pytest.param({"image-mirror/skip": "no"}, "probably made while the webhook did not answer", id="not-opted-out"),
    ],
)
def test_a_namespaces_label_opts_its_pods_out(world: World, labels: dict[str, str], why: str) -> None:
    world.pods, world.namespaces[0]["metadata"]["labels"] = [pod("p", "gcr.io/x:1")], labels
    assert listed()[0]["why"].startswith(why)


def test_a_lost_copy_is_named(world: World, operated: Operated, registry: Registry) -> None:
    registry.push("mirror/ghcr.io/acme/svc", "other")
    write(operated.cloud.dynamodb, [record(SVC, Status.COPIED, at=NOON)])
    world.pods = [copied("svc", SVC)]
    [group] = listed()
    assert (group["cause"], group["do"]) == ("gone", f"image-mirror retry {SVC}")


def test_records_are_read_in_one_call_and_ecr_once_for_each_repository(
    world: World, operated: Operated, registry: Registry, answer: Callable[[str, str, Reply], None]
) -> None:
    images = [f"gcr.io/many/app-{number % 3}:{number}" for number in range(90)]
    write(operated.cloud.dynamodb, [record(image, Status.COPIED, at=NOON) for image in images])
    asked: list[str] = []

    def describe(request: Json) -> Json:
        asked.append(request["repositoryName"])
        return registry.describe_images(request)

    answer("ecr", "DescribeImages", describe)
    answer("dynamodb", "GetItem", lambda _: {"Error": {"Code": "Unexpected", "Message": ""}})
    world.pods = [copied(f"p{number}", image) for number, image in enumerate(images)]
    assert {group["cause"] for group in listed()} == {"gone"}
    assert sorted(asked) == [f"mirror/gcr.io/many/app-{number}" for number in range(3)]


def test_without_aws_the_default_rules_decide_and_a_note_says_so(night: World, refuse: Callable[..., None]) -> None:
    refuse("cloudformation", "DescribeStacks")
    result = run("pods", "-o", "json")
    assert result.exit_code == 0, result.output
    found = {group["image"]: group["why"] for group in json.loads(result.stdout)}
    assert found[NGINX] == "a copy, probably still being made"
    assert found["gcr.io/lost/app:1"] == "probably made while the webhook did not answer; by the default rules"
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 1
    assert notes[0].startswith(
        "Note: AWS was not asked, so records and ECR are not known, and the default rules decide: china account"
    )
    assert night.pods


@pytest.mark.parametrize(
    ("service", "operation", "image", "why", "note"),
    [
        pytest.param("dynamodb", "BatchGetItem", NGINX, "a copy, probably", "the records are not known", id="records"),
        pytest.param("ecr", "DescribeImages", SVC, "copied, says its record", "what ECR holds is not known", id="ecr"),
    ],
)
@pytest.mark.usefixtures("night")
def test_a_part_of_aws_that_may_not_be_read_is_named(
    service: str, operation: str, image: str, why: str, note: str, refuse: Callable[..., None]
) -> None:
    refuse(service, operation)
    result = run("pods", "-o", "json")
    assert result.exit_code == 0, result.output
    [group] = [each for each in json.loads(result.stdout) if each["image"] == image]
    assert group["why"].startswith(why)
    assert f"Note: {note}: china account" in result.stderr


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        pytest.param("namespaces", "the namespaces' labels are not known", id="namespaces"),
        pytest.param("mutatingwebhookconfigurations", "the webhook's configuration is not known", id="configuration"),
    ],
)
def test_a_part_of_the_cluster_that_may_not_be_read_makes_it_probable(night: World, kind: str, note: str) -> None:
    night.refused = {kind}
    result = run("pods", "-o", "json")
    assert result.exit_code == 0, result.output
    [group] = [each for each in json.loads(result.stdout) if each["image"] == "gcr.io/lost/app:1"]
    assert group["why"] == "probably made while the webhook did not answer, or opted out by its namespace"
    assert f"Note: {note}: the cluster: {kind} is forbidden\n" in result.stderr


def test_events_that_may_not_be_read_leave_the_longest_wait(night: World) -> None:
    night.refused = {"events"}
    night.events[0] |= {"count": 4}
    night.pods = [copied("svc-1", SVC)]
    assert listed()[0]["why"] == "the copy is there; the kubelet tries within 5 minutes"


def test_pods_that_may_not_be_read_end_it_with_3(world: World) -> None:
    world.refused = {"pods"}
    result = run("pods")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "pods is forbidden" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        pytest.param((), (), id="the-contexts-namespace"),
        pytest.param(("-n", "web"), ("--namespace=web",), id="one"),
        pytest.param(("-A",), ("--all-namespaces",), id="all"),
        pytest.param(("-A", "-l", "a=b"), ("--all-namespaces", "--selector=a=b"), id="labels"),
    ],
)
def test_pods_are_asked_for_as_kubectl_does_and_without_one_nothing_else(
    world: World, arguments: tuple[str, ...], options: tuple[str, ...]
) -> None:
    result = run("pods", *arguments)
    assert (result.exit_code, result.stdout) == (0, "")
    assert world.asked == [("pods", "--field-selector=status.phase=Pending", *options)]
    assert (
        result.stderr
        == "No Pending pod waits for an image; --all-phases looks at the others too."
        + ("" if "-A" in arguments else " -A looks in all namespaces.")
        + "\n"
    )


def test_only_one_namespace_is_read_by_its_name(night: World) -> None:
    run("pods")
    assert ("namespaces", "shop") in night.asked
    night.pods.append(pod("p", "gcr.io/x:1", metadata={"namespace": "web"}))
    night.asked.clear()
    run("pods", "-A")
    assert ("namespaces",) in night.asked


def test_a_pod_that_runs_is_looked_at_with_all_phases(world: World) -> None:
    made = pod("p", "my.example/x:1")
    made["status"]["phase"] = "Running"
    world.pods = [made]
    result = run("pods", "-A")
    assert (result.stdout, result.stderr) == (
        "",
        "No Pending pod waits for an image; --all-phases looks at the others too.\n",
    )
    assert listed("--all-phases")[0]["pods"][0]["phase"] == "Running"
    world.pods = []
    assert run("pods", "-A", "--all-phases").stderr == "No pod waits for an image.\n"


def test_a_container_that_has_run_before_is_found_with_all_phases_and_nudge_is_named(night: World) -> None:
    night.pods = [restarted(copied("svc-1", SVC))]
    assert listed() == []
    assert [(row["cause"], row["do"]) for row in listed("--all-phases")] == [("copied", "wait, or image-mirror nudge")]
    assert "that have run" in run("pods", "--help").stdout


def test_missed_are_the_pods_that_name_a_source_which_a_rule_copies(world: World, operated: Operated) -> None:
    failed = record("gcr.io/failed:1", Status.FAILED, at=NOON, hours=3)
    write(operated.cloud.dynamodb, [failed])
    world.pods = [
        running(pod("runs", "gcr.io/a:1")),
        pod("waits", "gcr.io/a:1"),
        running(pod("failed", "gcr.io/failed:1")),
        running(pod("old", "gcr.io/old:1", metadata={"creationTimestamp": at(200_000)})),
        running(pod("own", "my.example/x:1")),
        running(pod("off", "gcr.io/a:1", metadata={"labels": {"image-mirror/skip": "true"}})),
        running(copied("copied", SVC)),
        running(
            pod("never", "x")
            | {"spec": {"containers": [{"name": "app", "image": "gcr.io/n:1", "imagePullPolicy": "Never"}]}}
        ),
    ]
    recreate, nudge = "recreate the pod (kubectl rollout restart)", "image-mirror nudge --missed"
    assert [(group["image"], group["cause"], group["count"], group["do"]) for group in listed("--missed")] == [
        ("gcr.io/a:1", "missed", 1, recreate),
        ("gcr.io/a:1", "missed", 1, f"image-mirror warm --cluster, then {nudge}"),
        (
            "gcr.io/failed:1",
            "failed-before",
            1,
            "correct the name in the manifest; if it is right now, image-mirror retry gcr.io/failed:1, then "
            + recreate,
        ),
        ("gcr.io/old:1", "older-than-webhook", 1, recreate),
    ]
    world.namespaces[0]["metadata"]["labels"] = {"image-mirror/skip": "true"}
    assert listed("--missed") == []
    assert run("pods", "--missed", "-A").stderr == "No pod names a source that a rule copies.\n"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.usefixtures("night")
def test_a_terminal_gets_no_line_that_is_too_long_and_no_word_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    made = [Group(**{**each, "pods": [groups.PodRow(**pod) for pod in each["pods"]]}) for each in listed()]
    lines = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in groups.shown(made, width, wide=False)]
    assert all(len(line) <= width for line in lines)
    words = " ".join(lines).split()
    assert all(word in words for group in made for word in f"{group.image} {group.why}".split())
    assert "Do: correct the name in the manifest" in " ".join(words)
    assert "Pods: shop/nginx-0, shop/nginx-1, shop/nginx-2 and 1 more" in " ".join(lines)
    assert "shop/nginx-3" in " ".join(groups.shown(made, width, wide=True))


def test_each_reading_is_drawn_with_its_notes(capsys: pytest.CaptureFixture[str]) -> None:
    group = Group("gcr.io/a:1", Code.REQUESTED, "the copy is requested", "wait", None, None, 1, [])
    watch._draw(iter([([group], ["no events"])]), wide=False, missed=False)
    drawn = capsys.readouterr().out
    assert "Note: no events" in drawn
    assert "gcr.io/a:1" in drawn


def test_a_frame_of_a_watched_terminal_has_the_time_the_notes_and_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    group = Group("gcr.io/a:1", Code.REQUESTED, "the copy is requested", "wait", None, None, 1, [])
    clock = datetime.fromtimestamp(NOON / 1000).astimezone().strftime("%H:%M:%S")
    assert watch.frame([group], ["no events"], 80, wide=False, missed=False) == [
        f"{clock}  0 pods cannot pull: 1 cause  (Ctrl-C ends)",
        "Note: no events",
        "PODS  IMAGE       WHY                    DO",
        "   1  gcr.io/a:1  the copy is requested  wait",
    ]
    assert watch.frame([], [], 80, wide=False, missed=True) == [
        f"{clock}  No pod names a source that a rule copies.  (Ctrl-C ends)"
    ]


def test_a_pod_of_very_many_images_may_have_too_many(world: World) -> None:
    named = [{"name": f"c{number}", "image": f"gcr.io/many:{number}"} for number in range(51)]
    made = pod("many", "x")
    made["spec"]["containers"] = [*named, {"name": "app", "image": f"{COPIES}/gcr.io/many:0"}]
    world.pods = [running(made)]
    assert {row["cause"] for row in listed("--missed")} == {"too-many"}
    made["spec"]["containers"] = named[1:]
    assert {row["cause"] for row in listed("--missed")} == {"missed"}


@pytest.mark.parametrize(
    ("image", "original", "cause", "shown"),
    [
        pytest.param("gcr.io/b:2", "gcr.io/a:1", "missed", "gcr.io/b:2", id="an-annotation-that-is-not-true"),
        pytest.param(f"{REGISTRY}/team/app:1", None, "no-rule", f"{REGISTRY}/team/app:1", id="an-image-of-the-account"),
        pytest.param(f"{REGISTRY}/older/gcr.io/a:1", "gcr.io/a:1", "not-served", "gcr.io/a:1", id="an-older-prefix"),
        pytest.param(
            "old.example/gcr.io/a:1", "gcr.io/a:1", "not-served", "old.example/gcr.io/a:1", id="older-account"
        ),
        pytest.param(f"{COPIES}/gcr.io/a:1", None, "no-record", "gcr.io/a:1", id="a-copy-named-by-hand"),
        pytest.param(
            f"{COPIES}/gcr.io/a@{DIGEST}", f"gcr.io/a@{DIGEST}", "no-record", f"gcr.io/a@{DIGEST}", id="digest"
        ),
        pytest.param(f"{COPIES}/gcr.io/a:1@{DIGEST}", "gcr.io/a:1", "no-record", "gcr.io/a:1", id="a-nudged-pod"),
        pytest.param(
            f"{COPIES}/gcr.io/a:1@{DIGEST}", None, "no-record", "gcr.io/a:1", id="a-nudged-pod-without-annotation"
        ),
        pytest.param("gcr.io/a:$TAG", None, "no-rule", "gcr.io/a:$TAG", id="no-name-at-all"),
    ],
)
def test_it_is_known_whether_a_pod_names_a_copy_or_a_source(
    image: str, original: str | None, cause: str, shown: str, world: World
) -> None:
    world.pods = [pod("p", image, original)]
    [row] = listed()
    assert (row["cause"], row["image"]) == (cause, shown)


@pytest.mark.parametrize(
    ("image", "spec", "do"),
    [
        pytest.param(SVC, {}, "wait, or image-mirror nudge", id="a-container"),
        pytest.param(SVC, {"restartPolicy": "Never"}, "wait, or image-mirror nudge --jobs", id="a-pod-that-runs-once"),
        pytest.param(f"{SVC}@{DIGEST}", {}, "wait", id="nudged-already"),
        pytest.param(f"{SVC}@sha256:{'b' * 64}", {}, "wait, or image-mirror nudge", id="nudged-to-an-older-digest"),
    ],
)
def test_nudge_is_named_where_it_helps(night: World, image: str, spec: Json, do: str) -> None:
    made = pod("svc-1", f"{COPIES}/{image}", SVC)
    made["spec"] |= spec
    night.pods = [made]
    assert [(row["cause"], row["do"]) for row in listed()] == [("copied", do)]


@pytest.mark.parametrize(("flags", "typed"), [((), ""), (("-A",), " -A"), (("-n", "shop"), " -n shop")])
def test_a_command_to_type_looks_where_the_pods_were_looked_for(
    night: World, flags: tuple[str, ...], typed: str
) -> None:
    night.pods = [copied("svc-1", SVC)]
    assert [row["do"] for row in listed(*flags)] == [f"wait, or image-mirror nudge{typed}"]


@pytest.mark.parametrize("reason", ["SignatureValidationFailed", "ImageInspectError", "RegistryUnavailable"])
def test_nudge_is_not_named_for_a_container_that_waits_for_something_else(night: World, reason: str) -> None:
    night.pods = [copied("svc-1", SVC)]
    night.pods[0]["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] = reason
    assert [row["do"] for row in listed() if "nudge" in row["do"]] == []


def test_nudge_is_not_named_for_a_pod_that_is_being_deleted(night: World) -> None:
    night.pods = [copied("svc-1", SVC)]
    night.pods[0]["metadata"]["deletionTimestamp"] = at(0)
    assert [row["do"] for row in listed()] == ["wait"]


def test_a_pod_that_an_apply_gave_its_source_back_is_missed_although_its_annotation_stayed(night: World) -> None:
    plain, kept = pod("lost-1", "gcr.io/lost/app:1"), pod("lost-2", "gcr.io/lost/app:1", "gcr.io/lost/app:1")
    night.pods = [plain, kept]
    [row] = listed("--missed")
    assert (row["count"], row["cause"]) == (2, "missed")


@pytest.mark.parametrize(
    "manifest",
    ['{"manifests": [1]}', '{"manifests": [{"platform": "x"}]}', '{"manifests": 5}', "[" * 100_000, "[]", "{"],
)
def test_a_manifest_of_any_text_has_no_platforms(manifest: str) -> None:
    assert one._platforms(manifest) == []


def test_a_field_of_blanks_is_not_shown() -> None:
    assert list(one._fields([("warning", " ")], "", 80)) == []


def test_nudge_is_not_named_for_a_digest_that_the_author_has_chosen(night: World) -> None:
    night.pods = [pod("svc-1", f"{COPIES}/{SVC}@sha256:{'b' * 64}")]
    assert [row["do"] for row in listed()] == ["wait"]


def test_one_webhook_of_several_that_is_asked_is_enough(world: World) -> None:
    world.pods = [pod("p", "gcr.io/x:1")]
    second = shipped_configuration(URL)
    second["metadata"] |= {"name": "second", "creationTimestamp": at(1)}
    world.configurations[0]["webhooks"][0]["namespaceSelector"] = {"matchLabels": {"mirror": "on"}}
    assert listed()[0]["cause"] == "not-sent"
    world.configurations.append(second)
    assert listed()[0]["cause"] == "older-than-webhook"
    world.configurations.clear()
    assert listed()[0]["why"] == "the cluster has no webhook configuration for this"


@pytest.mark.parametrize(
    ("choices", "namespace_label", "pod_label", "why", "asked"),
    [
        pytest.param(
            Choices(paused=True),
            None,
            None,
            "paused by the webhook's configuration: no copy is requested",
            "paused by the webhook's configuration",
            id="paused",
        ),
        pytest.param(
            Choices(modes=("paused",)),
            "paused",
            None,
            "paused by the namespace's label: no copy is requested",
            "paused by the namespace's label",
            id="the-namespace",
        ),
        pytest.param(
            Choices(), None, "paused", "paused by the pod's label: no copy is requested", "paused by", id="the-pod"
        ),
        pytest.param(
            Choices(modes=("paused",)),
            "pause",
            None,
            "probably made while the webhook did not answer",
            "",
            id="unknown",
        ),
        pytest.param(
            Choices(modes=("copied",)),
            "paused",
            None,
            "probably made while the webhook did not answer",
            "",
            id="no-entry",
        ),
        pytest.param(
            Choices(paused=True),
            None,
            "always",
            "probably made while the webhook did not answer",
            "always by the pod's label",
            id="the-pod-wins",
        ),
    ],
)
def test_a_pause_is_named_with_what_has_chosen_it(
    world: World, choices: Choices, namespace_label: str | None, pod_label: str | None, why: str, asked: str
) -> None:
    world.pods = [pod("p", "gcr.io/x:1", metadata={"labels": {LABEL: pod_label} if pod_label else {}})]
    world.namespaces = [{"metadata": {"name": "shop", "labels": {LABEL: namespace_label} if namespace_label else {}}}]
    world.configurations = [shipped_configuration(URL, choices)]
    assert listed()[0]["why"] == why
    shown = json.loads(run("pods", "p", "-o", "json").stdout)["webhook"]
    assert shown.startswith("asked: image-mirror selects the pod; ")
    assert asked in shown


def test_one_pod_is_shown_with_the_webhook_that_is_for_its_namespace(world: World) -> None:
    world.pods = [pod("p", "gcr.io/x:1")]
    world.configurations = [shipped_configuration(URL, Choices(modes=("copied", "paused")))]
    for number, webhook in enumerate(world.configurations[0]["webhooks"], start=1):
        webhook["timeoutSeconds"] = number
    for labels, seconds in (({}, 1), ({LABEL: "copied"}, 2), ({LABEL: "paused"}, 3)):
        world.namespaces = [{"metadata": {"name": "shop", "labels": labels}}]
        shown = json.loads(run("pods", "p", "-o", "json").stdout)["webhook"]
        assert f"failurePolicy Ignore, {seconds} s" in shown


def test_a_static_pod_is_left_as_it_is(world: World) -> None:
    world.pods = [
        pod("kube-proxy", "registry.k8s.io/p:1", metadata={"annotations": {"kubernetes.io/config.mirror": "x"}})
    ]
    assert listed()[0]["why"].startswith("a static pod: the webhook leaves it as it is")
    assert listed("--missed") == []


def test_a_terminal_that_is_wide_enough_gets_the_table() -> None:
    group = Group("gcr.io/a:1", Code.REQUESTED, "the copy is requested", "wait", None, None, 1, [])
    assert groups.shown([group], 60, wide=False) == [
        "PODS  IMAGE       WHY                    DO",
        "   1  gcr.io/a:1  the copy is requested  wait",
    ]


@pytest.mark.usefixtures("night")
def test_wide_names_the_pods() -> None:
    lines = run("pods", "-o", "wide").stdout.splitlines()
    assert lines[0].endswith("NAMES")
    assert lines[3].endswith("shop/redis-0 shop/redis-1")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("-n", "a", "-A"), "--all-namespaces: cannot be combined with --namespace", id="n-and-A"),
        pytest.param(("p", "-A"), "POD: cannot be combined with -A", id="pod-and-A"),
        pytest.param(("p", "--missed"), "POD: cannot be combined with -A", id="pod-and-missed"),
        pytest.param(("-w", "-o", "name"), "--output name: cannot be combined with --watch", id="watch-names"),
        pytest.param(("-o", "xml"), "'xml' is not one of 'table', 'wide', 'json', 'yaml', 'name'", id="format"),
    ],
)
def test_wrong_input_is_named_and_ends_with_2(world: World, arguments: tuple[str, ...], words: str) -> None:
    result = run("pods", *arguments)
    assert (result.exit_code, world.asked) == (2, [])
    assert words in result.stderr


def test_watching_in_a_pipe_prints_each_change_once_until_ctrl_c(night: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_: float) -> None:
        turns.append(1)
        if len(turns) == 2:
            night.pods = [each for each in night.pods if not each["metadata"]["name"].startswith("nginx")]
        if len(turns) == 3:
            night.refused = {"pods"}
        if len(turns) == 4:
            night.refused = set()
            night.pods.append(copied("svc-9", SVC))
        if len(turns) == 5:
            raise KeyboardInterrupt

    turns: list[int] = []
    monkeypatch.setattr(time, "sleep", sleep)
    result = run("pods", "-A", "-w")
    assert result.exit_code == 130
    later = [line.split(None, 1)[1] for line in result.stdout.splitlines()[6:]]
    assert [line[:20] for line in later] == [f"0  {NGINX}"[:20], f"5  {SVC}"[:20]]
    assert "no longer: requested" in later[0]
    assert result.stderr.count("Note: the pods cannot be read now") == 1


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_program_that_watches_gets_each_group_that_changed_and_count_0_for_one_that_is_gone(
    output: str, night: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        turns.append(1)
        if len(turns) == 2:
            night.pods = [each for each in night.pods if not each["metadata"]["name"].startswith("nginx")]
            night.pods.append(copied("svc-9", SVC))
        if len(turns) == 3:
            night.refused = {"pods"}
        if len(turns) == 4:
            raise KeyboardInterrupt

    turns: list[int] = []
    monkeypatch.setattr(time, "sleep", sleep)
    result = run("pods", "-A", "-w", "-o", output)
    assert result.exit_code == 130
    made = list(map(json.loads, result.stdout.splitlines())) if output == "json" else documents(result.stdout)
    assert all(list(group) == list(Group.__dataclass_fields__) for group in made)
    assert [(group["image"], group["count"], len(group["pods"])) for group in made] == [
        (NGINX, 4, 4),
        (SVC, 4, 4),
        (REDIS, 2, 2),
        ("gcr.io/lost/app:1", 1, 1),
        ("gcr.io/off/app:1", 1, 1),
        (SVC, 5, 5),
        (NGINX, 0, 0),
    ]
    assert result.stderr.count("Note: the pods cannot be read now") == 1


def test_a_round_without_aws_is_no_change_of_the_pods(
    night: World, refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        turns.append(1)
        if len(turns) == 1:
            refuse("dynamodb", "BatchGetItem")
        if len(turns) == 2:
            refuse("dynamodb", "Nothing")
            refuse("ecr", "DescribeImages")
        if len(turns) == 3:
            raise KeyboardInterrupt

    turns: list[int] = []
    monkeypatch.setattr(time, "sleep", sleep)
    result = run("pods", "-A", "-w", "-o", "json")
    assert [json.loads(line)["count"] for line in result.stdout.splitlines()] == [4, 4, 2, 1, 1]
    assert "Note: the pods cannot be read now: the records are not known: china account" in result.stderr
    assert night.pods


def test_without_aws_from_the_beginning_a_watch_shows_what_it_can(
    night: World, refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        if len(turns) == 2:
            raise KeyboardInterrupt
        turns.append(1)
        night.pods.append(copied(f"svc-{len(turns) + 3}", SVC))

    turns: list[int] = []
    monkeypatch.setattr(time, "sleep", sleep)
    refuse("cloudformation", "DescribeStacks")
    result = run("pods", "-A", "-w", "-o", "json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["count"] for row in rows if row["image"] == SVC] == [4, 5, 6]


def documents(text: str) -> list[Json]:
    assert text.startswith("---\n")
    return list(yaml.safe_load_all(text))


def test_a_group_has_changed_if_its_pods_or_its_remedy_have() -> None:
    def group(*names: str, why: str = "why", do: str = "-") -> Group:
        pods = [groups.PodRow("shop", name, "Pending", None, "containers/app", None, None) for name in names]
        return Group("gcr.io/a:1", Code.COPIED, why, do, None, None, len(pods), pods)

    assert watch.changed_groups([group("a")], [group("a", why="another time")]) == []
    assert watch.changed_groups([group("a")], [group("b")]) == [group("b")]
    assert watch.changed_groups([group("a")], [group("a", do="wait")]) == [group("a", do="wait")]
    assert watch.changed_groups([], [group("a"), group("a", "b", why="another")])[0].count == 2


def test_a_change_is_another_number_of_pods_or_another_cause() -> None:
    def group(count: int, cause: Code = Code.COPIED, why: str = "why") -> Group:
        return Group("gcr.io/a:1", cause, why, "-", None, None, count, [])

    assert watch.changes([group(1)], [group(1, why="another time")]) == []
    assert watch.changes([group(1)], [group(2)]) == ["   2  gcr.io/a:1  why"]
    assert watch.changes([group(1)], [group(1, Code.GONE)]) == [
        "   0  gcr.io/a:1  no longer: why",
        "   1  gcr.io/a:1  why",
    ]


INDEX = json.dumps(
    {
        "manifests": [
            {"platform": {"os": "linux", "architecture": "amd64"}},
            {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {"platform": {"os": "unknown", "architecture": "unknown"}},
        ]
    }
)


def test_one_pod_is_shown_in_full(
    night: World, answer: Callable[[str, str, Reply], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    answer("ecr", "BatchGetImage", lambda _: {"images": [{"imageManifest": INDEX}]})
    owner = {"kind": "ReplicaSet", "name": "svc-5d9c", "controller": True}
    named = {"ownerReferences": [owner], "labels": {"pod-template-hash": "5d9c"}}
    night.pods[5]["metadata"] |= named
    night.events[0]["count"] = 4
    result = run("pods", "svc-1")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert len(lines) == 19, "no line is folded in a pipe"
    text = "\n".join(lines)
    for words in (
        "pod shop/svc-1, Pending on n1",
        "30m ago) by ReplicaSet/svc-5d9c",
        "webhook asked: image-mirror selects the pod; failurePolicy Ignore, 5 s; exists since",
        "conditions: not-a-mirror-pod, an-image-is-new",
        "\nselects namespaces with image-mirror/skip NotIn true\n",
        "\nselects pods with image-mirror/skip NotIn true\n",
        "\nwarning it is being copied\n",
        f"containers/app: {SVC}",
        f"image {COPIES}/{SVC}",
        "rule ghcr.io",
        "policy IfNotPresent",
        "new pod would get changed",
        "record COPIED since",
        f"in ECR held; {DIGEST}; 1 MB; pushed",
        "linux/amd64, linux/arm64/v8",
        "kubelet ImagePullBackOff: Back-off pulling image",
        "tried 4 tries, the last",
        "why the copy is there",
        "next the kubelet tries within a minute",
        "do wait, or image-mirror nudge -n shop svc-1",
    ):
        assert words in text, text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_one_pod_fits_a_terminal_and_each_value_stands_below_its_beginning(
    night: World, width: int, answer: Callable[[str, str, Reply], None]
) -> None:
    answer("ecr", "BatchGetImage", lambda _: {"images": [{"imageManifest": INDEX}]})
    night.warned = ["a warning of many words " * 8]
    made = json.loads(run("pods", "svc-1", "-o", "json").stdout)
    images = [
        one.ImageOfPod(
            **each | {"record": one.RecordOfCopy(**each["record"]), "in_ecr": one.CopyInECR(**each["in_ecr"])}
        )
        for each in made.pop("images")
    ]
    lines = list(one.full(one.OnePod(**made, images=images), NOON, width))
    assert all(len(line) <= width or max(map(len, line.split())) > width for line in lines)
    start = next(number for number, line in enumerate(lines) if line.startswith("warning  a warning"))
    assert re.match(" {9}[^ ]", lines[start + 1])
    policy = next(number for number, line in enumerate(lines) if line.startswith("  kubelet  Image"))
    assert re.match(" {11}[^ ]", lines[policy + 1]) or len(lines[policy + 1].split()[0]) > width - 11


@pytest.mark.parametrize(
    ("warned", "why", "do"),
    [
        pytest.param(
            ["gcr.io/lost/app:1 stays as written: no"],
            "a new pod would keep its source too: gcr.io/lost/app:1 stays as written: no",
            "do what the warning says, then image-mirror warm --cluster, then image-mirror nudge -n shop lost --missed",
            id="the-webhook-says-why",
        ),
        pytest.param(
            [],
            "a new pod would keep its source too: the webhook does not answer, or is not asked",
            "image-mirror doctor --kubeconfig FILE shows what is wrong, then image-mirror warm --cluster, then "
            "image-mirror nudge -n shop lost --missed",
            id="nothing-says-why",
        ),
    ],
)
def test_one_pod_is_not_to_be_recreated_if_a_new_one_would_keep_its_source_too(
    night: World, warned: list[str], why: str, do: str
) -> None:
    night.tried, night.warned = None, warned
    result = run("pods", "lost")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert f"why {why}" in lines
    assert f"do {do}" in lines
    assert [line for line in lines if line.startswith("warning")] == [f"warning {each}" for each in warned]
    assert "new pod would get the same" in lines


def test_the_selectors_of_all_webhooks_are_shown_if_none_is_asked(world: World) -> None:
    world.pods = [pod("p", "gcr.io/x:1")]
    second = shipped_configuration(URL)
    for each, name in ((world.configurations[0], "first"), (second, "second")):
        each["webhooks"][0] |= {"name": f"{name}.{each['webhooks'][0]['name']}"}
        each["webhooks"][0] |= {"namespaceSelector": {"matchLabels": {"mirror": name}}, "objectSelector": {}}
    second["metadata"]["name"] = "second"
    world.configurations.append(second)
    named = [each["webhooks"][0]["name"] for each in world.configurations]
    made = json.loads(run("pods", "p", "-o", "json").stdout)
    assert made["webhook"].startswith("not asked: ")
    assert made["selectors"] == [
        f"{named[0]}: namespaces with mirror In first",
        f"{named[0]}: pods with any labels",
        f"{named[1]}: namespaces with mirror In second",
        f"{named[1]}: pods with any labels",
    ]


def test_one_pod_as_json_is_an_object_with_its_images(night: World, answer: Callable[[str, str, Reply], None]) -> None:
    answer("ecr", "BatchGetImage", lambda _: {"images": [], "failures": []})
    made = json.loads(run("pods", "svc-1", "-o", "json").stdout)
    assert set(made) == set(one.OnePod.__dataclass_fields__)
    [image] = made["images"]
    assert set(image) == set(one.ImageOfPod.__dataclass_fields__)
    assert (image["source"], image["cause"], image["in_ecr"]["platforms"]) == (SVC, "copied", [])
    assert image["record"]["state"] == "COPIED"
    assert (made["dry_run"], made["warnings"]) == ({"containers/app": "changed"}, ["it is being copied"])
    # The pod as its author wrote it, without what the cluster has added.
    [_, asked] = next(each for each in night.asked if each[0] == "dry-run")
    assert json.loads(asked) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": "shop",
            "labels": {},
            "annotations": {},
            "generateName": "image-mirror-dry-run-",
        },
        "spec": {"containers": [{"name": "app", "image": SVC, "imagePullPolicy": "IfNotPresent"}]},
    }


def test_one_pod_without_the_right_to_create_pods_or_to_read_aws_is_shown_as_far_as_it_is_known(
    night: World, refuse: Callable[..., None]
) -> None:
    night.refused = {"dry-run", "mutatingwebhookconfigurations"}
    refuse("cloudformation", "DescribeStacks")
    result = run("pods", "lost")
    assert result.exit_code == 0, result.output
    assert "its configuration is not known" in result.stdout
    assert "probably made while the webhook did not answer" in result.stdout
    notes = [line.partition(":")[2].split(":")[0].strip() for line in result.stderr.splitlines()]
    assert notes == [
        "the webhook's configuration is not known",
        "AWS was not asked, so records and ECR are not known, and the default rules decide",
        "what the webhook does now with such a pod is not known",
    ]
