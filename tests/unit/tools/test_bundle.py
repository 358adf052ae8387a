"""The artefact of sam build contains what both functions need, and the build says what it needs itself."""

import ast
import gzip
import json
import os
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.loaders import Loader
from botocore.session import Session

from support.templates import ROOT, sam_template

BUNDLE: dict[str, Any] = runpy.run_path(str(ROOT / "src" / "bundle.py"))
SERVICES: tuple[str, ...] = BUNDLE["SERVICES"]
REGIONS = ("cn-north-1", "cn-northwest-1", "us-west-2", "ap-northeast-1", "eu-central-1", "us-gov-west-1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The botocore data of the artefact, made from more data than the artefact needs."""
    origin, folder = Path(botocore.__file__).with_name("data"), tmp_path_factory.mktemp("data")
    for path in origin.glob("*.json"):
        shutil.copy(path, folder)
    for service in (*SERVICES, "s3"):
        shutil.copytree(origin / service, folder / service)
    BUNDLE["trim"](folder)
    return folder


def session(data: Path) -> Session:
    made = Session()
    made.register_component("data_loader", Loader(extra_search_paths=[str(data)], include_default_search_paths=False))
    return made


def client(of: Session, service: str, region: str) -> Any:
    make: Any = of.create_client  # typed by the services' names
    return make(service, region_name=region, aws_access_key_id="a", aws_secret_access_key="b")


def described(of: Session, service: str) -> dict[str, Any]:
    """Return the shapes of each operation of a client, by the members' names and types."""

    def shape(found: Any, above: tuple[str, ...] = ()) -> Any:
        if found is None or found.name in above:
            return found and found.name
        inside = (*above, found.name)
        parts: dict[str, Any] = {name: shape(each, inside) for name, each in getattr(found, "members", {}).items()}
        parts |= {name: shape(getattr(found, name), inside) for name in ("member", "value") if hasattr(found, name)}
        return found.type_name, found.metadata, found.serialization, parts

    model = of.get_service_model(service)
    operations = [model.operation_model(name) for name in model.operation_names]
    return {each.name: (each.http, shape(each.input_shape), shape(each.output_shape)) for each in operations}


def test_it_has_the_services_that_the_functions_call_and_no_other(data: Path) -> None:
    package = ROOT / "src" / "image_mirror"
    trees = [ast.parse(path.read_text()) for path in package.rglob("*.py") if "cli" not in path.parts]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "connect"]
    assert all(isinstance(name, ast.Constant) for name in named)
    assert {name.value for name in named if isinstance(name, ast.Constant)} == set(SERVICES)
    assert {path.name for path in data.iterdir() if path.is_dir()} == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_s_operations_are_as_botocore_ships_them(data: Path, service: str) -> None:
    assert described(session(data), service) == described(Session(), service)
    assert session(data).get_service_model(service).documentation == ""


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_s_endpoint_is_as_botocore_ships_it(data: Path, service: str, region: str) -> None:
    here, there = (client(each, service, region) for each in (session(data), Session()))
    assert here.meta.endpoint_url == there.meta.endpoint_url
    assert here.meta.partition == there.meta.partition
    assert here._request_signer.signing_name == there._request_signer.signing_name


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_s_regions_are_as_botocore_ships_them(data: Path, service: str, partition: str) -> None:
    here, there = (each.get_available_regions(service, partition) for each in (session(data), Session()))
    assert here == there


def test_only_documentation_is_omitted_and_no_member_of_that_name(tmp_path: Path) -> None:
    members = {"documentation": {"shape": "Text", "documentation": "Some words."}}
    model = {"metadata": {"endpointPrefix": "x"}, "shapes": {"A": {"members": members}}, "documentation": "Words."}
    (tmp_path / "service-2.json.gz").write_bytes(gzip.compress(json.dumps(model).encode()))
    assert BUNDLE["_shorten"](tmp_path / "service-2.json.gz") == "x"
    left = {"metadata": {"endpointPrefix": "x"}, "shapes": {"A": {"members": {"documentation": {"shape": "Text"}}}}}
    assert {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()} == {"service-2.json": left}


def test_a_botocore_without_a_service_is_refused(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("codebuild"))
    with pytest.raises(SystemExit, match="botocore has no model of codebuild"):
        BUNDLE["trim"](tmp_path / "data")


def test_both_functions_are_built_by_the_makefile() -> None:
    for logical_id in ("ApiFunction", "ReconcilerFunction"):
        assert sam_template()["Resources"][logical_id]["Metadata"] == {"BuildMethod": "makefile"}
    assert sam_template()["Globals"]["Function"]["Runtime"] == "python3.13"


@pytest.mark.parametrize("logical_id", ["ApiFunction", "ReconcilerFunction"])
def test_without_the_runtime_s_python_the_build_says_what_to_do(logical_id: str, tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        [make, f"build-{logical_id}", f"ARTIFACTS_DIR={tmp_path}"],
        cwd=ROOT / "src",
        env={"PATH": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    message, _, remedy = done.stderr.partition(":")
    assert message == "python3.13 with pip, the functions' runtime, is not on PATH"
    assert remedy.startswith(" install it, or run sam build --use-container\n")
    assert message in (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == []
