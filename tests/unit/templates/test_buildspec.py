"""The buildspec of image-pulling.yaml, run by bash with stub programs."""

import base64
import json
import os
import select
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_mirror.build_result import read_build
from image_mirror.record import BuildResult
from image_mirror.reference import InvalidReferenceError, NoDestinationError, destination_of, parse_reference
from support.buildspec_runner import (
    ACCESS_KEY_ID,
    FAST,
    IMAGE,
    PASSWORD,
    PROJECTS,
    REGISTRY,
    SECRET_ACCESS_KEY,
    SOURCE_DIGEST,
    TARGET,
    CodeBuild,
    Reply,
    Run,
    buildspec,
    run_script,
)
from support.confined import confined
from support.copy_program import PROGRAM

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
AUTH_FILE = json.dumps({"auths": {"docker.io": {"auth": "dXNlcjpodWItcGFzc3dvcmQ="}}})
AUTH_FILE_OF_GCR = AUTH_FILE.replace("docker.io", "gcr.io")
SECRETS = (ACCESS_KEY_ID, SECRET_ACCESS_KEY, PASSWORD, "dXNlcjpodWItcGFzc3dvcmQ=")


def assert_ended(run: Run, result: str, *reasons: str) -> None:
    assert run.exported["COPY_RESULT"] == result, run.output
    assert run.exit_code == PROGRAM.EXIT_CODES[result]
    assert all(reason in run.exported["COPY_REASON"] for reason in reasons), run.exported["COPY_REASON"]


def programs(run: Run) -> set[str]:
    return {call.arguments[0] for call in run.calls}


def by_digest(image: str) -> str:
    """Return what crane copies for an image: the name without its tag, by the digest that the stub gives."""
    return image if "@" in image else f"{image.rpartition(':')[0]}@{SOURCE_DIGEST}"


def copied_to(run: Run) -> tuple[str, ...]:
    (copy,) = run.called("crane copy")
    return copy.arguments[4:]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def login(user: str, password: str) -> dict[str, str]:
    return {"auth": encoded(f"{user}:{password}")}


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
        assert not run.called("crane copy")
    else:
        assert run.exit_code == 0, run.output
        assert copied_to(run) == (by_digest(image), destination)


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
    pytest.param("gcr.io/a:digest-sha256", id="nearly our own tag"),
    pytest.param("registry-1.docker.io:443/a/b:1", id="docker.io's registry with a port"),
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
    pytest.param("registry-1.docker.io/library/nginx:1", id="docker.io's registry"),
    pytest.param("registry.hub.docker.com/library/nginx:1", id="another name of docker.io"),
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
    pytest.param("gcr.io/a:digest-sha256-1.0", id="a tag that begins as ours"),
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
        st.sampled_from(
            [
                *("gcr.io", "docker.io", "localhost", "a", "h:5000", "A.io", "a..b", "a_b.io", "é.io"),
                *("registry-1.docker.io", "registry.hub.docker.com", "index.docker.io"),
            ]
        ),
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
    assert programs(run) == {"curl"}


def test_with_the_account_named_no_other_account_is_a_target(tmp_path: Path) -> None:
    codebuild = CodeBuild(tmp_path, parameters={"ChinaAccountId": "123456789012"})
    assert codebuild.run().exit_code == 0
    assert_ended(codebuild.run(target=TARGET.replace("123456789012", "210987654321")), "BAD_INPUT", "ChinaAccountId")


@pytest.mark.parametrize("variable", ["DOCKER_IMAGE", "NEW_DOCKER_IMAGE"])
def test_a_secret_in_place_of_a_name_is_not_shown(tmp_path: Path, variable: str) -> None:
    run = CodeBuild(tmp_path).run(**{variable: SECRET_ACCESS_KEY})
    assert_ended(run, "BAD_INPUT", variable)
    assert SECRET_ACCESS_KEY not in run.output + str(run.exported)


AWS_ERROR = "\nAn error occurred ({}) when calling the GetAuthorizationToken operation: {}\n"


