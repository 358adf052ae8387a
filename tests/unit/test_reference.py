"""Image references against their grammar, an independent parser, and the rules of ECR for the names of copies."""

import re
import string

import pytest
from docker_image.digest import InvalidDigest
from docker_image.reference import InvalidReference, Reference
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from image_mirror.reference import (
    DOCKER_HUB_HOSTS,
    PREFIX,
    ImageReference,
    InvalidReferenceError,
    NoDestinationError,
    destination_named,
    destination_of,
    no_longer_copied,
    parse_reference,
    path_below_prefix,
    paths_of_copies,
    source_of,
)
from support.reviews_data import DIGEST, HEX, REGISTRY

SHA384 = "sha384:" + "ab" * 48
SHA512 = "sha512:" + "01" * 64
# CreateRepository's pattern from ECR's documentation, and its text: 2 to 256 characters, the first a letter.
ECR_SEGMENT = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
ECR_NAME = re.compile(rf"(?=[a-z])(?=.{{2,256}}\Z){ECR_SEGMENT}(/{ECR_SEGMENT})*")
ECR_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,299}")

steady = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        pytest.param("nginx", "docker.io", "library/nginx", "latest", None, id="familiar"),
        pytest.param("nginx:1.27", "docker.io", "library/nginx", "1.27", None, id="familiar-with-tag"),
        pytest.param("prom/node", "docker.io", "prom/node", "latest", None, id="user-of-docker-hub"),
        pytest.param("a/b/c/d", "docker.io", "a/b/c/d", "latest", None, id="deep-path-of-docker-hub"),
        pytest.param("gcr.io/x", "gcr.io", "x", "latest", None, id="one-segment-below-another-registry"),
        pytest.param("gcr.io/library/x", "gcr.io", "library/x", "latest", None, id="library-elsewhere"),
        pytest.param("localhost/x", "localhost", "x", "latest", None, id="localhost"),
        pytest.param("localhost", "docker.io", "library/localhost", "latest", None, id="localhost-alone-is-an-image"),
        pytest.param(
            "localhost:5000", "docker.io", "library/localhost", "5000", None, id="colon-without-slash-is-a-tag"
        ),
        pytest.param("localhost:5000/x", "localhost:5000", "x", "latest", None, id="localhost-with-port"),
        pytest.param("reg:5000/x:5000", "reg:5000", "x", "5000", None, id="port-and-tag"),
        pytest.param("10.0.0.1/x", "10.0.0.1", "x", "latest", None, id="ipv4"),
        pytest.param("10.0.0.1:80/x:1", "10.0.0.1:80", "x", "1", None, id="ipv4-with-port"),
        pytest.param("[fd00::1]/x", "[fd00::1]", "x", "latest", None, id="ipv6"),
        pytest.param("[FD00::1]:80/x:1", "[FD00::1]:80", "x", "1", None, id="ipv6-with-port"),
        pytest.param("GCR.io/x", "GCR.io", "x", "latest", None, id="upper-case-host"),
        pytest.param("HOST/x", "HOST", "x", "latest", None, id="upper-case-makes-a-host"),
        pytest.param(f"x@{DIGEST}", "docker.io", "library/x", None, DIGEST, id="sha256"),
        pytest.param(f"x@{SHA384}", "docker.io", "library/x", None, SHA384, id="sha384"),
        pytest.param(f"x@{SHA512}", "docker.io", "library/x", None, SHA512, id="sha512"),
        pytest.param(f"gcr.io/x:1@{DIGEST}", "gcr.io", "x", "1", DIGEST, id="tag-and-digest"),
        pytest.param(f"reg:5000/x@{DIGEST}", "reg:5000", "x", None, DIGEST, id="port-and-digest"),
        pytest.param("a.b/c__d/e--f/g.h/i_j", "a.b", "c__d/e--f/g.h/i_j", "latest", None, id="each-separator"),
        pytest.param("x:_A.b-c", "docker.io", "library/x", "_A.b-c", None, id="each-character-of-a-tag"),
        pytest.param("x:" + "t" * 128, "docker.io", "library/x", "t" * 128, None, id="longest-tag"),
        pytest.param("a.b/" + "r" * 255, "a.b", "r" * 255, "latest", None, id="longest-repository"),
        pytest.param("x" + HEX, "docker.io", "library/x" + HEX, "latest", None, id="65-characters-are-no-identifier"),
        pytest.param(HEX[1:], "docker.io", "library/" + HEX[1:], "latest", None, id="63-digits-are-no-identifier"),
        pytest.param(HEX + ":1", "docker.io", "library/" + HEX, "1", None, id="64-digits-with-a-tag"),
        pytest.param("a.b/" + HEX, "a.b", HEX, "latest", None, id="64-digits-below-a-registry"),
        pytest.param("xn--fsq.com/x", "xn--fsq.com", "x", "latest", None, id="punycode"),
    ],
)
def test_a_reference_is_read_with_its_defaults(
    text: str, registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    assert parse_reference(text) == ImageReference(registry, repository, tag, digest)


@pytest.mark.parametrize(
    ("spellings", "canonical"),
    [
        pytest.param(
            (
                "nginx",
                "nginx:latest",
                "library/nginx",
                "docker.io/nginx",
                "docker.io/library/nginx",
                "index.docker.io/nginx",
                "index.docker.io/library/nginx:latest",
                "registry-1.docker.io/nginx",
                "registry-1.docker.io/library/nginx",
                "registry.hub.docker.com/nginx:latest",
                "registry.hub.docker.com/library/nginx",
            ),
            "docker.io/library/nginx:latest",
            id="official",
        ),
        pytest.param(
            (
                "a/b:1",
                "docker.io/a/b:1",
                "index.docker.io/a/b:1",
                "registry-1.docker.io/a/b:1",
                "registry.hub.docker.com/a/b:1",
            ),
            "docker.io/a/b:1",
            id="user-of-docker-hub",
        ),
        pytest.param(("hub.docker.com/a/b:1",), "hub.docker.com/a/b:1", id="its-web-site-is-another-host"),
        pytest.param(("registry-1.docker.io:443/a",), "registry-1.docker.io:443/a:latest", id="with-a-port"),
        pytest.param(("gcr.io/x", "gcr.io/x:latest"), "gcr.io/x:latest", id="other-registry"),
        pytest.param(
            (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}"),
            f"docker.io/library/x@{DIGEST}",
            id="a-digest-needs-no-tag",
        ),
        pytest.param((f"x:1@{DIGEST}",), f"docker.io/library/x:1@{DIGEST}", id="tag-and-digest"),
    ],
)
def test_all_spellings_of_one_image_print_the_same(spellings: tuple[str, ...], canonical: str) -> None:
    assert {str(parse_reference(spelling)) for spelling in spellings} == {canonical}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param(" ", "repository", id="blank"),
        pytest.param(" nginx", "repository", id="leading-space"),
        pytest.param("nginx\n", "repository", id="trailing-newline"),
        pytest.param("nginx:1\n", "tag", id="newline-after-the-tag"),
        pytest.param(f"nginx@{DIGEST}\n", "digest", id="newline-after-the-digest"),
        pytest.param("nginx\0", "repository", id="control-character"),
        pytest.param("Nginx", "upper case", id="upper-case"),
        pytest.param("gcr.io/Nginx", "upper case", id="upper-case-path"),
        pytest.param("__X__", "upper case", id="placeholder"),
        pytest.param("{{ .Values.image }}", "it is a variable that nobody filled in", id="variable-of-helm"),
        pytest.param("gcr.io/{{name}}:1", "{{name}} is a variable that nobody filled in", id="variable-of-argo"),
        pytest.param("x:{{ a", "{{ a is a variable", id="variable-without-its-end"),
        pytest.param("$IMAGE", "it is a variable that nobody filled in", id="variable-of-a-shell"),
        pytest.param("x:${TAG:-1}", "${TAG:-1} is a variable that nobody filled in", id="variable-with-a-default"),
        pytest.param("${A}/${B}", "${A} is a variable that nobody filled in", id="two-variables"),
        pytest.param("$(params.image)", "it is a variable that nobody filled in", id="variable-of-tekton"),
        pytest.param("gcr.io/x:<version>", "<version> is a variable that nobody filled in", id="variable-of-a-guide"),
        pytest.param("gcr.io/x:$", "tag", id="dollar-alone"),
        pytest.param("a<b", "repository", id="less-than-alone"),
        pytest.param("https://gcr.io/x", "registry", id="scheme"),
        pytest.param("nginx:", "tag", id="empty-tag"),
        pytest.param("nginx:-1", "tag", id="tag-led-by-a-hyphen"),
        pytest.param("nginx:.1", "tag", id="tag-led-by-a-dot"),
        pytest.param("nginx:a+b", "tag", id="plus-in-a-tag"),
        pytest.param("nginx:1:2", "repository", id="two-tags"),
        pytest.param("nginx:" + "t" * 129, "tag", id="tag-too-long"),
        pytest.param("nginx:１", "tag", id="tag-with-a-wide-digit"),
        pytest.param("nginx@", "digest", id="empty-digest"),
        pytest.param("nginx@sha256", "digest", id="algorithm-alone"),
        pytest.param(f"nginx@sha256:{HEX[1:]}", "digest", id="digest-too-short"),
        pytest.param(f"nginx@sha256:{HEX}0", "digest", id="digest-too-long"),
        pytest.param(f"nginx@sha256:{HEX.upper()}", "digest", id="digest-in-upper-case"),
        pytest.param(f"nginx@sha512:{HEX}", "digest", id="digest-of-another-algorithm"),
        pytest.param(f"nginx@md5:{HEX[:32]}", "digest", id="unknown-algorithm"),
        pytest.param(f"nginx@{DIGEST}@{DIGEST}", "digest", id="two-digests"),
        pytest.param(f"nginx@{DIGEST}:1", "digest", id="tag-after-the-digest"),
        pytest.param(f"@{DIGEST}", "repository", id="digest-alone"),
        pytest.param(":1", "repository", id="tag-alone"),
        pytest.param(HEX, "image ID", id="identifier"),
        pytest.param("/nginx", "repository", id="leading-slash"),
        pytest.param("nginx/", "repository", id="trailing-slash"),
        pytest.param("a//b", "repository", id="empty-segment"),
        pytest.param("a..b/c", "registry", id="empty-label"),
        pytest.param("-a.b/c", "registry", id="host-led-by-a-hyphen"),
        pytest.param("a.b-/c", "registry", id="host-ending-in-a-hyphen"),
        pytest.param("a_b.c/d", "registry", id="underscore-in-a-host"),
        pytest.param("a.b:/c", "registry", id="empty-port"),
        pytest.param("a.b:http/c", "registry", id="port-by-name"),
        pytest.param("a:1:2/c", "registry", id="two-ports"),
        pytest.param("fd00::1/x", "registry", id="ipv6-without-brackets"),
        pytest.param("[fd00::1%eth0]:80/x", "registry", id="ipv6-zone"),
        pytest.param("[::ffff:10.0.0.1]/x", "registry", id="ipv6-with-an-ipv4-tail"),
        pytest.param("user@host.io/x", "digest", id="user-information"),
        pytest.param("a.b/c___d", "repository", id="three-underscores"),
        pytest.param("a.b/c..d", "repository", id="two-dots"),
        pytest.param("a.b/-c", "repository", id="segment-led-by-a-hyphen"),
        pytest.param("a.b/c-", "repository", id="segment-ending-in-a-hyphen"),
        pytest.param("é", "repository", id="accent"),
        pytest.param("É/x", "registry", id="accent-in-upper-case"),
        pytest.param("\ud800", "repository", id="lone-surrogate"),
        pytest.param("a.b/" + "r" * 256, "255", id="repository-too-long"),
        pytest.param("a." * 600 + "b/c", "1024", id="far-too-long"),
    ],
)
def test_what_is_no_reference_is_an_error_that_names_its_cause(text: str, cause: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert cause in caught.value.cause
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1400


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        pytest.param(f"a.b/c:1@{DIGEST}", f"a.b/c@{DIGEST}", id="tag-and-digest"),
        pytest.param(f"a.b/c@{DIGEST}", f"a.b/c@{DIGEST}", id="digest"),
        pytest.param("a.b/c:1", "a.b/c:1", id="tag"),
    ],
)
def test_a_digest_makes_the_tag_meaningless(text: str, pinned: str) -> None:
    assert str(parse_reference(text).pinned) == pinned


