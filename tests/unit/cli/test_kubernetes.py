"""How a cluster's refusals of a patch are told apart, by a kubectl that is a script."""

import json
import sys
from pathlib import Path

import pytest

from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubernetes import Cluster, NotFoundError, Refusal, RefusedError

# As kubectl 1.36 prints them.
SAID = [
    pytest.param(
        'Error from server (Conflict): Operation cannot be fulfilled on pods "p": the object has been modified; please '
        "apply your changes to the latest version and try again",
        Refusal.CONFLICT,
        "somebody else keeps changing the pod",
        id="conflict",
    ),
    pytest.param(
        'Error from server (Forbidden): pods "p" is forbidden: User "dev" cannot patch resource "pods" in API group "" '
        'in the namespace "shop"',
        Refusal.NO_PERMISSION,
        "the permission `patch pods` is missing in the namespace shop",
        id="no-permission",
    ),
    pytest.param(
        'Error from server (Forbidden): pods "p" is forbidden: User "dev" cannot get resource "pods" in API group "" '
        'in the namespace "shop"',
        Refusal.NO_PERMISSION,
        "the permission `get pods` is missing in the namespace shop",
        id="no-permission-to-read",
    ),
    pytest.param(
        'Error from server: admission webhook "p.example" denied the request: not signed',
        Refusal.OTHER,
        'admission webhook "p.example" denied the request: not signed',
        id="denied-by-a-webhook",
    ),
    pytest.param(
        "Error from server (Forbidden): pods \"p\" is forbidden: ValidatingAdmissionPolicy 'x' denied request",
        Refusal.OTHER,
        "(Forbidden): pods \"p\" is forbidden: ValidatingAdmissionPolicy 'x' denied request",
        id="denied-by-a-policy",
    ),
    pytest.param(
        'The Pod "p" is invalid: spec: Forbidden: pod updates may not change fields',
        Refusal.OTHER,
        'the cluster (kubectl\'s own configuration): The Pod "p" is invalid: spec: Forbidden: pod updates may not '
        "change fields",
        id="invalid",
    ),
    pytest.param(
        'The Pod "w" is invalid: spec: Forbidden: pod updates may not change fields other than these'
        '\n  core.PodSpec{\n  \t... // 2 identical fields\n- \tName: "a",\n+ \tName: "b",\n  }\n\n',
        Refusal.OTHER,
        'the cluster (kubectl\'s own configuration): The Pod "w" is invalid: spec: Forbidden: pod updates may not '
        "change fields other than these",
        id="invalid-with-a-difference",
    ),
    pytest.param(
        'The Pod "w" is invalid: \n* spec.containers[0].image: Required value\n* spec.containers[1].image: Required',
        Refusal.OTHER,
        'the cluster (kubectl\'s own configuration): The Pod "w" is invalid: spec.containers[0].image: Required value',
        id="invalid-for-several-reasons",
    ),
    pytest.param(
        'Warning: old\nError from server: admission webhook "v.kyverno.svc" denied the request: \n\nresource Pod/shop/p'
        " was blocked due to the following policies\n\nsigned:\n  check: not signed\n",
        Refusal.OTHER,
        'admission webhook "v.kyverno.svc" denied the request: resource Pod/shop/p was blocked due to the following '
        "policies",
        id="denied-in-several-lines",
    ),
]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that writes its arguments to the file that is returned, and ends with what the file `said` has.

    The file that --patch-file names is copied to the file `patch`.
    """
    program = tmp_path / "kubectl"
    program.write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\nhere = pathlib.Path(__file__).parent\n"
        "(here / 'asked').write_text(json.dumps(sys.argv[1:]))\n"
        "named = [each.partition('=')[2] for each in sys.argv if each.startswith('--patch-file=')]\n"
        "(here / 'patch').write_text(''.join(pathlib.Path(each).read_text() for each in named))\n"
        "said = (here / 'said').read_text() if (here / 'said').exists() else ''\n"
        "print(said, file=sys.stderr)\nprint('{}')\nsys.exit(1 if said else 0)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "asked"


@pytest.mark.parametrize(("said", "refusal", "cause"), SAID)
def test_a_refused_patch_says_why(kubectl: Path, said: str, refusal: Refusal, cause: str) -> None:
    (kubectl.parent / "said").write_text(said)
    with pytest.raises(RefusedError) as error:
        Cluster().patch_pod("shop", "p", {})
    assert (error.value.refusal, str(error.value)) == (refusal, cause)


def test_a_pod_that_is_gone_is_not_found(kubectl: Path) -> None:
    (kubectl.parent / "said").write_text('Error from server (NotFound): pods "p" not found')
    with pytest.raises(NotFoundError):
        Cluster().patch_pod("shop", "p", {})
    with pytest.raises(NotFoundError, match='pods "p" not found'):
        Cluster().get("pod", "p")


def test_the_last_line_counts_if_it_is_not_the_api_server_that_speaks(kubectl: Path) -> None:
    (kubectl.parent / "said").write_text("Unable to connect: x\nPlease log in: aws sso login\n")
    with pytest.raises(NoAnswerError, match="Please log in: aws sso login"):
        Cluster().get("pods")


def test_a_patch_may_be_larger_than_one_argument_of_a_program(kubectl: Path) -> None:
    patch = {"metadata": {"annotations": {"a": "x" * 256 * 1024}}}
    Cluster().patch_pod("shop", "p", patch)
    assert json.loads((kubectl.parent / "patch").read_text()) == patch


def test_a_cluster_that_gives_no_answer_to_a_patch_is_no_refusal(kubectl: Path) -> None:
    said = "Unable to connect to the server: dial tcp 10.0.0.1:443: i/o timeout"
    (kubectl.parent / "said").write_text(said)
    with pytest.raises(NoAnswerError, match="Unable to connect") as error:
        Cluster().patch_pod("shop", "p", {"spec": {}})
    assert "spec" not in str(error.value), "the command to try is short"


def test_a_patch_is_a_strategic_merge_by_the_name_of_this_program(kubectl: Path) -> None:
    Cluster(None, "east").patch_pod("shop", "p", {"a": "b"})
    for words in (
        '"patch"',
        '"--type=strategic"',
        '"--patch-file=/dev/stdin"',
        '"--field-manager=image-mirror"',
        '"--context=east"',
        '"pod", "p", "--namespace=shop"',
    ):
        assert words in kubectl.read_text(), words
