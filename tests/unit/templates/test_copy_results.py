"""What the build makes of crane's errors, in the forms in which crane 0.21.9 prints them.

The cost is asserted first: what the reconciler makes of the result. Then the result itself.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.build_result import EXIT_CODES, read_build
from image_mirror.record import Build, BuildResult
from support import released_build_result
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


SINGLE_AND_CHILD = (MANIFEST, INDEX_CHILD, FETCHING)
"""What is before an answer about a manifest of the source: of a single image, of an index's child, and of either."""

TO_TARGET = (PUT_MANIFEST, PUT_INDEX)
"""What is before ECR's answer to a manifest: of a single image or the index, and of an index's child."""

# fmt: off
OF_A_MANIFEST: list[tuple[str, BuildResult, str, str]] = [
    ("no such tag", ATTEMPT, "NOT_FOUND", "MANIFEST_UNKNOWN: manifest unknown; map[Tag:1]"),
    ("no such repository", ATTEMPT, "NOT_FOUND", "NAME_UNKNOWN: repository name not known to registry"),
    ("a name that the source refuses", ATTEMPT, "NOT_FOUND", "NAME_INVALID: x"),
    ("a page that says 404", ATTEMPT, "NOT_FOUND", "unexpected status code 404 Not Found: <!DOCTYPE html>\n<p>"),
    ("gone", ATTEMPT, "NOT_FOUND", "unexpected status code 410 Gone: gone"),
    ("denied", ATTEMPT, "DENIED", "DENIED: requested access to the resource is denied"),
    ("unauthorized", ATTEMPT, "DENIED", "UNAUTHORIZED: authentication required; [map[Action:pull]]"),
    ("both, as at Docker Hub", ATTEMPT, "DENIED", "multiple errors returned: DENIED: x; UNAUTHORIZED: authentication required"),
    ("a page that says 403", ATTEMPT, "DENIED", "unexpected status code 403 Forbidden: <html>\nno</html>"),
    ("401 without a code", ATTEMPT, "DENIED", "unexpected status code 401 Unauthorized: no"),
    ("payment", ATTEMPT, "DENIED", "unexpected status code 402 Payment Required: pay"),
    ("legal reasons", ATTEMPT, "DENIED", "unexpected status code 451 Unavailable For Legal Reasons: law"),
    ("the rate limit", WAIT, "RATE_LIMITED", "TOOMANYREQUESTS: You have reached your pull rate limit. https://www.docker.com/x"),
    ("429 without a code", WAIT, "RATE_LIMITED", "unexpected status code 429 Too Many Requests: slow"),
    ("503", WAIT, "UNREACHABLE", "unexpected status code 503 Service Unavailable: <html>\n<body>bad\n</body></html>"),
    ("a 503 whose page denies", WAIT, "UNREACHABLE", "unexpected status code 503 Service Unavailable: <h1>ACCESS DENIED</h1> MANIFEST_UNKNOWN TOOMANYREQUESTS"),
    ("500 with a code", WAIT, "UNREACHABLE", "UNKNOWN: unknown error"),
    ("503 with a code", WAIT, "UNREACHABLE", "UNAVAILABLE: service is down"),
    ("500 with another code", WAIT, "UNREACHABLE", "INTERNAL_ERROR: x"),
    ("408", WAIT, "UNREACHABLE", "unexpected status code 408 Request Timeout"),
    ("a reset", WAIT, "UNREACHABLE", "read tcp 10.0.0.1:1->1.2.3.4:443: read: connection reset by peer"),
    ("no tag, in Harbor's words", ATTEMPT, "NOT_FOUND", "NOT_FOUND: artifact team/app:1 not found"),
    ("denied, in Harbor's words", ATTEMPT, "DENIED", "FORBIDDEN: no"),
    ("a code without a message", ATTEMPT, "NOT_FOUND", "MANIFEST_UNKNOWN:"),
    ("the rate limit without a message", WAIT, "RATE_LIMITED", "TOOMANYREQUESTS:"),
    ("400", WAIT, "UNREACHABLE", "unexpected status code 400 Bad Request"),
    ("406", WAIT, "UNREACHABLE", "unexpected status code 406 Not Acceptable"),
    ("an odd token server", WAIT, "UNREACHABLE", "no token in bearer response: {}"),
    ("a teapot", WAIT, "UNEXPLAINED", "unexpected status code 418 I'm a teapot"),
]
TO_ECR: list[tuple[str, BuildResult, str, str]] = [
    ("ECR is busy", WAIT, "TARGET_BUSY", "TOOMANYREQUESTS: slow down"),
    ("ECR is busy in its words", WAIT, "TARGET_BUSY", "DENIED: ThrottlingException: Rate exceeded"),
    ("ECR's 429", WAIT, "TARGET_BUSY", "unexpected status code 429 Too Many Requests"),
    ("ECR's 503", WAIT, "TARGET_BUSY", "unexpected status code 503 Service Unavailable"),
    ("ECR's 408", WAIT, "TARGET_BUSY", "unexpected status code 408 Request Timeout"),
    ("ECR's 500", WAIT, "TARGET_BUSY", "INTERNAL_ERROR: x"),
    ("ECR's 500 with another code", WAIT, "TARGET_BUSY", "UNKNOWN: x"),
    ("ECR's 404", WAIT, "TARGET_BUSY", "unexpected status code 404 Not Found"),
    ("an immutable tag without words", END, "REFUSED", "TAG_INVALID:"),
    ("no repository", WAIT, "TARGET_BUSY", "NAME_UNKNOWN: The repository with name 'x' does not exist in the registry"),
    ("a child that ECR has not seen", WAIT, "TARGET_BUSY", "MANIFEST_UNKNOWN: x"),
    ("the password has expired", WAIT, "TARGET_DENIED", "DENIED: Your authorization token has expired. Reauthenticate and try again."),
    ("ECR's 401", WAIT, "TARGET_DENIED", "UNAUTHORIZED: x"),
    ("ECR's 403 without a code", WAIT, "TARGET_DENIED", "unexpected status code 403 Forbidden"),
    ("the user may not push", WAIT, "TARGET_DENIED", "DENIED: User: arn:aws-cn:iam::1:user/push is not authorized to perform: ecr:PutImage"),
    ("ECR refuses the manifest", END, "REFUSED", "UNSUPPORTED: Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'"),
    ("a manifest that is invalid", END, "REFUSED", "MANIFEST_INVALID: bad"),
    ("400 without a code", END, "REFUSED", "unexpected status code 400 Bad Request"),
    ("405 without a code", END, "REFUSED", "unexpected status code 405 Method Not Allowed"),
    ("a manifest that is too large", END, "REFUSED", "unexpected status code 413 Payload Too Large"),
    ("a media type", END, "REFUSED", "unexpected status code 415 Unsupported Media Type"),
    ("an immutable tag", END, "REFUSED", "TAG_INVALID: The image tag '1' already exists in the 'x' repository and cannot be overwritten because the tag is immutable."),
    ("a full repository", END, "REFUSED", "LIMIT_EXCEEDED: The repository with name 'x' already has the maximum allowed number of images which is '10000'"),
    ("ECR's quota by its exception", END, "REFUSED", "DENIED: LimitExceededException: the quota"),
    ("ECR resets", WAIT, "UNREACHABLE", "write tcp 10.0.0.1:1->52.82.0.1:443: write: connection reset by peer"),
    ("the source's end in the upload", WAIT, "UNREACHABLE", "readfrom tcp 10.0.0.1:1->52.82.0.1:443: unexpected EOF"),
]
CASES: list[tuple[str, BuildResult, str, str]] = [
    *((name, cost, result, start + said) for name, cost, result, said in OF_A_MANIFEST for start in SINGLE_AND_CHILD),
    *((name, cost, result, start + said) for name, cost, result, said in TO_ECR for start in TO_TARGET),
    # The source's other answers.
    ("no such layer", ATTEMPT, "NOT_FOUND", BLOB + "BLOB_UNKNOWN: b"),
    ("a layer's 404", ATTEMPT, "NOT_FOUND", BLOB + "unexpected status code 404 Not Found: no"),
    ("a layer's 403", ATTEMPT, "DENIED", BLOB + "unexpected status code 403 Forbidden: no"),
    ("a layer's 429", WAIT, "RATE_LIMITED", BLOB + "unexpected status code 429 Too Many Requests"),
    ("a manifest that the source redirects", ATTEMPT, "NOT_FOUND", f"GET https://europe.pkg.example/v2/x/y/manifests/{CHILD}: MANIFEST_UNKNOWN: x"),
    ("401 at a HEAD", ATTEMPT, "DENIED", f"HEAD https://{HOST}/v2/team/app/manifests/1: unexpected status code 401 Unauthorized{NO_BODY}"),
    ("no such host", ATTEMPT, "NOT_FOUND", f'Get "https://{HOST}/v2/": dial tcp: lookup {HOST} on 10.0.0.2:53: no such host'),
    ("a certificate for another name", ATTEMPT, "NOT_FOUND", f'Get "https://{HOST}/v2/": tls: failed to verify certificate: x509: certificate is valid for a.b, not {HOST}'),
    ("a name that crane refuses", ATTEMPT, "BAD_INPUT", f'parsing reference "{HOST}/a:1": could not parse reference: {HOST}/a:1'),
    ("a hash that crane does not know", ATTEMPT, "BAD_INPUT", 'unsupported hash: "sha512"'),
    ("a media type that crane does not know", ATTEMPT, "BAD_INPUT", "unsupported MediaType: x"),
    ("a size that lies", WAIT, "UNREACHABLE", "size of blob does not match"),
    ("another host of Docker Hub", WAIT, "UNREACHABLE", f"GET https://index.docker.io/x/blobs/{CHILD}: unexpected status code 403 Forbidden"),
    ("an entry with other data", ATTEMPT, "BAD_INPUT", f'error verifying Digest; got "{CHILD}", want "{DIGEST}"'),
    # Token servers.
    ("a token server's 403", ATTEMPT, "DENIED", TOKEN + "unexpected status code 403 Forbidden: no"),
    ("a token server's 401", ATTEMPT, "DENIED", TOKEN + "unexpected status code 401 Unauthorized: no"),
    ("a token server's code", ATTEMPT, "DENIED", TOKEN + "UNAUTHORIZED: authentication required"),
    ("a token server without a scope", ATTEMPT, "DENIED", "GET https://auth.example/token?service=x: unexpected status code 401 Unauthorized: no"),
    ("a token server's 404", ATTEMPT, "NOT_FOUND", TOKEN + "unexpected status code 404 Not Found: no"),
    ("a token server's 429", WAIT, "RATE_LIMITED", TOKEN + "unexpected status code 429 Too Many Requests: no"),
    ("a token server's 503", WAIT, "UNREACHABLE", TOKEN + "unexpected status code 503 Service Unavailable: no"),
    # CDNs, whose paths are not those of a registry.
    ("a CDN's 403 for a layer", WAIT, "UNREACHABLE", f"GET https://{CDN}/bucket/blobs/{CHILD}?sig=REDACTED: unexpected status code 403 Forbidden: <Error>"),
    ("a CDN's 403 as at Quay", WAIT, "UNREACHABLE", f"GET https://{CDN}/quayio-production-s3/sha256/ab/abcd?Expires=1&Signature=REDACTED: unexpected status code 403 Forbidden: <Error><Code>AccessDenied</Code>"),
    ("a CDN's 404", WAIT, "UNREACHABLE", f"GET https://{CDN}/docker/registry/v2/x/data: unexpected status code 404 Not Found: x"),
    ("a CDN's 401", WAIT, "UNREACHABLE", f"GET https://{CDN}/x: unexpected status code 401 Unauthorized"),
    ("a CDN's layer below the API", WAIT, "UNREACHABLE", f"GET https://{CDN}/v2/x/blobs/{CHILD}: unexpected status code 403 Forbidden"),
    ("a CDN without a name", WAIT, "UNREACHABLE", f'Get "https://{CDN}/x": dial tcp: lookup {CDN} on 10.0.0.2:53: no such host'),
    # The network.
    ("a time-out", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": dial tcp 1.2.3.4:443: i/o timeout'),
    ("no connection", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": dial tcp 1.2.3.4:443: connect: connection refused; Get "http://{HOST}/v2/": dial tcp 1.2.3.4:80: connect: connection refused'),
    ("an end", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": EOF'),
    ("GOAWAY", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": http2: server sent GOAWAY and closed the connection'),
    ("DNS fails", WAIT, "UNREACHABLE", f'Get "https://{HOST}/v2/": dial tcp: lookup {HOST} on 10.0.0.2:53: server misbehaving'),
    ("a redirect to a private address", WAIT, "UNREACHABLE", 'Get "http://127.0.0.1:1/x?sig=REDACTED": SSRF protection: redirect from "a" to private/link-local host "127.0.0.1" denied'),
    ("a layer that ends early", WAIT, "UNREACHABLE", PATCH + "unexpected EOF"),
    ("a layer with other bytes", WAIT, "UNREACHABLE", PATCH + f'error verifying sha256 checksum after reading 124 bytes; got "{DIGEST}", want "{CHILD}"'),
    ("a manifest that ends early", WAIT, "UNREACHABLE", "unexpected EOF"),
    ("a page for a manifest", WAIT, "UNREACHABLE", "invalid character '<' looking for beginning of value"),
    ("a long page", WAIT, "UNREACHABLE", "body exceeds 65536 byte limit"),
    ("other bytes for a digest", WAIT, "UNREACHABLE", f'fetching "x": manifest digest: "{CHILD}" does not match requested digest: "{DIGEST}" for "x"'),
    # ECR's other answers.
    ("ECR is busy at an upload", WAIT, "TARGET_BUSY", UPLOAD + "unexpected status code 503 Service Unavailable"),
    ("no repository at an upload", WAIT, "TARGET_BUSY", UPLOAD + "NAME_UNKNOWN: The repository with name 'x' does not exist in the registry"),
    ("an upload that ECR forgot", WAIT, "TARGET_BUSY", f"PUT https://{TARGET}/v2/x/blobs/uploads/?digest=1: BLOB_UPLOAD_UNKNOWN: x"),
    ("a layer that was damaged on its way", WAIT, "TARGET_BUSY", f"PUT https://{TARGET}/v2/x/blobs/uploads/?digest=1: DIGEST_INVALID: x"),
    ("an upload's 400", WAIT, "TARGET_BUSY", UPLOAD + "unexpected status code 400 Bad Request: <html>"),
    ("the password has expired at an upload", WAIT, "TARGET_DENIED", UPLOAD + "DENIED: Your authorization token has expired. Reauthenticate and try again."),
    ("ECR's 401 at a HEAD", WAIT, "TARGET_DENIED", HEAD_TARGET + "401 Unauthorized" + NO_BODY),
    ("ECR's 403 at a HEAD", WAIT, "TARGET_DENIED", HEAD_TARGET + "403 Forbidden" + NO_BODY),
    ("ECR is not reachable", WAIT, "UNREACHABLE", f'Get "https://{TARGET}/v2/": dial tcp 52.82.0.1:443: i/o timeout'),
    ("names that look like errors", WAIT, "TARGET_BUSY", UPLOAD + "NAME_UNKNOWN: The repository with name 'mirror/limitexceeded/immutable/quota' does not exist"),
    ("a user who may not push to such a name", WAIT, "TARGET_DENIED", UPLOAD + "DENIED: not authorized: repository/mirror/limitexceeded/immutable/quota"),
    # Anything else.
    ("a full disk", WAIT, "UNEXPLAINED", "write /tmp/x: no space left on device"),
    ("a sentence of its own", WAIT, "UNEXPLAINED", "something new"),
]
# fmt: on
IDS = [f"{name} {number}" for number, (name, *_) in enumerate(CASES)]


def source(host: str = HOST) -> Any:
    return PROGRAM.Source(host, "team/app", ":1")


def cost(result: str, *, exported: bool, read: Callable[[Any], Build] = read_build) -> BuildResult:
    """Return what the reconciler makes of a build that ended with `result`; `read` is that of a release."""
    message = f"Error while executing command: x. Reason: exit status {PROGRAM.EXIT_CODES[result]}"
    phase = {"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [{"message": message}]}
    pairs = [{"name": "COPY_RESULT", "value": result}] if exported else []
    return read({"buildStatus": "FAILED", "phases": [phase], "exportedEnvironmentVariables": pairs}).result


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
    lie = "an entry of the index has data that is not its manifest: "
    assert reason.startswith(lie) is ("verifying Digest" in error)
    assert reason.removeprefix(lie) == " ".join(error.split())


@pytest.mark.parametrize("result", PROGRAM.EXIT_CODES)
def test_a_reconciler_of_the_release_before_ends_each_build(result: str) -> None:
    """It knows six codes, and takes any other one for an attempt: so no build is repeated for ever."""
    waits = {"RATE_LIMITED", "UNREACHABLE", "TARGET_BUSY", "TARGET_LOGIN", "TARGET_DENIED", "AUTH_FILE"}
    for exported in (True, False):
        old = cost(result, exported=exported, read=released_build_result.read_build)
        if result == "COPIED":
            assert old is BuildResult.COPIED or not exported
        else:
            assert old is (WAIT if result in waits else ATTEMPT)


def test_the_package_reads_each_exit_code_of_the_build() -> None:
    failures = {result: code for result, code in PROGRAM.EXIT_CODES.items() if code}
    assert set(failures.values()) == set(EXIT_CODES)
    for result in failures:
        assert cost(result, exported=True) is cost(result, exported=False)


def test_only_the_last_line_that_begins_with_error_is_read() -> None:
    errors = (
        f"Error: {MANIFEST}DENIED: x\nretrying {MANIFEST}TOOMANYREQUESTS: x\nError: {MANIFEST}DENIED: z\n"
        f"Error: {MANIFEST}MANIFEST_UNKNOWN: y\n"
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
    assert named | {"COPIED", "AUTH_FILE", "TARGET_LOGIN", "TOO_LARGE", "STALLED", "OUT_OF_TIME", "PROBED"} == set(
        PROGRAM.EXIT_CODES
    )
    assert all(re.fullmatch("[A-Z_]+", name) for name in named)
    assert len({error for *_, error in CASES}) == len(CASES), "each line once"
    assert list(itertools.chain(PROGRAM.REPEATED)) == ["UNREACHABLE", "TARGET_BUSY"]
