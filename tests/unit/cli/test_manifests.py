"""The places of pods in manifests, and the messages about wrong manifests."""

import json
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_mirror.cli.manifests import Manifests
from image_mirror.review import Json
from support.reviews_data import sample

steady = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

POD: Json = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "app", "image": "nginx"}]}}


def read(*texts: str | bytes) -> Manifests:
    manifests = Manifests()
    for number, text in enumerate(texts, start=1):
        manifests.read(f"{number}.yaml", text.encode() if isinstance(text, str) else text)
    return manifests


def manifest(kind: str, api_version: str, body: Json) -> str:
    return yaml.safe_dump({"apiVersion": api_version, "kind": kind, "metadata": {"name": "web"}, **body})


def found(manifests: Manifests) -> list[tuple[str, str]]:
    assert manifests.problems == []
    return [(f"{pod.kind}/{pod.name}", pod.path) for pod in manifests.pods]


def problems(text: str | bytes) -> list[str]:
    return [str(problem) for problem in read(text).problems]


TEMPLATE: Json = {"spec": {"template": POD}}
KNOWN = [
    pytest.param("Pod", "v1", {"spec": POD["spec"]}, "", id="pod"),
    pytest.param("PodTemplate", "v1", {"template": POD}, "template", id="pod-template"),
    pytest.param("ReplicationController", "v1", TEMPLATE, "spec.template", id="replication-controller"),
    pytest.param("Deployment", "apps/v1", TEMPLATE, "spec.template", id="deployment"),
    pytest.param("ReplicaSet", "apps/v1", TEMPLATE, "spec.template", id="replica-set"),
    pytest.param("StatefulSet", "apps/v1", TEMPLATE, "spec.template", id="stateful-set"),
    pytest.param("DaemonSet", "apps/v1", TEMPLATE, "spec.template", id="daemon-set"),
    pytest.param("Job", "batch/v1", TEMPLATE, "spec.template", id="job"),
    pytest.param(
        "CronJob",
        "batch/v1",
        {"spec": {"jobTemplate": {"spec": {"template": POD}}}},
        "spec.jobTemplate.spec.template",
        id="cron-job",
    ),
]
CUSTOM = [
    pytest.param("Deployment", "extensions/v1beta1", TEMPLATE, "spec.template", id="a-group-of-the-past"),
    pytest.param("Rollout", "argoproj.io/v1alpha1", TEMPLATE, "spec.template", id="custom"),
    pytest.param(
        "Job",
        "batch.volcano.sh/v1alpha1",
        {"spec": {"tasks": [{"template": POD}]}},
        "spec.tasks[0].template",
        id="a-kind-of-another-group-with-a-known-name",
    ),
    pytest.param(
        "JobSet",
        "jobset.x-k8s.io/v1alpha2",
        {"spec": {"replicatedJobs": [{"template": {"spec": {"template": POD}}}]}},
        "spec.replicatedJobs[0].template.spec.template",
        id="custom-and-deep",
    ),
]


@pytest.mark.parametrize(("kind", "api_version", "body", "path"), [*KNOWN, *CUSTOM])
def test_the_pod_is_found_in_each_kind(kind: str, api_version: str, body: Json, path: str) -> None:
    manifests = read(manifest(kind, api_version, body))
    assert found(manifests) == [(f"{kind}/web", path)]
    assert manifests.pods[0].pod["spec"]["containers"] == POD["spec"]["containers"]


@pytest.mark.parametrize(("kind", "api_version", "body", "path"), KNOWN)
def test_the_images_of_each_known_kind_are_checked(kind: str, api_version: str, body: Json, path: str) -> None:
    text = manifest(kind, api_version, body).replace("image: nginx", "image: 1.10")
    field = f"{path}.spec.containers[0].image".removeprefix(".")
    assert problems(text) == [f"1.yaml: document 1: {kind}/web: {field}: must be a text, not 1.1; put it in quotes"]


