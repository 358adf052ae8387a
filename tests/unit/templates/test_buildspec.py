"""The buildspec of image-pulling.yaml, run by bash with stub programs."""

import json
import os
import select
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_mirror.build_result import EXIT_CODES, read_build
from image_mirror.record import BuildResult
from image_mirror.reference import InvalidReferenceError, NoDestinationError, destination_of, parse_reference
from support.buildspec_runner import (
    ACCESS_KEY_ID,
    IMAGE,
    PASSWORD,
    REGISTRY,
    SECRET_ACCESS_KEY,
    TARGET,
    CodeBuild,
    Reply,
    Run,
    buildspec,
    run_script,
)

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
AUTH_FILE = json.dumps({"auths": {"docker.io": {"auth": "dXNlcjpodWItcGFzc3dvcmQ="}}})
SECRETS = (ACCESS_KEY_ID, SECRET_ACCESS_KEY, PASSWORD, "dXNlcjpodWItcGFzc3dvcmQ=")


def fatal(message: str) -> str:
    """Return `message` as the last line of skopeo's output."""
    quoted = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'time="2026-11-24T18:48:57Z" level=fatal msg="{quoted}"\n'


def assert_ended(run: Run, result: str, *reasons: str) -> None:
    assert run.exported["COPY_RESULT"] == result, run.output
    assert EXIT_CODES[run.exit_code] == result
    assert all(reason in run.exported["COPY_REASON"] for reason in reasons), run.exported["COPY_REASON"]


def target_in_package(image: str) -> str | None:
    """Return the package's destination for a record's `source`, or None if no record can have this source."""
    try:
        reference = parse_reference(image)
        destination = destination_of(reference, REGISTRY, "mirror")
    except (InvalidReferenceError, NoDestinationError):
        return None
    return destination.by_tag if str(reference.pinned) == image else None


def careless_target(image: str) -> str:
    """Return the destination that `image` would have if it were legal."""
    host, _, rest = image.partition("/")
    rest = rest.replace("@sha256:", ":digest-sha256-") if "@" in rest else rest
    return f"{REGISTRY}/mirror/{host.replace(':', '_', 1)}/{rest}"


def assert_agrees_with_package(directory: Path, image: str) -> None:
    destination = target_in_package(image)
    run = CodeBuild(directory).run(image, destination or careless_target(image))
    if destination is None:
        assert_ended(run, "BAD_INPUT")
        assert not run.called("aws ecr")
        assert not run.called("skopeo copy")
    else:
        assert run.exit_code == 0, run.output
        assert run.called("skopeo copy")[0].arguments[-2:] == (f"docker://{image}", f"docker://{destination}")


