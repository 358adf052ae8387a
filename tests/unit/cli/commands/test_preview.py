"""`image-mirror preview` as a user runs it, and that it agrees with the webhook's decisions."""

import errno
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from image_mirror.cli import app
from image_mirror.cli.manifests import Manifests
from image_mirror.cli.plan import Row, rows
from image_mirror.decisions import Copy
from image_mirror.pod_images import new_images
from image_mirror.review import Json, parse_review
from support.operators import CHINA_OUTPUTS, Operated
from support.reviews_data import DIGEST, MIRROR, REGISTRY, captured, event_of, made_pod, sample

SAMPLES = Path(__file__).parents[4] / "samples"
OWN = "210987654321.dkr.ecr.cn-north-1.amazonaws.com.cn"


@pytest.fixture(autouse=True)
def no_rules_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRROR_RULES", raising=False)


DEFAULTS = (
    "Note: decided by the default rules, not those of a stack; --stack applies the rules of yours. "
    "The label of a namespace is known only from a manifest."
)


def run(*arguments: str | Path, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["preview", *map(str, arguments)], input=stdin)


def listed(*arguments: str | Path, stdin: str | None = None) -> list[Json]:
    result = run(*arguments, "--output", "json", stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    images: list[Json] = json.loads(result.stdout)
    return images


def pod_of(image: Any, **metadata: Any) -> str:
    spec = {"containers": [{"name": "app", "image": image}]}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", **metadata}, "spec": spec})


def test_each_image_is_listed_with_its_field_its_result_and_its_rule() -> None:
    text = f"---\n# Source: chart\n---\n{pod_of('gcr.io/google-samples/hello-app:1.0', namespace='shop')}"
    assert listed("-", stdin=text) == [
        {
            "file": "-",
            "document": 2,
            "kind": "Pod",
            "name": "p",
            "namespace": "shop",
            "field": "containers/app",
            "path": "spec.containers[0].image",
            "image": "gcr.io/google-samples/hello-app:1.0",
            "becomes": f"{REGISTRY}/mirror/gcr.io/google-samples/hello-app:1.0",
            "rule": "gcr.io",
            "reason": None,
            "warning": None,
        }
    ]


@pytest.mark.parametrize(
    ("image", "becomes", "rule", "reason", "warned"),
    [
        pytest.param("gcr.io/x", f"{REGISTRY}/mirror/gcr.io/x:latest", "gcr.io", None, False, id="copied"),
        pytest.param(
            f"eu.gcr.io/x:1@{DIGEST}",
            f"{REGISTRY}/mirror/eu.gcr.io/x@{DIGEST}",
            "*.gcr.io",
            None,
            False,
            id="by-digest",
        ),
        pytest.param("old.example/a:1", "new.example/b/a:1", "old.example=new.example/b", None, False, id="rewritten"),
        pytest.param("quay.io/ours/a:1", "quay.io/ours/a:1", "!quay.io/ours", None, False, id="left-alone-by-a-rule"),
        pytest.param("mcr.example/a:1", "mcr.example/a:1", None, "no rule names it", False, id="no-rule"),
        pytest.param(
            f"{REGISTRY}/team/a:1", f"{REGISTRY}/team/a:1", None, "it is already in this registry", False, id="there"
        ),
        pytest.param(
            "auto",
            "auto",
            None,
            None,
            True,
            id="placeholder",
        ),
        pytest.param(
            "[fd00::1]:80/x:1",
            "[fd00::1]:80/x:1",
            "[fd00::1]:80",
            None,
            True,
            id="no-destination",
        ),
        pytest.param(
            "{{ .Values.image }}",
            "{{ .Values.image }}",
            None,
            None,
            True,
            id="no-reference",
        ),
        pytest.param(None, "", None, None, True, id="omitted"),
    ],
)
def test_the_result_names_what_decided(
    image: str | None, becomes: str, rule: str | None, reason: str | None, warned: bool
) -> None:
    rules = "[fd00::1]:80 docker.io gcr.io *.gcr.io !quay.io/ours quay.io old.example=new.example/b"
    (row,) = listed("-", "--rules", rules, stdin=pod_of(image))
    assert row["becomes"] == becomes
    assert (row["rule"], row["reason"]) == (rule, reason)
    kubectl_prints = f"{image or repr('')} stays as written: "
    assert row["warning"].startswith(kubectl_prints) if warned else row["warning"] is None


@pytest.mark.parametrize(
    ("manifests", "reason"),
    [
        pytest.param(
            [pod_of("nginx", labels={"image-mirror/skip": "true"})],
            "its pod has the label image-mirror/skip",
            id="labelled-pod",
        ),
        pytest.param(
            [pod_of("nginx", annotations={"kubernetes.io/config.mirror": "hash"})],
            "it is the mirror copy of a static pod",
            id="static-pod",
        ),
        pytest.param(
            [
                pod_of("nginx", namespace="old"),
                "{apiVersion: v1, kind: Namespace, metadata: {name: old, labels: {image-mirror/skip: 'true'}}}",
            ],
            "its namespace has the label image-mirror/skip",
            id="labelled-namespace-in-another-file",
        ),
    ],
)
def test_what_opts_out_stays_as_written_with_the_reason(tmp_path: Path, manifests: list[str], reason: str) -> None:
    for number, text in enumerate(manifests):
        (tmp_path / f"{number}.yaml").write_text(text)
    (row,) = listed(tmp_path)
    assert (row["becomes"], row["rule"], row["reason"], row["warning"]) == ("nginx", None, reason, None)


def namespace_of(metadata: Json) -> str:
    labels = {"image-mirror/skip": "true"}
    return "---\n" + json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": labels, **metadata}})


LABELLED_DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "labels": {"image-mirror/skip": "true"}},
    "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "nginx"}]}}},
}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(pod_of("nginx", labels={"image-mirror/skip": "false"}), id="another-value"),
        pytest.param(pod_of("nginx", namespace="a") + namespace_of({"name": "b"}), id="another-namespace"),
        pytest.param(pod_of("nginx") + namespace_of({}), id="a-namespace-without-a-name"),
        pytest.param(
            pod_of("nginx", namespace="a") + namespace_of({"name": "a", "labels": {"image-mirror/skip": "false"}}),
            id="a-namespace-with-another-value",
        ),
        pytest.param(json.dumps(LABELLED_DEPLOYMENT), id="the-label-of-a-workload-instead-of-its-pods"),
    ],
)
def test_what_does_not_opt_out_is_rewritten(text: str) -> None:
    (row,) = listed("-", stdin=text)
    assert row["rule"] == "docker.io"


