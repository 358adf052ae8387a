"""The webhook: reviews of a whole pod, sent to the stack's own URL, and what its patch makes of the pod."""

import base64
import copy
import json
import statistics
import uuid
from collections.abc import Sequence

import jsonpatch

from image_mirror.cli.commands.selftest.results import Result
from image_mirror.cli.commands.selftest.samples import NAMESPACE
from image_mirror.cli.doctor.runner import State
from image_mirror.cli.doctor.webhook import SLOW, Reply, Silence, refusal_of, send
from image_mirror.cli.remedies import log_of
from image_mirror.cli.resources import resource
from image_mirror.cli.stacks import Stack
from image_mirror.cli.webhook_manifest import route_url
from image_mirror.pod_images import ORIGINALS, originals_text
from image_mirror.review import Json

WEBHOOK = "webhook"
CALLS = 6
"""How many dry runs are sent: the first may start an instance of the function, the others find it."""
# What base64, json and jsonpatch raise for any text: whoever answers may have sent it.
_REFUSED = (
    *(ValueError, TypeError, KeyError, AttributeError, RecursionError),
    *(jsonpatch.JsonPatchException, jsonpatch.JsonPointerException),
)
_REVIEW = "tests/reviews/create-pod-from-deployment.json"


def url_of(china: Stack) -> str:
    """Return the URL to which reviews are sent: that of `always`, so that SwapWhen of the stack does not matter."""
    url = china.output("APIGatewayURL")
    return route_url(url, "always") if "SwapWhenRoutes" in china.outputs else url


def review_of(image: str, name: str, *, dry_run: bool) -> Json:
    """Return a whole AdmissionReview, as an API server sent it, of a pod `name` with `image`."""
    review: Json = json.loads(resource(_REVIEW).read_text(encoding="utf-8"))
    request = review["request"]
    request |= {"uid": str(uuid.uuid4()), "namespace": NAMESPACE, "name": name, "dryRun": dry_run}
    metadata = request["object"]["metadata"]
    for each in ("generateName", "ownerReferences", "managedFields"):
        metadata.pop(each, None)
    metadata |= {"name": name, "namespace": NAMESPACE}
    [container] = request["object"]["spec"]["containers"]
    container["image"] = image
    return review


def expected(pod: Json, becomes: str) -> Json:
    """Return the pod as the webhook has to make it: with the copy's name, and the annotation with the original."""
    changed = copy.deepcopy(pod)
    [container] = changed["spec"]["containers"]
    original = originals_text({f"containers/{container['name']}": container["image"]})
    container["image"] = becomes
    changed["metadata"].setdefault("annotations", {})[ORIGINALS] = original
    return changed


def patched(pod: Json, reply: Reply, uid: str) -> Json:
    """Apply the JSONPatch of an answer to the pod.

    Raises ValueError, TypeError, RecursionError, JsonPatchException or JsonPointerException for what an API server
    would refuse.
    """
    answer = json.loads(reply.body)
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict) or response.get("uid") != uid or response.get("allowed") is not True:
        raise ValueError("it is not the answer to this review")
    if "patch" not in response:
        return pod
    changed: Json = jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response["patch"])))
    return changed


def dry_runs(china: Stack, image: str, name: str) -> tuple[list[Json], list[Reply | Silence]]:
    """Send the dry runs one after another, and return them with their answers."""
    url, reviews = url_of(china), [review_of(image, name, dry_run=True) for _ in range(CALLS)]
    return reviews, [send(url, review) for review in reviews]


def judge(
    reviews: Sequence[Json], replies: Sequence[Reply | Silence], becomes: str, china: Stack, *, is_recorded: bool
) -> Result:
    """Judge the answers to the dry runs; `is_recorded` says that there is a record now."""
    log = log_of(china, "WebhookLogGroup")
    for review, reply in zip(reviews, replies, strict=True):
        if fault := fault_of(review, reply, becomes, log):
            return Result(WEBHOOK, State.FAILED, *fault)
    seconds = [reply.seconds for reply in replies if isinstance(reply, Reply)]
    first, median = seconds[0], statistics.median(seconds[1:] or seconds)
    times = {"first": round(first, 3), "median": round(median, 3)}
    if is_recorded:
        found = "a dry run has written a record"
        return Result(WEBHOOK, State.FAILED, found, "deploy China's stack again from this release", seconds=times)
    found = (
        f"{len(seconds)} dry runs are answered with the right patch and write no record; the first after {first:.2f} "
        f"s, the median of the others is {median:.2f} s"
    )
    if median > SLOW:
        found += f"; an API server waits {SLOW:.0f} s, as shipped"
        return Result(WEBHOOK, State.FAILED, found, f"check the network and the log: {log}", seconds=times)
    return Result(WEBHOOK, State.OK, found, seconds=times)


def fault_of(review: Json, reply: Reply | Silence, becomes: str, log: str) -> tuple[str, str] | None:
    """Return what is wrong with an answer, and what to do; None if the pod becomes what it has to."""
    if isinstance(reply, Silence):
        return reply.found, reply.remedy
    if reply.status != 200:
        result = refusal_of(reply, log)
        return result.found, result.remedy or ""
    pod = review["request"]["object"]
    try:
        is_now = patched(pod, reply, review["request"]["uid"])
    except _REFUSED as error:
        return f"an API server would refuse the answer: {error}", f"check whether a proxy answers; see the log: {log}"
    if is_now == expected(pod, becomes):
        return None
    try:
        [container] = is_now["spec"]["containers"]
        image = container["image"]
    except (ValueError, TypeError, KeyError):
        image = becomes
    what = "other fields of the pod than its image" if image == becomes else f"{image}, not {becomes}"
    return f"the patch makes {what}", f"deploy China's stack again from this release; see the log: {log}"