GOOD_IMAGES = [
    pytest.param("gcr.io/google-samples/hello-app:1.0", id="tag"),
    pytest.param("docker.io/library/nginx:latest", id="official"),
    pytest.param("quay.io/prometheus/node-exporter:v1.8.2", id="two segments"),
    pytest.param("registry.k8s.io/pause:3.10", id="one segment"),
    pytest.param("registry.k8s.io/sig-storage/csi-snapshotter/v8/a/b/c:v8.0.1", id="many segments"),
    pytest.param(f"gcr.io/distroless/static@{DIGEST}", id="digest"),
    pytest.param("registry.local:5000/team/app:1", id="port"),
    pytest.param("localhost/team/app:1", id="localhost"),
    pytest.param("10.0.0.1:5000/app:1", id="IPv4"),
    pytest.param("host--a.b-c.example/a__b/c--d.e_f:_T.a-G", id="every separator"),
    pytest.param("docker.io:443/nginx:1", id="docker.io with a port"),
    pytest.param("gcr.io/a:sha256-abc", id="nearly a reserved tag"),
    pytest.param(f"gcr.io/a:x-sha256-{HEX}", id="a reserved tag with more before it"),
    pytest.param(f"gcr.io/a:{'t' * 128}", id="longest tag"),
    pytest.param(f"gcr.io/{'a' * (255 - len(REGISTRY) - len('/mirror/gcr.io/'))}:1", id="longest name"),
]
BAD_IMAGES = [
    pytest.param("", id="empty"),
    pytest.param("gcr.io/a", id="no tag"),
    pytest.param("nginx:1", id="no host"),
    pytest.param("library/nginx:1", id="no host but a path"),
    pytest.param("docker.io/nginx:1", id="official without library"),
    pytest.param("index.docker.io/library/nginx:1", id="old name of docker.io"),
    pytest.param("GCR.io/a:1", id="upper-case host"),
    pytest.param("gcr.io/A:1", id="upper-case path"),
    pytest.param("[::1]:5000/a:1", id="IPv6"),
    pytest.param(f"gcr.io/a:1@{DIGEST}", id="tag and digest"),
    pytest.param(f"gcr.io/a@{DIGEST[:-1]}", id="short digest"),
    pytest.param(f"gcr.io/a@{DIGEST}0", id="long digest"),
    pytest.param(f"gcr.io/a@sha256:{HEX.upper()}", id="upper-case digest"),
    pytest.param(f"gcr.io/a@sha512:{HEX * 2}", id="sha512"),
    pytest.param(f"gcr.io/a:sha256-{HEX}", id="referrers tag"),
    pytest.param(f"gcr.io/a:digest-sha256-{HEX}", id="our own tag"),
    pytest.param("gcr.io/a:.1", id="tag led by a dot"),
    pytest.param(f"gcr.io/a:{'t' * 129}", id="tag too long"),
    pytest.param(f"gcr.io/{'a' * (256 - len(REGISTRY) - len('/mirror/gcr.io/'))}:1", id="name too long"),
    pytest.param("gcr.io/" + "a/" * 600 + "a:1", id="text too long"),
    pytest.param("gcr.io//a:1", id="empty segment"),
    pytest.param("gcr.io/../a:1", id="dots"),
    pytest.param("gcr.io/a/:1", id="trailing slash"),
    pytest.param("gcr.io:/a:1", id="empty port"),
    pytest.param("gcr.io:5000:1/a:1", id="two ports"),
    pytest.param("-gcr.io/a:1", id="host led by a hyphen"),
    pytest.param("gcr_b.io/a:1", id="underscore in the host"),
    pytest.param("gcr.io/a___b:1", id="three underscores"),
    pytest.param("user:word@gcr.io/a:1", id="user info"),
    pytest.param("docker://gcr.io/a:1", id="a transport"),
    pytest.param("gcr.io/$(touch x):1", id="command substitution"),
    pytest.param("gcr.io/`touch x`:1", id="backticks"),
    pytest.param("gcr.io/a:1; touch x", id="semicolon"),
    pytest.param('gcr.io/a:1" x "', id="quotes"),
    pytest.param("gcr.io/*:1", id="glob"),
    pytest.param("gcr.io/[a]:1", id="bracket"),
    pytest.param("gcr.io/a:1\n", id="newline at the end"),
    pytest.param("gcr.io/a:1\ngcr.io/b:1", id="two lines"),
    pytest.param("gcr.io/a :1", id="space"),
    pytest.param("gcr.io/é:1", id="accent"),
    pytest.param("gcr.io/a\x1b[31m:1", id="control character"),
    pytest.param("--help", id="an option"),
]


@pytest.mark.parametrize("image", GOOD_IMAGES)
def test_an_image_goes_to_the_destination_that_the_package_computes(tmp_path: Path, image: str) -> None:
    assert target_in_package(image) is not None
    assert_agrees_with_package(tmp_path, image)


@pytest.mark.parametrize("image", BAD_IMAGES)
def test_an_image_without_a_destination_starts_nothing_and_runs_nothing(tmp_path: Path, image: str) -> None:
    assert target_in_package(image) is None
    assert_agrees_with_package(tmp_path, image)
    assert not list(tmp_path.rglob("x"))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    image=st.builds(
        lambda *parts: "".join(parts),
        st.sampled_from(["gcr.io", "docker.io", "localhost", "a", "h:5000", "A.io", "a..b", "a_b.io", "é.io"]),
        st.sampled_from(["/", "//", ""]),
        st.text(alphabet="ab0/._-A", max_size=12),
        st.sampled_from([":", "@", "@sha256:", ":digest-sha256-", ""]),
        st.one_of(st.text(alphabet="aZ0._-:\n", max_size=6), st.just(HEX)),
    )
)
def test_the_build_and_the_package_agree_about_any_image(tmp_path: Path, image: str) -> None:
    assert_agrees_with_package(tmp_path, image)