hosts = st.sampled_from(
    [
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "registry.hub.docker.com",
        "gcr.io",
        "a.b",
        "a.b:5",
        "a.b:55",
        "a.b-5",
        "a-b",
        "localhost",
        "localhost:5",
        "10.0.0.1",
        "10.0.0.1:80",
        "[::1]",
        "[FD::1]:5",
        "A.b",
        "HOST",
        "host:5000",
        "xn--fsq.com",
        "a.b--c",
    ]
)
label = r"[a-z0-9]([a-z0-9-]?[a-z0-9])?"
segments = st.sampled_from(["a", "b", "5", "a.b", "a_5", "a.b_5", "a__b", "a-b", "a--b", "library", "docker.io"])
repositories = st.lists(segments, min_size=1, max_size=4).map("/".join)
tags = st.sampled_from(
    ["latest", "1", "5", "_x", "A.b-c", f"sha256-{HEX}", f"digest-sha256-{HEX}", f"sha256-{HEX}.sig"]
)
digests = st.sampled_from([DIGEST, "sha256:" + "0" * 64, SHA384, SHA512])


@st.composite
def well_formed(draw: st.DrawFn) -> str:
    """Draw a legal reference in one of its spellings; a first segment that looks like a host needs a host before it."""
    host = draw(st.none() | hosts | st.from_regex(rf"\A{label}(\.{label}){{1,2}}(:[0-9]{{1,4}})?\Z"))
    repository = draw(repositories | st.from_regex(r"\A[a-z0-9]{1,3}((\.|_|__|-{1,3})[a-z0-9]{1,2}){0,3}\Z"))
    tag, digest = draw(st.none() | tags), draw(st.none() | digests)
    if host is None and "/" in repository and "." in repository.split("/")[0]:
        host = "docker.io"
    name = f"{host}/{repository}" if host else repository
    return name + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


