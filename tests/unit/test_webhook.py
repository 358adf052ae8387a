"""The webhook's handler with an emulated table: HTTP API event in, response out."""

import base64
import copy
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
from botocore.exceptions import ClientError

from image_mirror import webhook
from image_mirror.counts import Counts
from image_mirror.messages import restored
from image_mirror.record import Status, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.table import Records, to_record
from support.cloud import REGISTRY, Cloud

pytestmark = pytest.mark.usefixtures("noon")
REVIEWS = Path(__file__).parents[1] / "reviews"
PINNED = "sha256:c0f429e16b13e583da7e5a6ec20dd656d325d88e6819cafe0adb0828976529dc"
Json = dict[str, Any]


@pytest.fixture(autouse=True)
def fresh_function(cloud: Cloud) -> Iterator[None]:  # noqa: ARG001 - the environment has to be set before
    """Each test starts with a new function with empty caches."""
    webhook.load.cache_clear()
    yield
    webhook.load.cache_clear()


def review(name: str) -> Json:
    loaded = json.loads((REVIEWS / f"{name}.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


def event(body: Json | str, *, encoded: bool = False, timeout: str = "30s", age: float = 0.0) -> Json:
    text = body if isinstance(body, str) else json.dumps(body)
    return {
        "version": "2.0",
        "rawPath": "/token",
        "rawQueryString": f"timeout={timeout}",
        "queryStringParameters": {"timeout": timeout},
        "headers": {"content-type": "application/json"},
        "requestContext": {"timeEpoch": int((time.time() - age) * 1000), "http": {"method": "POST", "path": "/token"}},
        "body": base64.b64encode(text.encode()).decode() if encoded else text,
        "isBase64Encoded": encoded,
    }


def call(request: Json) -> tuple[int, Json, Json]:
    response = webhook.handler(request, None)
    return response["statusCode"], json.loads(response["body"]), response["headers"]


def images(pod: Json) -> list[str]:
    spec = pod["spec"]
    found = [container["image"] for kind in ("containers", "initContainers") for container in spec.get(kind, ())]
    found += [container["image"] for container in spec.get("ephemeralContainers", ())]
    return found + [volume["image"]["reference"] for volume in spec.get("volumes", ()) if "image" in volume]


@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "base64"])
@pytest.mark.parametrize("path", sorted(REVIEWS.glob("*.json")), ids=lambda path: path.stem)
def test_each_captured_review_gets_a_patch_that_applies(cloud: Cloud, path: Path, encoded: bool) -> None:
    sent = review(path.stem)
    for _ in range(3):  # a busy machine may have it ask again, as an API server does
        status, answer, headers = call(event(sent, encoded=encoded))
        if "Retry-After" not in headers:
            break
    response = answer["response"]
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert (answer["apiVersion"], answer["kind"]) == (sent["apiVersion"], "AdmissionReview")
    assert (response["uid"], response["allowed"]) == (sent["request"]["uid"], True)
    assert ("patch" in response) == ("patchType" in response)
    patch = json.loads(base64.b64decode(response.get("patch", "W10=")))
    patched = jsonpatch.apply_patch(sent["request"]["object"], patch)
    old = images(sent["request"]["oldObject"] or {"spec": {}})
    for before, after in zip(images(sent["request"]["object"]), images(patched), strict=True):
        assert after == before if before in old else after.startswith(f"{REGISTRY}/mirror/")
    recorded = {item["source"]["S"] for item in cloud.items()}
    pairs = zip(images(sent["request"]["object"]), images(patched), strict=True)
    rewritten = {after for before, after in pairs if before != after and after not in old}
    assert len(recorded) == (0 if sent["request"]["dryRun"] else len(rewritten))


def test_each_image_is_recorded_before_the_answer(cloud: Cloud) -> None:
    call(event(review("create-pod")))
    assert {(item["repo"]["S"], item["tag"]["S"], item["source"]["S"]) for item in cloud.items()} == {
        (f"{REGISTRY}/mirror/docker.io/library/nginx", "latest", "docker.io/library/nginx:latest"),
        (
            f"{REGISTRY}/mirror/gcr.io/distroless/static",
            "digest-" + PINNED.replace(":", "-"),
            f"gcr.io/distroless/static@{PINNED}",
        ),
        (f"{REGISTRY}/mirror/quay.io/prometheus/busybox", "latest", "quay.io/prometheus/busybox:latest"),
        (f"{REGISTRY}/mirror/registry.k8s.io/pause", "3.9", "registry.k8s.io/pause:3.9"),
    }


