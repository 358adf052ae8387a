"""What the build makes of crane's errors: each line here was printed by crane 0.21.9, with other names and hosts.

The cost is asserted first: what the reconciler makes of the result. Then the result itself.
"""

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.build_result import EXIT_CODES, read_build
from image_mirror.record import BuildResult
from support.copy_program import PROGRAM

HOST, TARGET, CDN = "reg.example", "1.dkr.ecr.cn-north-1.amazonaws.com.cn", "cdn.example"
DIGEST, CHILD = "sha256:" + "a" * 64, "sha256:" + "b" * 64
MANIFEST = f"GET https://{HOST}/v2/team/app/manifests/1: "
INDEX_CHILD = f"GET https://{HOST}/v2/team/app/manifests/{CHILD}: "
FETCHING = f'fetching "{HOST}/team/app@{DIGEST}": {MANIFEST}'
BLOB = f"GET https://{HOST}/v2/team/app/blobs/{CHILD}: "
TOKEN = "GET https://auth.example/token?scope=repository%3Ateam%2Fapp%3Apull&service=x: "
PUT_MANIFEST = f"PUT https://{TARGET}/v2/mirror/{HOST}/team/app/manifests/1: "
PUT_INDEX = f"pushing {HOST}: PUT https://{TARGET}/v2/mirror/{HOST}/team/app/manifests/{DIGEST}: "
UPLOAD = f"POST https://{TARGET}/v2/mirror/{HOST}/team/app/blobs/uploads/: "
PATCH = f'Patch "https://{TARGET}/v2/mirror/x/blobs/uploads/1?_state=abc": readfrom tcp 10.0.0.1:1->52.82.0.1:443: '
HEAD_TARGET = f"HEAD https://{TARGET}/v2/mirror/x/manifests/1: unexpected status code "
NO_BODY = " (HEAD responses have no body, use GET for details)"
ATTEMPT, WAIT, END = BuildResult.REFUSED, BuildResult.DELAYED, BuildResult.ENDED


def both(first: str, second: str) -> Any:
    """Return the same message about an index and about a single image."""
    return first, second