@pytest.mark.parametrize(
    ("result", "stderr"),
    [
        pytest.param(
            "TARGET_LOGIN",
            AWS_ERROR.format("UnrecognizedClientException", "The security token included in the request is invalid."),
            id="a key that was deleted",
        ),
        pytest.param(
            "TARGET_LOGIN",
            AWS_ERROR.format("AccessDeniedException", "User is not authorized to perform: ecr:GetAuthorizationToken"),
            id="a key without the permission",
        ),
        pytest.param("TARGET_LOGIN", "Unable to locate credentials.\n", id="no key"),
        pytest.param("UNREACHABLE", "Unable to locate the parcel\n", id="anything that AWS has not said"),
        pytest.param("TARGET_BUSY", AWS_ERROR.format("ThrottlingException", "Rate exceeded"), id="throttled"),
        pytest.param("TARGET_BUSY", AWS_ERROR.format("ServerException", "Service unavailable"), id="a fault of ECR"),
        pytest.param(
            "UNREACHABLE",
            '\nCould not connect to the endpoint URL: "https://api.ecr.cn-northwest-1.amazonaws.com.cn/"\n',
            id="the endpoint does not answer",
        ),
    ],
)
def test_a_failed_login_to_ecr_is_never_the_fault_of_the_source(tmp_path: Path, result: str, stderr: str) -> None:
    run = CodeBuild(tmp_path, replies={"aws ecr": Reply(stderr=stderr, status=254)}).run()
    assert_ended(run, result, " ".join(stderr.split()))
    assert not run.called("crane copy")


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        pytest.param("AccessKey", "", id="no access key ID"),
        pytest.param("AccessSecretKey", " \n", id="a blank secret key"),
    ],
)
def test_an_empty_entry_of_the_secret_is_named_and_no_registry_is_called(
    tmp_path: Path, entry: str, value: str
) -> None:
    secret = {"AccessKey": ACCESS_KEY_ID, "AccessSecretKey": SECRET_ACCESS_KEY, entry: value}
    run = CodeBuild(tmp_path, secret=secret).run()
    assert_ended(run, "TARGET_LOGIN", f"{entry} in the secret ImagePullSecret")
    assert programs(run) == {"curl"}


def test_white_space_around_the_keys_is_ignored(tmp_path: Path) -> None:
    secret = {"AccessKey": f" {ACCESS_KEY_ID}\n", "AccessSecretKey": SECRET_ACCESS_KEY + " "}
    (aws,) = CodeBuild(tmp_path, secret=secret).run().called("aws ecr")
    assert aws.arguments[2:] == ("get-login-password", "--region", "cn-northwest-1")
    assert aws.environment["AWS_ACCESS_KEY_ID"] == ACCESS_KEY_ID
    assert aws.environment["AWS_SECRET_ACCESS_KEY"] == SECRET_ACCESS_KEY


def test_the_region_of_the_login_is_the_parameter_and_not_the_secret(tmp_path: Path) -> None:
    codebuild = CodeBuild(tmp_path, parameters={"Region": "cn-north-1"})
    target = TARGET.replace("cn-northwest-1", "cn-north-1")
    (aws,) = codebuild.run(target=target).called("aws ecr")
    assert aws.arguments[-1] == "cn-north-1"
    assert set(buildspec()["env"]["secrets-manager"].values()) == {
        "ImagePullSecret:AccessKey",
        "ImagePullSecret:AccessSecretKey",
    }