def test_the_records_the_log_and_the_audit_log_say_who_asked_for_what(cloud: Cloud, logged: io.StringIO) -> None:
    answer = call(event(review("create-pod-from-deployment")))[1]["response"]
    requested_by = "default/ReplicaSet/nginx-gcr-ff5dfcc99"
    assert [item["requested_by"] for item in cloud.items()] == [{"S": requested_by}]
    copies = [
        {
            "image": "k8s.gcr.io/nginx:latest",
            "copy": f"{REGISTRY}/mirror/k8s.gcr.io/nginx:latest",
            "state": "REQUESTED",
        }
    ]
    assert {key: json.loads(text) for key, text in answer["auditAnnotations"].items()} == {"copies": copies}
    [line] = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert line["message"] == "copies named"
    assert (line["requested_by"], line["copies"], line["omitted"], line["dry_run"]) == (requested_by, copies, 0, False)


def test_a_dry_run_answers_as_the_real_call_does_and_writes_nothing(cloud: Cloud) -> None:
    dry = call(event(review("create-pod-dry-run")))[1]["response"]
    assert cloud.items() == []
    real = review("create-pod-dry-run")
    real["request"]["dryRun"] = False
    assert call(event(real))[1]["response"] == dry
    assert cloud.items()


def test_the_original_images_are_stored_in_the_annotation() -> None:
    patch = json.loads(base64.b64decode(call(event(review("create-pod")))[1]["response"]["patch"]))
    pod = jsonpatch.apply_patch(review("create-pod")["request"]["object"], patch)
    assert json.loads(pod["metadata"]["annotations"]["image-mirror/original-images"]) == {
        "containers/a": "nginx",
        "containers/b": f"gcr.io/distroless/static@{PINNED}",
        "initContainers/i": "quay.io/prometheus/busybox:latest",
        "volumes/v": "registry.k8s.io/pause:3.9",
    }
    assert pod["metadata"]["annotations"]["a"] == "b"


@pytest.mark.parametrize("body", ["", "nonsense", "{}", '{"kind":"AdmissionReview"}', "[" * 100_000])
def test_what_is_no_review_is_answered_400_with_the_reason(body: str) -> None:
    status, answer, headers = call(event(body))
    assert status == 400
    assert answer["message"].startswith("not an AdmissionReview: ")
    assert "Retry-After" not in headers


class Failing:
    """Replaces the table's client and fails each call."""

    def __getattr__(self, name: str) -> Any:
        def fail(**_: object) -> None:
            raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "x"}}, name)

        return fail


@pytest.mark.parametrize("name", ["create-pod", "create-pod-dry-run"])
def test_a_table_that_fails_is_answered_503_to_be_tried_again_after_a_second(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(webhook, "connect", lambda *_: Failing())
    status, answer, headers = call(event(review(name)))
    assert status == 503
    assert headers["Retry-After"] == "1"
    assert answer == {"message": "the pod's images could not be recorded in time"}


@pytest.mark.parametrize("late", [True, False], ids=["late", "refused"])
def test_during_a_pause_a_new_pod_starts_as_written_if_the_table_fails(
    monkeypatch: pytest.MonkeyPatch, logged: io.StringIO, late: bool
) -> None:
    if not late:
        monkeypatch.setattr(webhook, "connect", lambda *_: Failing())
    paused = event(review("create-pod"), timeout="5s", age=1.3 if late else 0) | {"routeKey": "POST /token/paused"}
    status, answer, _ = call(paused)
    assert status == 200
    assert {"patch", "auditAnnotations"}.isdisjoint(answer["response"])
    assert [text.partition(" ")[2] for text in answer["response"]["warnings"]] == [
        "stays as written: the table does not answer, and image-mirror is paused"
    ] * 4
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert [line["message"] for line in lines if "message" in line] == ["not recorded"]


def test_during_a_pause_an_update_changes_only_what_it_names_if_the_table_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "connect", lambda *_: Failing())
    sources = {"a": "ghcr.io/acme/svc:1", "b": "gcr.io/team/app:1"}
    originals = json.dumps({f"containers/{name}": each for name, each in sources.items()})
    old: Json = {
        "metadata": {
            "name": "p",
            "namespace": "default",
            "annotations": {"image-mirror/original-images": originals},
        },
        "spec": {"containers": [{"name": n, "image": f"{REGISTRY}/mirror/{each}"} for n, each in sources.items()]},
    }
    new = copy.deepcopy(old)
    for container, image in zip(new["spec"]["containers"], (sources["a"], "gcr.io/team/app:2"), strict=True):
        container["image"] = image
    sent = review("create-pod")
    sent["request"] |= {"operation": "UPDATE", "object": new, "oldObject": old}
    status, answer, _ = call(event(sent) | {"routeKey": "POST /token/paused"})
    assert status == 200
    patched = jsonpatch.apply_patch(new, json.loads(base64.b64decode(answer["response"]["patch"])))
    assert images(patched) == [f"{REGISTRY}/mirror/{sources['a']}", "gcr.io/team/app:2"]
    assert json.loads(patched["metadata"]["annotations"]["image-mirror/original-images"]) == {
        "containers/a": sources["a"]
    }