@pytest.mark.parametrize(
    ("text", "pods"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("# a comment\n---\n# another\n---\n", [], id="comments-alone"),
        pytest.param(manifest("ConfigMap", "v1", {"data": {"spec": "containers"}}), [], id="a-kind-without-pods"),
        pytest.param(
            manifest("Service", "serving.knative.dev/v1", {"spec": {"a": {"spec": {"containers": [{"image": "x"}]}}}}),
            [("Service/web", "spec.a")],
            id="a-custom-container-without-a-name",
        ),
        pytest.param(
            manifest("Prometheus", "monitoring.coreos.com/v1", {"spec": {"image": 5, "containers": [{"name": "p"}]}}),
            [],
            id="custom-containers-that-name-no-image",
        ),
        pytest.param(
            manifest("X", "x.io/v1", {"spec": {"containers": [{"name": "a", "image": {"tag": 1}}, 5, None]}}),
            [],
            id="custom-containers-of-another-shape",
        ),
        pytest.param(
            manifest("X", "x.io/v1", {"spec": {"a": POD, "b": {"c": [POD]}}}),
            [("X/web", "spec.a"), ("X/web", "spec.b.c[0]")],
            id="several-templates-in-one-object",
        ),
        pytest.param(
            '{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-"},"spec":{"containers":[{"name":"a"}]}}',
            [("Pod/web-", "")],
            id="a-name-that-the-server-completes",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Pod\nmetadata:\nspec: {containers: [{name: a}], volumes: , initContainers: null}",
            [("Pod/", "")],
            id="a-null-is-as-good-as-nothing",
        ),
    ],
)
def test_what_is_no_pod_is_passed_over(text: str, pods: list[tuple[str, str]]) -> None:
    assert found(read(text)) == pods


def test_items_of_lists_are_found_in_their_order_and_may_leave_their_kind_to_the_list() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": POD["spec"]}
    deployments = {
        "apiVersion": "apps/v1",
        "kind": "DeploymentList",
        "items": [{"metadata": {"name": "d"}, "spec": {"template": POD}}],
    }
    document = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [deployments, pod]}
    manifests = read(yaml.safe_dump(document), json.dumps(document), "apiVersion: v1\nkind: PodList\nitems: null")
    expected = [("Deployment/d", "items[0].items[0].spec.template"), ("Pod/p", "items[1]")]
    assert found(manifests) == expected * 2


def test_documents_are_counted_as_their_separators_are_empty_ones_included() -> None:
    pod = manifest("Pod", "v1", {"spec": POD["spec"]})
    text = f"---\n# Source: chart/a.yaml\n{pod}---\n# Source: chart/empty.yaml\n---\n{pod}...\n---\n"
    assert [(pod.file, pod.document) for pod in read(text, pod).pods] == [("1.yaml", 1), ("1.yaml", 3), ("2.yaml", 1)]


def test_json_texts_may_follow_one_another() -> None:
    pod = json.dumps({"apiVersion": "v1", "kind": "Pod", "spec": POD["spec"]}, indent="\t")
    assert [pod.document for pod in read(f"\n{pod}\n{pod}{pod}\n").pods] == [1, 2, 3]


def test_a_byte_order_mark_and_carriage_returns_are_accepted() -> None:
    text = manifest("Pod", "v1", {"spec": POD["spec"]}).replace("\n", "\r\n")
    assert found(read(b"\xef\xbb\xbf" + text.encode())) == [("Pod/web", "")]


def test_anchors_and_merge_keys_are_followed_and_own_keys_and_earlier_sources_come_first() -> None:
    text = dedent("""
        apiVersion: v1
        kind: Pod
        spec:
          containers:
            - &app {name: app, image: &image gcr.io/x:1, tty: true}
            - <<: *app
              name: second
            - {name: third, image: *image}
            - <<: [{image: first}, {image: last, stdin: false}]
              name: fourth
    """)
    containers = read(text).pods[0].pod["spec"]["containers"]
    assert [(c["name"], c["image"]) for c in containers] == [
        ("app", "gcr.io/x:1"),
        ("second", "gcr.io/x:1"),
        ("third", "gcr.io/x:1"),
        ("fourth", "first"),
    ]
    assert containers[1]["tty"] is True