def test_only_aws_gets_the_keys_and_no_program_gets_a_secret_as_an_argument(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, registry_auth=AUTH_FILE).run(AWS_SESSION_TOKEN="of-the-build-role")
    (aws,) = run.called("aws ecr")
    assert aws.environment["AWS_ACCESS_KEY_ID"] == ACCESS_KEY_ID
    assert not {"AWS_SESSION_TOKEN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} & set(aws.environment)
    for call in run.calls:
        assert not any(secret in argument for secret in SECRETS for argument in call.arguments)
        if call is not aws:
            assert not any(secret in value for secret in SECRETS for value in call.environment.values()), call.program
    assert not any(secret in run.output + str(run.exported) for secret in SECRETS)


def test_crane_and_curl_get_a_clean_environment(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, registry_auth=AUTH_FILE).run(
        HTTPS_PROXY="http://x", BASH_ENV="/x", DOCKER_AUTH_CONFIG="x"
    )
    of_program = {"PATH", "HOME", "DOCKER_CONFIG", "LC_ALL"}
    for program, names in (
        ("crane", of_program),
        ("curl --silent", of_program),
        ("curl --fail", {"PATH", "HOME", "LC_ALL"}),
    ):
        calls = [call for call in run.calls if call.program.startswith(program)]
        assert calls
        assert [set(call.environment) for call in calls] == [names] * len(calls)


def test_crane_gets_the_logins_of_the_two_registries_and_no_other(tmp_path: Path) -> None:
    auths = {"gcr.io": login("u", "gcr"), "ghcr.io": login("u", "ghcr"), "gcr.io/google-samples": login("u", "samples")}
    secret = json.dumps({"auths": auths, "credsStore": "x", "HttpHeaders": {"X": "y"}})
    (copy,) = CodeBuild(tmp_path, registry_auth=secret).run().called("crane copy")
    assert json.loads(copy.files["config.json"]) == {
        "auths": {"gcr.io": login("u", "samples"), REGISTRY: login("AWS", PASSWORD)}
    }


def test_without_a_registry_login_crane_gets_only_that_of_ecr(tmp_path: Path) -> None:
    (copy,) = CodeBuild(tmp_path).run().called("crane copy")
    assert json.loads(copy.files["config.json"]) == {"auths": {REGISTRY: login("AWS", PASSWORD)}}


def test_an_unusable_registry_login_is_reported_before_anything_is_copied(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, registry_auth='{"credsStore": "ecr-login"}').run()
    assert_ended(run, "AUTH_FILE", "RegistryAuthSecretArn", "credsStore")
    assert programs(run) == {"curl"}


def test_an_image_is_copied_by_the_digest_that_its_tag_has(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path).run()
    assert [call.arguments[1:] for call in run.calls if call.arguments[0] == "crane"] == [
        ("digest", IMAGE),
        ("digest", TARGET),
        ("copy", "--jobs", "12", by_digest(IMAGE), TARGET),
    ]
    assert run.failed_command is None
    assert run.exported == {
        "COPY_RESULT": "COPIED",
        "COPY_REASON": "the copy is in ECR",
        "COPY_DIGEST": SOURCE_DIGEST,
        "COPY_SIGNATURES": "0",
    }


@pytest.mark.parametrize("image", [IMAGE, f"gcr.io/a@{SOURCE_DIGEST}"], ids=["tag", "digest"])
def test_what_ecr_already_has_is_not_pulled(tmp_path: Path, image: str) -> None:
    target = target_in_package(image)
    assert target is not None
    run = CodeBuild(tmp_path, replies={"crane digest target": Reply(stdout=SOURCE_DIGEST + "\n")}).run(image, target)
    assert_ended(run, "COPIED", "ECR already has this image")
    assert run.exported["COPY_DIGEST"] == SOURCE_DIGEST
    assert not run.called("crane copy")


def test_an_older_image_in_ecr_is_copied_again(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, replies={"crane digest target": Reply(stdout=DIGEST + "\n")}).run()
    assert len(run.called("crane copy")) == 1


def test_a_digest_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, replies={"crane digest": Reply(stdout=f"sha512:{HEX * 2}\n")}).run()
    assert_ended(run, "BAD_INPUT", "sha256")