def test_a_request_that_is_late_already_is_answered_at_once_without_a_call(cloud: Cloud) -> None:
    status, _, headers = call(event(review("create-pod"), timeout="5s", age=1.3))
    assert (status, headers["Retry-After"]) == (503, "1")
    assert cloud.items() == []


def test_a_longer_timeout_leaves_more_time() -> None:
    webhook.load()
    assert call(event(review("create-pod"), timeout="30s", age=1.3))[0] == 200


def test_an_image_that_needs_no_record_is_answered_however_late() -> None:
    assert call(event(review("label-update"), timeout="5s", age=4))[0] == 200


def test_a_bug_is_logged_with_its_stack_and_answered_503(monkeypatch: pytest.MonkeyPatch, logged: io.StringIO) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(webhook, "new_images", fail)
    status, answer, headers = call(event(review("create-pod")))
    assert status == 503
    assert "Retry-After" not in headers
    assert answer == {"message": "the webhook failed; its log says why"}
    assert "ZeroDivisionError: a bug" in logged.getvalue()
    assert "Traceback" in logged.getvalue()


def test_missing_settings_are_named_in_the_log_and_answered_503(
    monkeypatch: pytest.MonkeyPatch, logged: io.StringIO
) -> None:
    monkeypatch.delenv("DDB_TABLE_NAME")
    monkeypatch.delenv("G_PROJECT_NAME")
    assert call(event(review("create-pod")))[0] == 503
    assert "DDB_TABLE_NAME is missing; G_PROJECT_NAME is missing" in logged.getvalue()


@pytest.mark.parametrize("message", ["copies named", "not recorded"])
def test_nothing_else_of_the_event_is_logged(
    monkeypatch: pytest.MonkeyPatch, logged: io.StringIO, message: str
) -> None:
    if message == "not recorded":
        monkeypatch.setattr(webhook, "connect", lambda *_: Failing())
    sent = review("create-pod")
    sent["request"]["object"]["spec"]["containers"][0]["env"] = [{"name": "PASSWORD", "value": "hunter2"}]
    call({**event(sent), "rawPath": "/SecretToken"})
    assert message in logged.getvalue()
    assert "hunter2" not in logged.getvalue()
    assert "SecretToken" not in logged.getvalue()


def test_swap_when_copied_keeps_the_source_until_the_copy_has_arrived(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWAP_WHEN", "copied")
    sent = review("create-pod-from-deployment")
    response = call(event(sent))[1]["response"]
    assert "patch" not in response
    assert "this pod keeps the source" in response["warnings"][0]
    records = Records(cloud.dynamodb, "ImageListTable")
    [item] = cloud.items()
    cloud.dynamodb.update_item(
        TableName="ImageListTable",
        Key={"repo": item["repo"], "tag": item["tag"]},
        UpdateExpression="SET digest = :digest, #status = :copied",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":digest": {"S": "sha256:" + "a" * 64}, ":copied": {"S": "COPIED"}},
    )
    assert records.get(item["repo"]["S"], item["tag"]["S"]) == to_record(cloud.items()[0])
    webhook.load.cache_clear()
    response = call(event(sent))[1]["response"]
    assert "patch" in response
    assert "warnings" not in response


def test_the_paused_route_uses_what_is_copied_and_writes_nothing(cloud: Cloud) -> None:
    sent = review("create-pod")
    paused = event(sent) | {"routeKey": "POST /token/paused"}
    response = call(paused)[1]["response"]
    assert cloud.items() == []
    assert "patch" not in response
    assert [text.partition(" ")[2] for text in response["warnings"]] == [
        "stays as written: ECR has no copy yet, and image-mirror is paused: it requests none"
    ] * 4
    call(event(sent))
    for item in cloud.items()[:1]:
        records = Records(cloud.dynamodb, "ImageListTable")
        record = to_record(item)
        digest = record.tag.removeprefix("digest-").replace("sha256-", "sha256:") if record.by_digest else PINNED
        records.replace(record, replace(record, status=Status.COPIED, digest=digest))
    before = cloud.items()
    webhook.load.cache_clear()
    response = call(paused)[1]["response"]
    assert len(response["warnings"]) == 3
    assert [each["op"] for each in json.loads(base64.b64decode(response["patch"]))] == ["replace", "add"]
    assert cloud.items() == before


