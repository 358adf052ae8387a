"""Both functions need only what the SAM CLI builds, from a pod's review to the records of its copies."""

import json
import subprocess
from pathlib import Path

import pytest

from e2e.harness.deployment import STACK, Checkout, registry
from e2e.harness.sam import Region
from e2e.harness.stage import TOKEN
from e2e.harness.traffic import COPIES, REVIEW, admit, builds, ecr_event, expected_images, stream_batch
from image_mirror.table import Records
from support.reviews_data import DIGEST
from support.slots import run_twenty_builds

pytest_plugins = ["e2e.harness.deployed"]

MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 2, "digest": DIGEST},
        "layers": [],
    }
)


@pytest.fixture(scope="module")
def artefact(china: Region, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that Lambda unpacks for the webhook."""
    folder = tmp_path_factory.mktemp("artefact")
    china.unpack(STACK, "ApiFunction", folder)
    return folder


def test_both_functions_have_the_same_artefact_so_it_is_uploaded_once(china: Region) -> None:
    assert china.code(STACK, "ApiFunction") == china.code(STACK, "ReconcilerFunction")


def test_each_module_is_compiled_for_the_runtime_whatever_its_source_s_time(artefact: Path) -> None:
    sources = list(artefact.rglob("*.py"))
    assert {"webhook.py", "reconciler.py", "session.py", "six.py"} <= {source.name for source in sources}
    compiled = [source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc" for source in sources]
    assert [path for path in compiled if not path.exists()] == []
    # PEP 552: 1 means a hash that is not checked.
    assert {path.read_bytes()[4:8] for path in compiled} == {(1).to_bytes(4, "little")}


def test_tracebacks_name_the_files_where_lambda_has_them(artefact: Path, built: Checkout) -> None:
    compiled = artefact / "image_mirror" / "__pycache__" / "webhook.cpython-313.pyc"
    show = "import marshal, sys; print(marshal.loads(open(sys.argv[1], 'rb').read()[16:]).co_filename)"
    answer = subprocess.run([built.python, "-c", show, compiled], capture_output=True, text=True, check=True)
    assert answer.stdout == "/var/task/image_mirror/webhook.py\n"


def test_the_artefact_holds_nothing_that_no_function_uses(artefact: Path) -> None:
    package = {path.stem for path in (artefact / "image_mirror").iterdir()}
    assert {"webhook", "reconciler"} <= package
    assert not {"cli", "registry_login"} & package
    services = {path.name for path in (artefact / "botocore" / "data").iterdir() if path.is_dir()}
    assert services == {"codebuild", "dynamodb", "ecr", "secretsmanager", "sts"}
    others = {path.name for path in artefact.iterdir() if not path.name.endswith(".dist-info")}
    packages = {
        "aws_lambda_powertools",
        "botocore",
        "dateutil",
        "jmespath",
        "six.py",
        "typing_extensions.py",
        "urllib3",
    }
    assert others == packages | {"image_mirror", "__pycache__"}


def test_both_functions_run_from_the_artefact_alone(built: Checkout, china: Region, global_region: Region) -> None:
    with built.start(china, "ApiFunction") as webhook:
        assert webhook.log == "", "it has reached the table while it was imported"
        assert admit(webhook, f"POST /{TOKEN}", REVIEW) == expected_images(china)
        assert TOKEN not in webhook.log
    assert {item["source"]["S"]: (item["repo"]["S"], item["tag"]["S"]) for item in china.items()} == {
        source: (f"{registry(china)}/{repository}", tag) for source, repository, tag in COPIES.values()
    }
    assert {item["status"]["S"] for item in china.items()} == {"REQUESTED"}

    run_twenty_builds(Records(china.client("dynamodb"), "ImageListTable"))
    batch, before = stream_batch(china), builds(global_region)
    assert len(batch["Records"]) == len(COPIES)
    with built.start(china, "ReconcilerFunction") as reconciler:
        assert reconciler(batch) == {"batchItemFailures": []}
        assert reconciler({"source": "aws.events"}) == {}, "starts what the batch did not: it may have come late"
        assert {item["status"]["S"] for item in china.items()} == {"COPYING"}
        assert {item["build_id"]["S"] for item in china.items()} == builds(global_region) - before

        _, repository, tag = COPIES["volumes/v"]
        answer = china.client("ecr").put_image(repositoryName=repository, imageTag=tag, imageManifest=MANIFEST)
        assert reconciler(ecr_event(repository, tag)) == {}
        [copied] = [item for item in china.items() if item["repo"]["S"].endswith(repository)]
        assert (copied["status"]["S"], copied["digest"]["S"]) == ("COPIED", answer["image"]["imageId"]["imageDigest"])

        assert reconciler({"source": "aws.events"}) == {}
        secret = json.loads(china.client("secretsmanager").get_secret_value(SecretId="GlobalAKSK")["SecretString"])
        assert "record changed" in reconciler.log
        assert secret["G_SECRET_KEY"] not in reconciler.log
