"""Events of AWS and the API server for the deployed functions: a review, the stream's batch, ECR's events."""

import base64
import json
import time

import jsonpatch

from e2e.fakes.event_source_mapping import passes
from e2e.harness.artefact import Function
from e2e.harness.deployment import registry
from e2e.harness.sam import Json, Region
from e2e.harness.stacks import CHINA
from image_mirror.cli.emulation import http_event
from support.reviews_data import DIGEST, HEX, captured, images_of

REVIEW = captured("create-pod.json")
# Its images by field: the source, and the repository (without the registry) and the tag of the copy.
COPIES = {
    "containers/a": ("docker.io/library/nginx:latest", "mirror/docker.io/library/nginx", "latest"),
    "containers/b": (f"gcr.io/distroless/static@{DIGEST}", "mirror/gcr.io/distroless/static", f"digest-sha256-{HEX}"),
    "initContainers/i": ("quay.io/prometheus/busybox:latest", "mirror/quay.io/prometheus/busybox", "latest"),
    "volumes/v": ("registry.k8s.io/pause:3.9", "mirror/registry.k8s.io/pause", "3.9"),
}


def expected_images(region: Region) -> dict[str, str]:
    """Return the rewritten images of REVIEW, by field."""
    return {
        field: f"{registry(region)}/{repository}" + (f"@{DIGEST}" if "@" in source else f":{tag}")
        for field, (source, repository, tag) in COPIES.items()
    }


def admit(webhook: Function, route: str, review: Json) -> dict[str, str]:
    """Send a review, again after a 503 with Retry-After, and return the images of the admitted pod."""
    for _ in range(5):
        answer = webhook(http_event(review) | {"routeKey": route, "rawPath": route.removeprefix("POST ")})
        if answer["statusCode"] != 503:
            break
        time.sleep(int(answer["headers"]["Retry-After"]))
    assert answer["statusCode"] == 200, answer
    response = json.loads(answer["body"])["response"]
    assert (response["uid"], response["allowed"]) == (review["request"]["uid"], True)
    patch = jsonpatch.JsonPatch.from_string(base64.b64decode(response["patch"]).decode())
    images: dict[str, str] = images_of(patch.apply(review["request"]["object"]))
    return images


def stream_batch(region: Region, arn: str | None = None) -> Json:
    """Return all entries of the mapped stream, or of the stream `arn`, that pass the mapping's filter."""
    streams = region.client("dynamodbstreams")
    mappings = region.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    [mapping] = [each for each in mappings if arn in (None, each["EventSourceArn"])]
    stream = {"StreamArn": mapping["EventSourceArn"]}
    [shard] = streams.describe_stream(**stream)["StreamDescription"]["Shards"]
    start = {"ShardId": shard["ShardId"], "ShardIteratorType": mapping["StartingPosition"]}
    position = streams.get_shard_iterator(**stream, **start)["ShardIterator"]
    records = json.loads(json.dumps(streams.get_records(ShardIterator=position)["Records"], default=str))
    patterns = [json.loads(each["Pattern"]) for each in mapping["FilterCriteria"]["Filters"]]
    return {"Records": [record for record in records if any(passes(pattern, record) for pattern in patterns)]}


def ecr_event(repository: str, tag: str | None) -> Json:
    """Return ECR's event of a push; a push by digest has no tag."""
    detail = {"action-type": "PUSH", "result": "SUCCESS", "repository-name": repository, "image-digest": DIGEST}
    detail |= {} if tag is None else {"image-tag": tag}
    return {
        "version": "0",
        "source": "aws.ecr",
        "detail-type": "ECR Image Action",
        "account": CHINA.account,
        "detail": detail,
    }


def builds(global_region: Region) -> set[str]:
    """Return the IDs of all builds that were started."""
    return set(global_region.client("codebuild").list_builds_for_project(projectName="ImagePullProject")["ids"])