@pytest.mark.parametrize(
    ("result", "error", "copies"),
    [
        pytest.param("UNREACHABLE", 'Get "https://gcr.io/v2/": dial tcp: i/o timeout', 3, id="unreachable"),
        pytest.param("TARGET_BUSY", f"PUT https://{REGISTRY}/v2/x: unexpected status code 503", 3, id="busy"),
        pytest.param("RATE_LIMITED", "GET https://gcr.io/v2/x: TOOMANYREQUESTS: slow", 1, id="rate limit"),
        pytest.param("NOT_FOUND", "GET https://gcr.io/v2/x/manifests/1: MANIFEST_UNKNOWN: no", 1, id="not found"),
    ],
)
def test_a_copy_is_tried_again_within_the_build_only_if_the_network_or_ecr_failed(
    tmp_path: Path, result: str, error: str, copies: int
) -> None:
    run = CodeBuild(tmp_path, replies={"crane copy": Reply(stderr=f"Error: {error}\n", status=1)}).run()
    assert_ended(run, result, error[-20:])
    assert len(run.called("crane copy")) == copies


def test_a_copy_that_succeeds_at_the_second_try_is_copied(tmp_path: Path) -> None:
    error = 'Error: Get "https://gcr.io/v2/": EOF\n'
    run = CodeBuild(tmp_path, replies={"crane copy": Reply(stderr=error, once=True)}).run()
    assert_ended(run, "COPIED")
    assert len(run.called("crane copy")) == 2


def test_a_source_that_does_not_answer_is_not_tried_again_in_this_build(tmp_path: Path) -> None:
    error = 'Error: Get "https://gcr.io/v2/": EOF\n'
    run = CodeBuild(tmp_path, replies={"crane digest": Reply(stderr=error, status=1)}).run()
    assert_ended(run, "UNREACHABLE")
    assert len(run.called("crane digest")) == 1


def test_a_crane_that_ends_without_a_message_is_reported(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, replies={"crane copy": Reply(status=137)}).run()
    assert_ended(run, "UNEXPLAINED", "without an error message")


def test_a_missing_platform_is_named(tmp_path: Path) -> None:
    child = "sha256:" + "9" * 64
    index = {"manifests": [{"digest": child, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}]}
    error = f"Error: GET https://gcr.io/v2/a/manifests/{child}: MANIFEST_UNKNOWN: manifest unknown; map[]\n"
    replies = {"crane copy": Reply(stderr=error, status=1), "crane manifest": Reply(stdout=json.dumps(index))}
    run = CodeBuild(tmp_path, replies=replies).run()
    assert_ended(run, "NOT_FOUND", "does not have the manifest of linux/arm64/v8")


def test_a_bug_of_the_program_costs_no_attempt_and_shows_no_value(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path).run(TARGET_REGISTRY=None)
    assert_ended(run, "UNEXPLAINED", "KeyError")


def test_a_program_that_is_killed_costs_no_attempt_and_has_a_reason(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, replies={"python3 -I": Reply(status=137)}).run()
    assert run.exit_code == 137
    assert run.exported["COPY_RESULT"] == "UNEXPLAINED"
    assert "the log of the build says where" in run.exported["COPY_REASON"]


@pytest.mark.parametrize(
    ("replies", "result", "reason", "downloads"),
    [
        pytest.param(
            {"curl --fail": Reply(stderr="curl: (6) Could not resolve host\n", status=6)},
            *("UNREACHABLE", "CraneUrl: curl: (6) Could not resolve host", 3),
            id="never downloaded",
        ),
        pytest.param({"curl --fail": Reply(once=True)}, "COPIED", "the copy is in ECR", 2, id="at the second try"),
    ],
)
def test_a_download_is_tried_three_times(
    tmp_path: Path, replies: dict[str, Reply], result: str, reason: str, downloads: int
) -> None:
    run = CodeBuild(tmp_path, replies=replies).run()
    assert_ended(run, result, reason)
    assert len(run.called("curl --fail")) == downloads


def test_an_archive_with_another_sum_is_never_run(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path).run(CRANE_SHA256="0" * 64)
    assert_ended(run, "UNEXPLAINED", "SHA-256")
    assert programs(run) == {"curl"}


def test_an_archive_without_crane_is_reported(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path, archive=b"no archive").run()
    assert_ended(run, "UNEXPLAINED", "cannot be unpacked")


