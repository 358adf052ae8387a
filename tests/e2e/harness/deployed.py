"""The stacks that tests share, as a pytest plugin: each is built and deployed once in a test session.

A test module that uses them has `pytest_plugins = ["deployed"]`.
"""

import shutil
from collections.abc import Iterator

import pytest

from e2e.harness.deployment import GLOBAL_STACK, STACK, Checkout, cloud, store_key
from e2e.harness.processes import free_port
from e2e.harness.sam import Json, Region, Sam, python_program
from e2e.harness.stacks import CHINA
from support.templates import ROOT

SHIPPED = ("sam-template.yaml", "samconfig.toml", "image-pulling.yaml")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SHIPPED:
        shutil.copy(ROOT / name, folder)
    python, port = python_program(), free_port()
    endpoint = f"http://localhost:{port}"  # moto reads templates out of its S3 only by this name
    sam = Sam(folder, endpoint, python)
    with cloud(port, folder / "cloud.log"):
        yield Checkout(folder, sam, endpoint, python)


@pytest.fixture(scope="session")
def built(checkout: Checkout) -> Checkout:
    checkout.sam("build")
    return checkout


@pytest.fixture(scope="session")
def china(built: Checkout) -> Region:
    return built.deploy_china("cn-northwest-1")


@pytest.fixture(scope="session")
def push_key(china: Region) -> Json:
    """The key with which the global side pushes."""
    user = china.outputs(STACK)["ImagePushUserName"]
    made: Json = china.client("iam").create_access_key(UserName=user)["AccessKey"]
    return made


@pytest.fixture(scope="session")
def global_region(built: Checkout, china: Region, push_key: Json) -> Region:
    """The global side; its key is stored in China."""
    # For a template that needs no transform the SAM CLI does the same as "aws cloudformation deploy".
    region = built.deploy(
        "us-west-2",
        *("--template-file", "image-pulling.yaml", "--stack-name", GLOBAL_STACK, "--parameter-overrides"),
        *(f"Region={china.name}", f"ChinaAccountId={CHINA.account}"),
        *(f"AccessKey={push_key['AccessKeyId']}", f"AccessKeySK={push_key['SecretAccessKey']}"),
    )
    store_key(china, region)
    return region