def test_the_labels_of_namespaces_are_kept() -> None:
    text = dedent("""
        {apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {image-mirror/skip: "true"}}}
        ---
        {apiVersion: v1, kind: Namespace, metadata: {name: b}}
        ---
        {apiVersion: x.io/v1, kind: Namespace, metadata: {name: c}}
    """)
    assert read(text).namespaces == {"a": {"image-mirror/skip": "true"}, "b": {}}


CONTAINER = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: app\n    image: "
ONE = "{containers: [{name: a}]}"
DEPLOYMENT = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            CONTAINER + "1.10",
            ["document 1: Pod/p: spec.containers[0].image: must be a text, not 1.1; put it in quotes"],
            id="image-is-a-number",
        ),
        pytest.param(
            f"---\n---\n{CONTAINER}yes",
            ["document 2: Pod/p: spec.containers[0].image: must be a text, not true; put it in quotes"],
            id="image-is-a-boolean-in-a-later-document",
        ),
        pytest.param(
            CONTAINER + "[nginx]",
            ["document 1: Pod/p: spec.containers[0].image: must be a text, not a list"],
            id="image-is-a-list",
        ),
        pytest.param(
            '{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a","image":true},{"image":1.50}]}}',
            [
                "document 1: Pod/: spec.containers[0].image: must be a text, not true; put it in quotes",
                "document 1: Pod/: spec.containers[1].name: is missing; it must be a text",
                "document 1: Pod/: spec.containers[1].image: must be a text, not 1.5; put it in quotes",
            ],
            id="each-field-that-is-wrong-in-json",
        ),
        pytest.param(
            CONTAINER + "nginx\n  volumes: [{name: v, image: nginx}, {name: w, image: {reference: {}}}]",
            [
                'document 1: Pod/p: spec.volumes[0].image: must be a mapping, not "nginx"',
                "document 1: Pod/p: spec.volumes[1].image.reference: must be a text, not a mapping",
            ],
            id="image-volumes",
        ),
        pytest.param(
            f"{DEPLOYMENT}spec: {{template: {{metadata: {{labels: {{image-mirror/skip: true}}}}, spec: {ONE}}}}}",
            [
                "document 1: Deployment/d: spec.template.metadata.labels.image-mirror/skip: must be a text, not true; "
                "put it in quotes"
            ],
            id="a-label-that-is-no-text",
        ),
        pytest.param(
            DEPLOYMENT + "spec: {replicas: 1}",
            ["document 1: Deployment/d: spec.template: is missing; it must be a mapping"],
            id="no-template",
        ),
        pytest.param(
            DEPLOYMENT + "spec: {template: {spec: {container: [{name: a}]}}}",
            ["document 1: Deployment/d: spec.template.spec.containers: is missing; it must be a list"],
            id="containers-misspelt",
        ),
        pytest.param(
            DEPLOYMENT + "spec: {template: {spec: {containers: [], initContainers: {a: b}}}}",
            [
                "document 1: Deployment/d: spec.template.spec.containers: is missing; it must be a list",
                "document 1: Deployment/d: spec.template.spec.initContainers: must be a list, not a mapping",
            ],
            id="no-container",
        ),
        pytest.param(
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, spec: {containers: [5]}}\n- {kind: Pod}",
            [
                "document 1: Pod/: items[0].spec.containers[0]: must be a mapping, not 5",
                "document 1: items[1].apiVersion: is missing; it must be a text",
            ],
            id="items-of-a-list",
        ),
        pytest.param(
            "apiVersion: v1\nkind: List\nitems: [nginx, null]",
            [
                'document 1: List/: items[0]: must be a mapping, not "nginx"',
                "document 1: List/: items[1]: is missing; it must be a mapping",
            ],
            id="items-that-are-no-objects",
        ),
        pytest.param(
            "apiVersion: v1\nkind: PodList\nitems: {}\n---\nitems: []\nkind: PodList\napiVersion: v1\n---\n"
            "{apiVersion: v1, kind: PodList, items: 5}",
            ["document 3: PodList/: items: must be a list, not 5"],
            id="a-list-that-is-none",
        ),
        pytest.param(
            "replicaCount: 1\nimage: {tag: 1.10}",
            ["document 1: is no manifest: apiVersion and kind are missing"],
            id="no-manifest-but-values",
        ),
        pytest.param(
            "apiVersion: v2\nname: chart", ["document 1: kind: is missing; it must be a text"], id="a-chart-of-helm"
        ),
        pytest.param("nginx", ['document 1: must be a mapping, not "nginx"'], id="a-word"),
        pytest.param("[]", ["document 1: must be a mapping, not a list"], id="a-list"),
        pytest.param(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 5}",
            ["document 1: metadata.name: must be a text, not 5; put it in quotes"],
            id="a-name-that-is-no-text",
        ),
        pytest.param(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: [a]",
            ["document 1: metadata: must be a mapping, not a list"],
            id="metadata-that-is-none",
        ),
        pytest.param(
            "a: b\n---\nkind: [Pod\nspec: x",
            [
                "document 1: is no manifest: apiVersion and kind are missing",
                "document 2: line 4: not valid YAML: while parsing a flow sequence did not find expected ',' or ']'",
            ],
            id="yaml-that-does-not-parse",
        ),
        pytest.param(
            '{"kind": "Pod",\n "spec" "x"}',
            ["document 1: line 2: not valid YAML: while parsing a flow mapping did not find expected ',' or '}'"],
            id="json-that-does-not-parse",
        ),
        pytest.param(
            "spec:\n\timage: x",
            [
                "document 1: line 2: not valid YAML: while scanning for the next token "
                "found character that cannot start any token"
            ],
            id="a-tab",
        ),
        pytest.param(
            "image: {{ .Values.image }}",
            [
                "document 1: line 1: a key must be a text, not a mapping or a list; render the chart first: "
                "helm template CHART | image-mirror preview -"
            ],
            id="a-chart-that-is-not-rendered",
        ),
        pytest.param(
            "\ufeffapiVersion: v1".encode("utf-16-le"),
            ["document 1: kind: is missing; it must be a text"],
            id="utf-16",
        ),
        pytest.param(
            "apiVersion: v1".encode("utf-16-le"),
            ["document 1: line 1: the character U+0000 is not allowed"],
            id="utf-16-without-a-mark",
        ),
        pytest.param(
            "apiVersion: v1\n--- kind: Pod\n",
            [
                "document 1: kind: is missing; it must be a text",
                "document 2: line 2: only a comment may follow on a line with ---, not kind: Pod",
            ],
            id="more-than-a-comment-beside-a-separator",
        ),
        pytest.param(
            'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "\\e[2J\\u202e", labels: 5}',
            ["document 1: metadata.labels: must be a mapping, not 5"],
            id="labels-that-are-no-mapping",
        ),
    ],
)
def test_an_error_names_its_document_and_field(text: str | bytes, expected: list[str]) -> None:
    manifests = read(text)
    assert [str(problem) for problem in manifests.problems] == [f"1.yaml: {problem}" for problem in expected]
    assert manifests.pods == []