@pytest.mark.parametrize(
    ("image", "target"),
    [
        pytest.param(IMAGE, TARGET.replace("hello-app", "goodbye-app"), id="another path"),
        pytest.param(IMAGE, TARGET.replace("gcr.io", "quay.io"), id="another host"),
        pytest.param(IMAGE, TARGET.replace(":1.0", ":2.0"), id="another tag"),
        pytest.param(IMAGE, TARGET.replace(":1.0", ""), id="no tag"),
        pytest.param(IMAGE, TARGET.replace(":1.0", ":digest-sha256-" + HEX), id="a digest's tag"),
        pytest.param(f"gcr.io/a@{DIGEST}", f"{REGISTRY}/mirror/gcr.io/a:latest", id="a digest to a tag"),
        pytest.param(f"gcr.io/a@{DIGEST}", f"{REGISTRY}/mirror/gcr.io/a@{DIGEST}", id="a digest to itself"),
        pytest.param(IMAGE, TARGET.replace("/mirror/", "/mirrors/"), id="another prefix"),
        pytest.param(IMAGE, TARGET.replace("/mirror/", "/"), id="no prefix"),
        pytest.param(IMAGE, TARGET.replace("/mirror/", "/mirror/../x/"), id="dots"),
        pytest.param(IMAGE, TARGET.replace("cn-northwest-1", "cn-north-1"), id="another region"),
        pytest.param(IMAGE, TARGET.replace("123456789012", "12345678901"), id="a short account"),
        pytest.param(IMAGE, TARGET.replace("123456789012", "evil.io/abcd"), id="another host that the glob matches"),
        pytest.param(IMAGE, TARGET.replace("123456789012", "user@abcdefg"), id="user info that the glob matches"),
        pytest.param(IMAGE, TARGET.replace("123456789012", "????????????"), id="the glob itself"),
        pytest.param(IMAGE, TARGET.replace(".com.cn", ".com.cn.evil.io"), id="a longer host"),
        pytest.param(IMAGE, TARGET + "\n", id="newline"),
        pytest.param(IMAGE, TARGET + " ", id="space"),
        pytest.param(IMAGE, "docker://" + TARGET, id="a transport"),
        pytest.param(IMAGE, IMAGE, id="the source"),
        pytest.param(IMAGE, "", id="empty"),
        pytest.param("registry.local:5000/a:1", f"{REGISTRY}/mirror/registry.local:5000/a:1", id="a port as it is"),
    ],
)
def test_no_image_takes_the_place_of_another(tmp_path: Path, image: str, target: str) -> None:
    run = CodeBuild(tmp_path).run(image, target)
    assert_ended(run, "BAD_INPUT", "NEW_DOCKER_IMAGE")
    assert {call.arguments[0] for call in run.calls} == {"apt-get"}


def test_with_the_account_named_no_other_account_is_a_target(tmp_path: Path) -> None:
    codebuild = CodeBuild(tmp_path, parameters={"ChinaAccountId": "123456789012"})
    assert codebuild.run().exit_code == 0
    assert_ended(codebuild.run(target=TARGET.replace("123456789012", "210987654321")), "BAD_INPUT", "ChinaAccountId")


@pytest.mark.parametrize("variable", ["DOCKER_IMAGE", "NEW_DOCKER_IMAGE"])
def test_a_secret_in_place_of_a_name_is_not_shown(tmp_path: Path, variable: str) -> None:
    run = CodeBuild(tmp_path).run(**{variable: SECRET_ACCESS_KEY})
    assert_ended(run, "BAD_INPUT", variable)
    assert SECRET_ACCESS_KEY not in run.output + str(run.exported)