def test_the_label_of_the_pod_template_opts_a_workload_out() -> None:
    template = {
        "metadata": {"labels": {"image-mirror/skip": "true"}},
        "spec": {"containers": [{"name": "a", "image": "nginx"}]},
    }
    document = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}}
    (row,) = listed("-", stdin=json.dumps(document))
    assert row["reason"] == "its pod has the label image-mirror/skip"


@pytest.mark.parametrize("name", ["create-pod.json", "create-pod-dry-run.json", "create-pod-from-deployment.json"])
def test_the_preview_of_a_captured_pod_is_what_the_webhook_decides(name: str) -> None:
    review = parse_review(event_of(captured(name)))
    manifests = Manifests()
    manifests.add(name, 1, captured(name)["request"]["object"])
    decided = {
        field.key: str(decision.destination)
        for field, decision in new_images(review, MIRROR).items()
        if isinstance(decision, Copy)
    }
    assert decided
    assert {row.field: row.becomes for row in rows(manifests, MIRROR)} == decided


def test_an_image_that_is_never_pulled_is_shown_as_written_with_the_reason() -> None:
    shown = {
        row["field"]: (row["becomes"], row["rule"], row["reason"]) for row in listed(sample("pull-policy-never.yaml"))
    }
    assert shown == {
        "containers/preloaded": ("team-tool:dev", None, "its pull policy is Never"),
        "containers/pulled": (f"{REGISTRY}/mirror/quay.io/team/tool:1", "quay.io", None),
        "volumes/models": ("ghcr.io/team/model:1", None, "its pull policy is Never"),
    }


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_the_pull_policy_never_counts_in_any_list_of_containers(kind: str) -> None:
    pod = made_pod({"a": "nginx"})
    pod["spec"][kind] = [{"name": "n", "image": "gcr.io/x:1", "imagePullPolicy": "Never"}]
    assert [row["reason"] for row in listed("-", stdin=json.dumps(pod))] == [None, "its pull policy is Never"]