@pytest.mark.parametrize("skipped", ["label", "mirror pod"])
def test_a_skipped_pod_is_answered_without_a_patch_or_a_record(cloud: Cloud, skipped: str) -> None:
    sent = review("create-pod")
    metadata = sent["request"]["object"]["metadata"]
    if skipped == "label":
        metadata["labels"]["image-mirror/skip"] = "true"
    else:
        metadata["annotations"]["kubernetes.io/config.mirror"] = "hash"
    response = call(event(sent))[1]["response"]
    assert response == {"uid": sent["request"]["uid"], "allowed": True}
    assert cloud.items() == []


@pytest.mark.parametrize(
    ("name", "value", "status", "digest"),
    [
        pytest.param("RETRY_FAILED_MINUTES", "5", "FAILED", None, id="failed six minutes ago"),
        pytest.param("REFRESH_HOURS", "1", "COPIED", "sha256:" + "a" * 64, id="copied two hours ago"),
    ],
)
def test_settings_reach_the_records(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, name: str, value: str, status: str, digest: str | None
) -> None:
    sent = review("create-pod-from-deployment")
    call(event(sent))
    [item] = cloud.items()
    now = int(time.time() * 1000)
    item |= {"status": {"S": status}, "requested_at": {"N": str(now - 7_200_000)}}
    item |= {"updated_at": {"N": str(now - 360_000)}} | ({"digest": {"S": digest}} if digest else {})
    for given, expected in (("", status), (value, "REQUESTED")):
        cloud.dynamodb.put_item(TableName="ImageListTable", Item=item)
        monkeypatch.setenv(name, given)
        webhook.load.cache_clear()
        call(event(sent))
        assert cloud.items()[0]["status"] == {"S": expected}


def test_a_copy_that_failed_says_when_it_is_tried_again(cloud: Cloud) -> None:
    sent = review("create-pod-from-deployment")
    call(event(sent))
    [item] = cloud.items()
    updated = int(time.time() * 1000) - 50 * 60_000
    item |= {"status": {"S": "FAILED"}, "updated_at": {"N": str(updated)}, "error": {"S": "NOT_FOUND: no such tag"}}
    cloud.dynamodb.put_item(TableName="ImageListTable", Item=item)
    webhook.load.cache_clear()
    response = call(event(sent))[1]["response"]
    assert response["warnings"] == [
        "k8s.gcr.io/nginx stays as written, its copy failed: NOT_FOUND: no such tag; a new pod retries after 10 min"
    ]


# ---- pods that name many images ----


def big_pod(images: int, **request: Any) -> Json:
    """Return the review of a pod that a ReplicaSet creates, with as many images."""
    sent = review("create-pod-from-deployment")
    container = sent["request"]["object"]["spec"]["containers"][0]
    sent["request"]["object"]["spec"]["containers"] = [
        {**container, "name": f"c{number}", "image": f"gcr.io/team/app:{number}"} for number in range(images)
    ]
    sent["request"] |= request
    return sent


def admitted(sent: Json) -> tuple[Json, Json]:
    """Return the response, and the pod that the API server makes of it."""
    status, answer, _ = call(event(sent))
    assert status == 200
    patch = json.loads(base64.b64decode(answer["response"].get("patch", "W10=")))
    return answer["response"], jsonpatch.apply_patch(sent["request"]["object"], patch)


