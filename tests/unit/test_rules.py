"""The rules: their decisions about images, wrong rules, and that deciding twice changes nothing."""

import re
from itertools import permutations
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from image_mirror.decisions import Copy, Decision, Leave, Mirror, Rewrite
from image_mirror.reference import parse_reference
from image_mirror.rules import DEFAULT_RULES, RuleError, parse_rules
from support.reviews_data import DIGEST, HEX, MIRROR, REGISTRY

steady = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])


def deciding(rules: str, image: str) -> str | None:
    """Return the rule that decides about an image, as text."""
    rule = parse_rules(rules).match(parse_reference(image))
    return None if rule is None else str(rule)


def decide(rules: str, image: str) -> Decision:
    return Mirror(REGISTRY, "mirror", parse_rules(rules)).decide(image)[0]


def image_after(decision: Decision, image: str) -> str:
    """Return the image that a decision leads to after the copy is done."""
    match decision:
        case Copy(destination=destination):
            return str(destination)
        case Rewrite(image=rewritten):
            return rewritten
    return image


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        pytest.param("", [], id="none"),
        pytest.param(" \t\r\n,, ", [], id="separators-alone"),
        pytest.param("gcr.io", ["gcr.io"], id="one"),
        pytest.param("gcr.io,quay.io", ["gcr.io", "quay.io"], id="comma"),
        pytest.param("gcr.io quay.io\n\tghcr.io\r\n", ["gcr.io", "quay.io", "ghcr.io"], id="white-space"),
        pytest.param(", gcr.io ,, quay.io,", ["gcr.io", "quay.io"], id="both-and-too-many"),
        pytest.param("*.gcr.io", ["*.gcr.io"], id="wildcard"),
        pytest.param("quay.io/prometheus/node", ["quay.io/prometheus/node"], id="path"),
        pytest.param("*.pkg.dev/a__b/c--d/e.f", ["*.pkg.dev/a__b/c--d/e.f"], id="wildcard-with-path"),
        pytest.param("!quay.io/my-team", ["!quay.io/my-team"], id="leave-alone"),
        pytest.param("!*.corp.example", ["!*.corp.example"], id="leave-a-wildcard-alone"),
        pytest.param("gcr.io=asia.gcr.io", ["gcr.io=asia.gcr.io", "!asia.gcr.io"], id="rewrite-protects-its-target"),
        pytest.param("*.a.io/x=b.io:80/y", ["*.a.io/x=b.io:80/y", "!b.io:80/y"], id="rewrite-of-a-wildcard"),
        pytest.param("a.io=b.io c.io=b.io", ["a.io=b.io", "c.io=b.io", "!b.io"], id="two-rewrites-to-one-place"),
        pytest.param("a.io=b.io !b.io", ["a.io=b.io", "!b.io"], id="target-left-alone-by-name-too"),
        pytest.param("localhost localhost:5000", ["localhost", "localhost:5000"], id="localhost"),
        pytest.param("registry:5000", ["registry:5000"], id="port-makes-a-host"),
        pytest.param("10.0.0.1 10.0.0.1:80", ["10.0.0.1", "10.0.0.1:80"], id="ipv4"),
        pytest.param("[::1]:80", ["[::1]:80"], id="ipv6"),
        pytest.param("GCR.io", ["gcr.io"], id="host-in-lower-case"),
        pytest.param("index.docker.io", ["docker.io"], id="docker-hub-by-its-old-name"),
        pytest.param("docker.io registry-1.docker.io", ["docker.io"], id="docker-hub-by-two-names"),
        pytest.param("!registry.hub.docker.com/x", ["!docker.io/x"], id="docker-hub-by-another-name"),
        pytest.param("gcr.io gcr.io", ["gcr.io"], id="said-twice"),
    ],
)
def test_entries_are_split_and_read(text: str, entries: list[str]) -> None:
    assert sorted(map(str, parse_rules(text).entries)) == sorted(entries)


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        pytest.param("nginx", "docker.io/", id="no-registry"),
        pytest.param("library/nginx", "docker.io/", id="familiar-name"),
        pytest.param("*", "is not a registry; write", id="star-alone"),
        pytest.param("*.", "is not a registry; write", id="star-and-dot"),
        pytest.param("*gcr.io", "is not a registry; write", id="star-without-dot"),
        pytest.param("gcr.*", "is not a registry; write", id="star-at-the-end"),
        pytest.param("*.*.io", "is not a registry; write", id="two-stars"),
        pytest.param("a.*.io", "is not a registry; write", id="star-within"),
        pytest.param("*.dkr.ecr.*.amazonaws.com", "is not a registry; write", id="star-within-a-long-host"),
        pytest.param("gcr.io/*", "is not a path segment", id="star-in-the-path"),
        pytest.param("!", "is not a registry; write", id="exclamation-mark-alone"),
        pytest.param("!!gcr.io", "is not a registry; write", id="two-exclamation-marks"),
        pytest.param("!gcr.io=asia.gcr.io", "is not a registry; write", id="leave-alone-and-rewrite"),
        pytest.param("=", "is not a registry; write", id="equals-alone"),
        pytest.param("=gcr.io", "is not a registry; write", id="rewrite-of-nothing"),
        pytest.param("gcr.io=", "is not a registry; write", id="rewrite-to-nothing"),
        pytest.param("a.io=b.io=c.io", "is not a registry; write", id="two-targets"),
        pytest.param("gcr.io=!b.io", "is not a registry; write", id="target-left-alone"),
        pytest.param("gcr.io=*.gcr.io", "wildcard", id="wildcard-target"),
        pytest.param("gcr.io=nginx", "docker.io/", id="target-without-registry"),
        pytest.param("https://gcr.io", "is not a registry; write", id="scheme"),
        pytest.param("gcr.io/", "is not a path segment", id="trailing-slash"),
        pytest.param("gcr.io//x", "is not a path segment", id="empty-segment"),
        pytest.param("/gcr.io", "is not a registry; write", id="leading-slash"),
        pytest.param("gcr.io/x:1", "is not a path segment", id="tag"),
        pytest.param(f"gcr.io/x@{DIGEST}", "is not a path segment", id="digest"),
        pytest.param("gcr.io/X", "is not a path segment", id="upper-case-path"),
        pytest.param("gcr.io/x_", "is not a path segment", id="segment-ending-in-a-separator"),
        pytest.param("gcr.io:latest", "is not a registry; write", id="port-by-name"),
        pytest.param("gcr..io", "is not a registry; write", id="empty-label"),
        pytest.param("-gcr.io", "is not a registry; write", id="host-led-by-a-hyphen"),
        pytest.param(".gcr.io", "is not a registry; write", id="host-led-by-a-dot"),
        pytest.param("gcr.io;quay.io", "is not a registry; write", id="semicolon"),
        pytest.param("gcr_io.com", "is not a registry; write", id="underscore"),
        pytest.param('"gcr.io"', "is not a registry; write", id="quotes"),
        pytest.param("gcr.io\0", "is not a registry; write", id="control-character"),
        # No reference can have such a host, so the rule would never match.
        pytest.param("gcr.io.", "is not a registry; write", id="host-ending-in-a-dot"),
        pytest.param("gcr-.io", "is not a registry; write", id="label-ending-in-a-hyphen"),
        pytest.param("gcr.-io", "is not a registry; write", id="label-led-by-a-hyphen"),
        pytest.param("*.[::1]", "is not a registry; write", id="wildcard-of-an-address"),
    ],
)
def test_a_bad_rule_is_an_error_that_quotes_the_entry(entry: str, cause: str) -> None:
    for text in (entry, f"quay.io {entry}", f"quay.io,{entry},ghcr.io"):
        with pytest.raises(RuleError) as caught:
            parse_rules(text)
        assert f"rule {entry!r}: " in str(caught.value)
        assert cause in str(caught.value)