def test_ephemeral_containers_of_a_running_pod_are_listed_too() -> None:
    pod = made_pod({"a": "nginx"}, ephemeral={"debugger": "quay.io/prometheus/busybox"})
    rows = listed("-", stdin=json.dumps(pod))
    assert [(row["field"], row["path"]) for row in rows] == [
        ("containers/a", "spec.containers[0].image"),
        ("ephemeralContainers/debugger", "spec.ephemeralContainers[0].image"),
    ]


def test_the_path_leads_through_lists_and_templates_to_the_image() -> None:
    template = {"spec": made_pod({"a": "x", "b": "y"}, volumes={"v": "z"})["spec"]}
    cron_job = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "c"},
        "spec": {"jobTemplate": {"spec": {"template": template}}},
    }
    pods = "items[0].spec.jobTemplate.spec.template.spec."
    rows = listed("-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [cron_job]}))
    assert [row["path"] for row in rows] == [
        f"{pods}containers[0].image",
        f"{pods}containers[1].image",
        f"{pods}volumes[0].image.reference",
    ]


def test_a_custom_resource_shows_what_names_an_image_under_its_index_where_it_has_no_name() -> None:
    containers = [{"image": "nginx"}, {"name": "patch"}, 5, None, {"name": "x", "image": {"tag": "1"}}]
    template = {"spec": {"containers": containers, "initContainers": [{"name": "i", "image": "gcr.io/x"}]}}
    service = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "spec": {"template": template}}
    assert [(row["field"], row["path"], row["image"]) for row in listed("-", stdin=json.dumps(service))] == [
        ("containers/[0]", "spec.template.spec.containers[0].image", "nginx"),
        ("initContainers/i", "spec.template.spec.initContainers[0].image", "gcr.io/x"),
    ]


NAMES = st.sampled_from([f"c{number}" for number in range(6)])
IMAGES = st.dictionaries(NAMES, st.sampled_from(["nginx", "gcr.io/x:1", "auto", f"quay.io/y@{DIGEST}", "__X__", ""]))
PODS = st.builds(made_pod, IMAGES.filter(bool), init=IMAGES, ephemeral=IMAGES, volumes=IMAGES)


def workload(kind: str, pod: Json) -> Json:
    wrapped = {"Pod": pod["spec"], "CronJob": {"jobTemplate": {"spec": {"template": pod}}}}
    version = {"Pod": "v1", "CronJob": "batch/v1", "Rollout": "argoproj.io/v1alpha1"}.get(kind, "apps/v1")
    spec = wrapped.get(kind, {"template": pod})
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "w"}, "spec": spec}


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(["Pod", "CronJob", "Rollout", "Deployment", "StatefulSet"]), PODS)))
def test_no_image_of_any_workload_is_missed_and_each_is_listed_once(workloads: list[tuple[str, Json]]) -> None:
    manifests = Manifests()
    manifests.read("all", yaml.safe_dump_all(workload(kind, pod) for kind, pod in workloads).encode())
    assert manifests.problems == []
    expected = [
        (number, f"{kind}/{entry['name']}", entry["image"]["reference"] if kind == "volumes" else entry["image"])
        for number, (_, pod) in enumerate(workloads, start=1)
        for kind in ("containers", "initContainers", "volumes", "ephemeralContainers")
        for entry in pod["spec"][kind]
    ]
    assert [(row.document, row.field, row.image) for row in rows(manifests, MIRROR)] == expected