@st.composite
def nearly_well_formed(draw: st.DrawFn) -> str:
    """Draw a legal reference with a few changed characters."""
    text = draw(well_formed())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from([*"aZ0._-/:@[]%+ é", "", "//", "__", "sha256:"])) + text[at + 1 :]
    return text


# No newline: the other parser's "$" accepts one at the end of a text, and Go's does not.
any_text = st.text(alphabet=string.ascii_letters + string.digits + "._-/:@[]%+ éÉ１", max_size=30)


@example("a/b:c/d")
@example("a.b:c/d:1")
@example("A/b")
@example("a/B@sha256:0")
@example(HEX)
@example(HEX + "/a")
@steady
@given(well_formed() | nearly_well_formed() | any_text)
def test_an_independent_parser_reads_the_same(text: str) -> None:
    """The other parser is a port of distribution/reference, with three intended differences: it leaves the default tag
    to its caller, has no limit for the whole text (our limit is far above any legal text, and these are far below), and
    knows one other host name of Docker Hub."""
    host, slash, rest = text.partition("/")
    known_to_both = f"index.docker.io/{rest}" if slash and host in DOCKER_HUB_HOSTS else text
    try:
        other = Reference.parse_normalized_named(known_to_both)
        expected = ImageReference(other.domain(), other.path(), other["tag"], other["digest"])
    except (InvalidReference, InvalidDigest):
        with pytest.raises(InvalidReferenceError):
            parse_reference(text)
        return
    read = parse_reference(text)
    if expected.tag is None and expected.digest is None:
        assert read.tag == "latest"
    assert (read.registry, read.repository, read.digest) == (expected.registry, expected.repository, expected.digest)
    assert read.tag == (expected.tag or (None if expected.digest else "latest"))


