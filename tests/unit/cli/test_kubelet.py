"""What the kubelet's status and events say of images that it cannot pull."""

import json
from pathlib import Path
from typing import Any

import pytest

from image_mirror.cli.kubelet import LONGEST_WAIT, Said, Tries, next_try, said, timestamp, tries, waiting
from image_mirror.record import MINUTE

MESSAGES: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[2] / "kubelet" / "messages.json").read_text(encoding="utf-8")
)
Json = dict[str, Any]
NOON = "2026-11-28T12:00:00Z"
IMAGE = "gcr.io/a/b:1"


def status(name: str, reason: str, message: str = "") -> Json:
    return {"name": name, "state": {"waiting": {"reason": reason, "message": message}}}


def event(reason: str, message: str, at: str = NOON, count: int = 1) -> Json:
    return {"reason": reason, "message": message, "lastTimestamp": at, "count": count}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_words_of_kubelets_and_runtimes_are_known(name: str) -> None:
    assert said(MESSAGES[name]["message"]) == MESSAGES[name]["means"]


def test_each_meaning_has_a_message() -> None:
    assert {each["means"] for each in MESSAGES.values()} == set(Said)


def test_the_words_of_an_event_are_read_where_the_status_has_none() -> None:
    assert said(f'Back-off pulling image "{IMAGE}"', MESSAGES["no-space"]["message"]) is Said.NO_SPACE
    assert said("", "") is Said.NOTHING


def test_each_kind_of_container_that_waits_for_an_image_is_found() -> None:
    named = ("initContainers", "containers", "ephemeralContainers")
    pod = {
        "spec": {kind: [{"name": f"c{kind}", "image": f"gcr.io/{kind.lower()}"}] for kind in named},
        "status": {
            "initContainerStatuses": [status("cinitContainers", "ErrImagePull", "x")],
            "containerStatuses": [status("ccontainers", "ImagePullBackOff"), status("unknown", "ErrImagePull")],
            "ephemeralContainerStatuses": [status("cephemeralContainers", "InvalidImageName")],
        },
    }
    assert [(each.field.key, each.field.image, each.reason, each.message) for each in waiting(pod)] == [
        ("initContainers/cinitContainers", "gcr.io/initcontainers", "ErrImagePull", "x"),
        ("containers/ccontainers", "gcr.io/containers", "ImagePullBackOff", ""),
        ("ephemeralContainers/cephemeralContainers", "gcr.io/ephemeralcontainers", "InvalidImageName", ""),
    ]


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"waiting": {"reason": "ContainerCreating"}}, id="it-is-being-pulled-or-made"),
        pytest.param({"waiting": {"reason": "PodInitializing"}}, id="it-waits-for-an-init-container"),
        pytest.param({"waiting": {"reason": "CrashLoopBackOff"}}, id="it-crashes"),
        pytest.param({"running": {"startedAt": NOON}}, id="it-runs"),
        pytest.param({}, id="no-state"),
        pytest.param(None, id="none-at-all"),
    ],
)
def test_a_container_that_waits_for_no_image_is_passed_over(state: Json | None) -> None:
    spec = {"containers": [{"name": "c", "image": IMAGE}]}
    assert waiting({"spec": spec, "status": {"containerStatuses": [{"name": "c", "state": state}]}}) == []
    assert waiting({"spec": spec}) == []


def test_a_container_that_waits_for_an_image_volume_is_about_the_volumes_image_once() -> None:
    pod = {
        "spec": {
            "containers": [{"name": "a", "image": "own.example/a"}, {"name": "b", "image": "own.example/b"}],
            "volumes": [{"name": "v", "image": {"reference": IMAGE}}, {"name": "w", "emptyDir": {}}],
        },
        "status": {
            "containerStatuses": [
                status(name, "ImagePullBackOff", f'Back-off pulling image "{IMAGE}"') for name in ("a", "b")
            ]
        },
    }
    assert [each.field.key for each in waiting(pod)] == ["volumes/v"]


def test_events_say_how_often_and_when_the_kubelet_has_tried() -> None:
    events = [
        event("Scheduled", "Successfully assigned default/p to n"),
        event("Pulling", f'Pulling image "{IMAGE}"', "2026-11-28T11:58:00Z", 4),
        event("Pulling", 'Pulling image "other"', "2026-11-28T13:00:00Z", 9),
        event("Failed", f'Failed to pull image "{IMAGE}": first', "2026-11-28T11:50:00Z", 3),
        event("Failed", f'(combined from similar events): Failed to pull image "{IMAGE}": last', NOON),
        event("Failed", "Error: ErrImagePull"),
        event("BackOff", f'Back-off pulling image "{IMAGE}"', "2026-11-28T12:30:00Z", 20),
    ]
    assert tries(events, IMAGE) == Tries(4, timestamp(NOON), "last")


def test_an_event_of_the_newer_kind_counts_by_its_series() -> None:
    series = {"count": 3, "lastObservedTime": "2026-11-28T12:00:00.123456Z"}
    new = {"message": f'Pulling image "{IMAGE}"', "eventTime": "2026-11-28T11:00:00Z", "series": series}
    assert tries([new | {"count": None, "lastTimestamp": None}], IMAGE) == Tries(3, timestamp(NOON) + 123)


@pytest.mark.parametrize(
    ("done", "seconds"),
    [
        pytest.param(Tries(1, 1_000_000), 25, id="10-seconds-after-the-first-and-a-sync"),
        pytest.param(Tries(2, 1_000_000), 35, id="twice-as-long-after-the-second"),
        pytest.param(Tries(5, 1_000_000), 175, id="after-the-fifth"),
        pytest.param(Tries(6, 1_000_000), 315, id="at-most-five-minutes"),
        pytest.param(Tries(60, 1_000_000), 315, id="however-often"),
        pytest.param(Tries(1, 1_000_000 - 10 * MINUTE), 300, id="an-event-that-is-too-old-says-nothing"),
        pytest.param(Tries(), 300, id="no-event"),
    ],
)
def test_the_next_try_is_as_late_as_the_back_off_allows(done: Tries, seconds: int) -> None:
    assert next_try(done, 1_000_000) == 1_000_000 + seconds * 1000
    assert LONGEST_WAIT == 300_000


@pytest.mark.parametrize("text", [None, "", "yesterday", 3])
def test_what_is_no_time_is_none(text: object) -> None:
    assert timestamp(text) == 0
