"""What each command prints on a terminal of 80 or 120 columns: no line is wider, so that no word is broken.

A word that is wider than the terminal is not broken either, because people copy names from it. `status`, `pods` and
`webhook-config`'s manifest have tests of their own, or are documents.
"""

import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
import yaml

from image_mirror.cli import app, waiting
from image_mirror.cli.doctor.report import failures_last, listing, rows
from image_mirror.cli.doctor.runner import fail, warn
from image_mirror.cli.kubernetes import Cluster
from image_mirror.record import Record, Status
from support.cloud import REGISTRY
from support.ecr_registry import Registry
from support.operators import GLOBAL_OUTPUTS, Operated, Reply
from support.recorded import DIGEST, record, write
from support.templates import ROOT

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LONG = "registry.k8s.io/ingress-nginx/controller:v1.11.3-with-a-long-tag"
_LONGEST = f"ghcr.io/{'organisation/' * 6}application:2026.11.29-build.1234567890"
_REASON = "NOT_FOUND: GET https://registry.example/v2/application/manifests/1: MANIFEST_UNKNOWN: manifest unknown; " * 2


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass
class Printed:
    """What a command has printed on a terminal, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in re.split("[\r\n]", _STYLE.sub("", self.out + self.err))]


Run = Callable[..., Printed]


@pytest.fixture(params=[80, 120])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    columns: int = request.param
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    return columns


@pytest.fixture
def run(columns: int, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command whose outputs are terminals; check each line."""

    def run(*arguments: object, stdin: str = "") -> Printed:
        out, err = Terminal(), Terminal()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            patched.setattr(sys, "stdout", out)
            patched.setattr(sys, "stderr", err)
            try:
                app([str(argument) for argument in arguments], prog_name="image-mirror")
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        printed = Printed(code, out.getvalue(), err.getvalue())
        assert too_wide(printed.lines, columns) == []
        return printed

    return run


def too_wide(lines: list[str], columns: int) -> list[str]:
    """Return the lines that would be wider than the terminal without the words that are."""
    rest = {line: " ".join(word for word in line.split(" ") if len(word) <= columns) for line in lines}
    return [line for line, others in rest.items() if len(others) > columns]


def test_the_check_finds_a_line_that_is_too_wide_and_lets_a_wide_word_pass() -> None:
    both = "word " * 17 + "y" * 81
    assert too_wide(["a " * 41, "a", "x " + "y" * 81, both], 80) == ["a " * 41, both]


def records() -> list[Record]:
    """Return a record in each state, the first of which ECR has the copy, one of an older prefix, and two old ones."""
    first = record(_LONG, Status.COPIED)
    repo = f"{REGISTRY}/mirrors/registry.k8s.io/unserved"
    return [
        first,
        record("gcr.io/old:1", hours=5_000),
        record(_LONGEST.replace("1234", "9"), hours=5_000),
        record(_LONGEST, Status.FAILED, error=_REASON),
        record("quay.io/copying:1", Status.COPYING),
        record("quay.io/waiting:1", Status.REQUESTED, error=_REASON, waits=3),
        record("gcr.io/lost:1", Status.COPIED),
        replace(first, repo=repo, source="registry.k8s.io/unserved:1"),
    ]


def manifest(*images: str) -> str:
    containers = [{"name": f"container-{number}", "image": image} for number, image in enumerate(images)]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p" * 60}, "spec": {"containers": containers}}
    return yaml.safe_dump(pod)


MANIFEST = manifest(_LONG, _LONGEST, "my.registry/x", "$IMAGE", "old.example/a:1")