@steady
@given(well_formed())
def test_a_printed_reference_is_read_back_unchanged(text: str) -> None:
    reference = parse_reference(text)
    assert parse_reference(str(reference)) == reference
    assert parse_reference(str(reference.pinned)) == reference.pinned


@steady
@given(st.text(max_size=40) | any_text)
def test_no_text_raises_anything_but_the_one_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError:
        return
    assert reference.tag or reference.digest


def test_a_hostile_text_costs_no_more_than_a_long_one() -> None:
    for hostile in ("a" * 10_000_000, "a-" * 512, "a." * 511 + "/", "-" * 1024, "a" + "-" * 1022 + "/"):
        with pytest.raises(InvalidReferenceError):
            parse_reference(hostile)


@pytest.mark.parametrize(
    ("source", "repository", "tag", "printed"),
    [
        pytest.param(
            "gcr.io/google-samples/hello-app:1.0",
            "mirror/gcr.io/google-samples/hello-app",
            "1.0",
            f"{REGISTRY}/mirror/gcr.io/google-samples/hello-app:1.0",
            id="tag",
        ),
        pytest.param(
            "nginx",
            "mirror/docker.io/library/nginx",
            "latest",
            f"{REGISTRY}/mirror/docker.io/library/nginx:latest",
            id="familiar",
        ),
        pytest.param(
            f"gcr.io/x@{DIGEST}",
            "mirror/gcr.io/x",
            f"digest-sha256-{HEX}",
            f"{REGISTRY}/mirror/gcr.io/x@{DIGEST}",
            id="digest",
        ),
        pytest.param(
            f"gcr.io/x:1@{DIGEST}",
            "mirror/gcr.io/x",
            f"digest-sha256-{HEX}",
            f"{REGISTRY}/mirror/gcr.io/x@{DIGEST}",
            id="the-tag-is-dropped-beside-a-digest",
        ),
        pytest.param(
            "localhost:5000/x:1",
            "mirror/localhost_5000/x",
            "1",
            f"{REGISTRY}/mirror/localhost_5000/x:1",
            id="port",
        ),
    ],
)
def test_a_copy_lies_below_the_prefix_under_the_host_and_path_of_its_source(
    source: str, repository: str, tag: str, printed: str
) -> None:
    destination = destination_of(parse_reference(source), REGISTRY, "mirror")
    assert (destination.registry, destination.repository, destination.tag, str(destination)) == (
        REGISTRY,
        repository,
        tag,
        printed,
    )
    assert destination.repo == f"{REGISTRY}/{repository}"
    assert destination.by_tag == f"{REGISTRY}/{repository}:{tag}"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        pytest.param("GCR.io/x", "upper case", id="upper-case-host"),
        pytest.param("[::1]:5000/x", "IPv6", id="ipv6"),
        pytest.param("gcr.io/" + "x" * 240, "characters", id="too-long"),
        pytest.param("a." * 110 + "io/x", "characters", id="host-too-long"),
        pytest.param(f"gcr.io/x@{SHA384}", "sha256", id="sha384"),
        pytest.param(f"gcr.io/x@{SHA512}", "sha256", id="sha512"),
        pytest.param(f"gcr.io/x:sha256-{HEX}", "reserved", id="referrers-fallback-tag"),
        pytest.param(f"gcr.io/x:digest-sha256-{HEX}", "reserved", id="tag-of-a-copy-by-digest"),
        pytest.param("gcr.io/x:digest-sha256-1.0", "reserved", id="tag-that-begins-as-one-of-a-copy-by-digest"),
        pytest.param("gcr.io/x:digest-sha256-", "reserved", id="that-beginning-alone"),
    ],
)
def test_an_image_without_a_legal_name_in_ecr_has_its_own_error_with_the_cause(source: str, cause: str) -> None:
    with pytest.raises(NoDestinationError) as caught:
        destination_of(parse_reference(source), REGISTRY, "mirror")
    assert cause in caught.value.cause