# fmt: off
CASES: list[tuple[str, BuildResult, str, str]] = [
    # The source's verdicts.
    *[("no such tag", ATTEMPT, "NOT_FOUND", f"{start}MANIFEST_UNKNOWN: manifest unknown; map[Tag:1]") for start in both(MANIFEST, FETCHING)],
    ("a platform that is gone", ATTEMPT, "NOT_FOUND", INDEX_CHILD + "MANIFEST_UNKNOWN: manifest unknown; map[]"),
    ("no such repository", ATTEMPT, "NOT_FOUND", MANIFEST + "NAME_UNKNOWN: repository name not known to registry"),
    ("a name that the source refuses", ATTEMPT, "NOT_FOUND", MANIFEST + "NAME_INVALID: x"),
    ("a page that says 404", ATTEMPT, "NOT_FOUND", MANIFEST + "unexpected status code 404 Not Found: <!DOCTYPE html>\n<p>"),
    ("gone", ATTEMPT, "NOT_FOUND", MANIFEST + "unexpected status code 410 Gone: gone"),
    ("no such layer", ATTEMPT, "NOT_FOUND", BLOB + "BLOB_UNKNOWN: b"),
    ("no such host", ATTEMPT, "NOT_FOUND", f'Get "https://{HOST}/v2/": dial tcp: lookup {HOST} on 10.0.0.2:53: no such host'),
    ("a certificate for another name", ATTEMPT, "NOT_FOUND", f'Get "https://{HOST}/v2/": tls: failed to verify certificate: x509: certificate is valid for a.b, not {HOST}'),
    ("denied", ATTEMPT, "DENIED", MANIFEST + "DENIED: requested access to the resource is denied"),
    ("unauthorized", ATTEMPT, "DENIED", MANIFEST + "UNAUTHORIZED: authentication required; [map[Action:pull]]"),
    ("both, as at Docker Hub", ATTEMPT, "DENIED", MANIFEST + "multiple errors returned: DENIED: x; UNAUTHORIZED: authentication required"),
    ("a page that says 403", ATTEMPT, "DENIED", MANIFEST + "unexpected status code 403 Forbidden: <html>\nno</html>"),
    ("401 at a HEAD", ATTEMPT, "DENIED", f"HEAD https://{HOST}/v2/team/app/manifests/1: unexpected status code 401 Unauthorized{NO_BODY}"),
    ("payment", ATTEMPT, "DENIED", MANIFEST + "unexpected status code 402 Payment Required: pay"),
    ("legal reasons", ATTEMPT, "DENIED", MANIFEST + "unexpected status code 451 Unavailable For Legal Reasons: law"),
    ("a token server's 403", ATTEMPT, "DENIED", TOKEN + "unexpected status code 403 Forbidden: no"),
    ("a token server's 401", ATTEMPT, "DENIED", TOKEN + "unexpected status code 401 Unauthorized: no"),
    ("a name that crane refuses", ATTEMPT, "BAD_INPUT", f'parsing reference "{HOST}/a:1": could not parse reference: {HOST}/a:1'),
    ("an entry with other data", ATTEMPT, "BAD_INPUT", f'error verifying Digest; got "{CHILD}", want "{DIGEST}"'),
    # The source's limits and the network.
    *[("the rate limit", WAIT, "RATE_LIMITED", f"{start}TOOMANYREQUESTS: You have reached your pull rate limit. https://www.docker.com/x") for start in both(MANIFEST, INDEX_CHILD)],
    ("429 without a code", WAIT, "RATE_LIMITED", MANIFEST + "unexpected status code 429 Too Many Requests: slow"),
    ("a layer's 429", WAIT, "RATE_LIMITED", BLOB + "unexpected status code 429 Too Many Requests"),
    ("a token server's 429", WAIT, "RATE_LIMITED", TOKEN + "unexpected status code 429 Too Many Requests: no"),
    *[("503", WAIT, "UNREACHABLE", f"{start}unexpected status code 503 Service Unavailable: <html>\n<body>bad\n</body></html>") for start in both(MANIFEST, INDEX_CHILD)],
    ("408", WAIT, "UNREACHABLE", MANIFEST + "unexpected status code 408 Request Timeout"),
    ("a token server's 503", WAIT, "UNREACHABLE", TOKEN + "unexpected status code 503 Service Unavailable: no"),
    ("a reset", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": read tcp 10.0.0.1:1->1.2.3.4:443: read: connection reset by peer'),
    ("a time-out", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": dial tcp 1.2.3.4:443: i/o timeout'),
    ("no connection", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": dial tcp 1.2.3.4:443: connect: connection refused; Get "http://{HOST}/v2/": dial tcp 1.2.3.4:80: connect: connection refused'),
    ("GOAWAY", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": http2: server sent GOAWAY and closed the connection'),
    ("DNS fails", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": dial tcp: lookup {HOST} on 10.0.0.2:53: server misbehaving'),
    ("a CDN without a name", WAIT, "UNREACHABLE", f'Get "https://{CDN}/x": dial tcp: lookup {CDN} on 10.0.0.2:53: no such host'),
    ("a CDN's 403 for a layer", WAIT, "UNREACHABLE", f"GET https://{CDN}/bucket/blobs/{CHILD}?sig=REDACTED: unexpected status code 403 Forbidden: <Error>"),
    ("a redirect to a private address", WAIT, "UNREACHABLE", 'Get "http://127.0.0.1:1/x?sig=REDACTED": SSRF protection: redirect from "a" to private/link-local host "127.0.0.1" denied'),
    ("a layer that ends early", WAIT, "UNREACHABLE", PATCH + "unexpected EOF"),
    ("a layer with other bytes", WAIT, "UNREACHABLE", PATCH + f'error verifying sha256 checksum after reading 124 bytes; got "{DIGEST}", want "{CHILD}"'),
    ("a manifest that ends early", WAIT, "UNREACHABLE", "unexpected EOF"),
    ("a page for a manifest", WAIT, "UNREACHABLE", "invalid character '<' looking for beginning of value"),
    ("other bytes for a digest", WAIT, "UNREACHABLE", f'fetching "x": manifest digest: "{CHILD}" does not match requested digest: "{DIGEST}" for "x"'),
    # The destination.
    *[("ECR is busy", WAIT, "TARGET_BUSY", f"{start}TOOMANYREQUESTS: Rate exceeded") for start in both(PUT_MANIFEST, PUT_INDEX)],
    *[("ECR's 503", WAIT, "TARGET_BUSY", f"{start}unexpected status code 503 Service Unavailable") for start in both(UPLOAD, PUT_INDEX)],
    ("ECR's 500", WAIT, "TARGET_BUSY", PUT_MANIFEST + "INTERNAL_ERROR: x"),
    ("no repository", WAIT, "TARGET_BUSY", UPLOAD + "NAME_UNKNOWN: The repository with name 'x' does not exist in the registry"),
    ("an upload that ECR forgot", WAIT, "TARGET_BUSY", f"PUT https://{TARGET}/v2/x/blobs/uploads/?digest=1: BLOB_UPLOAD_UNKNOWN: x"),
    ("ECR is not reachable", WAIT, "UNREACHABLE", f'Get "https://{TARGET}/v2/": dial tcp 52.82.0.1:443: i/o timeout'),
    ("ECR resets", WAIT, "UNREACHABLE", f'Patch "https://{TARGET}/v2/x": write tcp 10.0.0.1:1->52.82.0.1:443: write: connection reset by peer'),
    *[("the password has expired", WAIT, "TARGET_LOGIN", f"{start}DENIED: Your authorization token has expired. Reauthenticate and try again.") for start in both(UPLOAD, PUT_INDEX)],
    ("ECR's 401 at a HEAD", WAIT, "TARGET_LOGIN", HEAD_TARGET + "401 Unauthorized" + NO_BODY),
    ("ECR's 403 at a HEAD", WAIT, "TARGET_LOGIN", HEAD_TARGET + "403 Forbidden" + NO_BODY),
    ("the user may not push", WAIT, "TARGET_LOGIN", UPLOAD + "DENIED: User: arn:aws-cn:iam::1:user/push is not authorized to perform: ecr:InitiateLayerUpload"),
    *[("ECR refuses the manifest", END, "REFUSED", f"{start}UNSUPPORTED: Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'") for start in both(PUT_MANIFEST, PUT_INDEX)],
    ("a manifest that is invalid", END, "REFUSED", PUT_MANIFEST + "MANIFEST_INVALID: bad"),
    *[("an immutable tag", END, "REFUSED", f"{start}TAG_INVALID: The image tag '1' already exists in the 'x' repository and cannot be overwritten because the tag is immutable.") for start in both(PUT_MANIFEST, PUT_INDEX)],
    ("a full repository", END, "REFUSED", PUT_MANIFEST + "LIMIT_EXCEEDED: The repository with name 'x' already has the maximum allowed number of images which is '10000'"),
    ("ECR's quota by its exception", END, "REFUSED", PUT_MANIFEST + "DENIED: LimitExceededException: the quota"),
    ("names that look like errors", WAIT, "TARGET_BUSY", UPLOAD + "NAME_UNKNOWN: The repository with name 'mirror/limitexceeded/immutable/quota' does not exist"),
    ("a user who may not push to such a name", WAIT, "TARGET_LOGIN", UPLOAD + "DENIED: not authorized: repository/mirror/limitexceeded/immutable/quota"),
    # Anything else.
    ("a full disk", WAIT, "UNEXPLAINED", "write /tmp/x: no space left on device"),
    ("a teapot", WAIT, "UNEXPLAINED", MANIFEST + "unexpected status code 418 I'm a teapot"),
    ("a sentence of its own", WAIT, "UNEXPLAINED", "something new"),
]
# fmt: on
IDS = [f"{name} {number}" for number, (name, *_) in enumerate(CASES)]


def source(host: str = HOST) -> Any:
    return PROGRAM.Source(host, "team/app", ":1")


def cost(result: str, *, exported: bool) -> BuildResult:
    """Return what the reconciler makes of a build that ended with `result`."""
    message = f"Error while executing command: x. Reason: exit status {PROGRAM.EXIT_CODES[result]}"
    phase = {"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [{"message": message}]}
    pairs = [{"name": "COPY_RESULT", "value": result}] if exported else []
    return read_build({"buildStatus": "FAILED", "phases": [phase], "exportedEnvironmentVariables": pairs}).result


@pytest.mark.parametrize(("name", "expected", "result", "error"), CASES, ids=IDS)
def test_each_error_of_crane_has_its_cost_and_its_result(
    name: str, expected: BuildResult, result: str, error: str
) -> None:
    del name
    found, reason = PROGRAM.understood(
        f"2026/11/29 09:50:24 retrying something: DENIED: x\nError: {error}\n", source(), TARGET
    )
    assert cost(found, exported=True) is expected, found
    assert cost(found, exported=False) is expected, found
    assert found == result
    assert reason.removeprefix("an entry of the index has data that is not its manifest: ") == " ".join(error.split())


@pytest.mark.parametrize("result", PROGRAM.EXIT_CODES)
def test_a_reconciler_of_the_release_before_ends_each_build(result: str) -> None:
    """It knows six codes, and takes any other one for an attempt."""
    known = {29: WAIT, 40: ATTEMPT, 41: WAIT, 43: ATTEMPT, 44: ATTEMPT, 50: WAIT}
    old = known.get(PROGRAM.EXIT_CODES[result], ATTEMPT)
    waits = {"RATE_LIMITED", "UNREACHABLE", "TARGET_BUSY", "TARGET_LOGIN", "AUTH_FILE"}
    assert (old is WAIT) is (result in waits)


def test_the_package_reads_each_exit_code_of_the_build() -> None:
    failures = {result: code for result, code in PROGRAM.EXIT_CODES.items() if code}
    assert set(failures.values()) == set(EXIT_CODES)
    for result in failures:
        assert cost(result, exported=True) is cost(result, exported=False)


def test_only_the_last_line_that_begins_with_error_is_read() -> None:
    errors = (
        f"Error: {MANIFEST}DENIED: x\nretrying {MANIFEST}TOOMANYREQUESTS: x\nError: {MANIFEST}MANIFEST_UNKNOWN: y\n"
    )
    assert PROGRAM.understood(errors, source(), TARGET)[0] == "NOT_FOUND"
    assert PROGRAM.understood(f"say Error: {MANIFEST}DENIED: x\n", source(), TARGET)[0] == "UNEXPLAINED"
    assert PROGRAM.understood("", source(), TARGET) == ("UNEXPLAINED", "the program ended without an error message")


def test_a_name_that_looks_like_an_error_decides_nothing() -> None:
    host = "denied.timeout.example"
    image = f"{host}/toomanyrequests/manifest_unknown"
    error = f'Error: fetching "{image}:1": GET https://{host}/v2/toomanyrequests/manifest_unknown/manifests/1: odd\n'
    assert PROGRAM.understood(error, source(host), TARGET)[0] == "UNEXPLAINED"


def test_the_hosts_of_docker_hub_are_its_own() -> None:
    for host in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        error = f'Error: Get "https://{host}/v2/": dial tcp: lookup {host} on 10.0.0.2:53: no such host\n'
        assert PROGRAM.understood(error, source("docker.io"), TARGET)[0] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("error", "result"),
    [
        pytest.param(TOKEN + "unexpected status code 401 Unauthorized: no", "AUTH_FILE", id="its token server's 401"),
        pytest.param(TOKEN + "UNAUTHORIZED: authentication required", "AUTH_FILE", id="its token server's code"),
        pytest.param(
            "GET https://quay.io/v2/auth?scope=repository%3Ateam%2Fapp%3Apull: unexpected status code 401 Unauthorized: no",
            "AUTH_FILE",
            id="a token server below the API",
        ),
        pytest.param(TOKEN + "DENIED: no", "DENIED", id="its token server's other code"),
        pytest.param(
            f"GET https://{HOST}/v2/: unexpected status code 401 Unauthorized: no",
            "DENIED",
            id="the registry's 401 at once",
        ),
        pytest.param(TOKEN + "unexpected status code 403 Forbidden: no", "DENIED", id="its token server's 403"),
        pytest.param(MANIFEST + "UNAUTHORIZED: authentication required", "DENIED", id="the registry's 401"),
        pytest.param(MANIFEST + "DENIED: requested access", "DENIED", id="the registry's 403"),
    ],
)
def test_a_refused_login_is_named(error: str, result: str) -> None:
    found, reason = PROGRAM.understood(f"Error: {error}\n", source(), TARGET, "reg.example/team")
    assert found == result
    assert "the login for reg.example/team" in reason


@given(st.text(max_size=300), st.sampled_from(["", f"Error: {MANIFEST}", f"Error: {PUT_MANIFEST}", "Error: "]))
def test_every_text_has_a_result(text: str, start: str) -> None:
    result, reason = PROGRAM.understood(start + text, source(), TARGET)
    assert result in PROGRAM.EXIT_CODES
    assert reason
    assert "\n" not in reason


def test_each_result_of_the_table_is_there() -> None:
    named = {result for _, _, result, _ in CASES}
    assert named | {"COPIED", "AUTH_FILE", "TOO_LARGE", "STALLED"} == set(PROGRAM.EXIT_CODES)
    assert all(re.fullmatch("[A-Z_]+", name) for name in named)
    assert len({error for *_, error in CASES}) == len(CASES), "each line once"
    assert list(itertools.chain(PROGRAM.REPEATED)) == ["UNREACHABLE", "TARGET_BUSY"]