SOURCE = "initializing source docker://gcr.io/google-samples/hello-app:1.0: "
READING = SOURCE + "reading manifest 1.0 in gcr.io/google-samples/hello-app: "
PINGING = SOURCE + 'pinging container registry gcr.io: Get "https://gcr.io/v2/": '
COPYING = "copying image 1/2 from manifest list: "
REUSING = COPYING + (
    f"trying to reuse blob {DIGEST} at destination: checking whether a blob {DIGEST} exists in "
    f"{REGISTRY}/mirror/gcr.io/google-samples/hello-app: "
)
UPLOADING = COPYING + (
    "writing blob: initiating layer upload to /v2/mirror/gcr.io/google-samples/hello-app/blobs/uploads/ in " + REGISTRY
)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        pytest.param("NOT_FOUND", READING + "manifest unknown: manifest unknown", id="no tag"),
        pytest.param("NOT_FOUND", READING + "name unknown: repository name not known to registry", id="no repository"),
        pytest.param("NOT_FOUND", SOURCE + "reading manifest 1.0: StatusCode: 404, <!DOCTYPE html>", id="a page"),
        pytest.param(
            "NOT_FOUND",
            COPYING + f"reading blob {DIGEST}: fetching blob: invalid status code from registry 404 (Not Found)",
            id="no blob",
        ),
        pytest.param(
            "NOT_FOUND",
            READING + "unknown: artifact google-samples/hello-app:1.0 not found",
            id="Harbor",
        ),
        pytest.param("DENIED", READING + "unauthorized: authentication required", id="unauthorized"),
        pytest.param(
            "DENIED",
            READING
            + "errors:\ndenied: requested access to the resource is denied\nunauthorized: authentication required",
            id="Docker Hub",
        ),
        pytest.param(
            "DENIED",
            SOURCE + "Requesting bearer token: invalid status code from registry 403 (Forbidden)",
            id="no token",
        ),
        pytest.param("DENIED", READING + "denied: Unauthenticated request. Unauthenticated requests ...", id="Google"),
        pytest.param(
            "DENIED",
            SOURCE + "unable to retrieve auth token: invalid username/password: unauthorized: incorrect password",
            id="a wrong login in the auth file",
        ),
        pytest.param(
            "RATE_LIMITED",
            READING + "toomanyrequests: You have reached your unauthenticated pull rate limit. "
            "https://www.docker.com/increase-rate-limit",
            id="Docker Hub's limit",
        ),
        pytest.param("RATE_LIMITED", READING + "unexpected http status: 429 Too Many Requests", id="429"),
        pytest.param("RATE_LIMITED", UPLOADING + ": toomanyrequests: Rate exceeded", id="ECR's limit"),
        pytest.param("UNREACHABLE", PINGING + "dial tcp: lookup gcr.io on 10.0.0.2:53: no such host", id="no host"),
        pytest.param("UNREACHABLE", PINGING + "dial tcp 1.2.3.4:443: connect: connection refused", id="refused"),
        pytest.param("UNREACHABLE", PINGING + "dial tcp 1.2.3.4:443: i/o timeout", id="timeout"),
        pytest.param("UNREACHABLE", PINGING + "net/http: TLS handshake timeout", id="TLS"),
        pytest.param("UNREACHABLE", PINGING + "x509: certificate signed by unknown authority", id="certificate"),
        pytest.param("UNREACHABLE", READING + "received unexpected HTTP status: 502 Bad Gateway", id="502"),
        pytest.param("UNREACHABLE", COPYING + "writing blob: happened during read: unexpected EOF", id="cut off"),
        pytest.param(
            "UNREACHABLE",
            REUSING + 'Head "https://host/v2/x": read tcp 10.0.0.1:1->52.82.0.1:443: read: connection reset by peer',
            id="ECR far away",
        ),
        pytest.param("UNREACHABLE", UPLOADING + ": received unexpected HTTP status: 503", id="ECR ill"),
        pytest.param("TARGET_LOGIN", REUSING + "unauthorized: authentication required", id="ECR unauthorized"),
        pytest.param("TARGET_LOGIN", UPLOADING + ": denied: Your authorization token has expired", id="ECR expired"),
        pytest.param(
            "TARGET_LOGIN",
            UPLOADING + ": denied: User: arn:aws-cn:iam::123456789012:user/push is not authorized to perform: "
            "ecr:InitiateLayerUpload on resource: arn:aws-cn:ecr:cn-northwest-1:123456789012:repository/mirror/x",
            id="ECR denied",
        ),
        pytest.param(
            "TARGET_LOGIN",
            UPLOADING + ": name unknown: The repository with name 'mirror/x' does not exist in the registry",
            id="no ECR repository",
        ),
    ],
)
def test_a_failed_copy_says_whose_fault_it_is(tmp_path: Path, result: str, message: str) -> None:
    retry = fatal(message).replace("fatal", "warning").replace("msg=", "msg=Failed, retrying in 1s: ")
    run = CodeBuild(tmp_path, replies={"skopeo copy": Reply(stderr=retry + fatal(message), status=1)}).run()
    assert_ended(run, result, " ".join(message.split())[-40:])


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("writing manifest: uploading manifest 1.0 to x/y: manifest invalid: bad", id="ECR refuses it"),
        pytest.param("Can not copy signatures to docker://x/y: denied.io/unauthorized is a name", id="a name"),
        pytest.param("the geofence is closed", id="a longer word"),
        pytest.param("reading manifest denied in docker.io/x509/timeout: what is this", id="a tag and a path"),
    ],
)
def test_what_no_rule_explains_has_a_reason_but_no_result(tmp_path: Path, message: str) -> None:
    run = CodeBuild(tmp_path, replies={"skopeo copy": Reply(stderr=fatal(message), status=1)}).run()
    assert run.exit_code == 1
    assert run.exported == {"COPY_REASON": message}