@pytest.mark.parametrize("prefix", ["mirror", "m", "team-a/mirror"])
def test_the_longest_name_that_every_runtime_accepts_is_allowed(prefix: str) -> None:
    room = 255 - len(f"{REGISTRY}/{prefix}/gcr.io/")
    destination = destination_of(parse_reference("gcr.io/" + "x" * room), REGISTRY, prefix)
    assert len(destination.repo) == 255
    with pytest.raises(NoDestinationError):
        destination_of(parse_reference("gcr.io/" + "x" * (room + 1)), REGISTRY, prefix)


@pytest.mark.parametrize(
    "tag", [f"sha256-{HEX}.sig", "sha256-1", "digest-sha256", "x-digest-sha256-1", "Digest-sha256-1"]
)
def test_a_tag_that_only_resembles_a_reserved_one_is_copied(tag: str) -> None:
    assert destination_of(parse_reference(f"gcr.io/x:{tag}"), REGISTRY, "mirror").tag == tag


@pytest.mark.parametrize(
    ("source", "paths"),
    [
        pytest.param("gcr.io/x:1", {"gcr.io/x"}, id="one-name"),
        pytest.param(
            "nginx",
            {
                "docker.io/library/nginx",
                *("index.docker.io/library/nginx", "index.docker.io/nginx"),
                *("registry-1.docker.io/library/nginx", "registry-1.docker.io/nginx"),
                *("registry.hub.docker.com/library/nginx", "registry.hub.docker.com/nginx"),
            },
            id="official-image",
        ),
        pytest.param(
            "library/a/b",
            {
                *("docker.io/library/a/b", "index.docker.io/library/a/b"),
                *("registry-1.docker.io/library/a/b", "registry.hub.docker.com/library/a/b"),
            },
            id="below-library",
        ),
    ],
)
def test_a_copy_has_one_path_and_those_of_earlier_releases(source: str, paths: set[str]) -> None:
    found = paths_of_copies(parse_reference(source))
    assert found[-1] == path_below_prefix(parse_reference(source))
    assert set(found) == paths
    assert len(found) == len(paths)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("gcr.io/x:1", None, id="tag"),
        pytest.param(f"gcr.io/x@{DIGEST}", None, id="digest"),
        pytest.param("docker.io/library/x:1", None, id="docker-hub"),
        pytest.param("", None, id="unknown"),
        pytest.param("no image", None, id="no-reference"),
        pytest.param("registry-1.docker.io/x:1", "docker.io/library/x:1 now", id="registry-1"),
        pytest.param(f"registry.hub.docker.com/a/b@{DIGEST}", f"docker.io/a/b@{DIGEST} now", id="by-digest"),
        pytest.param("gcr.io/x:digest-sha256-1", "reserved", id="reserved-tag"),
        pytest.param(f"gcr.io/x:digest-sha256-1@{DIGEST}", None, id="reserved-tag-beside-a-digest"),
    ],
)
def test_a_source_that_an_earlier_release_named_otherwise_has_a_reason(source: str, reason: str | None) -> None:
    found = no_longer_copied(source)
    assert (found is None) if reason is None else (reason in (found or ""))


