"""The images in custom resources: in pod templates, in other lists of containers, at the keys of known controllers."""

from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_mirror.cli.custom_resources import search
from image_mirror.cli.manifests import Manifests, read_manifests
from image_mirror.cli.plan import Row, rows
from image_mirror.pod_images import ImageField
from image_mirror.review import Json
from support.reviews_data import MIRROR, sample

steady = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def shown(text: str) -> list[Row]:
    manifests = Manifests()
    manifests.read("a.yaml", text.encode())
    assert manifests.problems == []
    return list(rows(manifests, MIRROR))


CUSTOM = "apiVersion: x.io/v1\nkind: X\nmetadata: {name: x}\n"
TEKTON = "apiVersion: tekton.dev/v1\nmetadata: {name: t}\n"
ARGO = "apiVersion: argoproj.io/v1alpha1\nmetadata: {name: w}\n"
KSERVE = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: s}\n"
KUBEVIRT = "apiVersion: kubevirt.io/v1\nmetadata: {name: v}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            TEKTON
            + "kind: Task\nspec: {steps: [{name: a, image: x}, {image: redis}, {ref: {name: z}}], sidecars: [{name: s, "
            "image: z}], stepTemplate: {image: t}}",
            [
                ("steps/a", "spec.steps[0].image", "x"),
                ("steps/[1]", "spec.steps[1].image", "redis"),
                ("stepTemplate", "spec.stepTemplate.image", "t"),
                ("sidecars/s", "spec.sidecars[0].image", "z"),
            ],
            id="a-task-of-tekton",
        ),
        pytest.param(
            TEKTON + "kind: PipelineRun\nspec: {pipelineSpec: {tasks: [{name: a, taskSpec: {steps: [{image: x}]}}], "
            "finally: [{name: b, taskSpec: {steps: [{image: redis}]}}]}}",
            [
                ("steps/[0]", "spec.pipelineSpec.tasks[0].taskSpec.steps[0].image", "x"),
                ("steps/[0]", "spec.pipelineSpec.finally[0].taskSpec.steps[0].image", "redis"),
            ],
            id="tasks-within-a-run-of-tekton",
        ),
        pytest.param(
            TEKTON + "kind: StepAction\nspec: {image: x}", [("spec", "spec.image", "x")], id="a-step-action-of-tekton"
        ),
        pytest.param(
            ARGO
            + "kind: CronWorkflow\nspec: {workflowSpec: {templateDefaults: {container: {image: d}}, templates: [{name: "
            "a, initContainers: [{name: i, image: x}], containerSet: {containers: [{name: c, image: redis}]}}]}}",
            [
                ("container", "spec.workflowSpec.templateDefaults.container.image", "d"),
                ("initContainers/i", "spec.workflowSpec.templates[0].initContainers[0].image", "x"),
                ("containers/c", "spec.workflowSpec.templates[0].containerSet.containers[0].image", "redis"),
            ],
            id="a-cron-workflow-of-argo",
        ),
        pytest.param(
            ARGO
            + "kind: Sensor\nspec: {triggers: [{template: {k8s: {source: {resource: {apiVersion: batch/v1, kind: Job, "
            "spec: {template: {spec: {containers: [{name: a, image: x}]}}}}}}}}]}",
            [
                (
                    "containers/a",
                    "spec.triggers[0].template.k8s.source.resource.spec.template.spec.containers[0].image",
                    "x",
                )
            ],
            id="an-object-within-a-resource",
        ),
        pytest.param(
            KSERVE + "spec: {predictor: {containers: [{name: c, image: x}], model: {runtime: r, image: redis}}, "
            "transformer: {containers: [{image: z}]}}",
            [
                ("containers/c", "spec.predictor.containers[0].image", "x"),
                ("model", "spec.predictor.model.image", "redis"),
                ("containers/[0]", "spec.transformer.containers[0].image", "z"),
            ],
            id="a-predictor-of-kserve",
        ),
        pytest.param(
            KUBEVIRT
            + "kind: VirtualMachine\nspec: {template: {spec: {volumes: [{name: root, containerDisk: {image: x}}, "
            "{name: data, emptyDisk: {}}], domain: {firmware: {kernelBoot: {container: {image: k}}}}}}}",
            [
                ("containerDisk/root", "spec.template.spec.volumes[0].containerDisk.image", "x"),
                ("container", "spec.template.spec.domain.firmware.kernelBoot.container.image", "k"),
            ],
            id="a-disk-of-kubevirt",
        ),
        pytest.param(
            CUSTOM + "spec: {pool: {initContainers: [{name: i, image: redis}], "
            "containers: [{name: c, image: x}, {name: d}]}}",
            [
                ("containers/c", "spec.pool.containers[0].image", "x"),
                ("initContainers/i", "spec.pool.initContainers[0].image", "redis"),
            ],
            id="containers-under-any-key",
        ),
        pytest.param(
            CUSTOM + "spec: {containers: [{name: c, image: x}]}\n"
            "status: {containers: [{name: c, image: redis}], image: z}",
            [("containers/c", "spec.containers[0].image", "x")],
            id="not-what-a-status-reports",
        ),
        pytest.param(
            CUSTOM + "spec: {steps: [{name: c, image: x}], container: {image: redis}}",
            [],
            id="not-the-keys-of-another-group",
        ),
    ],
)
def test_an_image_outside_a_pod_template_is_found_with_its_place(
    text: str, expected: list[tuple[str, str, str]]
) -> None:
    found = shown(text)
    assert [(row.field, row.path, row.image) for row in found] == expected
    document = yaml.safe_load(text)
    assert [_at(document, row.path) for row in found] == [row.image for row in found]