def test_a_piped_table_has_one_whole_line_for_each_image_however_narrow_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    image = "gcr.io/" + "long/" * 12 + "name:1"
    result = run("-", stdin=pod_of(image) + "---\n" + pod_of("mcr.example/x"))
    assert result.exit_code == 0
    head, first, second, note, last = result.stdout.splitlines()
    assert note == DEFAULTS
    assert last == "2 images: 1 copied, 1 left unchanged"
    assert head.split("  ")[0] == "FILE"
    assert first.split() == ["-", "1", "Pod/p", "containers/app", image, f"{REGISTRY}/mirror/{image}", "rule", "gcr.io"]
    assert second.split("  ")[-1].strip() == "no rule names it"
    assert head.index("BECOMES") == first.index(REGISTRY) == second.index("as written")


def test_a_terminal_gets_a_block_for_each_object_and_no_name_is_cut_or_broken() -> None:
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "image_mirror.cli", "preview", "samples/nginx-gcr.yaml"]
    subprocess.run(command, cwd=SAMPLES.parent, stdout=writer, check=True)
    os.close(writer)
    text = os.read(reader, 10_000).decode()
    os.close(reader)
    assert text.replace("\r", "").splitlines() == [
        "\x1b[1msamples/nginx-gcr.yaml, document 1: Deployment/nginx-gcr\x1b[0m",
        "  containers/hello-app: gcr.io/google-samples/hello-app:1.0",
        f"    -> {REGISTRY}/mirror/gcr.io/google-samples/hello-app:1.0",
        "    rule gcr.io",
        "Note: decided by the default rules, not those of a stack; --stack applies the",
        "  rules of yours. The label of a namespace is known only from a manifest.",
        "1 image: 1 copied",
    ]


LONG = (
    f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p, name: {'q' * 30}}}\nspec:\n  containers:\n"
    + f"  - {{name: {'c' * 60}, image: registry.example/{'a-part/' * 9}name:1}}\n"
    + "  - {name: b, image: 'registry.example/a:<the version that somebody wants>'}\n"
    + f"---\napiVersion: x.io/v1\nkind: X\nmetadata: {{name: x}}\nspec: {{image: x, {'y-' * 25}: {{image: x}}}}\n"
    + "---\na: {{ .Values.a }}\n"
)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("options", [pytest.param([], id="places"), pytest.param(["--images"], id="images")])
def test_on_a_terminal_a_line_ends_between_two_words(tmp_path: Path, width: int, options: list[str]) -> None:
    (tmp_path / "long.yaml").write_text(LONG)
    arguments = ["preview", str(tmp_path / "long.yaml"), *options]
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "image_mirror.cli", *arguments],
        stdout=writer,
        stderr=writer,
        env=os.environ | {"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "dumb"},
    )
    os.close(writer)
    text = b""
    while True:
        try:
            text += os.read(reader, 10_000)
        except OSError:  # how a terminal ends
            break
    os.close(reader)
    assert process.wait() == 2
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode().replace("\r", "")).splitlines()
    assert lines[-1] == "2 images: 1 left unchanged, 1 with warnings"
    piped = run(*arguments[1:])
    words = {word for line in (piped.stdout + piped.stderr).splitlines() for word in line.split()}
    assert {"Note:", "Warning:", "Error:"} <= words
    for line in lines:
        assert len(line) <= width or max(map(len, line.split())) > width  # such a word does not fit anywhere
    assert {word for line in lines for word in line.split()} >= words - {"FILE", "DOCUMENT", "OBJECT", "FIELD"} - {
        *("COUNT", "IMAGE", "BECOMES", "DECIDED", "BY", "1", str(tmp_path / "long.yaml"), f"Pod/{'q' * 30}"),
        *(f"containers/{'c' * 60}", "containers/b", "1;"),
    }


def test_control_characters_never_reach_the_terminal() -> None:
    result = run("-", stdin=pod_of("evil\x1b[2J\u202e", name="n\x07").encode())
    assert result.exit_code == 0
    assert "\\x1b[2J\\u202e" in result.stdout
    assert all(character.isprintable() for character in result.stdout if character != "\n")