prefixes = st.sampled_from(["mirror", "m", "team-a/mirror", "mirror/gcr.io", "a__b/c.d"])


@steady
@given(well_formed(), prefixes)
def test_the_source_of_a_copy_can_be_read_from_its_name(text: str, prefix: str) -> None:
    source = parse_reference(text)
    try:
        destination = destination_of(source, REGISTRY, prefix)
    except NoDestinationError:
        assume(False)
    assert source_of(destination.repo, destination.tag, REGISTRY, prefix) == str(source.pinned)


@steady
@given(well_formed(), prefixes)
def test_each_name_that_a_pod_can_have_for_a_copy_leads_to_its_record(text: str, prefix: str) -> None:
    try:
        destination = destination_of(parse_reference(text), REGISTRY, prefix)
    except NoDestinationError:
        assume(False)
    nudged = f"{destination.by_tag}@{destination.digest or DIGEST}"
    for name in (text, str(destination), destination.by_tag, nudged):
        found = destination_named(parse_reference(name), REGISTRY, prefix)
        assert (found.repo, found.tag) == (destination.repo, destination.tag)


@pytest.mark.parametrize(
    ("repo", "tag"),
    [
        pytest.param(f"{REGISTRY}/mirror/gcr.io", "1", id="no path"),
        pytest.param(f"{REGISTRY}/mirror/app", "1", id="no host"),
        pytest.param(f"{REGISTRY}/mirror/team/app", "1", id="a first segment that is no host"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/App", "1", id="upper case"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io_x/app", "1", id="a port that is no number"),
        pytest.param(f"{REGISTRY}/mirror/a_b_5/app", "1", id="two ports"),
        pytest.param(f"{REGISTRY}/other/gcr.io/app", "1", id="another prefix"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/{'x' * 255}", "1", id="too long"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/app", "-1", id="no tag"),
        pytest.param(f"{REGISTRY}/mirror/gcr.io/app", "1" * 129, id="a tag that is too long"),
    ],
)
def test_a_name_that_no_source_has_is_told_from_a_copy_s(repo: str, tag: str) -> None:
    assert source_of(repo, tag, REGISTRY, "mirror") is None