def test_objects_after_a_wrong_one_are_still_read() -> None:
    manifests = read(f"{CONTAINER}5\n---\n{CONTAINER}nginx\n---\n{CONTAINER}6")
    assert [problem.document for problem in manifests.problems] == [1, 3]
    assert [pod.document for pod in manifests.pods] == [2]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        pytest.param(
            f"# a\n---\n{CONTAINER}nginx\n    image: redis",
            "1.yaml: document 1: line 10: the key image is there twice; the last one counts",
            id="a-key-twice",
        ),
        pytest.param(
            '{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"a","image":"nginx","image":"redis"}]}}',
            "1.yaml: document 1: the key image is there twice; the last one counts",
            id="a-key-twice-in-json",
        ),
        pytest.param(
            f"{CONTAINER}redis # caf\u00e9".encode("latin-1"),
            "1.yaml: byte 102 is not UTF-8, and is read as U+FFFD; save the file as UTF-8",
            id="latin-1",
        ),
        pytest.param(
            f"{CONTAINER}redis\n...\n{CONTAINER}nginx",
            "1.yaml: document 1: line 1: kubectl ignores what follows this document without a separator ---",
            id="an-end-mark",
        ),
    ],
)
def test_what_kubectl_accepts_is_read_with_a_warning(text: str | bytes, warning: str) -> None:
    manifests = read(text)
    assert (manifests.problems, [str(each) for each in manifests.warnings]) == ([], [warning])
    assert [pod.pod["spec"]["containers"][0]["image"] for pod in manifests.pods] == ["redis"]