def test_a_reason_is_one_plain_line_without_secrets(tmp_path: Path) -> None:
    message = (
        f"copying {DIGEST}: \x1b[31mé "
        'Get "https://u:p4ss@cdn.example/blob?X-Amz-Credential=c0ffee&X-Amz-Signature=deadbeef": '
        f"Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln {ACCESS_KEY_ID} {SECRET_ACCESS_KEY} {PASSWORD} "
        f"hub-password {encoded('hub-password')} {encoded('user:hub-password')} {encoded(f'AWS:{PASSWORD}')} "
        + "x"
        * 300
    )
    for start in ("", "Error: "):
        reply = Reply(stderr=f"{start}{message}\n", status=1)
        run = CodeBuild(tmp_path, replies={"crane copy": reply}, registry_auth=AUTH_FILE_OF_GCR).run()
        reason = run.exported["COPY_REASON"]
        assert len(reason) <= 300
        assert reason.isascii()
        assert reason.isprintable()
        leaks = ("p4ss", "c0ffee", "deadbeef", "eyJhbGci", ACCESS_KEY_ID, SECRET_ACCESS_KEY, PASSWORD, "\x1b")
        for leak in (
            *leaks,
            "hub-password",
            encoded("hub-password"),
            encoded("user:hub-password"),
            encoded(f"AWS:{PASSWORD}"),
        ):
            assert leak not in run.output + reason, leak
        assert 'Get "https://cdn.example/blob"' in run.output


def test_a_long_reason_keeps_its_cause(tmp_path: Path) -> None:
    url = f"https://{REGISTRY}/v2/mirror/gcr.io/google-samples/hello-app/manifests/{'1' * 200}"
    cause = f"TAG_INVALID: The image tag '1.0' already exists and is immutable: {DIGEST} {DIGEST}"
    stderr = f"Error: pushing {IMAGE}: PUT {url}: {cause}\n"
    run = CodeBuild(tmp_path, replies={"crane copy": Reply(stderr=stderr, status=1)}).run()
    assert_ended(run, "REFUSED")
    assert run.exported["COPY_REASON"].startswith(f"pushing {IMAGE}: PUT https://")
    assert run.exported["COPY_REASON"].endswith(cause[-100:])


def test_nothing_of_a_build_stays_on_its_disk(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path).run()
    (copy,) = run.called("crane copy")
    (download,) = run.called("curl --fail")
    archive = download.arguments[download.arguments.index("--output") + 1]
    for path in (copy.environment["HOME"], copy.environment["DOCKER_CONFIG"], archive):
        assert not Path(path).parent.exists()


@pytest.mark.parametrize("project", PROJECTS)
def test_a_build_of_each_project_copies_an_image(tmp_path: Path, project: str) -> None:
    run = CodeBuild(tmp_path, project=project).run()
    assert_ended(run, "COPIED", "the copy is in ECR")
    assert run.exported["COPY_DIGEST"] == SOURCE_DIGEST


@pytest.mark.parametrize(
    ("replies", "image", "result"),
    [
        pytest.param({}, IMAGE, "COPIED", id="copied"),
        pytest.param({}, "nginx", "BAD_INPUT", id="refused"),
        pytest.param({"curl --fail": Reply(status=6)}, IMAGE, "UNREACHABLE", id="without crane"),
        pytest.param({"crane copy": Reply(status=1)}, IMAGE, "UNEXPLAINED", id="failed"),
    ],
)
def test_a_build_needs_no_root_and_writes_only_into_the_temporary_folder(
    tmp_path: Path, replies: dict[str, Reply], image: str, result: str
) -> None:
    """As on Lambda compute: an ordinary user, HOME in the temporary folder, and read-only all else."""
    prefix = confined(tmp_path)
    if prefix is None:
        pytest.skip("this machine allows no user namespaces")
    (temporary := tmp_path / "tmp").mkdir()
    (script := tmp_path / "who.sh").write_text('id -u; touch /written "$HOME/written" /tmp/written\n')
    assert run_script(script, prefix=prefix)[1].startswith("1000\n")
    assert not Path("/tmp/written").exists()

    build = CodeBuild(tmp_path, project=FAST, replies=replies, prefix=prefix, start="/")
    run = build.run(image, TMPDIR=str(temporary), HOME=str(temporary))
    assert_ended(run, result)
    assert list(temporary.iterdir()) == [], "nothing is left there"