@pytest.mark.parametrize(
    ("copy", "tag", "source"),
    [
        pytest.param("registry-1.docker.io/app", "1", "registry-1.docker.io/app:1", id="a host of Docker Hub"),
        pytest.param("gcr.io/app", "digest-sha256-1", "gcr.io/app:digest-sha256-1", id="a tag that is reserved now"),
        pytest.param("localhost_5000/app", "1", "localhost:5000/app:1", id="a port"),
    ],
)
def test_the_source_of_a_copy_that_an_earlier_release_made_is_what_that_release_recorded(
    copy: str, tag: str, source: str
) -> None:
    assert source_of(f"{REGISTRY}/mirror/{copy}", tag, REGISTRY, "mirror") == source


# Few parts, chosen so that a faulty naming would give two sources the same name.
neighbours = st.builds(
    ImageReference,
    st.sampled_from(["docker.io", "a.b", "a.b:5", "a.b-5", "a.b.5", "localhost", "localhost:5", "library"]),
    st.lists(st.sampled_from(["5", "a", "a_5", "a.b_5", "library"]), min_size=1, max_size=3).map("/".join),
    st.sampled_from(["latest", HEX, f"sha256-{HEX}", f"digest-sha256-{HEX}", "digest-sha256-1"]),
    st.none() | st.just(DIGEST),
).map(lambda reference: reference.pinned)


@steady
@given(neighbours, neighbours, prefixes)
def test_two_sources_never_share_a_destination(one: ImageReference, other: ImageReference, prefix: str) -> None:
    assume(one != other)
    try:
        destinations = destination_of(one, REGISTRY, prefix), destination_of(other, REGISTRY, prefix)
    except NoDestinationError:
        assume(False)
    assert (destinations[0].repo, destinations[0].tag) != (destinations[1].repo, destinations[1].tag)
    assert str(destinations[0]) != str(destinations[1])


@steady
@given(well_formed(), prefixes)
def test_a_destination_is_a_legal_name_in_ecr_that_is_read_back_unchanged(text: str, prefix: str) -> None:
    assert PREFIX.fullmatch(prefix)
    try:
        destination = destination_of(parse_reference(text), REGISTRY, prefix)
    except NoDestinationError:
        return
    assert ECR_NAME.fullmatch(destination.repository)
    assert ECR_TAG.fullmatch(destination.tag)
    read = parse_reference(str(destination))
    assert (read.registry, read.repository, read.digest) == (REGISTRY, destination.repository, destination.digest)
    assert read.tag == (None if destination.digest else destination.tag)
    pushed = parse_reference(destination.by_tag)
    assert (pushed.registry, pushed.repository, pushed.tag, pushed.digest) == (
        REGISTRY,
        destination.repository,
        destination.tag,
        None,
    )


@pytest.mark.parametrize(
    "prefix", ["", "Mirror", "1mirror", "-m", "m/", "/m", "m//n", "m_", "m___n", "m:n", "m\n", "m/{x}"]
)
def test_a_prefix_that_makes_every_name_illegal_has_its_own_error(prefix: str) -> None:
    assert not PREFIX.fullmatch(prefix)