def test_a_host_whose_name_looks_like_an_error_does_not_decide_the_result(tmp_path: Path) -> None:
    image = "timeout.denied.io/a:1"
    codebuild = CodeBuild(
        tmp_path, replies={"skopeo copy": Reply(stderr=fatal("from timeout.denied.io: odd"), status=1)}
    )
    assert codebuild.run(image, f"{REGISTRY}/mirror/{image}").exported == {"COPY_REASON": "from timeout.denied.io: odd"}


def test_a_program_that_dies_without_output_is_reported(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, replies={"skopeo copy": Reply(status=137)}).run()
    assert run.exit_code == 1
    assert run.exported == {"COPY_REASON": "the program ended without a message"}


def test_a_script_that_breaks_off_still_fails_the_build_with_a_reason(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path).run(TARGET_REGISTRY=None)
    assert run.exit_code not in (0, *EXIT_CODES)
    assert "COPY_RESULT" not in run.exported
    assert "log of the build" in run.exported["COPY_REASON"]


AWS_ERROR = "\nAn error occurred ({}) when calling the GetAuthorizationToken operation: {}\n"


@pytest.mark.parametrize(
    ("result", "program", "stderr"),
    [
        pytest.param(
            "TARGET_LOGIN",
            "aws ecr",
            AWS_ERROR.format("UnrecognizedClientException", "The security token included in the request is invalid."),
            id="a key that is no more",
        ),
        pytest.param(
            "TARGET_LOGIN",
            "aws ecr",
            AWS_ERROR.format("AccessDeniedException", "User is not authorized to perform: ecr:GetAuthorizationToken"),
            id="a key that may not",
        ),
        pytest.param("TARGET_LOGIN", "aws ecr", "Unable to locate the parcel\n", id="anything else"),
        pytest.param("RATE_LIMITED", "aws ecr", AWS_ERROR.format("ThrottlingException", "Rate exceeded"), id="busy"),
        pytest.param(
            "UNREACHABLE",
            "aws ecr",
            '\nCould not connect to the endpoint URL: "https://api.ecr.cn-northwest-1.amazonaws.com.cn/"\n',
            id="the endpoint is far",
        ),
        pytest.param(
            "TARGET_LOGIN",
            "skopeo login",
            fatal(f'logging into "{REGISTRY}": invalid username/password'),
            id="a password that is refused",
        ),
        pytest.param(
            "UNREACHABLE",
            "skopeo login",
            fatal(
                f'authenticating creds for "{REGISTRY}": pinging container registry {REGISTRY}: Get "https://'
                f'{REGISTRY}/v2/": dial tcp: lookup {REGISTRY} on 10.0.0.2:53: no such host'
            ),
            id="the registry is far",
        ),
    ],
)
def test_a_login_that_fails_never_blames_the_source(tmp_path: Path, result: str, program: str, stderr: str) -> None:
    run = CodeBuild(tmp_path, replies={program: Reply(stderr=stderr, status=254)}).run()
    assert_ended(run, result)
    assert not run.called("skopeo copy")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        pytest.param("Region", "", id="no region"),
        pytest.param("Region", "northwest; touch x", id="a region that is none"),
        pytest.param("AccessKey", "", id="no access key ID"),
        pytest.param("AccessSecretKey", " \n", id="a blank secret key"),
    ],
)
def test_an_empty_secret_is_named_and_nothing_is_called(tmp_path: Path, entry: str, value: str) -> None:
    secret = {
        "Region": "cn-northwest-1",
        "AccessKey": ACCESS_KEY_ID,
        "AccessSecretKey": SECRET_ACCESS_KEY,
        entry: value,
    }
    run = CodeBuild(tmp_path, secret=secret).run()
    assert_ended(run, "TARGET_LOGIN", f"{entry} in the secret ImagePullSecret")
    assert {call.arguments[0] for call in run.calls} == {"apt-get"}