def test_options_choose_the_registry_the_prefix_and_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = listed("-", "--registry", OWN, "--prefix", "a/b", stdin=pod_of("quay.io/x:1"))
    assert row["becomes"] == f"{OWN}/a/b/quay.io/x:1"
    monkeypatch.setenv("MIRROR_RULES", "quay.io=mirror.example")
    (row,) = listed("-", stdin=pod_of("quay.io/x:1"))
    assert row["becomes"] == "mirror.example/x:1"
    (row,) = listed("-", "--rules", "gcr.io", stdin=pod_of("quay.io/x:1"))
    assert row["reason"] == "no rule names it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["--rules", "gcr.io nonsense"],
            "Invalid value for --rules (or MIRROR_RULES): 'gcr.io nonsense': rule 'nonsense': ",
            id="rule",
        ),
        pytest.param(
            ["--prefix", "Mirror"],
            "Invalid value for --prefix: 'Mirror': must start with a lower-case letter",
            id="prefix",
        ),
        pytest.param(["--prefix", "mirror/"], "'mirror/': must start with", id="prefix-that-ends-in-a-slash"),
        pytest.param(["--prefix", ""], "Invalid value for --prefix: '': must start with", id="empty-prefix"),
        pytest.param(
            ["--registry", "ecr"],
            "Invalid value for --registry: 'ecr': must be an ECR registry's host, such as 1",
            id="registry-without-a-domain",
        ),
        pytest.param(["--registry", f"https://{REGISTRY}"], f"'https://{REGISTRY}': must be", id="registry-as-url"),
        pytest.param(["--registry", f"{REGISTRY}/mirror"], "must be an ECR registry's host", id="registry-with-a-path"),
        pytest.param(["--registry", REGISTRY.upper()], "must be an ECR registry's host", id="registry-in-upper-case"),
        pytest.param(["--registry", ""], "'': must be an ECR registry's host", id="no-registry"),
        pytest.param(
            ["--fail-on", "left,right"], "Invalid value for --fail-on: 'right' is neither left nor", id="fail-on"
        ),
        pytest.param(["--stack", "--rules", "gcr.io"], "give either --stack, or --rules", id="stack-and-rules"),
        pytest.param(["--stack", "--prefix", "mirror"], "give either --stack, or --rules", id="stack-and-prefix"),
        pytest.param(["--output", "xml"], "Invalid value for '-o' / '--output'", id="output"),
    ],
)
def test_a_wrong_option_is_quoted_and_ends_with_2(arguments: list[str], message: str) -> None:
    result = run("-", *arguments, stdin=pod_of("nginx"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_no_file_at_all_ends_with_2() -> None:
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Missing argument 'FILE'" in result.stderr


def test_every_error_in_all_files_is_reported_and_hides_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(pod_of("nginx"))
    Path("bad.yaml").write_text(f"{pod_of(1.5)}---\n{pod_of('quay.io/x:1')}---\n{pod_of(['nginx'])}")
    Path("torn.json").write_text('{"kind": "Pod",\n')
    Path("latin.yml").write_bytes(f"{pod_of('gcr.io/x:1')}# caf\xe9".encode("latin-1"))
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("nothing")
    result = run("good.yaml", "bad.yaml", "absent.yaml", "torn.json", "latin.yml", "empty", "-", stdin="[]")
    assert result.exit_code == 2
    head, *shown, note, last = result.stdout.splitlines()
    assert [line.split()[:2] + line.split()[4:5] for line in shown] == [
        ["good.yaml", "1", "nginx"],
        ["bad.yaml", "2", "quay.io/x:1"],
        ["latin.yml", "1", "gcr.io/x:1"],
    ]
    assert (head.split()[0], note, last) == ("FILE", DEFAULTS, "3 images: 3 copied")
    assert result.stderr.splitlines() == [
        "Warning: latin.yml: byte 107 is not UTF-8, and is read as U+FFFD; save the file as UTF-8",
        "Error: bad.yaml: document 1: Pod/p: spec.containers[0].image: must be a text, not 1.5; put it in quotes",
        "Error: bad.yaml: document 3: Pod/p: spec.containers[0].image: must be a text, not a list",
        "Error: absent.yaml: cannot be read: No such file or directory",
        "Error: torn.json: document 1: line 2: not valid YAML: while parsing a flow node "
        "did not find expected node content",
        "Error: empty: cannot be read: no file in it ends in .json, .yaml, .yml",
        "Error: -: document 1: must be a mapping, not a list",
    ]


def test_a_bad_file_hides_none_from_a_program_either(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: [")
    (tmp_path / "b.yaml").write_text(pod_of("nginx"))
    result = run(tmp_path, "--output", "json")
    assert (result.exit_code, [row["image"] for row in json.loads(result.stdout)]) == (2, ["nginx"])
    assert result.stderr.startswith(f"Error: {tmp_path}/a.yaml: document 1: ")


@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml", "Kustomization"])
def test_a_file_of_kustomize_is_passed_over_with_a_note(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("resources: [pod.yaml]\npatches: [{path: patch.yaml}]\n")
    (tmp_path / "pod.yaml").write_text(pod_of("nginx"))
    result = run(tmp_path / name, tmp_path)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "1 image: 1 copied")
    assert result.stderr.splitlines() == [
        f"Note: passed over: {tmp_path}/{name}. "
        "To see what kustomize makes: kubectl kustomize DIR | image-mirror preview -",
    ]


def test_several_files_of_kustomize_have_one_note_and_a_patch_is_named(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "kustomization.yaml").write_text("resources: [pod.yaml]")
    (tmp_path / "b" / "patch.yaml").write_text("{apiVersion: apps/v1, kind: Deployment, metadata: {name: w}, spec: {}}")
    result = run("-R", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"Note: passed over: 2 files such as {tmp_path}/a/kustomization.yaml. "
        "To see what kustomize makes: kubectl kustomize DIR | image-mirror preview -",
        f"Error: {tmp_path}/b/patch.yaml: document 1: Deployment/w: spec.template: is missing; it must be a mapping",
        "No image found.",
    ]


def test_recursively_each_directory_is_read_but_no_link_to_one(tmp_path: Path) -> None:
    for name in ("b.yaml", "deep/er/c.yaml", "deep/a.yml", "deep/values.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(pod_of(f"gcr.io/{Path(name).stem}"))
    (tmp_path / "deep" / "round").symlink_to(tmp_path)
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    for option in ("-R", "--recursive"):
        assert [row["image"] for row in listed(option, tmp_path)] == ["gcr.io/b", "gcr.io/a", "gcr.io/c"]


def test_a_directory_that_may_not_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.yaml").write_text(pod_of("nginx"))
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    result = run("-R", tmp_path, "--output", "json")
    assert (result.exit_code, len(json.loads(result.stdout))) == (2, 1)
    assert result.stderr == f"Error: {tmp_path}/closed: cannot be read: Permission denied\n"


def test_what_is_not_read_in_a_custom_resource_is_named_once_for_its_kind() -> None:
    thing = "---\n{apiVersion: m.io/v1, kind: Prometheus, metadata: {name: p}, spec: {image: quay.io/p:1}}\n"
    other = "---\n{apiVersion: x.io/v1, kind: X, metadata: {name: p}, spec: {a: [{image: x}, {baseImage: x}]}}\n"
    result = run("-", stdin=thing + other + thing)
    assert (result.exit_code, result.stdout) == (0, "")
    first, last = result.stderr.splitlines()
    assert first.startswith(
        "Note: not read, because only a controller knows what it makes of them: spec.image of Prometheus"
    )
    assert set(first.partition("them: ")[2].split(", ")) == {
        "spec.image of Prometheus (2 objects)",
        "spec.a[].image of X",
        "spec.a[].baseImage of X",
    }
    assert last == "No image found."


def test_a_key_that_is_there_twice_is_a_warning_and_a_variable_has_its_own_sentence() -> None:
    result = run(sample("label-twice.yaml"), sample("variable.yaml"))
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "6 images: 1 copied, 5 with warnings")
    assert result.stdout.count("a variable that nobody filled in") == 5
    assert "upper case" not in result.stdout
    assert result.stderr.splitlines() == [
        f"Warning: {sample('label-twice.yaml')}: document 1: line 8: "
        "the key app.kubernetes.io/name is there twice; the last one counts"
    ]


THREE = [pod_of("gcr.io/a"), pod_of("gcr.io/b"), pod_of("gcr.io/a"), pod_of("mcr.example/x"), pod_of("old.example/x")]


def test_each_image_is_listed_once_with_the_count_of_its_places() -> None:
    text = "---\n".join([*THREE, pod_of("gcr.io/a", labels={"image-mirror/skip": "true"})])
    rules = ("--rules", "gcr.io old.example=new.example")
    result = run("--images", "-", *rules, stdin=text)
    *table, note, last = result.stdout.splitlines()
    assert [line.split() for line in table] == [
        ["COUNT", "IMAGE", "BECOMES", "DECIDED", "BY"],
        ["2", "gcr.io/a", f"{REGISTRY}/mirror/gcr.io/a:latest", "rule", "gcr.io"],
        ["1", "gcr.io/b", f"{REGISTRY}/mirror/gcr.io/b:latest", "rule", "gcr.io"],
        ["1", "mcr.example/x", "as", "written", "no", "rule", "names", "it"],
        ["1", "old.example/x", "new.example/x:latest", "rule", "old.example=new.example"],
        ["1", "gcr.io/a", "as", "written", "its", "pod", "has", "the", "label", "image-mirror/skip"],
    ]
    assert note.startswith("Note: decided by the rules of --rules (or MIRROR_RULES). The label of a namespace")
    assert last == "6 images: 3 copied, 1 pulled from another place, 2 left unchanged"
    rows = listed("--images", "-", *rules, stdin=text)
    assert [(row["image"], row["count"]) for row in rows[:2]] == [("gcr.io/a", 2), ("gcr.io/b", 1)]
    assert list(rows[0]) == ["image", "count", "becomes", "rule", "reason", "warning"]


@pytest.mark.parametrize(
    ("criteria", "text", "code"),
    [
        pytest.param("left", pod_of("gcr.io/a"), 0, id="nothing-left"),
        pytest.param("left", pod_of("mcr.example/x"), 1, id="left"),
        pytest.param("left", pod_of("$X"), 1, id="left-with-a-warning"),
        pytest.param("warning", pod_of("mcr.example/x"), 0, id="left-without-a-warning"),
        pytest.param("warning", pod_of("$X"), 1, id="a-warning"),
        pytest.param("warning", pod_of("gcr.io/a") + "kind: Pod\n", 1, id="a-warning-about-a-document"),
        pytest.param("left,warning", pod_of("gcr.io/a") + "kind: Pod\n", 1, id="either"),
        pytest.param("warning, left", pod_of("gcr.io/a"), 0, id="neither"),
        pytest.param("left", pod_of("mcr.example/x") + "---\nkind: [", 2, id="a-fault-comes-first"),
        pytest.param("left", "", 0, id="nothing-at-all"),
    ],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_fail_on_chooses_what_ends_with_1(criteria: str, text: str, code: int, output: str) -> None:
    result = run("-", "--fail-on", criteria, "--output", output, stdin=text)
    assert result.exit_code == code


@pytest.mark.parametrize(
    ("labels", "warned"),
    [
        pytest.param({"image-mirror/swap-when": "pause"}, True, id="unknown"),
        pytest.param({"image-mirror/swap-when": "paused"}, False, id="known"),
        pytest.param({"image-mirror/swap-when": "pause", "image-mirror/skip": "true"}, False, id="opted-out"),
    ],
)
def test_a_label_with_an_unknown_value_is_named_once_for_its_pod(labels: dict[str, str], warned: bool) -> None:
    pod = yaml.safe_load(pod_of("gcr.io/a"))
    pod["metadata"]["labels"] = labels
    pod["spec"]["containers"].append({"name": "b", "image": "gcr.io/b"})
    result = run("-", "--fail-on", "warning", stdin=yaml.safe_dump(pod))
    text = "pause is no value of the label image-mirror/swap-when (always, copied, paused) and is ignored"
    assert (result.exit_code, result.stderr.count(text)) == ((1, 1) if warned else (0, 0))


@pytest.mark.parametrize(
    "options", [["--stack"], ["--stack-name", "image-mirror"], ["--stack", "--china-profile", "china"]]
)
def test_the_rules_of_the_deployed_stack_decide_where_it_is_asked(operated: Operated, options: list[str]) -> None:
    rules = "gcr.io quay.io=mirror.example"
    operated.deploy("sam-template.yaml", "cn-northwest-1", "image-mirror", CHINA_OUTPUTS, MirrorRules=rules)
    result = run("-", *options, stdin=pod_of("quay.io/x:1") + "---\n" + pod_of("nginx"))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.splitlines()[-2:] == [
        "Note: decided by the rules of the stack image-mirror in cn-northwest-1. "
        "The label of a namespace is known only from a manifest.",
        "2 images: 1 pulled from another place, 1 left unchanged",
    ]


def test_without_an_answer_of_the_stack_nothing_is_shown(operated: Operated, refuse: Callable[..., None]) -> None:
    del operated
    refuse("cloudformation", "DescribeStacks")
    result = run("-", "--stack", stdin=pod_of("nginx"))
    assert (result.exit_code, result.stdout) == (3, "")
    assert "not authorized to perform: cloudformation:DescribeStacks" in result.stderr


def test_of_a_directory_the_manifests_are_read_in_order_and_not_those_below(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", "c.json", "d.txt", "below/e.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(pod_of("nginx") if name != "d.txt" else "no manifest")
    (tmp_path / "f.yaml").mkdir()
    (tmp_path / "c.json").write_text(json.dumps(made_pod({"a": "nginx"})))
    assert [Path(row["file"]).name for row in listed(tmp_path)] == ["a.yaml", "b.yml", "c.json"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(pod_of("nginx"))
    assert len(listed(tmp_path / "a.yaml", tmp_path / "a.yaml")) == 1
    assert len(listed("-", "-", stdin=pod_of("nginx"))) == 1


def test_manifests_without_images_are_no_error() -> None:
    result = run("-", stdin="# a chart with everything switched off\n---\n")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "The input is empty: no manifest is in it.\n")
    result = run("-", "--output", "json", stdin="---\n")
    assert (json.loads(result.stdout), result.stderr) == ([], "The input is empty: no manifest is in it.\n")
    result = run("-", stdin="{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No image found.\n")


def test_the_help_of_all_commands_imports_none_and_nothing_of_aws() -> None:
    program = """
import sys
from image_mirror.cli import app
try:
    app(["--help"])
except SystemExit as end:
    assert end.code == 0, end.code
ours = {name for name in sys.modules if name.partition(".")[0] in ("botocore", "image_mirror", "rich", "yaml")}
print(sorted(ours))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['image_mirror', 'image_mirror.cli']"


def test_the_help_names_each_key_of_the_json_output() -> None:
    result = run("--help")
    assert result.exit_code == 0
    words = result.stdout.replace(",", " ").split()
    assert [name for name in Row.__dataclass_fields__ if name not in words] == []


def test_nothing_that_calls_aws_is_imported_and_no_connection_is_made() -> None:
    program = """
import socket, sys
def refuse(*arguments, **options): raise AssertionError("a connection was made")
socket.socket.connect = socket.getaddrinfo = refuse
from image_mirror.cli import app
try:
    app(["preview", "samples"])
except SystemExit as end:
    assert end.code == 0, end.code
print(sorted(sys.modules.keys() & {"boto3", "botocore.client", "botocore.session", "moto"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=SAMPLES.parent, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + 7 + 3
    assert lines[-2] == "7 images: 6 copied, 1 left unchanged"
    assert lines[-1] == "[]"
