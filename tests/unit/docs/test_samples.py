"""Each sample does what its comment says."""

from pathlib import Path

import pytest
import yaml

from image_mirror.cli.manifests import read_manifests
from image_mirror.cli.plan import Row, rows
from support.reviews_data import MIRROR, sample

SAMPLES = Path(__file__).parents[3] / "samples"
ALL = sorted(path.name for path in SAMPLES.iterdir())


def preview(name: str) -> dict[str, Row]:
    manifests = read_manifests([str(SAMPLES / name)])
    assert manifests.problems == []
    return {row.field: row for row in rows(manifests, MIRROR)}


def test_the_samples_are_those_that_the_documentation_names() -> None:
    assert ALL == ["every-image-field.yaml", "nginx-gcr.yaml", "opted-out.yaml"]


@pytest.mark.parametrize("name", ALL)
def test_a_sample_is_one_object_named_as_its_file(name: str) -> None:
    (document,) = yaml.safe_load_all((SAMPLES / name).read_text())
    assert f"{document['metadata']['name']}.yaml" == name
    assert "namespace" not in document["metadata"]


def test_the_first_sample_is_a_deployment_of_an_image_that_is_copied_from_gcr() -> None:
    document = yaml.safe_load((SAMPLES / "nginx-gcr.yaml").read_text())
    assert (document["kind"], document["spec"]["replicas"]) == ("Deployment", 1)
    labels = document["spec"]["template"]["metadata"]["labels"]
    assert document["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (row,) = preview("nginx-gcr.yaml").values()
    assert row.rule == "gcr.io"
    assert row.becomes.endswith("/mirror/gcr.io/google-samples/hello-app:1.0")


def test_every_image_field_of_a_manifest_is_shown_and_copied() -> None:
    shown = preview("every-image-field.yaml")
    assert {field.partition("/")[0] for field in shown} == {"containers", "initContainers", "volumes"}
    assert all(row.rule and row.becomes.startswith(f"{MIRROR.registry}/mirror/") for row in shown.values())
    assert "@sha256:" in shown["containers/by-digest"].becomes
    assert len({row.image.partition("/")[0] for row in shown.values()}) == 4
    text = (SAMPLES / "every-image-field.yaml").read_text()
    assert "kubectl debug every-image-field" in text
    pod = yaml.safe_load(text)
    mounted = {mount["name"] for container in pod["spec"]["containers"] for mount in container.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_default_rules_copy_from_the_registries_that_charts_name() -> None:
    shown = {row.field: row for name in ("default-rules-gaps.yaml", "istio-default.yaml") for row in user_rows(name)}
    left = {field for field, row in shown.items() if row.becomes == row.image}
    assert left == {"containers/zalando", "containers/canonical", "containers/juju"}
    for row in shown.values():
        assert row.becomes in (row.image, f"{MIRROR.registry}/mirror/{row.image}")
    page = (SAMPLES.parent / "docs" / "default-rules.md").read_text(encoding="utf-8").partition("## Left out")[2]
    assert all(f"`{shown[field].image.partition('/')[0]}`" in page for field in left)


def user_rows(name: str) -> list[Row]:
    manifests = read_manifests([str(sample(name))])
    assert manifests.problems == []
    return list(rows(manifests, MIRROR))


def test_the_opted_out_pod_stays_as_written_though_its_image_would_be_copied() -> None:
    (row,) = preview("opted-out.yaml").values()
    assert (row.becomes, row.reason) == (row.image, "its pod has the label image-mirror/skip")
    assert MIRROR.decide(row.image)[1] is not None