def _at(value: Any, path: str) -> Any:
    for step in path.replace("[", ".[").split("."):
        value = value[int(step[1:-1])] if step.startswith("[") else value[step]
    return value


def test_the_images_of_argo_and_tekton_are_copied() -> None:
    manifests = read_manifests([str(sample("argo-and-tekton.yaml"))])
    found = list(rows(manifests, MIRROR))
    assert [row.field for row in found] == [
        "container/one",
        "script/two",
        "container/three",
        "sidecars/s",
        "steps/build",
    ]
    assert all(row.becomes.startswith(f"{MIRROR.registry}/mirror/") for row in found)
    assert not manifests.unread


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(sample("kyverno-policy.yaml").read_text(encoding="utf-8"), id="a-pattern-of-kyverno"),
        pytest.param(
            "apiVersion: constraints.gatekeeper.sh/v1beta1\nkind: K8sAllowedRepos\nmetadata: {name: x}\n"
            "spec: {parameters: {containers: [{image: 'gcr.io/*'}], image: 'quay.io/*'}}",
            id="an-allow-list-of-gatekeeper",
        ),
        pytest.param(
            "apiVersion: policies.kyverno.io/v1alpha1\nkind: ImageValidatingPolicy\nmetadata: {name: x}\n"
            "spec: {template: {spec: {containers: [{name: a, image: x}]}}}",
            id="a-group-below-kyverno",
        ),
        pytest.param(
            CUSTOM + "spec: {objects: [{apiVersion: kyverno.io/v1, kind: Policy, spec: {containers: [{image: '*'}]}}]}",
            id="a-policy-within-a-resource",
        ),
        pytest.param(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\n"
            "spec: {versions: [{schema: {image: x}}]}",
            id="a-schema",
        ),
    ],
)
def test_the_pattern_of_a_policy_is_no_image_and_not_named_as_unread(text: str) -> None:
    manifests = Manifests()
    manifests.read("a.yaml", text.encode())
    assert (manifests.problems, manifests.pods, dict(manifests.unread)) == ([], [], {})