def test_white_space_around_the_keys_does_no_harm(tmp_path: Path) -> None:
    secret = {
        "Region": "cn-northwest-1\n",
        "AccessKey": f" {ACCESS_KEY_ID}\n",
        "AccessSecretKey": SECRET_ACCESS_KEY + " ",
    }
    (aws,) = CodeBuild(tmp_path, secret=secret).run().called("aws ecr")
    assert aws.arguments[2:] == ("get-login-password", "--region", "cn-northwest-1")
    assert aws.environment["AWS_ACCESS_KEY_ID"] == ACCESS_KEY_ID


def test_keys_reach_aws_alone_and_the_password_goes_by_standard_input(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, registry_auth=AUTH_FILE).run(AWS_SESSION_TOKEN="of-the-build-role")
    (aws,) = run.called("aws ecr")
    assert aws.environment["AWS_ACCESS_KEY_ID"] == ACCESS_KEY_ID
    assert aws.environment["AWS_SECRET_ACCESS_KEY"] == SECRET_ACCESS_KEY
    assert not {"AWS_SESSION_TOKEN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} & set(aws.environment)
    (login,) = run.called("skopeo login")
    assert login.input == PASSWORD
    for call in run.calls:
        assert not any(secret in argument for secret in SECRETS for argument in call.arguments)
        if call is not aws:
            assert not any(secret in value for secret in SECRETS for value in call.environment.values()), call.program
    assert not any(secret in run.output + str(run.exported) for secret in SECRETS)


def test_each_registry_is_offered_its_own_login(tmp_path: Path) -> None:
    (copy,) = CodeBuild(tmp_path, registry_auth=AUTH_FILE).run().called("skopeo copy")
    options = dict(zip(copy.arguments[:-2], copy.arguments[1:-2], strict=False))
    assert options["--src-authfile"].endswith("/source.json")
    assert options["--dest-authfile"].endswith("/target.json")
    assert copy.files == {"source.json": AUTH_FILE, "target.json": '{"auths": {}}'}


def test_without_an_auth_file_no_login_is_sent_to_the_source(tmp_path: Path) -> None:
    (copy,) = CodeBuild(tmp_path).run().called("skopeo copy")
    assert copy.files["source.json"] == "{}"


def test_an_unusable_auth_file_is_not_reported_as_a_refused_login(tmp_path: Path) -> None:
    message = 'getting username and password: 1 error occurred:\n\t* reading JSON file "/tmp/x": unmarshaling JSON'
    codebuild = CodeBuild(tmp_path, replies={"skopeo copy": Reply(stderr=fatal(SOURCE + message), status=1)})
    assert_ended(codebuild.run(), "TARGET_LOGIN", "RegistryAuthSecretArn")


def test_every_platform_is_copied_under_its_digest(tmp_path: Path) -> None:
    (copy,) = CodeBuild(tmp_path).run().called("skopeo copy")
    assert copy.arguments[:6] == ("skopeo", "copy", "--all", "--preserve-digests", "--retry-times", "3")


def test_a_copy_that_arrives_is_reported(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path).run()
    assert run.failed_command is None
    assert run.exported == {"COPY_RESULT": "COPIED", "COPY_REASON": "the copy is in ECR"}


def test_a_package_that_cannot_be_installed_is_not_blamed_on_a_registry(tmp_path: Path) -> None:
    codebuild = CodeBuild(tmp_path, replies={"apt-get install": Reply(stderr="Unable to fetch\n", status=100)})
    run = codebuild.run()
    assert_ended(run, "UNREACHABLE", "apt")
    assert len(run.called("apt-get install")) == 3
    assert "Unable to fetch" in run.output


def test_a_package_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, replies={"apt-get update": Reply(once=True)}).run()
    assert run.exit_code == 0
    assert len(run.called("apt-get update")) == 2


