"""The annotation with the originals: how it is merged, and how a pod applied again gets its current images back."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml

from image_mirror.admission import CopyRequest
from image_mirror.decisions import Mirror
from image_mirror.messages import copying, restored
from image_mirror.pod_images import ORIGINALS
from image_mirror.record import Record
from image_mirror.reference import Destination
from image_mirror.review import Json
from image_mirror.rules import parse_rules
from support.reviews_data import (
    DIGEST,
    FAILED,
    HEX,
    MIRROR,
    REGISTRY,
    REQUESTED,
    Admitted,
    Lookup,
    admit,
    images_of,
    made_pod,
    review_of,
    sample,
)

HUB = f"{REGISTRY}/mirror/docker.io/library"
GCR = f"{REGISTRY}/mirror/gcr.io"
LIMIT = 262_144


def no_lookup(wanted: Sequence[CopyRequest]) -> Mapping[Destination, Record]:
    """Replace a table that must not be called."""
    assert not wanted
    return {}


def mirror_of(rules: str, prefix: str = "mirror") -> Mirror:
    return Mirror(REGISTRY, prefix, parse_rules(rules))


def noted(originals: Mapping[str, object] | str, **others: str) -> Json:
    """Make the annotations of a pod, including ours."""
    return {ORIGINALS: originals if isinstance(originals, str) else json.dumps(originals), **others}


def create(pod: Json, records: Lookup = REQUESTED, mirror: Mirror = MIRROR) -> Json:
    return admit(review_of(pod), records, mirror=mirror).pod


def applied(live: Json, source: Json) -> Json:
    """Merge a manifest into a live pod like kubectl apply: images of the manifest replace, other annotations stay."""
    pod = copy.deepcopy(live)
    pod["spec"] = copy.deepcopy(source["spec"])
    pod["metadata"].setdefault("annotations", {}).update(source["metadata"].get("annotations") or {})
    return pod


def update(pod: Json, old: Json, records: Lookup = REQUESTED, mirror: Mirror = MIRROR) -> Admitted:
    return admit(review_of(pod, old), records, mirror=mirror)


# How the annotation is merged.


def test_each_rewritten_image_is_noted_as_it_was_written_under_its_place_and_name() -> None:
    pod = made_pod({"a": "nginx", "b": "private.example.com/x"}, init={"a": "gcr.io/i"}, volumes={"a": "gcr.io/v:1"})
    assert admit(review_of(pod)).originals == {
        "containers/a": "nginx",
        "initContainers/a": "gcr.io/i",
        "volumes/a": "gcr.io/v:1",
    }


def test_a_rewrite_without_a_copy_is_noted_too() -> None:
    admitted = admit(review_of(made_pod({"a": "a.io/x:1"})), no_lookup, mirror=mirror_of("a.io=b.io"))
    assert admitted.images == {"containers/a": "b.io/x:1"}
    assert admitted.originals == {"containers/a": "a.io/x:1"}


@pytest.mark.parametrize(
    "annotations",
    [
        pytest.param(None, id="missing"),
        pytest.param({}, id="empty"),
        pytest.param({"a": "b"}, id="others"),
        pytest.param({"a/b~c": "", "ü": "\n"}, id="others-with-odd-names"),
        pytest.param([], id="no-object"),
        pytest.param("text", id="text"),
    ],
)
def test_other_annotations_survive(annotations: Any) -> None:
    admitted = admit(review_of(made_pod({"a": "nginx"}, annotations=annotations)))
    others = annotations if isinstance(annotations, dict) else {}
    assert admitted.pod["metadata"]["annotations"] == {**others, ORIGINALS: '{"containers/a":"nginx"}'}


def test_annotations_that_are_null_are_made() -> None:
    pod = made_pod({"a": "nginx"})
    pod["metadata"]["annotations"] = None
    assert admit(review_of(pod)).pod["metadata"]["annotations"] == {ORIGINALS: '{"containers/a":"nginx"}'}


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param("", id="empty"),
        pytest.param("nonsense", id="no-json"),
        pytest.param("[]", id="array"),
        pytest.param("null", id="null"),
        pytest.param('"text"', id="text"),
        pytest.param('{"containers/a":1}', id="number-among-the-values"),
        pytest.param('{"containers/a":"nginx","containers/b":null}', id="null-among-the-values"),
        pytest.param('{"containers/a":{"containers/a":"nginx"}}', id="nested"),
        pytest.param("[" * 100_000, id="nested-too-deeply"),
        pytest.param("9" * 5000, id="number-too-long"),
        pytest.param('{"containers/a":"\\ud800"}', id="lone-surrogate"),
        pytest.param(5, id="no-text"),
        pytest.param({"containers/a": "nginx"}, id="object-instead-of-its-text"),
    ],
)
def test_what_is_no_object_of_texts_is_discarded(junk: Any) -> None:
    pod = made_pod({"a": "gcr.io/x:1"}, annotations={ORIGINALS: junk, "a": "b"})
    admitted = admit(review_of(pod))
    assert admitted.originals == {"containers/a": "gcr.io/x:1"}
    assert admitted.pod["metadata"]["annotations"]["a"] == "b"
    untouched = made_pod({"a": "private.example.com/x"}, annotations={ORIGINALS: junk, "a": "b"})
    assert admit(review_of(untouched), no_lookup).pod["metadata"]["annotations"] == {"a": "b"}
    old = made_pod({"a": f"{GCR}/x:1"}, annotations={ORIGINALS: junk})
    assert update(made_pod({"a": "gcr.io/x:1"}), old, no_lookup).images == {"containers/a": f"{GCR}/x:1"}


def test_the_old_pods_annotation_counts_and_survives_an_object_that_lost_it() -> None:
    old = made_pod({"a": f"{HUB}/nginx:latest", "b": f"{GCR}/b:1"}, annotations=noted({"containers/a": "nginx"}))
    pod = made_pod({"a": f"{HUB}/nginx:latest", "b": "gcr.io/b:2"})
    assert update(pod, old).originals == {"containers/a": "nginx", "containers/b": "gcr.io/b:2"}


def test_the_new_objects_annotation_counts_more_than_the_old_pods() -> None:
    old = made_pod({"a": f"{HUB}/nginx:latest"}, annotations=noted({"containers/a": "nginx"}))
    pod = made_pod({"a": f"{HUB}/nginx:latest"}, annotations=noted({"containers/a": "docker.io/nginx"}))
    assert update(pod, old, no_lookup).originals == {"containers/a": "docker.io/nginx"}


def test_an_image_that_is_rewritten_now_counts_more_than_any_annotation() -> None:
    old = made_pod({"a": f"{GCR}/x:1"}, annotations=noted({"containers/a": "gcr.io/x:1"}))
    pod = made_pod({"a": "gcr.io/x:2"}, annotations=noted({"containers/a": "gcr.io/x:1"}))
    assert update(pod, old).originals == {"containers/a": "gcr.io/x:2"}


def test_junk_in_the_object_does_not_change_the_old_pods_originals() -> None:
    old = made_pod({"a": f"{HUB}/nginx:latest"}, annotations=noted({"containers/a": "nginx"}))
    pod = made_pod({"a": f"{HUB}/nginx:latest"}, annotations=noted("junk"))
    assert update(pod, old, no_lookup).originals == {"containers/a": "nginx"}


@pytest.mark.parametrize(
    ("key", "original"),
    [
        pytest.param("containers/gone", "nginx", id="no-such-container"),
        pytest.param("volumes/a", "nginx", id="no-such-volume"),
        pytest.param("a", "nginx", id="no-place"),
        pytest.param("", "nginx", id="empty-key"),
        pytest.param("ephemeralContainers/a", "nginx", id="ephemeral"),
        pytest.param("containers/b", "gcr.io/b:2", id="another-tag"),
        pytest.param("containers/b", "gcr.io/c:1", id="another-image"),
        pytest.param("containers/b", "", id="no-image"),
        pytest.param("containers/b", "no image", id="no-reference"),
        pytest.param("containers/c", "private.example.com/c:1", id="never-ours"),
        pytest.param("containers/c", "gcr.io/c:1", id="no-longer-ours"),
    ],
)
def test_what_is_no_longer_ours_is_dropped(key: str, original: str) -> None:
    images = {"a": f"{HUB}/nginx:latest", "b": f"{GCR}/b:1", "c": "private.example.com/c:1"}
    pod = made_pod(images, annotations=noted({"containers/a": "nginx", key: original}))
    assert admit(review_of(pod), no_lookup).originals == {"containers/a": "nginx"}


@pytest.mark.parametrize("old_keeps_it", [True, False], ids=["old-keeps-the-note", "old-has-no-note"])
def test_an_image_set_to_one_that_is_left_unchanged_loses_its_original(old_keeps_it: bool) -> None:
    note = noted({"containers/a": "gcr.io/x:1"})
    old = made_pod({"a": f"{GCR}/x:1"}, annotations=note if old_keeps_it else None)
    pod = made_pod({"a": "private.example.com/x:1"}, annotations=note)
    assert update(pod, old, no_lookup).originals is None


def test_the_original_of_an_image_that_was_changed_without_the_webhook_is_dropped() -> None:
    """Its tag shows that it was never a copy of the image in the annotation, whatever the rules were."""
    annotations = noted({"containers/a": "gcr.io/x:1"})
    old = made_pod({"a": "private.example.com/y:2"}, annotations=annotations)
    pod = made_pod({"a": "private.example.com/y:2"}, annotations=annotations, labels={"new": "label"})
    assert update(pod, old, no_lookup).originals is None


def test_an_image_whose_copy_failed_loses_the_original_of_the_one_before() -> None:
    old = made_pod({"a": f"{GCR}/x:1"}, annotations=noted({"containers/a": "gcr.io/x:1"}))
    pod = made_pod({"a": "gcr.io/x:2"}, annotations=noted({"containers/a": "gcr.io/x:1"}, a="b"))
    admitted = update(pod, old, FAILED)
    assert admitted.images == {"containers/a": "gcr.io/x:2"}
    assert admitted.pod["metadata"]["annotations"] == {"a": "b"}


@pytest.mark.parametrize("prefix", ["mirror", "older", "team-a/mirror"])
def test_an_image_already_ours_sets_no_key(prefix: str) -> None:
    pod = made_pod({"a": f"{REGISTRY}/{prefix}/gcr.io/x:1"})
    assert not admit(review_of(pod), no_lookup).patch


def test_a_complete_annotation_is_left_unchanged() -> None:
    text = '{ "containers/a" : "nginx" }'
    pod = made_pod({"a": f"{HUB}/nginx:latest"}, annotations=noted(text))
    assert not admit(review_of(pod), no_lookup).patch
    assert not update(pod, pod, no_lookup).patch


def test_an_ephemeral_container_gets_no_annotation() -> None:
    annotations = noted({"containers/a": "stale"})
    old = made_pod({"a": "gcr.io/x:1"}, annotations=annotations)
    pod = made_pod({"a": "gcr.io/x:1"}, ephemeral={"e": "nginx"}, annotations=annotations)
    admitted = admit(review_of(pod, old, subresource="ephemeralcontainers"))
    assert [operation["path"] for operation in admitted.patch] == ["/spec/ephemeralContainers/0/image"]


OURS = len(ORIGINALS) + len('{"containers/a":"nginx"}')


@pytest.mark.parametrize(
    ("others", "kept"),
    [
        pytest.param({"a": "x" * (LIMIT - OURS - 1)}, True, id="exactly-full"),
        pytest.param({"a": "x" * (LIMIT - OURS)}, False, id="one-byte-too-many"),
        pytest.param({"a": "é" * ((LIMIT - OURS - 1) // 2)}, True, id="two-byte-letters-that-fit"),
        pytest.param({"a": "é" * ((LIMIT - OURS - 1) // 2 + 1)}, False, id="two-byte-letters-that-do-not-fit"),
        pytest.param({"é" * 50: "x" * (LIMIT - OURS - 99)}, False, id="keys-count-too"),
    ],
)
@pytest.mark.parametrize("present", [False, True], ids=["new", "replaced"])
def test_none_is_written_where_all_together_would_pass_the_limit(
    others: dict[str, str], kept: bool, present: bool
) -> None:
    annotations = {**others, ORIGINALS: "junk"} if present else others
    admitted = admit(review_of(made_pod({"a": "nginx"}, annotations=annotations)))
    assert admitted.images == {"containers/a": f"{HUB}/nginx:latest"}
    assert admitted.originals == ({"containers/a": "nginx"} if kept else None)
    after = admitted.pod["metadata"]["annotations"]
    assert {key: after[key] for key in others} == others
    assert sum(len(text.encode()) for pair in after.items() for text in pair) <= LIMIT
    assert not admit(review_of(admitted.pod), no_lookup).patch


def test_an_annotation_that_grows_past_the_limit_is_removed() -> None:
    annotations = noted({"containers/a": "nginx"}) | {"a": "x" * (LIMIT - OURS - 10)}
    old = made_pod({"a": f"{HUB}/nginx:latest", "b": f"{GCR}/b:1"}, annotations=annotations)
    pod = made_pod({"a": f"{HUB}/nginx:latest", "b": "gcr.io/b:2"}, annotations=annotations)
    admitted = update(pod, old)
    assert admitted.images["containers/b"] == f"{GCR}/b:2"
    assert set(admitted.pod["metadata"]["annotations"]) == {"a"}


# A pod that is applied again from its source.


SOURCES = [
    pytest.param({"containers": {"a": "nginx"}}, id="familiar"),
    pytest.param({"containers": {"a": "gcr.io/x:1"}}, id="tag"),
    pytest.param({"containers": {"a": f"gcr.io/x@{DIGEST}"}}, id="digest"),
    pytest.param({"containers": {"a": f"gcr.io/x:1@{DIGEST}"}}, id="tag-and-digest"),
    pytest.param({"init": {"a": "gcr.io/x:1"}}, id="init-container"),
    pytest.param({"volumes": {"a": "gcr.io/x:1"}}, id="image-volume"),
    pytest.param({"containers": {"a": "a.io/x:1"}}, id="rewrite"),
    pytest.param({"containers": {"a": f"a.io/x:1@{DIGEST}"}}, id="rewrite-with-digest"),
    pytest.param({"volumes": {"a": "a.io/x"}}, id="rewritten-image-volume"),
    pytest.param({"containers": {"a": "nginx", "b": "a.io/x"}, "volumes": {"v": "gcr.io/v"}}, id="all-together"),
]
RULES = "docker.io gcr.io quay.io a.io=b.io/m"


@pytest.mark.parametrize("places", SOURCES)
@pytest.mark.parametrize(
    ("rules", "prefix"),
    [
        pytest.param(RULES, "mirror", id="as-it-was"),
        pytest.param(RULES, "another", id="another-prefix"),
        pytest.param("", "mirror", id="no-rules"),
        pytest.param("!docker.io !gcr.io !a.io", "another", id="left-alone-now"),
        pytest.param("docker.io=d.io gcr.io=e.io a.io=f.io", "mirror", id="rewritten-elsewhere-now"),
        pytest.param("docker.io gcr.io a.io", "mirror", id="copied-now"),
    ],
)
@pytest.mark.parametrize("verb", ["apply", "replace"])
def test_a_pod_applied_again_gets_its_current_images_back(
    places: dict[str, dict[str, str]], rules: str, prefix: str, verb: str
) -> None:
    """Whatever the record, the rules or the prefix are now, and without a call of the table."""
    source = made_pod(**places)
    live = create(source, mirror=mirror_of(RULES))
    assert images_of(live) != images_of(source)
    pod = applied(live, source) if verb == "apply" else copy.deepcopy(source)
    admitted = update(pod, live, no_lookup, mirror_of(rules, prefix))
    assert admitted.images == images_of(live)
    assert admitted.originals == images_of(source)
    assert admitted.warnings == list(dict.fromkeys(restored(image) for image in images_of(source).values()))
    again = admit(review_of(admitted.pod, live), no_lookup, mirror=mirror_of(rules, prefix))
    assert (again.patch, again.warnings) == ([], [])


@pytest.mark.parametrize(
    "spelling", ["nginx", "nginx:latest", "docker.io/nginx", "index.docker.io/library/nginx", "docker.io/library/nginx"]
)
@pytest.mark.parametrize("annotated", [True, False])
def test_any_spelling_of_the_original_restores_the_current_image(spelling: str, annotated: bool) -> None:
    old = made_pod({"a": f"{HUB}/nginx:latest"}, annotations=noted({"containers/a": "nginx"}) if annotated else None)
    admitted = update(made_pod({"a": spelling}), old, no_lookup)
    assert admitted.images == {"containers/a": f"{HUB}/nginx:latest"}
    assert admitted.originals == ({"containers/a": "nginx"} if annotated else None)


@pytest.mark.parametrize(
    "current",
    [
        pytest.param(f"{REGISTRY}/mirror/gcr.io/x:1", id="same-prefix"),
        pytest.param(f"{REGISTRY}/older/gcr.io/x:1", id="another-prefix"),
        pytest.param(f"{REGISTRY}/a/b/gcr.io/x:1", id="longer-prefix"),
    ],
)
@pytest.mark.parametrize("rules", ["gcr.io", "", "gcr.io=b.io"], ids=["copy", "none", "rewrite"])
def test_a_copy_under_any_prefix_is_recognised_without_an_annotation(current: str, rules: str) -> None:
    for kind in ("containers", "init", "volumes"):
        old, pod = made_pod(**{kind: {"a": current}}), made_pod(**{kind: {"a": "gcr.io/x:1"}})
        assert list(update(pod, old, no_lookup, mirror_of(rules)).images.values()) == [current]


@pytest.mark.parametrize(
    ("current", "image", "becomes"),
    [
        pytest.param(f"{GCR}/x:1", "gcr.io/x:2", f"{GCR}/x:2", id="another-tag"),
        pytest.param(f"{GCR}/x:1", "gcr.io/y:1", f"{GCR}/y:1", id="another-image"),
        pytest.param(f"{GCR}/x:1", f"gcr.io/x@{DIGEST}", f"{GCR}/x@{DIGEST}", id="by-digest-now"),
        pytest.param(f"{GCR}/x@{DIGEST}", "gcr.io/x:1", f"{GCR}/x:1", id="by-tag-now"),
        pytest.param(f"{GCR}/xx:1", "gcr.io/x:1", f"{GCR}/x:1", id="a-name-that-begins-alike"),
        pytest.param(f"{REGISTRY}/mirror/not-gcr.io/x:1", "gcr.io/x:1", f"{GCR}/x:1", id="a-host-that-ends-alike"),
        pytest.param(f"{REGISTRY}/gcr.io/x:1", "gcr.io/x:1", f"{GCR}/x:1", id="no-prefix"),
        pytest.param(f"{REGISTRY}/mirror/m.io/gcr.io/x:1", "gcr.io/x:1", f"{GCR}/x:1", id="below-another-host"),
        pytest.param(f"{REGISTRY}/mirror/m_80/gcr.io/x:1", "gcr.io/x:1", f"{GCR}/x:1", id="below-a-host-with-port"),
        pytest.param(f"{REGISTRY}/mirror/localhost/gcr.io/x:1", "gcr.io/x:1", f"{GCR}/x:1", id="below-localhost"),
        pytest.param("another.registry/mirror/gcr.io/x:1", "gcr.io/x:1", f"{GCR}/x:1", id="another-registry"),
        pytest.param("gcr.io/x:1", "docker.io/library/x:1", f"{HUB}/x:1", id="never-ours"),
        pytest.param("", "gcr.io/x:1", f"{GCR}/x:1", id="nothing"),
    ],
)
def test_a_new_image_restores_nothing(current: str, image: str, becomes: str) -> None:
    admitted = update(made_pod({"a": image}), made_pod({"a": current}))
    assert admitted.images == {"containers/a": becomes}
    assert admitted.originals == {"containers/a": image}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param("m.daocloud.io/docker.io/library/nginx:1", "nginx:1", id="a-mirror-that-names-the-source-host"),
        pytest.param("quay.io/gcr.io/x:1", "gcr.io/x:1", id="a-path-that-begins-with-a-host"),
    ],
)
def test_a_source_whose_path_is_another_image_is_not_taken_for_it(first: str, then: str) -> None:
    """Both destinations have the same end; the annotation says which of the two images is current."""
    mirror = mirror_of("docker.io gcr.io quay.io m.daocloud.io")
    live = create(made_pod({"a": first}), mirror=mirror)
    pod = applied(live, made_pod({"a": then}))
    fresh = create(made_pod({"a": then}), mirror=mirror)
    assert update(pod, live, REQUESTED, mirror).images == images_of(fresh)
    assert update(applied(live, made_pod({"a": first})), live, no_lookup, mirror).images == images_of(live)


@pytest.mark.parametrize(
    "by_hand",
    [
        pytest.param("private.example.com/x:1", id="left-alone"),
        pytest.param(f"{REGISTRY}/own/x:1", id="own-image-in-ecr"),
        pytest.param("quay.io/x:1", id="rewritten"),
        pytest.param(f"{REGISTRY}/mirror/quay.io/x:1", id="a-copy-by-its-name"),
        pytest.param("auto", id="placeholder"),
    ],
)
@pytest.mark.parametrize("source", ["gcr.io/x:1", "a.io/x:1"], ids=["copy", "rewrite"])
def test_an_image_set_by_hand_in_between_is_not_brought_back(by_hand: str, source: str) -> None:
    mirror = mirror_of(RULES)
    manifest = made_pod({"a": source})
    live = create(manifest, mirror=mirror)
    changed = update(applied(live, made_pod({"a": by_hand})), live, mirror=mirror).pod
    admitted = update(applied(changed, manifest), changed, mirror=mirror)
    assert admitted.images == images_of(live)
    assert admitted.originals == {"containers/a": source}


@pytest.mark.parametrize(
    "by_hand", ["private.example.com/x:2", f"{REGISTRY}/own/x:2", f"private.example.com/x@{DIGEST}"]
)
def test_an_image_set_by_hand_without_the_webhook_is_not_brought_back(by_hand: str) -> None:
    """The annotation is outdated, because the webhook was not called; the tag shows it."""
    old = made_pod({"a": by_hand}, annotations=noted({"containers/a": "gcr.io/x:1"}))
    assert update(applied(old, made_pod({"a": "gcr.io/x:1"})), old).images == {"containers/a": f"{GCR}/x:1"}


def test_the_name_of_a_copy_counts_more_than_an_annotation_that_says_otherwise() -> None:
    """Below our prefix a name has one source: an annotation with another is outdated, even with the same tag."""
    old = made_pod({"a": f"{GCR}/y:1"}, annotations=noted({"containers/a": "gcr.io/x:1"}))
    assert update(applied(old, made_pod({"a": "gcr.io/y:1"})), old, no_lookup).images == {"containers/a": f"{GCR}/y:1"}
    assert update(applied(old, made_pod({"a": "gcr.io/x:1"})), old).images == {"containers/a": f"{GCR}/x:1"}


def test_an_image_that_was_never_rewritten_is_not_touched_when_applied_again() -> None:
    source = made_pod({"a": "gcr.io/x:1"}, volumes={"v": "gcr.io/v:1"})
    live = create(source, FAILED)
    assert images_of(live) == images_of(source)
    assert not update(applied(live, source), live, no_lookup).patch


@pytest.mark.parametrize("place", ["containers", "init", "volumes"])
def test_a_pod_of_an_earlier_release_keeps_the_copy_of_an_image_that_is_never_pulled(place: str) -> None:
    """To put the source back would restart a container, and a volume cannot change."""
    source = made_pod(**{place: {"a": "gcr.io/x:1"}})
    live = create(source)
    for pod in (source, live):
        for each in pod["spec"].get("volumes", ()):
            each["image"]["pullPolicy"] = "Never"
        for kind in ("containers", "initContainers"):
            for each in pod["spec"].get(kind, ()):
                each["imagePullPolicy"] = "Never"
    admitted = update(applied(live, source), live, no_lookup)
    assert admitted.images == images_of(live)
    assert admitted.originals == images_of(source)


HUB_NAMES = [
    pytest.param("registry-1.docker.io/library/nginx:1", "registry-1.docker.io/library/nginx:1", id="registry-1"),
    pytest.param("registry-1.docker.io/nginx:1", "registry-1.docker.io/nginx:1", id="registry-1-without-library"),
    pytest.param("registry.hub.docker.com/a/b:1", "registry.hub.docker.com/a/b:1", id="registry.hub"),
    pytest.param(f"registry-1.docker.io/a/b:1@{DIGEST}", f"registry-1.docker.io/a/b@{DIGEST}", id="digest"),
]


@pytest.mark.parametrize("prefix", ["mirror", "older", "older/mirror"])
@pytest.mark.parametrize("annotated", [True, False], ids=["annotated", "not-annotated"])
@pytest.mark.parametrize(("source", "path"), HUB_NAMES)
def test_a_copy_that_an_earlier_release_named_by_another_host_of_docker_hub_is_restored(
    source: str, path: str, annotated: bool, prefix: str
) -> None:
    """That release took the host for a registry of its own. Its copy is in use, and a new name would restart it."""
    for place, field in (("containers", "containers"), ("init", "initContainers"), ("volumes", "volumes")):
        current = f"{REGISTRY}/{prefix}/{path}"
        note = noted({f"{field}/a": source}) if annotated else None
        old, manifest = made_pod(**{place: {"a": current}}, annotations=note), made_pod(**{place: {"a": source}})
        for rules in ("docker.io", "registry-1.docker.io", ""):
            admitted = update(applied(old, manifest), old, no_lookup, mirror_of(rules))
            assert list(admitted.images.values()) == [current]
            assert admitted.originals == ({f"{field}/a": source} if annotated else None)
            assert not update(admitted.pod, old, no_lookup, mirror_of(rules)).patch


def test_a_copy_that_an_earlier_release_named_otherwise_is_not_taken_for_another_image() -> None:
    old = made_pod({"a": f"{REGISTRY}/mirror/registry-1.docker.io/a/b:1"})
    for image, becomes in (
        ("registry-1.docker.io/library/a/b:1", f"{HUB}/a/b:1"),
        ("registry-1.docker.io/a/b:2", f"{REGISTRY}/mirror/docker.io/a/b:2"),
        ("gcr.io/a/b:1", f"{GCR}/a/b:1"),
    ):
        assert update(made_pod({"a": image}), old).images == {"containers/a": becomes}


def test_a_new_pod_of_a_source_with_another_name_of_docker_hub_uses_the_one_copy() -> None:
    pod = yaml.safe_load(sample("docker-hub-aliases.yaml").read_text())
    admitted = admit(review_of(pod))
    assert {name: admitted.images[f"containers/{name}"] for name in "abc"} == dict.fromkeys("abc", f"{HUB}/nginx:1.27")
    assert admitted.images["containers/d"] == "hub.docker.com/library/nginx:1.27"
    assert (admitted.originals or {}).keys() == {"containers/a", "containers/b", "containers/c"}
    assert [warning.split(" ")[0] for warning in admitted.warnings] == [
        *("registry.hub.docker.com/library/nginx:1.27", "registry-1.docker.io/library/nginx:1.27"),
        *("index.docker.io/library/nginx:1.27", "hub.docker.com/library/nginx:1.27"),
    ]


def test_a_container_that_never_pulls_gets_the_image_it_is_set_to() -> None:
    pods = [made_pod({"a": image}) for image in (f"{GCR}/x:1", "gcr.io/x:2")]
    for pod in pods:
        pod["spec"]["containers"][0]["imagePullPolicy"] = "Never"
    old, new = pods
    assert update(new, old, no_lookup).images == {"containers/a": "gcr.io/x:2"}


def test_one_image_changes_and_the_others_are_restored() -> None:
    source = made_pod({"a": "gcr.io/a:1", "b": "gcr.io/b:1"}, volumes={"v": "gcr.io/v:1"})
    live = create(source)
    source["spec"]["containers"][0]["image"] = "gcr.io/a:2"
    admitted = update(applied(live, source), live)
    assert admitted.images == {**images_of(live), "containers/a": f"{GCR}/a:2"}
    assert admitted.originals == images_of(source)
    assert admitted.warnings == [copying("gcr.io/a:2"), restored("gcr.io/b:1"), restored("gcr.io/v:1")]


# A waiting pod in which `image-mirror nudge` has added the copy's digest to the copy's name.

NUDGED = [
    pytest.param("gcr.io/x:1", f"{GCR}/x:1@{DIGEST}", id="tag"),
    pytest.param("nginx", f"{HUB}/nginx:latest@{DIGEST}", id="familiar"),
    pytest.param(f"gcr.io/x@{DIGEST}", f"{GCR}/x:digest-sha256-{HEX}@{DIGEST}", id="digest"),
    pytest.param(f"gcr.io/x:1@{DIGEST}", f"{GCR}/x:digest-sha256-{HEX}@{DIGEST}", id="tag-and-digest"),
]


def nudged_pod(source: str, nudged: str, place: str = "containers") -> Json:
    """Return a pod as it is after the nudge; one of its images is as it was."""
    live = create(made_pod(**{place: {"a": source}}, volumes={"v": "gcr.io/v:1"}))
    key = {"init": "initContainers"}.get(place, place)
    live["spec"][key][0]["image"] = nudged
    return live


@pytest.mark.parametrize("place", ["containers", "init"])
@pytest.mark.parametrize(("source", "nudged"), NUDGED)
def test_the_patch_of_a_nudge_is_admitted_as_it_is_and_the_annotation_stays(
    source: str, nudged: str, place: str
) -> None:
    old = create(made_pod(**{place: {"a": source}}, volumes={"v": "gcr.io/v:1"}))
    admitted = update(nudged_pod(source, nudged, place), old, no_lookup)
    assert (admitted.patch, admitted.warnings) == ([], [])
    assert source in (admitted.originals or {}).values()


@pytest.mark.parametrize(
    ("rules", "prefix"),
    [
        pytest.param(RULES, "mirror", id="as-it-was"),
        pytest.param(RULES, "another", id="another-prefix"),
        pytest.param("", "mirror", id="no-rules"),
        pytest.param("docker.io=d.io gcr.io=e.io", "mirror", id="rewritten-elsewhere-now"),
    ],
)
@pytest.mark.parametrize(("source", "nudged"), NUDGED)
def test_a_nudged_pod_that_is_applied_again_keeps_its_image(source: str, nudged: str, rules: str, prefix: str) -> None:
    live, manifest = nudged_pod(source, nudged), made_pod({"a": source}, volumes={"v": "gcr.io/v:1"})
    admitted = update(applied(live, manifest), live, no_lookup, mirror_of(rules, prefix))
    assert admitted.images == images_of(live)
    assert admitted.originals == images_of(manifest)
    assert admitted.warnings == [restored(source), restored("gcr.io/v:1")]
    assert not update(admitted.pod, live, no_lookup, mirror_of(rules, prefix)).patch


@pytest.mark.parametrize("note", [None, {"containers/a": "gcr.io/other:1"}], ids=["none", "outdated"])
def test_without_the_annotation_a_digest_beside_the_tag_is_somebodys_own_and_apply_takes_it_away(
    note: dict[str, str] | None,
) -> None:
    old = made_pod({"a": f"{GCR}/x:1@{DIGEST}"}, annotations=noted(note) if note else None)
    admitted = update(applied(old, made_pod({"a": "gcr.io/x:1"})), old)
    assert admitted.images == {"containers/a": f"{GCR}/x:1"}
    assert admitted.originals == {"containers/a": "gcr.io/x:1"}


@pytest.mark.parametrize("older", ["mirror/team_a", "older", "mirror/old"])
@pytest.mark.parametrize("registry", [REGISTRY, "210987654321.dkr.ecr.cn-north-1.amazonaws.com.cn"])
def test_a_nudged_pod_of_an_earlier_prefix_or_registry_keeps_its_image(registry: str, older: str) -> None:
    current = f"{registry}/{older}/gcr.io/x:1@{DIGEST}"
    old = made_pod({"a": current}, annotations=noted({"containers/a": "gcr.io/x:1"}))
    admitted = update(applied(old, made_pod({"a": "gcr.io/x:1"})), old, no_lookup)
    assert admitted.images == {"containers/a": current}
    assert admitted.originals == {"containers/a": "gcr.io/x:1"}


@pytest.mark.parametrize("older", ["mirror/team_a", "mirror/v1.0", "older", "mirror/old"])
@pytest.mark.parametrize(
    ("source", "before", "nudged"),
    [
        pytest.param("gcr.io/x:1", "gcr.io/x:1", f"gcr.io/x:1@{DIGEST}", id="tag"),
        pytest.param(f"gcr.io/x@{DIGEST}", f"gcr.io/x@{DIGEST}", f"gcr.io/x:digest-sha256-{HEX}@{DIGEST}", id="digest"),
    ],
)
def test_the_nudge_of_a_copy_below_an_earlier_prefix_keeps_the_annotation(
    source: str, before: str, nudged: str, older: str
) -> None:
    old = made_pod({"a": f"{REGISTRY}/{older}/{before}"}, annotations=noted({"containers/a": source}))
    new = made_pod({"a": f"{REGISTRY}/{older}/{nudged}"}, annotations=noted({"containers/a": source}))
    assert update(new, old, no_lookup).patch == []
    again = update(applied(new, made_pod({"a": source})), new, no_lookup)
    assert again.images == images_of(new)


@pytest.mark.parametrize("becomes", ["gcr.io/x:2", "gcr.io/y:1", f"gcr.io/x:2@{DIGEST}", f"gcr.io/x@{DIGEST}"], ids=str)
def test_another_image_below_an_earlier_prefix_ends_the_annotation(becomes: str) -> None:
    before = f"{REGISTRY}/mirror/team_a"
    old = made_pod({"a": f"{before}/gcr.io/x:1"}, annotations=noted({"containers/a": "gcr.io/x:1"}))
    new = made_pod({"a": f"{before}/{becomes}"}, annotations=noted({"containers/a": "gcr.io/x:1"}))
    assert update(new, old, no_lookup).originals is None


def test_another_image_of_a_nudged_pod_is_set_as_for_any_other_pod() -> None:
    live = nudged_pod("gcr.io/x:1", f"{GCR}/x:1@{DIGEST}")
    for image, becomes in (
        ("gcr.io/x:2", f"{GCR}/x:2"),
        (f"gcr.io/x@{DIGEST}", f"{GCR}/x@{DIGEST}"),
        ("gcr.io/y:1", f"{GCR}/y:1"),
    ):
        admitted = update(applied(live, made_pod({"a": image}, volumes={"v": "gcr.io/v:1"})), live)
        assert admitted.images == {**images_of(live), "containers/a": becomes}
        assert admitted.originals == {"containers/a": image, "volumes/v": "gcr.io/v:1"}
    back = update(applied(live, made_pod({"a": f"{GCR}/x:1"}, volumes={"v": "gcr.io/v:1"})), live, no_lookup)
    assert back.images["containers/a"] == f"{GCR}/x:1", "its author asks for the tag's newest image"
    assert back.originals == {"containers/a": "gcr.io/x:1", "volumes/v": "gcr.io/v:1"}


@pytest.mark.parametrize(
    "current",
    [
        pytest.param(f"{GCR}/x:2@{DIGEST}", id="another-tag"),
        pytest.param(f"{GCR}/x@{DIGEST}", id="no-tag"),
        pytest.param(f"{GCR}/y:1@{DIGEST}", id="another-image"),
        pytest.param(f"private.example.com/x:1@{DIGEST}", id="no-copy"),
        pytest.param(f"{REGISTRY}/own/x:1@{DIGEST}", id="own-image-in-ecr"),
    ],
)
@pytest.mark.parametrize("annotated", [True, False], ids=["annotated", "not-annotated"])
def test_a_tag_and_a_digest_under_another_name_are_not_taken_for_a_copy(current: str, annotated: bool) -> None:
    """Somebody has set it by hand; the annotation, if there is one, is outdated."""
    note = noted({"containers/a": "gcr.io/x:1"}) if annotated else None
    old = made_pod({"a": current}, annotations=note)
    assert update(applied(old, made_pod({"a": "gcr.io/x:1"})), old).images == {"containers/a": f"{GCR}/x:1"}
    assert update(old, made_pod({"a": "private.example.com/z:1"}), no_lookup).originals is None


# Other webhooks that change the pod between our calls.


@pytest.mark.parametrize("index", [0, 1, 2], ids=["first", "middle", "last"])
@pytest.mark.parametrize("annotations", [None, {"a": "b"}], ids=["bare", "annotated"])
def test_an_injected_sidecar_keeps_every_original(index: int, annotations: Json | None) -> None:
    first = create(made_pod({"a": "nginx", "b": "gcr.io/b:1"}, annotations=annotations))
    first["spec"]["containers"].insert(index, {"name": "sidecar", "image": "docker.io/istio/proxyv2:1.24"})
    second = admit(review_of(first))
    assert second.images == {
        "containers/a": f"{HUB}/nginx:latest",
        "containers/b": f"{GCR}/b:1",
        "containers/sidecar": f"{REGISTRY}/mirror/docker.io/istio/proxyv2:1.24",
    }
    assert second.originals == {
        "containers/a": "nginx",
        "containers/b": "gcr.io/b:1",
        "containers/sidecar": "docker.io/istio/proxyv2:1.24",
    }
    assert not admit(review_of(second.pod), no_lookup).patch


def test_an_image_that_another_webhook_replaces_is_decided_again() -> None:
    first = create(made_pod({"a": "nginx", "b": "gcr.io/b:1"}))
    first["spec"]["containers"][0]["image"] = "private.example.com/nginx:1"
    first["spec"]["containers"][1]["image"] = "quay.io/b:2"
    second = admit(review_of(first))
    assert second.images == {
        "containers/a": "private.example.com/nginx:1",
        "containers/b": f"{REGISTRY}/mirror/quay.io/b:2",
    }
    assert second.originals == {"containers/b": "quay.io/b:2"}


def test_annotations_that_another_webhook_drops_are_no_error() -> None:
    first = create(made_pod({"a": "nginx"}, annotations={"a": "b"}))
    del first["metadata"]["annotations"]
    first["spec"]["containers"].append({"name": "b", "image": "gcr.io/b:1"})
    assert admit(review_of(first)).originals == {"containers/b": "gcr.io/b:1"}


def test_an_update_that_is_reviewed_twice_is_patched_once() -> None:
    source = made_pod({"a": "gcr.io/a:1", "b": "gcr.io/b:1", "c": "a.io/c:1"})
    mirror = mirror_of(RULES)
    live = create(source, mirror=mirror)
    source["spec"]["containers"][0]["image"] = "gcr.io/a:2"
    source["spec"]["containers"][2]["image"] = "a.io/c:2"
    first = update(applied(live, source), live, mirror=mirror)
    assert first.patch
    assert not update(first.pod, live, no_lookup, mirror).patch


def test_a_digest_applied_without_the_tag_that_was_beside_it_is_the_same_image() -> None:
    live = create(made_pod({"a": f"gcr.io/x:1@{DIGEST}"}))
    again = update(applied(live, made_pod({"a": f"gcr.io/x@{DIGEST}"})), live, no_lookup)
    assert again.images == {"containers/a": f"{GCR}/x@{DIGEST}"}


@pytest.mark.parametrize("older", ["mirror/team_a", "mirror/v1.0", "mirror/old"])
def test_an_annotated_copy_below_a_longer_former_prefix_is_restored(older: str) -> None:
    current = f"{REGISTRY}/{older}/gcr.io/x:1"
    old = made_pod({"a": current}, annotations=noted({"containers/a": "gcr.io/x:1"}))
    assert update(applied(old, made_pod({"a": "gcr.io/x:1"})), old, no_lookup).images == {"containers/a": current}