@pytest.mark.parametrize(
    ("spec", "unread"),
    [
        pytest.param({"image": "quay.io/x:1"}, {"spec.image"}, id="image"),
        pytest.param({"a": [{"image": "x"}, {"image": "y"}]}, {"spec.a[].image"}, id="in-a-list"),
        pytest.param({"baseImage": "quay.io/x"}, {"spec.baseImage"}, id="a-key-that-ends-in-image"),
        pytest.param({"image": {"repository": "x", "tag": "1"}}, {"spec.image"}, id="in-parts"),
        pytest.param({"image": "", "baseImage": None, "images": ["x"]}, set(), id="no-text"),
        pytest.param({"containers": [{"name": "a", "image": "x"}]}, set(), id="what-is-read"),
    ],
)
def test_a_text_that_only_a_controller_understands_is_named_by_its_kind_and_place(spec: Json, unread: set[str]) -> None:
    manifests = Manifests()
    manifests.add("a.yaml", 1, {"apiVersion": "x.io/v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec})
    assert dict(manifests.unread) == dict.fromkeys({("X", place) for place in unread}, 1)


@pytest.mark.parametrize(
    ("version", "named"),
    [("storage.k8s.io/v1", 0), ("v1", 0), ("cluster.x-k8s.io/v1", 1)],
    ids=["disk", "core", "custom"],
)
def test_in_groups_of_kubernetes_no_text_is_named_as_an_image(version: str, named: int) -> None:
    manifests = Manifests()
    manifests.add("a.yaml", 1, {"apiVersion": version, "kind": "X", "spec": {"rbd": {"image": "disk"}}})
    assert len(manifests.unread) == named


def test_what_is_not_read_is_counted_by_objects() -> None:
    manifests = Manifests()
    thing = {"apiVersion": "x.io/v1", "kind": "X", "metadata": {"name": "x"}, "spec": {"a": [{"image": "x"}] * 3}}
    manifests.add("a.yaml", 1, {"apiVersion": "v1", "kind": "List", "items": [thing, thing]})
    assert dict(manifests.unread) == {("X", "spec.a[].image"): 2}


@pytest.mark.parametrize(
    ("image", "policy", "reason", "warned"),
    [
        pytest.param("$(params.image)", None, "Task fills in $(params.image) when it runs", False, id="a-parameter"),
        pytest.param("gcr.io/x:{{tag}}", None, "Task fills in {{tag}} when it runs", False, id="part-of-an-image"),
        pytest.param("gcr.io/x:1", "Never", "its pull policy is Never", False, id="never-pulled"),
        pytest.param("$(params.image)", "Never", "its pull policy is Never", False, id="a-parameter-never-pulled"),
        pytest.param("gcr.io/X:1", None, None, True, id="no-image"),
    ],
)
def test_a_container_outside_a_pod_template_says_why_it_stays_as_written(
    image: str, policy: str | None, reason: str | None, warned: bool
) -> None:
    step = {"name": "a", "image": image, "imagePullPolicy": policy}
    (row,) = shown(yaml.safe_dump(yaml.safe_load(TEKTON) | {"kind": "Task", "spec": {"steps": [step]}}))
    assert (row.becomes, row.reason, row.warning is not None) == (image, reason, warned)


WORDS = "apiVersion kind metadata spec template containers initContainers container steps sidecars image name"
KEYS = st.sampled_from([*WORDS.split(), "status"])
VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["tekton.dev/v1", "argoproj.io/v1alpha1", "x.io/v1", "Task", "nginx"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)


@steady
@given(st.dictionaries(KEYS, VALUES))
def test_no_structure_makes_the_search_fail_and_no_image_is_found_twice(resource: Json) -> None:
    result = search("", resource)
    places = [(each.path, field.pointer) for each in result.found for field in each.fields]
    for each in result.found:
        assert all(isinstance(field, ImageField) for field in each.fields)
        containers = [] if each.fields else each.pod["spec"]["containers"]
        places += [
            (f"{each.path}.spec".removeprefix("."), f"/containers/{n}/image") for n, c in enumerate(containers) if c
        ]
    assert len(places) == len(set(places))
    assert set(result.unread).isdisjoint(f"{path}{pointer.replace('/', '.')}" for path, pointer in places)