@pytest.fixture
def deployed(
    operated: Operated,
    registry: Registry,
    answer: Callable[[str, str, Reply], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Operated:
    """Both stacks with records in each state, an ECR, a cluster, and a CodeBuild that knows no build."""
    written = records()
    write(operated.cloud.dynamodb, written)
    for each in written[:3]:
        registry.push(each.repo.partition("/")[2], each.tag, digest=DIGEST)
    arn = operated.global_secrets.describe_secret(SecretId="ImagePullSecret")["ARN"]
    outputs = GLOBAL_OUTPUTS | {"ImagePullSecretArn": arn}
    operated.deploy("image-pulling.yaml", "us-west-2", "image-pulling", outputs, ChinaAccountId="123456789012")
    registry.push("mirror/gcr.io/without-a-record", "1", size=3_000_000_000)
    answer("codebuild", "BatchGetBuilds", lambda _: {"builds": []})
    config = {
        "current-context": "arn:aws-cn:eks:cn-northwest-1:123456789012:cluster/production",
        "clusters": [{"cluster": {"server": f"https://{'0' * 32}.gr7.cn-northwest-1.eks.amazonaws.com.cn"}}],
    }
    monkeypatch.setattr(Cluster, "_run", lambda _, verb, *__: (config if verb == "config" else {"items": []}, ""))
    time = iter(range(0, 1_000_000, 600))
    monkeypatch.setattr(waiting, "time", SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(time)))
    (tmp_path / "broken.yaml").write_text("kind: [")
    (tmp_path / "kubeconfig").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "samconfig.toml").write_text("x")
    monkeypatch.chdir(tmp_path)
    return operated


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "words"),
    [
        pytest.param(["preview", "-"], MANIFEST, 0, "decided by the default rules, not those", id="preview"),
        pytest.param(["preview", "-", "--images"], MANIFEST, 0, "decided by the default rules, not", id="images"),
        pytest.param(["preview", "-", "--images", "-o", "wide"], MANIFEST, 0, "1 x", id="preview-wide"),
        pytest.param(["preview", "-", "--stack"], MANIFEST, 0, "the rules of the stack image-mirror", id="stack"),
        pytest.param(["preview", "broken.yaml", "no-such"], "", 2, "not valid YAML", id="preview-broken"),
        pytest.param(["preview", "-", "--rules", "!"], MANIFEST, 2, "--rules (or MIRROR_RULES)", id="preview-wrong"),
        pytest.param(["warm", "-", "--dry-run"], MANIFEST, 0, "images: 1 to copy, 1 there", id="warm-dry-run"),
        pytest.param(["warm", "--cluster", "--dry-run"], "", 0, "cluster/production", id="warm-cluster"),
        pytest.param(["warm", "-"], MANIFEST, 1, "images: 1 requested, 1 there", id="warm"),
        pytest.param(["warm", "-", "-o", "wide"], MANIFEST, 1, f"-> {REGISTRY}/mirror/", id="warm-wide"),
        pytest.param(["warm", "--image", "gcr.io/X:1"], "", 2, "Invalid value for --image", id="warm-no-image"),
        pytest.param(["retry", "*"], "", 0, "so the stack no longer serves it", id="retry"),
        pytest.param(["retry", "--dry-run", "*", "gcr.io/none:*"], "", 1, "a glob must match", id="retry-dry-run"),
        pytest.param(["retry", "--failed", "--wait"], "", 1, "1 image: 1 requested", id="retry-wait"),
        pytest.param(["retry", "--failed", "--gone"], "", 2, "cannot be combined with --gone", id="retry-wrong"),
        pytest.param(["forget", "*"], "", 1, "pods may be waiting for it", id="forget"),
        pytest.param(["forget", "--force", "*"], "", 1, "is not stopped", id="forget-by-force"),
        pytest.param(["prune", "--unused-days", "30"], "", 0, "no record: would be removed", id="prune"),
        pytest.param(["prune", "--unused-days", "30", "--context", "c"], "", 0, "0 pods run", id="prune-a-cluster"),
        pytest.param(["prune", "--unused-days", "30", "--yes"], "", 2, "name each cluster", id="prune-wrong"),
        pytest.param(["doctor", "--context", "c"], "", 1, "cluster/production", id="doctor"),
        pytest.param(["doctor", "--problems"], "", 1, "not shown: ", id="doctor-problems"),
        pytest.param(["connect", "--dry-run"], "", 0, "with --dry-run nothing is done", id="connect"),
        pytest.param(["connect", "--stack-name", "none"], "", 3, "there is no stack 'none'", id="connect-nothing"),
        pytest.param(["selftest", "--image", "gcr.io/X:1"], "", 2, "Invalid value for --image", id="selftest-wrong"),
        pytest.param(["templates", "new"], "", 0, "files are in", id="templates"),
        pytest.param(["templates", "other"], "", 2, "already exists with other content", id="templates-other"),
        pytest.param(["version"], "", 0, "image-mirror ", id="version"),
        pytest.param(["webhook-config", "--url", "http://x"], "", 2, "must begin with https", id="webhook-config"),
        pytest.param(["status", "--stack-name", "none"], "", 3, "there is no stack 'none'", id="no-stack"),
        pytest.param(["--no-such-option"], "", 2, "No such option", id="no-option"),
    ],
)
def test_no_line_is_wider_than_the_terminal(
    arguments: list[str], stdin: str, code: int, words: str, run: Run, refuse: Callable[..., None]
) -> None:
    if arguments[0] == "doctor":  # what moto lacks
        for service, operation in _ASKED_BY_DOCTOR:
            refuse(service, operation)
    printed = run(*arguments, stdin=stdin)
    assert words in " ".join(" ".join(printed.lines).split()), printed
    assert printed.code == code, printed


_ASKED_BY_DOCTOR = (
    ("service-quotas", "GetServiceQuota"),
    ("lambda", "GetAccountSettings"),
)


@pytest.mark.parametrize("name", [None, *typer.main.get_command(app).commands])  # type: ignore[attr-defined]
def test_no_line_of_the_help_is_wider(name: str | None, run: Run) -> None:
    printed = run(*([name] if name else []), "--help")
    assert printed.code == 0
    ends = {line.split()[-1] for line in printed.lines if line.endswith("-")}
    assert ends <= {"-"}, "a word is broken after its hyphen"


def test_no_line_of_the_demo_is_wider(run: Run) -> None:
    assert run("demo", ROOT / "samples" / "nginx-gcr.yaml").code == 0


def test_no_line_of_doctor_s_results_is_wider(columns: int) -> None:
    results = [fail("x", _REASON, "run it again, " * 20), warn("a long topic", f"{_LONGEST} {_LONG} " * 3, _LONG)]
    lines = [_STYLE.sub("", line) for line in listing(failures_last(rows(results)))]
    assert too_wide(lines, columns) == []
    assert " ".join(" ".join(lines).split()).count(_LONGEST) == 3


def test_an_error_of_aws_is_folded(run: Run, operated: Operated, refuse: Callable[..., None]) -> None:
    del operated
    refuse("dynamodb", "Scan")
    printed = run("retry", "--failed")
    assert printed.code == 3
    assert "ask for this permission" in " ".join(printed.lines)