@pytest.mark.parametrize(
    ("text", "quoted", "other"),
    [
        pytest.param("gcr.io !gcr.io", "!gcr.io", "gcr.io", id="copy-and-leave-alone"),
        pytest.param("gcr.io=a.io gcr.io=b.io", "gcr.io=b.io", "gcr.io=a.io", id="two-rewrites"),
        pytest.param("gcr.io gcr.io=b.io", "gcr.io=b.io", "gcr.io", id="copy-and-rewrite"),
        pytest.param("docker.io !index.docker.io", "!index.docker.io", "docker.io", id="one-host-by-two-names"),
        pytest.param(
            "docker.io !Registry-1.docker.io", "!Registry-1.docker.io", "docker.io", id="one-host-by-two-other-names"
        ),
        pytest.param("a.io=b.io b.io=c.io", "a.io=b.io", "b.io=c.io", id="rewrite-of-a-target"),
        pytest.param("b.io=c.io a.io=b.io", "a.io=b.io", "b.io=c.io", id="rewrite-of-a-target-first"),
        pytest.param("a.io=b.io b.io", "a.io=b.io", "b.io", id="copy-of-a-target"),
        pytest.param("a.io=b.io b.io/x=c.io", "a.io=b.io", "b.io/x=c.io", id="rewrite-below-a-target"),
        pytest.param("a.io=b.io b.io/x/y", "a.io=b.io", "b.io/x/y", id="copy-below-a-target"),
        pytest.param("a.io=b.io b.io=a.io", "a.io=b.io", "b.io=a.io", id="there-and-back"),
        pytest.param("a.io=a.io", "a.io=a.io", "a.io=a.io", id="to-itself"),
        pytest.param("a.io/x=a.io", "a.io/x=a.io", "a.io/x=a.io", id="upwards"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(text: str, quoted: str, other: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_rules(text)
    assert f"rule {quoted!r}: " in str(caught.value)
    assert other in str(caught.value).removeprefix(f"rule {quoted!r}: ")


@pytest.mark.parametrize(
    ("rules", "image", "rule"),
    [
        pytest.param("gcr.io", "gcr.io/x", "gcr.io", id="host"),
        pytest.param("gcr.io", "GCR.io/x", "gcr.io", id="host-without-case"),
        pytest.param("gcr.io", "gcr.io:443/x", None, id="another-port-is-another-registry"),
        pytest.param("gcr.io:443", "gcr.io:443/x", "gcr.io:443", id="port"),
        pytest.param("gcr.io", "notgcr.io/x", None, id="whole-host"),
        pytest.param("gcr.io", "gcr.io.evil.com/x", None, id="host-as-a-beginning"),
        pytest.param("gcr.io", "eu.gcr.io/x", None, id="a-host-does-not-match-its-subdomains"),
        pytest.param("*.gcr.io", "eu.gcr.io/x", "*.gcr.io", id="wildcard"),
        pytest.param("*.gcr.io", "a.b.gcr.io/x", "*.gcr.io", id="wildcard-of-two-labels"),
        pytest.param("*.gcr.io", "gcr.io/x", None, id="wildcard-needs-a-label"),
        pytest.param("*.gcr.io", "notgcr.io/x", None, id="wildcard-of-whole-labels"),
        pytest.param("*.gcr.io:443", "eu.gcr.io:443/x", "*.gcr.io:443", id="wildcard-with-port"),
        pytest.param("quay.io/prometheus", "quay.io/prometheus/node", "quay.io/prometheus", id="path"),
        pytest.param("quay.io/prometheus", "quay.io/prometheus", "quay.io/prometheus", id="the-path-itself"),
        pytest.param("quay.io/prometheus", "quay.io/prometheus-x/node", None, id="whole-segment"),
        pytest.param("quay.io/a/b", "quay.io/a", None, id="longer-than-the-image"),
        pytest.param("quay.io quay.io/a !quay.io/a/b", "quay.io/a/b/c", "!quay.io/a/b", id="longest"),
        pytest.param("quay.io quay.io/a !quay.io/a/b", "quay.io/a/c", "quay.io/a", id="middle"),
        pytest.param("quay.io quay.io/a !quay.io/a/b", "quay.io/c", "quay.io", id="shortest"),
        pytest.param("*.io *.gcr.io", "eu.gcr.io/x", "*.gcr.io", id="longest-wildcard"),
        pytest.param("*.gcr.io !eu.gcr.io", "eu.gcr.io/x", "!eu.gcr.io", id="exact-before-wildcard"),
        pytest.param("*.gcr.io/x !eu.gcr.io", "eu.gcr.io/x", "!eu.gcr.io", id="exact-before-wildcard-with-path"),
        pytest.param("*.gcr.io eu.gcr.io/x", "eu.gcr.io/y", "*.gcr.io", id="wildcard-where-the-exact-path-differs"),
        pytest.param("*.io/a/b *.gcr.io", "eu.gcr.io/a/b", "*.gcr.io", id="host-before-path"),
        pytest.param("docker.io", "nginx", "docker.io", id="familiar-name"),
        pytest.param("docker.io/library", "nginx", "docker.io/library", id="official"),
        pytest.param("docker.io/library", "prom/node", None, id="not-official"),
        pytest.param("index.docker.io/prom", "prom/node", "docker.io/prom", id="docker-hub-by-its-old-name"),
        pytest.param("docker.io", "registry-1.docker.io/prom/node", "docker.io", id="docker-hub's-registry"),
        pytest.param(
            "docker.io/library", "registry.hub.docker.com/nginx", "docker.io/library", id="official-there-too"
        ),
        pytest.param("[::A]", "[::a]/x", "[::a]", id="ipv6-without-case"),
        pytest.param("", "gcr.io/x", None, id="no-rules"),
        pytest.param("a.io=b.io/m", "b.io/m/x", "!b.io/m", id="target-is-left-alone"),
        pytest.param("a.io=b.io/m b.io", "b.io/x", "b.io", id="beside-the-target"),
        pytest.param("a.io=a.io/m", "a.io/m/x", "!a.io/m", id="target-below-its-own-prefix"),
        pytest.param("*.gcr.io=asia.gcr.io", "asia.gcr.io/x", "!asia.gcr.io", id="target-below-its-own-wildcard"),
    ],
)
def test_the_longest_match_decides(rules: str, image: str, rule: str | None) -> None:
    assert deciding(rules, image) == rule


@pytest.mark.parametrize(
    ("rules", "image", "becomes"),
    [
        pytest.param("gcr.io=asia.gcr.io", "gcr.io/a/b:1", "asia.gcr.io/a/b:1", id="host"),
        pytest.param("gcr.io=asia.gcr.io", "gcr.io/a/b", "asia.gcr.io/a/b:latest", id="default-tag"),
        pytest.param("gcr.io=asia.gcr.io", f"gcr.io/a@{DIGEST}", f"asia.gcr.io/a@{DIGEST}", id="digest"),
        pytest.param("gcr.io=asia.gcr.io", f"gcr.io/a:1@{DIGEST}", f"asia.gcr.io/a:1@{DIGEST}", id="tag-and-digest"),
        pytest.param("gcr.io/a=b.io/c/d", "gcr.io/a/e/f:1", "b.io/c/d/e/f:1", id="path"),
        pytest.param("gcr.io/a=b.io/c/d", "gcr.io/a:1", "b.io/c/d:1", id="whole-path"),
        pytest.param("gcr.io/a=b.io", "gcr.io/a/c:1", "b.io/c:1", id="path-to-host"),
        pytest.param("*.gcr.io=b.io:5000/m", "eu.gcr.io/a:1", "b.io:5000/m/a:1", id="wildcard"),
        pytest.param("gcr.io=b.io", "GCR.IO/a:1", "b.io/a:1", id="upper-case-host"),
        pytest.param("docker.io=b.io/hub", "nginx:1", "b.io/hub/library/nginx:1", id="docker-hub"),
        pytest.param("docker.io/library=b.io", "nginx:1", "b.io/nginx:1", id="official"),
        pytest.param("a.io=docker.io", "a.io/x/y:1", "docker.io/x/y:1", id="to-docker-hub"),
        pytest.param("a.io=a.io/m", "a.io/x:1", "a.io/m/x:1", id="below-itself"),
        pytest.param(
            "602401143452.dkr.ecr.us-west-2.amazonaws.com=961992271922.dkr.ecr.cn-northwest-1.amazonaws.com.cn",
            "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/coredns:v1.11.1",
            "961992271922.dkr.ecr.cn-northwest-1.amazonaws.com.cn/eks/coredns:v1.11.1",
            id="eks-add-on",
        ),
        pytest.param(f"a.io={REGISTRY}/own", "a.io/x:1", f"{REGISTRY}/own/x:1", id="into-the-target-registry"),
    ],
)
def test_a_rewrite_keeps_the_path_the_tag_and_the_digest(rules: str, image: str, becomes: str) -> None:
    assert decide(rules, image) == Rewrite(becomes)


@pytest.mark.parametrize(
    ("rules", "image"),
    [
        pytest.param("gcr.io/a=b.io", "gcr.io/a:1", id="nothing-left"),
        pytest.param("gcr.io=b.io/" + "x" * 100, "gcr.io/" + "y" * 200, id="too-long"),
        pytest.param(
            "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks=961992271922.dkr.ecr.cn-northwest-1.amazonaws.com.cn",
            "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks",
            id="nothing-left-by-a-long-rule",
        ),
    ],
)
def test_a_rewrite_that_makes_no_legal_name_leaves_the_image_unchanged_with_a_warning(rules: str, image: str) -> None:
    decision = decide(rules, image)
    assert isinstance(decision, Leave)
    assert decision.warning is not None
    assert "the new name is not valid" in decision.warning


@pytest.mark.parametrize(
    ("rules", "image"),
    [
        pytest.param("gcr.io !gcr.io/mine", "gcr.io/mine/x", id="by-rule"),
        pytest.param("gcr.io", "quay.io/x", id="no-rule"),
        pytest.param("*.com.cn", f"{REGISTRY}/mirror/gcr.io/x:1", id="a-copy-in-the-target-registry"),
        pytest.param("*.com.cn=a.io", f"{REGISTRY}/own/x", id="anything-in-the-target-registry"),
    ],
)
def test_an_image_that_is_left_unchanged_gives_no_warning(rules: str, image: str) -> None:
    assert decide(rules, image) == Leave()


@pytest.mark.parametrize(
    "image",
    [
        pytest.param("GCR.io/x", id="upper-case-host"),
        pytest.param("gcr.io/" + "x" * 250, id="too-long"),
        pytest.param(f"gcr.io/x:sha256-{HEX}", id="reserved-tag"),
        pytest.param(f"gcr.io/x@sha512:{HEX}{HEX}", id="sha512"),
    ],
)
def test_an_image_without_a_destination_is_left_unchanged_with_a_warning(image: str) -> None:
    decision = decide("gcr.io", image)
    assert isinstance(decision, Leave)
    assert decision.warning is not None
    assert "stays as written" in decision.warning


def test_docker_hub_s_web_site_serves_no_images_and_the_warning_says_so() -> None:
    decision, rule = MIRROR.decide("hub.docker.com/library/nginx:1.27")
    assert rule is None
    cause = "hub.docker.com is a web site and serves no images; write docker.io"
    assert decision == Leave(f"hub.docker.com/library/nginx:1.27 stays as written: {cause}")
    assert isinstance(decide("hub.docker.com", "hub.docker.com/x"), Copy), "a rule says otherwise"
    assert decide("!hub.docker.com", "hub.docker.com/x") == Leave()


DEFAULT_EXAMPLES = {
    "docker.io": "nginx",
    "gcr.io": "gcr.io/google-samples/hello-app:1.0",
    "*.gcr.io": "eu.gcr.io/x/y",
    "k8s.gcr.io": "k8s.gcr.io/pause:3.2",
    "registry.k8s.io": "registry.k8s.io/pause:3.9",
    "quay.io": "quay.io/prometheus/busybox",
    "ghcr.io": "ghcr.io/a/b",
    "*.pkg.dev": "us-docker.pkg.dev/a/b/c",
    "nvcr.io": "nvcr.io/nvidia/cuda:12",
    "public.ecr.aws": "public.ecr.aws/docker/library/nginx",
    "docker.elastic.co": "docker.elastic.co/elasticsearch/elasticsearch:8.15.0",
    "registry.gitlab.com": "registry.gitlab.com/a/b",
    "lscr.io": "lscr.io/linuxserver/x",
    "xpkg.upbound.io": "xpkg.upbound.io/a/b",
    "registry.istio.io": "registry.istio.io/release/pilot:1.30.3",
    "*.docker.scarf.sh": "hyperdxio.docker.scarf.sh/a/b",
    "registry.access.redhat.com": "registry.access.redhat.com/ubi9/ubi:9.4",
    "registry.datadoghq.com": "registry.datadoghq.com/agent:7",
    "xpkg.crossplane.io": "xpkg.crossplane.io/crossplane/crossplane:v1.20.0",
    "cgr.dev": "cgr.dev/chainguard/nginx",
    "cr.l5d.io": "cr.l5d.io/linkerd/proxy:stable-2.14.1",
    "dhi.io": "dhi.io/nginx:1.28-debian12",
    "cr.fluentbit.io": "cr.fluentbit.io/fluent/fluent-bit:3.0",
    "oci.external-secrets.io": "oci.external-secrets.io/external-secrets/external-secrets:v0.14.0",
    "docker.n8n.io": "docker.n8n.io/n8nio/n8n:1.0",
    "cr.kgateway.dev": "cr.kgateway.dev/kgateway-dev/kgateway:v2.0.0",
    "ecr-public.aws.com": "ecr-public.aws.com/docker/library/nginx:1.27",
    "mcr.microsoft.com": "mcr.microsoft.com/dotnet/runtime:8.0",
}


def test_each_default_rule_has_an_image_that_it_decides() -> None:
    assert set(DEFAULT_EXAMPLES) == set(DEFAULT_RULES.split())
    for rule, image in DEFAULT_EXAMPLES.items():
        assert deciding(DEFAULT_RULES, image) == rule
        assert isinstance(MIRROR.decide(image)[0], Copy)


@pytest.mark.parametrize(
    "image",
    [
        "mcr.azure.cn/x",
        "docker.scarf.sh/x",
        "registry.redhat.io/x",
        "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/pause",
        "961992271922.dkr.ecr.cn-northwest-1.amazonaws.com.cn/eks/pause",
        "registry.cn-hangzhou.aliyuncs.com/x/y",
        "registry.corp.example:5000/x",
        f"{REGISTRY}/x",
    ],
)
def test_the_default_rules_leave_what_china_reaches_and_what_a_build_cannot_read(image: str) -> None:
    assert MIRROR.decide(image) == (Leave(), None)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param("auto", id="istio"),
        pytest.param("__X__", id="upper-case-between-underscores"),
        pytest.param("__image__", id="lower-case-between-underscores"),
        pytest.param("", id="empty"),
        pytest.param("$(IMAGE)", id="variable"),
    ],
)
def test_a_placeholder_passes_through_with_a_warning(image: str) -> None:
    decision = MIRROR.decide(image)[0]
    assert isinstance(decision, Leave)
    assert decision.warning is not None
    assert decision.warning.startswith((image or "''") + " stays as written: ")


HOSTS = ["a.io", "b.a.io", "c.b.a.io", "docker.io", "b.io:80", "index.docker.io", "A.io", REGISTRY]
HOSTS += ["registry-1.docker.io", "registry.hub.docker.com"]
PATHS = ["", "/x", "/x/y", "/library", "/library/x", "/mirror/a.io"]
places = st.builds(str.__add__, st.sampled_from(HOSTS), st.sampled_from(PATHS))
prefixes = st.builds(str.__add__, st.sampled_from(["", "", "*."]), places)
entries = st.one_of(prefixes, prefixes.map("!{}".format), st.builds("{}={}".format, prefixes, places))
images = st.builds(
    "{}/{}{}".format,
    st.sampled_from([*HOSTS, "d.c.b.a.io", "io", "xa.io"]),
    st.lists(st.sampled_from(["x", "y", "library", "mirror", "a.io"]), min_size=1, max_size=4).map("/".join),
    st.sampled_from(["", ":1", f"@{DIGEST}", f":1@{DIGEST}", f"@sha512:{HEX}{HEX}", f":sha256-{HEX}"]),
)


@st.composite
def rule_sets(draw: st.DrawFn) -> list[str]:
    """Draw entries one by one and use those that do not contradict the ones before."""
    kept: list[str] = []
    for entry in draw(st.lists(entries, max_size=8)):
        try:
            parse_rules(" ".join([*kept, entry]))
        except RuleError:
            continue
        kept.append(entry)
    return kept


# A path that is rewritten to one segment of Docker Hub is below library/, where the target's own rule does not match.
@example(["a.io/x=docker.io/x", "docker.io"], "a.io/x:1")
@example(["a.io/x=docker.io/y", "docker.io/library=b.io:80"], "a.io/x:1")
@steady
@given(rule_sets(), images)
def test_a_decision_about_a_rewritten_image_changes_nothing(rules: list[str], image: str) -> None:
    mirror = Mirror(REGISTRY, "mirror", parse_rules(" ".join(rules)))
    first = image_after(mirror.decide(image)[0], image)
    assert image_after(mirror.decide(first)[0], first) == first


@steady
@given(rule_sets(), st.lists(images, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_entries_never_matters(rules: list[str], named: list[str], shuffler: Random) -> None:
    shuffled = list(rules)
    shuffler.shuffle(shuffled)
    for image in named:
        assert deciding(" ".join(shuffled), image) == deciding(",".join(rules), image)


def test_the_order_of_three_entries_never_matters() -> None:
    for rules in permutations(["*.gcr.io", "!eu.gcr.io/mine", "eu.gcr.io=b.io"]):
        assert deciding(" ".join(rules), "eu.gcr.io/mine/x") == "!eu.gcr.io/mine"
        assert deciding(" ".join(rules), "eu.gcr.io/x") == "eu.gcr.io=b.io"
        assert deciding(" ".join(rules), "us.gcr.io/x") == "*.gcr.io"


def best_match(rules: list[str], image: str) -> str | None:
    """Find the deciding prefix by comparing texts: exact host first, then most labels, then longest path."""
    reference = parse_reference(image)
    host, path = reference.registry.lower(), f"/{reference.repository}/"
    found = []
    # The target of a rewrite rule counts as an entry that leaves images unchanged.
    for prefix in [place for rule in rules for place in rule.lstrip("!").split("=")]:
        pattern, _, below = prefix.partition("/")
        hub = r"^(\*\.)?(index\.docker\.io|registry-1\.docker\.io|registry\.hub\.docker\.com)$"
        pattern = re.sub(hub, r"\1docker.io", pattern.lower())
        wildcard = pattern.startswith("*.")
        matches = host.endswith(pattern[1:]) if wildcard else host == pattern
        if matches and path.startswith(f"/{below}/" if below else "/"):
            found.append((not wildcard, len(pattern), len(below), f"{pattern}/{below}".rstrip("/")))
    return max(found)[3] if found else None


@steady
@given(rule_sets(), images)
def test_the_rule_that_decides_is_the_longest_that_matches(rules: list[str], image: str) -> None:
    rule = parse_rules(" ".join(rules)).match(parse_reference(image))
    assert (None if rule is None else str(rule.prefix)) == best_match(rules, image)


@steady
@given(st.text(alphabet="a.b/*!=:[]-_@ ,\n\0A1é", max_size=20) | st.text(max_size=20))
def test_no_text_raises_anything_but_the_one_error(text: str) -> None:
    try:
        rules = parse_rules(text)
    except RuleError:
        return
    assert str(parse_rules(" ".join(map(str, rules.entries))).entries) == str(rules.entries)
