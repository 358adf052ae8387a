"""Runs the main job on emulated AWS: pods are admitted, their images point to ECR, and each copy is made."""

import base64
import json
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jsonpatch
import typer

from image_mirror import reconciler, webhook
from image_mirror.cli.emulation import Context, Emulation, emulated_aws, http_event
from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.manifests import FoundPod, read_valid_manifests
from image_mirror.cli.output import say
from image_mirror.cli.resources import resource
from image_mirror.pod_images import image_fields
from image_mirror.record import Status
from image_mirror.review import Json

_DEFAULTS = ("samples", "tests/reviews/create-pod.json", "tests/reviews/create-pod-from-deployment.json")
_MOST_ATTEMPTS = 11  # the API server's first call and its ten repetitions
_EMULATED = """\
Emulated, in this process, with no network and no account: DynamoDB and its stream, ECR and its events, Secrets Manager,
CodeBuild (moto). Where CodeBuild would copy an image, an empty image is pushed. Real: both functions, and the format of
their events and answers.
"""


def run(files: list[str] | None) -> None:
    """Show how the pods in `files`, or in the samples, are changed and copied. Raises typer.Exit with the exit code."""
    names = files or [str(resource(name)) for name in _DEFAULTS]
    reviews = list(_reviews(names))
    if not reviews:
        say("No pod found.")
        raise typer.Exit(0)
    if sys.stdout.isatty():
        say(" ".join(_EMULATED.split()), err=False)
        typer.echo("")
    else:
        typer.echo(_EMULATED)
    with emulated_aws() as aws:
        first = [_show_pod(title, review) for title, review in reviews]
        _show_copies(aws)
        webhook.load.cache_clear()  # as after a minute, when nothing is known from memory
        again = [_admit(review) for _, review in reviews]
        problems = [f"{record.source} is {record.status}" for record in aws.records() if record.digest is None]
        problems += [
            warning
            for before, after in zip(first, again, strict=True)
            for warning in after.get("warnings", ())
            if "being copied" in warning or (warning not in before.get("warnings", ()) and "stay" not in warning)
        ]
        made = aws.records()
        if aws.stream_batch()["Records"]:
            problems.append("a copy was requested again")
    if problems:
        say("Error: " + "; ".join(problems))
        raise typer.Exit(1)
    if made:
        later = "their copies are in ECR, so nothing is recorded, and there is no warning about a copy"
        say(f"The same pods, later: {later}.", err=False)
    else:
        say("No image of these pods is copied.", err=False)


def _reviews(names: list[str]) -> Iterator[tuple[str, Json]]:
    """Yield a title and an AdmissionReview for each captured review and each pod that the manifests describe."""
    captured = [name for name in names if name.endswith(".json") and _is_review(name)]
    top = _top()
    for name in captured:
        ours = " (as a 1.36 API server sent it)" if top and Path(name).parent == top / "tests" / "reviews" else ""
        yield _short(name) + ours, json.loads(Path(name).read_text(encoding="utf-8"))
    for found in read_valid_manifests(name for name in names if name not in captured).pods:
        yield f"{_short(found.file)}: {found.kind}/{found.name}", _review_of(found)


def _is_review(name: str) -> bool:
    try:
        value = json.loads(Path(name).read_bytes())
    except (OSError, ValueError):
        return False  # read as a manifest; that reader says what is wrong
    return isinstance(value, dict) and value.get("kind") == "AdmissionReview"


def _review_of(found: FoundPod) -> Json:
    """Make the review that an API server sends for a new pod, or for the first pod of a workload."""
    own = {"name": found.name} if found.kind == "Pod" else {"generateName": f"{found.name}-"}
    namespace = found.namespace or "default"
    metadata = {**found.pod["metadata"], **own, "namespace": namespace}
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": str(uuid.uuid4()),
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE",
            "namespace": namespace,
            "object": {**found.pod, "apiVersion": "v1", "kind": "Pod", "metadata": metadata},
            "oldObject": None,
            "dryRun": False,
        },
    }


def _admit(review: Json) -> Json:
    """Call the webhook's handler as the API server does through API Gateway, and return the review's response.

    Like the API server, call again after a 503 with Retry-After: the first call on a slow machine may take too long.
    """
    for _ in range(_MOST_ATTEMPTS):
        answer = webhook.handler(http_event(review), None)
        if "Retry-After" not in answer["headers"]:
            break
        time.sleep(int(answer["headers"]["Retry-After"]))
    if answer["statusCode"] != 200:
        raise typer.BadParameter(json.loads(answer["body"])["message"])
    response: Json = json.loads(answer["body"])["response"]
    return response


def _show_pod(title: str, review: Json) -> Json:
    """Print how a pod is changed, and return the response to its review."""
    response = _admit(review)
    of_request = review["request"].get("object")
    before: Any = of_request if isinstance(of_request, dict) else {}  # a DELETE has none
    patch = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
    after: Any = jsonpatch.apply_patch(before, patch)
    say(title, err=False)
    for old, new in zip(image_fields(before), image_fields(after), strict=True):
        say(f"{old.key}: {old.image}", err=False, indent="  ")
        say(f"-> {new.image}" if new.image != old.image else "left unchanged", err=False, indent="    ")
    made_by_a_controller = "generateName" in (before.get("metadata") or {})
    for warning in response.get("warnings", ()):
        if not made_by_a_controller:
            say(f"Warning: {warning}", err=False, indent="  ")
    if made_by_a_controller and response.get("warnings"):
        say("(a controller creates this pod, so kubectl shows no warnings)", err=False, indent="  ")
    typer.echo("")
    return response


def _show_copies(aws: Emulation) -> None:
    """Let the stream start the builds, ECR's events say that the copies arrived, and the schedule see the builds' ends.

    The schedule starts the builds for which the stream had no slots. Print the states of each record.
    """
    states = {(record.repo, record.tag): [str(record.status)] for record in aws.records()}
    reconciler.handler(aws.stream_batch(), Context())
    for minute in range(1, len(states) + 2):
        for record in aws.records():
            if record.status is Status.COPYING:
                states[record.repo, record.tag].append(f"{record.status} by {record.build_id}")
                reconciler.handler(aws.push(record), Context())
        _run_schedule(minute)
        if all(record.status is Status.COPIED and record.open_build is None for record in aws.records()):
            break
    if states:
        say("Records, one for each image, and their states:", err=False)
    for record in aws.records():
        states[record.repo, record.tag] += [
            f"{record.status} as {record.digest}",
            f"the build has ended: it pushed {'this digest' if record.pushed == record.digest else record.pushed}, "
            f"signatures copied with it: {record.signatures}",
        ]
        say(record.source, err=False, indent="  ")
        for step in states[record.repo, record.tag]:
            say(step, err=False, indent="    ")
    if states:
        typer.echo("")


def _run_schedule(minute: int) -> None:
    """Run the schedule as if so many minutes had passed."""
    with mock.patch("time.time", return_value=time.time() + 60 * minute):
        reconciler.load.cache_clear()  # it holds the clock
        reconciler.handler({}, Context())
    reconciler.load.cache_clear()


def _short(name: str) -> str:
    path, top = Path(name), _top()
    return str(path.relative_to(top)) if top and path.is_relative_to(top) else name


def _top() -> Path | None:
    """Return the folder of the project's own files, as in a checkout; None if they are not installed."""
    try:
        return resource("samples").parent
    except NoAnswerError:
        return None
