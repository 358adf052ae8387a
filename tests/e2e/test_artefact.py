"""What the SAM CLI has built is all that both functions need, from a pod's review to the record of its copies."""

import json

from deployment import Checkout, registry
from sam import Region
from stage import TOKEN
from traffic import COPIES, REVIEW, admit, builds, ecr_event, expected_images, stream_batch

from reviews_data import DIGEST

pytest_plugins = ["deployed"]

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": DIGEST},
        "layers": [],
    }
)


def test_both_functions_run_from_the_artefact_alone(built: Checkout, china: Region, world: Region) -> None:
    [route] = china.routes()
    with built.start(china, "ApiFunction") as webhook:
        assert admit(webhook, route["RouteKey"], REVIEW) == expected_images(china)
        assert TOKEN not in webhook.log
    assert {item["source"]["S"]: (item["repo"]["S"], item["tag"]["S"]) for item in china.items()} == {
        source: (f"{registry(china)}/{repository}", tag) for source, repository, tag in COPIES.values()
    }
    assert {item["status"]["S"] for item in china.items()} == {"REQUESTED"}

    batch, before = stream_batch(china), builds(world)
    assert len(batch["Records"]) == len(COPIES)
    with built.start(china, "ReconcilerFunction") as reconciler:
        assert reconciler(batch) == {"batchItemFailures": []}
        assert {item["status"]["S"] for item in china.items()} == {"COPYING"}
        assert {item["build_id"]["S"] for item in china.items()} == builds(world) - before

        _, repository, tag = COPIES["volumes/v"]
        answer = china.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=MANIFEST)
        assert reconciler(ecr_event(repository, tag)) == {}
        [copied] = [item for item in china.items() if item["repo"]["S"].endswith(repository)]
        assert (copied["status"]["S"], copied["digest"]["S"]) == ("COPIED", answer["image"]["imageId"]["imageDigest"])

        assert reconciler({"source": "aws.events"}) == {}
        secret = json.loads(china.client("secretsmanager").get_secret_value(SecretId="GlobalAKSK")["SecretString"])
        assert "record changed" in reconciler.log
        assert secret["G_SECRET_KEY"] not in reconciler.log