def test_a_reason_is_one_plain_line_without_secrets(tmp_path: Path) -> None:
    message = (
        f"{COPYING}reading blob {DIGEST}: \x1b[31mé\n"
        'Get "https://u:p4ss@cdn.example/blob?X-Amz-Credential=c0ffee&X-Amz-Signature=deadbeef": '
        f"Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln {ACCESS_KEY_ID} {SECRET_ACCESS_KEY} {PASSWORD} "
        + "x"
        * 300
    )
    for level in ("warning", "fatal"):
        reply = Reply(stderr=fatal(message).replace("fatal", level) + "\n \n", status=1)
        run = CodeBuild(tmp_path, replies={"skopeo copy": reply}).run()
        reason = run.exported["COPY_REASON"]
        assert reason.startswith(COPYING)
        assert len(reason) <= 300
        assert reason.isascii()
        assert reason.isprintable()
        for leak in ("p4ss", "c0ffee", "deadbeef", "eyJhbGci", ACCESS_KEY_ID, SECRET_ACCESS_KEY, PASSWORD, "\x1b"):
            assert leak not in run.output + reason, leak
        assert 'Get "https://cdn.example/blob"' in run.output


def test_a_long_reason_keeps_its_cause(tmp_path: Path) -> None:
    cause = f"Digest did not match, expected {DIGEST}, got {DIGEST}"
    uploading = (
        f'{COPYING}writing blob: Patch "https://{REGISTRY}/v2/mirror/gcr.io/google-samples/hello-app/blobs/uploads/1'
    )
    message = f'{uploading}": readfrom tcp 10.0.0.1:1->52.82.0.1:443: {cause}'
    run = CodeBuild(tmp_path, replies={"skopeo copy": Reply(stderr=fatal(message), status=1)}).run()
    assert run.exit_code == 1
    assert run.exported["COPY_REASON"].startswith(f"{COPYING}writing blob: Patch")
    assert run.exported["COPY_REASON"].endswith(cause)


def test_nothing_of_a_build_stays_on_its_disk(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path).run()
    (login,) = run.called("skopeo login")
    work = Path(next(argument for argument in login.arguments if argument.endswith("target.json"))).parent
    assert not work.exists()


def test_the_package_reads_the_exit_code_where_the_export_is_missing(tmp_path: Path) -> None:
    stderr = fatal(READING + "manifest unknown")
    run = CodeBuild(tmp_path, replies={"skopeo copy": Reply(stderr=stderr, status=1)}).run()
    message = f"Error while executing command: {run.failed_command}. Reason: exit status {run.exit_code}"
    assert len(message) < 120  # CodeBuild shortens a long message, and its end is important
    phase = {"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [{"message": message}]}
    build = read_build({"buildStatus": "FAILED", "phases": [phase]})
    assert build.result is BuildResult.REFUSED
    assert build.reason.startswith("NOT_FOUND")


def test_the_buildspec_does_not_print_its_commands_and_exports_the_result() -> None:
    spec = buildspec()
    assert spec["version"] == 0.2
    assert spec["env"]["shell"] == "bash"
    assert spec["env"]["exported-variables"] == ["COPY_RESULT", "COPY_REASON"]
    assert not any(name.startswith("AWS_") for name in spec["env"]["secrets-manager"])
    for phase in spec["phases"].values():
        for command in phase["commands"]:
            assert "set -x" not in command
            assert "xtrace" not in command


def test_a_command_that_hangs_is_killed_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, fifo = tmp_path / "script.sh", tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    communicate = subprocess.Popen.communicate

    def overdue(self: subprocess.Popen[bytes], input: bytes | None = None, timeout: float | None = None) -> Any:  # noqa: A002
        """Make the time run out as soon as the script has begun."""
        assert timeout == 300
        assert select.select([reader], [], [], 60)[0]
        return communicate(self, input, timeout=0)

    try:
        script.write_text(f"exec 3>'{fifo}'\nprintf x >&3\n/bin/sleep 300\n")
        monkeypatch.setattr(subprocess.Popen, "communicate", overdue)
        with pytest.raises(subprocess.TimeoutExpired):
            run_script(script, seconds=300)
        assert os.read(reader, 1) == b"x"
        # It ends when nobody holds it open any more.
        assert select.select([reader], [], [], 60)[0]
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