# ---- a test of a project, which an operator starts ----


@pytest.mark.parametrize("project", PROJECTS)
def test_a_probe_logs_in_and_copies_nothing(tmp_path: Path, project: str) -> None:
    run = CodeBuild(tmp_path, project=project).run("", "", COPY_PROBE="login")
    assert_ended(run, "PROBED", "the login to ECR in China succeeds")
    assert run.exit_code == 0
    assert (run.exported["COPY_DIGEST"], run.exported["COPY_SIGNATURES"]) == ("", "")
    assert [call.program for call in run.calls] == ["curl --fail", "aws ecr", "crane version"]
    assert not any(secret in run.output + str(run.exported) for secret in SECRETS)


def test_a_probe_copies_nothing_whatever_image_it_is_given(tmp_path: Path) -> None:
    run = CodeBuild(tmp_path).run(COPY_PROBE="login")
    assert_ended(run, "PROBED")
    assert "crane copy" not in {call.program for call in run.calls}


@pytest.mark.parametrize(
    ("codebuild", "result", "reason"),
    [
        pytest.param({"secret": {"AccessKey": "", "AccessSecretKey": "x"}}, "TARGET_LOGIN", "AccessKey", id="no key"),
        pytest.param(
            {"replies": {"aws ecr": Reply(stderr="An error occurred (UnrecognizedClientException)", status=254)}},
            *("TARGET_LOGIN", "UnrecognizedClientException"),
            id="a key that AWS refuses",
        ),
        pytest.param({"archive": b"no archive"}, "UNEXPLAINED", "cannot be unpacked", id="no crane"),
        pytest.param(
            {"replies": {"crane version": Reply(stderr="exec format error", status=126)}},
            *("UNEXPLAINED", "crane does not run: exec format error"),
            id="a crane that does not run",
        ),
    ],
)
def test_a_probe_says_what_a_copy_would_lack(
    tmp_path: Path, codebuild: dict[str, Any], result: str, reason: str
) -> None:
    run = CodeBuild(tmp_path, project=FAST, **codebuild).run("", "", COPY_PROBE="login")
    assert_ended(run, result, reason)


def test_a_probe_finds_that_the_watch_sees_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc/PID/io cannot be read, each copy of more than ten minutes would count as stalled."""
    monkeypatch.setattr(PROGRAM, "ecr_password", lambda _: PASSWORD)
    monkeypatch.setattr(PROGRAM, "bytes_read", lambda _: -1)
    keys = {"CHINA_ACCESS_KEY_ID": ACCESS_KEY_ID, "CHINA_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}
    limits = {"COPY_PAUSES": "", "COPY_STALL_SECONDS": "9", "COPY_WATCH_SECONDS": "1", "MAX_IMAGE_GIGABYTES": "1"}
    environment = keys | limits | {"BUILD_TIMEOUT_MINUTES": "15", "CRANE": "/bin/true"}
    with pytest.raises(PROGRAM.Ended) as raised:
        PROGRAM.probe(PROGRAM.Build(environment, tmp_path))
    assert raised.value.result == "UNEXPLAINED"
    assert "/proc/PID/io" in raised.value.reason


@pytest.mark.parametrize("value", ["", "LOGIN", "true"])
def test_another_value_asks_for_no_probe(tmp_path: Path, value: str) -> None:
    assert_ended(CodeBuild(tmp_path).run(COPY_PROBE=value), "COPIED")


def test_the_package_reads_the_exit_code_where_the_export_is_missing(tmp_path: Path) -> None:
    stderr = "Error: GET https://gcr.io/v2/x/manifests/1.0: MANIFEST_UNKNOWN: manifest unknown\n"
    run = CodeBuild(tmp_path, replies={"crane copy": Reply(stderr=stderr, status=1)}).run()
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
    assert spec["env"]["exported-variables"] == [*("COPY_RESULT", "COPY_REASON", "COPY_DIGEST", "COPY_SIGNATURES")]
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