def copied_images(pod: Json) -> list[int]:
    """Return the numbers of the images that are copies."""
    mirrored = f"{REGISTRY}/mirror/gcr.io/team/app:"
    return [number for number, image in enumerate(images(pod)) if image == f"{mirrored}{number}"]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each admission a minute, however busy the machine is."""
    monkeypatch.setattr(webhook, "seconds_left", lambda *_: 60.0)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("count", [51, 500, 10_000])
def test_a_pod_of_any_number_of_images_makes_fifty_records(cloud: Cloud, logged: io.StringIO, count: int) -> None:
    sent = big_pod(count)
    response, pod = admitted(sent)
    assert {item["source"]["S"] for item in cloud.items()} == {f"gcr.io/team/app:{number}" for number in range(50)}
    assert copied_images(pod) == list(range(50))
    assert images(pod)[50:] == images(sent["request"]["object"])[50:]
    assert len(json.loads(pod["metadata"]["annotations"]["image-mirror/original-images"])) == 50
    kept = "1 image stays" if count == 51 else f"{count - 50} images stay"
    assert response["warnings"][0].startswith(f"{kept} as written: too many are new; run image-mirror warm or ")
    assert (len(response["warnings"]), response["warnings"][-1]) == (11, "and 41 more")
    [line] = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert (line["message"], line["too_many"]) == ("copies named", count - 50)


@pytest.mark.usefixtures("unhurried")
def test_a_dry_run_of_a_big_pod_says_what_the_real_call_does(cloud: Cloud) -> None:
    put_copies(cloud, 100, 300)
    before = cloud.items()
    dry = admitted(big_pod(500, dryRun=True))
    assert cloud.items() == before
    assert admitted(big_pod(500)) == dry
    assert copied_images(dry[1]) == [*range(50), *range(100, 250)]


def put_copies(cloud: Cloud, first: int, end: int) -> None:
    """Record these images of a big pod as an operator's request does."""
    for number in range(first, end):
        source = parse_reference(f"gcr.io/team/app:{number}")
        record = new_record(destination_of(source, REGISTRY, "mirror"), source, int(time.time() * 1000))
        Records(cloud.dynamodb, "ImageListTable").create(record)


@pytest.mark.usefixtures("unhurried")
def test_images_that_an_operator_has_requested_are_used_as_far_as_they_are_read(cloud: Cloud) -> None:
    put_copies(cloud, 0, 300)
    response, pod = admitted(big_pod(300))
    assert copied_images(pod) == list(range(250))
    assert response["warnings"][0].startswith("50 images stay as written: ")


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("instance", ["warm", "cold"])
@pytest.mark.parametrize("swap_when", ["always", "copied", "paused"])
def test_an_api_server_that_calls_again_for_a_big_pod_changes_nothing(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, instance: str, swap_when: str
) -> None:
    monkeypatch.setenv("SWAP_WHEN", swap_when)
    sent = big_pod(120)
    pod = admitted(sent)[1]
    before = cloud.items()
    for body in (sent, big_pod(120, object=pod)):  # the same call again, and reinvocationPolicy
        if instance == "cold":
            webhook.load.cache_clear()
        assert admitted(body)[1] == pod
    assert cloud.items() == before


@pytest.mark.usefixtures("unhurried")
def test_an_admission_whose_only_images_are_too_many_is_logged(logged: io.StringIO) -> None:
    pod = admitted(big_pod(60))[1]
    response = admitted(big_pod(60, object=pod))[0]
    assert [warning.split(";")[0] for warning in response["warnings"]] == [
        "10 images stay as written: too many are new"
    ]
    assert "auditAnnotations" not in response
    line = json.loads(logged.getvalue().splitlines()[-1])
    assert (line["message"], line["copies"], line["omitted"], line["too_many"]) == ("copies named", [], 0, 10)


@pytest.mark.usefixtures("unhurried")
def test_a_big_pod_that_is_applied_again_keeps_its_images(cloud: Cloud) -> None:
    live = admitted(big_pod(120))[1]
    before = cloud.items()
    webhook.load.cache_clear()
    for dropped in (False, True):  # by kubectl apply, and by kubectl replace without the annotation
        source = big_pod(120)["request"]["object"]
        if not dropped:
            source["metadata"]["annotations"] = live["metadata"]["annotations"]
        response, pod = admitted(big_pod(120, operation="UPDATE", object=source, oldObject=live))
        assert images(pod) == images(live)
        assert response["warnings"] == [*(restored(f"gcr.io/team/app:{number}") for number in range(10)), "and 40 more"]
    assert cloud.items() == before


@pytest.mark.usefixtures("unhurried")
def test_one_image_in_many_containers_counts_once(cloud: Cloud) -> None:
    sent = big_pod(200)
    for number, container in enumerate(sent["request"]["object"]["spec"]["containers"]):
        container["image"] = f"gcr.io/team/app:{number % 50}"
    response, pod = admitted(sent)
    assert all(image.startswith(REGISTRY) for image in images(pod))
    assert len(cloud.items()) == 50
    assert "stay as written" not in "".join(response["warnings"])