def test_an_anchor_that_is_set_again_names_the_latest_text() -> None:
    manifests = read(sample("anchor-twice.yaml").read_bytes())
    assert found(manifests) == [("Deployment/first", "spec.template")]
    assert manifests.warnings == []
    (container,) = manifests.pods[0].pod["spec"]["containers"]
    assert (container["name"], container["env"]) == ("second", [{"name": "WHO", "value": "second"}])


def test_a_problem_is_one_line_without_control_characters() -> None:
    (problem,) = problems('apiVersion: v1\nkind: Pod\nmetadata: {name: "\\e[2J\\u202e\\n"}\nspec: x')
    assert problem == '1.yaml: document 1: Pod/\\x1b[2J\\u202e\\n: spec: must be a mapping, not "x"'


def test_deep_lists_within_lists_are_walked_without_recursion() -> None:
    value: object = {"apiVersion": "v1", "kind": "Pod", "spec": POD["spec"]}
    for _ in range(3_000):
        value = {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "x.io/v1", "kind": "X", "spec": [value]}]}
    manifests = Manifests()
    manifests.add("deep", 1, value)
    assert len(manifests.pods) == 1


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn", "Zl", "Zp")), max_size=8)
WORDS = st.sampled_from(
    [
        "apiVersion",
        "kind",
        "metadata",
        "labels",
        "name",
        "spec",
        "template",
        "containers",
        "initContainers",
        "volumes",
        "image",
        "reference",
        "items",
        "v1",
        "apps/v1",
        "Pod",
        "Deployment",
        "List",
        "PodList",
        "nginx",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | TEXTS, inner, max_size=6),
    max_leaves=30,
)


def bent(value: object) -> st.SearchStrategy[Any]:
    """Draw `value` with some of its parts replaced by anything."""
    if isinstance(value, dict):
        return st.fixed_dictionaries({}, optional={key: bent(below) for key, below in value.items()}) | VALUES
    if isinstance(value, list):
        return st.lists(st.one_of([bent(below) for below in value]), max_size=2) | VALUES
    return st.just(value) | st.just(value) | SCALARS


WHOLE = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "namespace": "n", "labels": {"a": "b"}},
    "spec": {
        "template": {
            "metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}},
            "spec": {
                "containers": [{"name": "a", "image": "nginx"}],
                "volumes": [{"name": "v", "image": {"reference": "nginx"}}],
            },
        }
    },
}


@steady
@given(VALUES | bent(WHOLE) | st.lists(bent(WHOLE)).map(lambda items: WHOLE | {"kind": "XList", "items": items}))
def test_no_structure_makes_the_walk_fail_and_each_pod_is_well_formed(value: object) -> None:
    manifests = Manifests()
    manifests.add("any", 1, value)
    for pod in manifests.pods:
        assert isinstance(pod.pod["metadata"], dict)
        assert isinstance(pod.pod["spec"], dict)
    assert all("\n" not in str(problem) for problem in manifests.problems)


@steady
@given(st.binary() | TEXTS.map(str.encode))
def test_no_bytes_make_the_reading_fail(data: bytes) -> None:
    read(data)