@pytest.mark.usefixtures("unhurried")
def test_max_new_images_is_the_bound(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_NEW_IMAGES", "3")
    assert copied_images(admitted(big_pod(5))[1]) == [0, 1, 2]
    assert len(cloud.items()) == 3


def test_a_big_pod_whose_table_does_not_answer_in_time_is_answered_503(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "seconds_left", lambda *_: 0.0)
    status, _, headers = call(event(big_pod(500)))
    assert (status, headers["Retry-After"], cloud.items()) == (503, "1", [])


# ---- published metrics ----


@pytest.mark.parametrize(
    ("name", "rewrites"),
    [
        pytest.param("create-pod", {"Rewrites": [4]}, id="four images are pointed at ECR"),
        pytest.param("create-pod-dry-run", {"Rewrites": [4]}, id="a dry run counts as it answers"),
        pytest.param("label-update", {}, id="nothing is rewritten"),
    ],
)
def test_an_admission_and_its_rewrites_are_published(
    monkeypatch: pytest.MonkeyPatch, published: Callable[[], Any], name: str, rewrites: dict[str, list[float]]
) -> None:
    monkeypatch.setattr(webhook, "_counts", Counts())
    assert call(event(review(name)))[0] == 200
    assert published() == {"Admissions": [1], **rewrites}


def test_an_image_pulled_from_elsewhere_by_a_rule_is_no_rewrite_to_ecr(
    monkeypatch: pytest.MonkeyPatch, published: Callable[[], Any]
) -> None:
    monkeypatch.setenv("MIRROR_RULES", "k8s.gcr.io=registry.example.cn")
    monkeypatch.setattr(webhook, "_counts", Counts())
    assert "patch" in call(event(review("create-pod-from-deployment")))[1]["response"]
    assert published() == {"Admissions": [1]}


@pytest.mark.parametrize(
    ("body", "broken", "metric"),
    [
        pytest.param("nonsense", None, "Refused", id="no review"),
        pytest.param(json.dumps(review("create-pod")), "connect", "NotRecorded", id="the table refuses"),
        pytest.param(json.dumps(review("create-pod")), "new_images", "Bugs", id="a bug"),
    ],
)
def test_what_is_not_admitted_is_published_by_its_kind(
    monkeypatch: pytest.MonkeyPatch, published: Callable[[], Any], body: str, broken: str | None, metric: str
) -> None:
    monkeypatch.setattr(webhook, "_counts", Counts())
    if broken == "connect":
        monkeypatch.setattr(webhook, "connect", lambda *_: Failing())
    elif broken:
        monkeypatch.setattr(webhook, broken, lambda *_: 1 / 0)
    assert call(event(body))[0] in (400, 503)
    assert published() == {metric: [1]}


def test_settings_that_are_missing_count_as_a_bug(
    monkeypatch: pytest.MonkeyPatch, published: Callable[[], Any]
) -> None:
    monkeypatch.setattr(webhook, "_counts", Counts())
    monkeypatch.delenv("DDB_TABLE_NAME")
    call(event(review("create-pod")))
    assert published() == {"Bugs": [1]}


def test_a_busy_instance_publishes_once_a_second(monkeypatch: pytest.MonkeyPatch, published: Callable[[], Any]) -> None:
    now = 1000.0
    monkeypatch.setattr(webhook, "_counts", Counts(lambda: now))
    sent = event(review("create-pod-from-deployment"))
    seen = []
    for second in (0.0, 0.1, 0.9, 1.0, 1.5):
        now = 1000 + second
        call(sent)
        seen.append(published())
    assert seen == [
        {"Admissions": [1], "Rewrites": [1]},
        {},
        {},
        {"Admissions": [3], "Rewrites": [3]},
        {},
    ]


@pytest.mark.parametrize(
    ("body", "broken", "seen"),
    [
        pytest.param("nonsense", None, {}, id="what a stranger sends costs no line each"),
        pytest.param(json.dumps(review("label-update")), "parse_review", {"Bugs": [1]}, id="a bug"),
    ],
)
def test_only_what_went_wrong_is_published_before_the_second_is_over(
    monkeypatch: pytest.MonkeyPatch,
    published: Callable[[], Any],
    body: str,
    broken: str | None,
    seen: dict[str, list[float]],
) -> None:
    monkeypatch.setattr(webhook, "_counts", Counts(lambda: 1000.0))
    call(event(review("label-update")))
    assert published() == {"Admissions": [1]}
    if broken:
        monkeypatch.setattr(webhook, broken, lambda *_: 1 / 0)
    call(event(body))
    assert published() == seen
