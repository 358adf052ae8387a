"""The buildspec with real programs: crane and the AWS CLI copy images from one real registry into another."""

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from e2e.fakes.registries import (
    ECR_LOGIN,
    EcrApi,
    Registry,
    busy_registry,
    ecr_api,
    guarded_source,
    odd_source,
    refusing_target,
    registry,
)
from e2e.fakes.servers import Answer, Request
from e2e.harness.build import Project
from e2e.harness.image_shapes import SHAPES, with_data
from e2e.harness.processes import free_port, program
from e2e.harness.pulled import assert_pulled
from e2e.harness.source_images import SourceImage, digest_of, docker_image, oci_index
from support.buildspec_runner import FAST, Run, buildspec
from support.copy_program import PROGRAM
from tools.put_buildspec_into_template import SCRIPTS

LOGIN = ("puller", 'Sesam $(touch shown) \'"*" open')
SHELL = "$(touch shown)"


@dataclass(frozen=True)
class Registries:
    """Two source registries, one of which requires a login, the target, which requires ECR's login, and ECR's API."""

    source: Registry
    private: Registry
    target: Registry
    api: EcrApi


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    with ExitStack() as stack:

        def run(name: str, login: tuple[str, str] | None = None) -> Registry:
            return stack.enter_context(registry(tmp_path_factory.mktemp(name), login))

        api = stack.enter_context(ecr_api(tmp_path_factory.mktemp("api")))
        yield Registries(run("source"), run("private", LOGIN), run("target", ECR_LOGIN), api)


@pytest.fixture
def project(registries: Registries, tmp_path: Path) -> Project:
    """The project as shipped, with all of gcr.io in the source registry."""
    locations = {"gcr.io": f"{registries.source.host}/gcr.io"}
    return Project(tmp_path / "build", registries.api, registries.target, locations)


def auth_file(host: str, user: str, password: str) -> str:
    """Return the text of the file that "skopeo login" writes."""
    return json.dumps({"auths": {host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}}}, indent=4)


def assert_ended(project: Project, run: Run, result: str, *reasons: str) -> None:
    """Check the result of a build, by its exit code and its export, and that it shows no password and no key."""
    assert run.exported["COPY_RESULT"] == result, run.output
    assert run.exit_code == PROGRAM.EXIT_CODES[result], run.output
    assert set(run.exported) == {"COPY_RESULT", "COPY_REASON", "COPY_DIGEST", "COPY_SIGNATURES"}
    assert bool(run.exported["COPY_DIGEST"]) is (result == "COPIED")
    reason = run.exported["COPY_REASON"]
    assert all(each in reason for each in reasons), reason
    shown = run.output + str(run.exported)
    secrets = [project.api.access_key_id, project.api.secret_access_key, ECR_LOGIN[1], LOGIN[1]]
    secrets += [value for name, value in project.key.items() if name != "Region"]
    secrets += [base64.b64encode(":".join(login).encode()).decode() for login in (ECR_LOGIN, LOGIN)]
    assert not [secret for secret in secrets if secret in shown]


def assert_same(project: Project, origin: Registry, repository: str, image: str, pushed: SourceImage) -> None:
    """Check that the copy equals its source in every byte: index, platforms, configurations and layers."""
    destination = project.destination(image)
    sides = ((origin, repository), (project.target, destination.repository))
    tagged = project.target.manifest(destination.repository, destination.tag)
    assert tagged == pushed.manifest
    for manifest in (pushed.manifest, *pushed.platforms):
        assert [side.manifest(name, manifest.digest) for side, name in sides] == [manifest, manifest]
        assert digest_of(project.target.manifest(destination.repository, manifest.digest).data) == manifest.digest
    for blob in pushed.blobs:
        assert [side.blob(name, blob.digest) for side, name in sides] == [blob.data, blob.data]
    tags = project.target.catalogue()[destination.repository]
    # crane writes such a tag for a manifest with a subject only if a registry has no referrers API, which ECR has.
    assert {tag: each for tag, each in tags.items() if not tag.startswith("sha256-")} == {
        destination.tag: pushed.manifest.digest
    }


TO_COPY = [
    pytest.param("gcr.io/team/index:1.0", oci_index("index"), id="an index of two platforms"),
    pytest.param("gcr.io/team/docker:1.0", docker_image("docker"), id="a Docker v2.2 image"),
    pytest.param("gcr.io/team/index-by-digest", oci_index("index by digest"), id="an index by digest"),
    pytest.param("gcr.io/team/docker-by-digest", docker_image("docker by digest"), id="a Docker v2.2 image by digest"),
]


@pytest.mark.parametrize(("image", "pushed"), TO_COPY)
def test_a_copy_is_its_source_to_the_byte_and_is_pulled_by_the_rewritten_name(
    registries: Registries, project: Project, image: str, pushed: SourceImage
) -> None:
    repository, _, tag = image.partition(":")
    registries.source.push(repository, tag or pushed.manifest.digest, pushed)
    image = image if tag else f"{image}@{pushed.manifest.digest}"
    assert_ended(project, project.run(image), "COPIED")
    if not tag:
        assert project.destination(image).tag == pushed.manifest.digest.replace("sha256:", "digest-sha256-")
    assert_same(project, registries.source, repository, image, pushed)
    assert_pulled(project.folder, project.target, str(project.destination(image)), pushed)
    assert registries.source.requests_of_crane()  # otherwise the tests below that expect none would prove nothing
    assert registries.target.requests_of_crane()


@pytest.mark.parametrize("name", SHAPES)
def test_an_image_of_each_shape_is_copied_byte_for_byte(registries: Registries, project: Project, name: str) -> None:
    pushed, repository = SHAPES[name], f"shapes/{name.lower().replace(' ', '-')}"
    registries.source.push(repository, "1", pushed)
    image = f"{registries.source.host}/{repository}:1"
    project = replace(project, locations={})
    run = project.run(image)
    assert_ended(project, run, "COPIED")
    assert run.exported["COPY_DIGEST"] == pushed.manifest.digest
    assert_same(project, registries.source, repository, image, pushed)


def test_an_entry_whose_data_is_not_its_manifest_is_refused(registries: Registries, project: Project) -> None:
    registries.source.push("shapes/lie", "1", with_data("lie", true=False))
    project = replace(project, locations={})
    assert_ended(
        project, project.run(f"{registries.source.host}/shapes/lie:1"), "BAD_INPUT", "has data that is not its manifest"
    )


def test_an_unchanged_image_is_not_pulled_again(registries: Registries, project: Project, tmp_path: Path) -> None:
    pushed = oci_index("unchanged")
    registries.source.push("team/unchanged", "1", pushed)
    image = f"{registries.source.host}/team/unchanged:1"
    project = replace(project, locations={})
    assert_ended(project, project.run(image), "COPIED", "the copy is in ECR")
    pulls = registries.source.pulls("team/unchanged")
    assert pulls == 1 + len(pushed.platforms)
    again = replace(project, folder=tmp_path / "again")
    assert_ended(again, again.run(image), "COPIED", "ECR already has this image")
    assert registries.source.pulls("team/unchanged") == pulls


def test_a_platform_that_is_gone_fails_the_copy_and_is_named(registries: Registries, project: Project) -> None:
    pushed = oci_index("sparse")
    registries.source.push("team/sparse", "1", pushed)
    registries.source.delete("team/sparse", pushed.platforms[1].digest)
    project = replace(project, locations={})
    run = project.run(f"{registries.source.host}/team/sparse:1")
    assert_ended(project, run, "NOT_FOUND", "linux/arm64", "MANIFEST_UNKNOWN")


def test_a_port_in_the_name_of_the_registry_is_part_of_the_destination(
    registries: Registries, project: Project
) -> None:
    pushed = oci_index("port")
    registries.source.push("team/port", "1", pushed)
    image = f"{registries.source.host}/team/port:1"
    assert_ended(project, project.run(image), "COPIED")
    port = registries.source.host.partition(":")[2]
    assert registries.target.catalogue()[f"mirror/localhost_{port}/team/port"] == {"1": pushed.manifest.digest}
    assert_same(project, registries.source, "team/port", image, pushed)
    assert_pulled(project.folder, project.target, str(project.destination(image)), pushed)


def test_a_source_that_requires_a_login_gets_its_own(registries: Registries, project: Project) -> None:
    pushed = docker_image("private")
    registries.private.push("team/private", "1", pushed)
    image = f"{registries.private.host}/team/private:1"
    project = replace(project, registry_auth=auth_file(registries.private.host, *LOGIN))
    assert_ended(project, project.run(image), "COPIED")
    assert_same(project, registries.private, "team/private", image, pushed)
    assert_pulled(project.folder, project.target, str(project.destination(image)), pushed)


def test_a_source_that_is_busy_for_a_while_is_asked_again(registries: Registries, project: Project) -> None:
    pushed = oci_index("busy for a while")
    registries.source.push("team/busy", "1", pushed)
    with busy_registry(registries.source, refusals=3) as busy:
        project = replace(project, locations={"busy.example": busy.host})
        image = "busy.example/team/busy:1"
        assert_ended(project, project.run(image), "COPIED")
        assert busy.refused == 3
    assert_same(project, registries.source, "team/busy", image, pushed)


def test_a_tag_that_moved_is_copied_again(registries: Registries, project: Project, tmp_path: Path) -> None:
    image = "gcr.io/team/moving:latest"
    for number, pushed in enumerate((docker_image("before"), oci_index("after"))):
        registries.source.push("gcr.io/team/moving", "latest", pushed)
        project = replace(project, folder=tmp_path / f"build-{number}")
        assert_ended(project, project.run(image), "COPIED")
        assert_same(project, registries.source, "gcr.io/team/moving", image, pushed)


def tagged(registry: Registry) -> dict[str, dict[str, str]]:
    """Return the tags of each repository that has any: layers of a copy that failed stay without a tag."""
    return {repository: tags for repository, tags in registry.catalogue().items() if tags}


@pytest.fixture
def untouched(registries: Registries) -> Iterator[None]:
    """Check that after the test the target's catalogue is what it was before."""
    before = tagged(registries.target)
    yield
    assert tagged(registries.target) == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "image",
    [
        pytest.param("gcr.io/team/there:missing", id="tag"),
        pytest.param("gcr.io/team/missing:1", id="repository"),
        pytest.param("gcr.io/team/there@sha256:" + "0" * 64, id="digest"),
    ],
)
def test_a_missing_image_is_not_found(registries: Registries, project: Project, image: str) -> None:
    registries.source.push("gcr.io/team/there", "1", docker_image("there"))
    assert_ended(project, project.run(image), "NOT_FOUND", "unknown")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("auth", "result", "reason"),
    [
        pytest.param(None, "DENIED", "authentication required", id="no login"),
        pytest.param(auth_file("HOST", LOGIN[0], "no"), "DENIED", "authentication required", id="a wrong login"),
        pytest.param('{"auths": ', "AUTH_FILE", "RegistryAuthSecretArn", id="a broken auth file"),
    ],
)
def test_a_source_that_refuses_the_login_and_a_broken_secret_have_different_results(
    registries: Registries, project: Project, auth: str | None, result: str, reason: str
) -> None:
    host = registries.private.host
    registries.private.push("team/closed", "1", docker_image("closed"))
    project = replace(project, registry_auth=auth and auth.replace("HOST", host))
    assert_ended(project, project.run(f"{host}/team/closed:1"), result, reason)


def errors(status: int, code: str) -> Answer:
    """Return an answer with an error as registries write it."""
    body = json.dumps({"errors": [{"code": code, "message": "no"}]}).encode()
    return Answer(status, body, {"Content-Type": "application/json"})


GIVEN = Answer(200, b'{"token": "a-token"}', {"Content-Type": "application/json"})
MISSING = errors(404, "MANIFEST_UNKNOWN")
REFUSED_LOGIN = "the login for KEY in the secret of RegistryAuthSecretArn is refused: "


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("token", "manifest", "realm", "result", "reason"),
    [
        pytest.param(Answer(401, b"no"), MISSING, "/token", "AUTH_FILE", REFUSED_LOGIN, id="401 for a token"),
        pytest.param(
            errors(401, "UNAUTHORIZED"), MISSING, "/service/token", "AUTH_FILE", REFUSED_LOGIN, id="401 with a code"
        ),
        pytest.param(
            Answer(401, b"no"), MISSING, "/v2/auth", "AUTH_FILE", REFUSED_LOGIN, id="401 for a token below the API"
        ),
        pytest.param(Answer(403, b"no"), MISSING, "/token", "DENIED", "with the login for KEY: ", id="403 for a token"),
        pytest.param(
            GIVEN, errors(401, "UNAUTHORIZED"), "/token", "DENIED", "with the login for KEY: ", id="401 for the image"
        ),
        pytest.param(
            GIVEN, errors(403, "DENIED"), "/token", "DENIED", "with the login for KEY: ", id="403 for the image"
        ),
        pytest.param(GIVEN, MISSING, "/token", "NOT_FOUND", "MANIFEST_UNKNOWN", id="a login that is accepted"),
    ],
)
def test_a_login_that_the_source_refuses_is_told_from_an_image_that_it_does_not_give(
    project: Project, token: Answer, manifest: Answer, realm: str, result: str, reason: str
) -> None:
    with guarded_source(token, manifest, realm) as source:
        project = replace(project, registry_auth=auth_file(source.host, *LOGIN), locations={})
        run = project.run(f"{source.host}/team/app:1")
    assert_ended(project, run, result, reason.replace("KEY", source.host))
    basic = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
    assert set(source.logins) == {basic}


@pytest.mark.usefixtures("untouched")
def test_a_token_server_that_gives_nothing_without_a_login_denies_the_image(project: Project) -> None:
    with guarded_source(Answer(401, b"no"), MISSING) as source:
        run = replace(project, locations={}).run(f"{source.host}/team/app:1")
    assert_ended(project, run, "DENIED", "unexpected status code 401 Unauthorized")
    assert "login for" not in run.exported["COPY_REASON"]
    assert set(source.logins) == {None}


@pytest.mark.usefixtures("untouched")
def test_a_source_that_stays_busy_ends_as_a_rate_limit(registries: Registries, project: Project) -> None:
    with busy_registry(registries.source, refusals=1_000) as busy:
        project = replace(project, locations={"busy.example": busy.host})
        assert_ended(project, project.run("busy.example/team/app:1"), "RATE_LIMITED", "TOOMANYREQUESTS")
        assert 4 <= busy.refused < 1_000


@pytest.mark.parametrize(
    ("status", "code", "message", "result"),
    [
        pytest.param(405, "UNSUPPORTED", "Invalid parameter at 'ImageManifest'", "REFUSED", id="a manifest"),
        pytest.param(400, "TAG_INVALID", "cannot be overwritten because the tag is immutable.", "REFUSED", id="a tag"),
        pytest.param(403, "DENIED", "Your authorization token has expired.", "TARGET_DENIED", id="an expired password"),
        pytest.param(404, "NAME_UNKNOWN", "The repository does not exist", "TARGET_BUSY", id="no repository"),
    ],
)
def test_a_target_that_refuses_a_manifest_is_not_the_fault_of_the_source(
    registries: Registries, project: Project, status: int, code: str, message: str, result: str
) -> None:
    registries.source.push("team/refused-there", "1", oci_index("refused there"))
    with refusing_target(status, code, message) as host:
        project = replace(project, target=replace(registries.target, host=host), locations={})
        run = project.run(f"{registries.source.host}/team/refused-there:1")
        assert_ended(project, run, result, code, message)


def test_a_source_that_sends_nothing_is_stalled(project: Project) -> None:
    over = threading.Event()

    def silent(_: Request) -> Answer:
        over.wait()
        return Answer(500)

    project = replace(project, locations={})
    with odd_source(silent) as host:
        try:
            run = project.run(f"{host}/team/app:1", COPY_STALL_SECONDS="0.5")
        finally:
            over.set()
    assert_ended(project, run, "STALLED", "nothing was read for 0.5 s")


def test_an_image_above_the_limit_is_too_large(registries: Registries, project: Project) -> None:
    registries.source.push("team/large", "1", docker_image(os.urandom(10_000_000).hex()))
    project = replace(project, locations={})
    run = project.run(f"{registries.source.host}/team/large:1", MAX_IMAGE_GIGABYTES="0.001", COPY_WATCH_SECONDS="0")
    assert_ended(project, run, "TOO_LARGE", "MaxImageGigabytes")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("key", "result", "reason"),
    [
        pytest.param({}, "PROBED", "the login to ECR in China succeeds", id="a good key"),
        pytest.param({"AccessSecretKey": "w" * 40}, "TARGET_LOGIN", "signature", id="a wrong secret"),
    ],
)
def test_a_probe_logs_in_to_ecr_and_asks_no_registry(
    registries: Registries, project: Project, key: dict[str, str], result: str, reason: str
) -> None:
    def asked() -> list[int]:
        return [each.requests_of_crane() for each in (registries.source, registries.target)]

    before = asked()
    run = replace(project, project=FAST, key=key).run("", "", COPY_PROBE="login")
    assert_ended(project, run, result, reason)
    assert asked() == before


def test_an_answer_that_nothing_explains_is_unexplained(project: Project) -> None:
    project = replace(project, locations={})
    with odd_source(lambda _: Answer(418)) as host:
        assert_ended(project, project.run(f"{host}/team/app:1"), "UNEXPLAINED", "418")


def test_a_target_that_does_not_answer_is_unreachable(registries: Registries, project: Project) -> None:
    registries.source.push("gcr.io/team/app", "1", docker_image("app"))
    project = replace(project, target=replace(registries.target, host=f"localhost:{free_port()}"))
    assert_ended(project, project.run("gcr.io/team/app:1"), "UNREACHABLE", "connection refused")


@pytest.mark.usefixtures("untouched")
def test_a_corrupt_layer_fails_the_build(registries: Registries, project: Project) -> None:
    pushed = docker_image("corrupt")
    registries.source.push("gcr.io/team/corrupt", "1", pushed)
    registries.source.corrupt(pushed.last_layer)
    run = project.run("gcr.io/team/corrupt:1")
    assert_ended(project, run, "UNREACHABLE", "got ", f'want "{pushed.last_layer.digest}"')


def test_a_corrupt_layer_of_one_platform_leaves_the_earlier_copy_in_its_place(
    registries: Registries, project: Project, tmp_path: Path
) -> None:
    image = "gcr.io/team/refreshed:1"
    good, bad = oci_index("good"), oci_index("bad")
    registries.source.push("gcr.io/team/refreshed", "1", good)
    assert_ended(project, project.run(image), "COPIED")
    before = registries.target.catalogue()
    registries.source.push("gcr.io/team/refreshed", "1", bad)
    registries.source.corrupt(bad.last_layer)
    again = replace(project, folder=tmp_path / "again")
    assert_ended(again, again.run(image), "UNREACHABLE", "got ", "want ")
    assert registries.target.catalogue() == before
    assert_same(again, registries.source, "gcr.io/team/refreshed", image, good)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        pytest.param("AccessKey", "AKIAIOSFODNN7EXAMPLE", "security token", id="an unknown key"),
        pytest.param("AccessSecretKey", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "signature", id="a wrong secret"),
        pytest.param("AccessSecretKey", f"'\"`touch shown`;{SHELL}*", "signature", id="shell characters"),
    ],
)
def test_a_key_that_aws_refuses_is_no_fault_of_the_source(
    registries: Registries, project: Project, entry: str, value: str, reason: str
) -> None:
    before = registries.target.requests_of_crane()
    project = replace(project, key={entry: value})
    assert_ended(project, project.run("gcr.io/team/app:1"), "TARGET_LOGIN", reason)
    assert registries.target.requests_of_crane() == before
    assert not list(project.folder.rglob("shown"))


def test_a_target_that_refuses_the_password_stays_empty(
    registries: Registries, project: Project, tmp_path: Path
) -> None:
    registries.source.push("gcr.io/team/refused", "1", docker_image("refused"))
    tmp_path.joinpath("other").mkdir()
    with registry(tmp_path / "other", ("AWS", "another password")) as other:
        project = replace(project, target=other)
        run = project.run("gcr.io/team/refused:1")
        assert_ended(project, run, "TARGET_DENIED", "401 Unauthorized")
        assert other.catalogue() == {}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("variable", ["DOCKER_IMAGE", "NEW_DOCKER_IMAGE"])
@pytest.mark.parametrize(
    "addition",
    [
        pytest.param(SHELL, id="command substitution"),
        pytest.param("`touch shown`", id="backticks"),
        pytest.param("; touch shown", id="semicolon"),
        pytest.param("\ntouch shown", id="newline"),
        pytest.param("' && touch shown && '", id="single quotes"),
        pytest.param('" && touch shown && "', id="double quotes"),
        pytest.param(" --dest-tls-verify=false", id="an option"),
        pytest.param("${CHINA_SECRET_ACCESS_KEY}", id="a variable"),
    ],
)
def test_a_name_with_shell_characters_runs_no_command_and_calls_no_registry(
    registries: Registries, project: Project, variable: str, addition: str
) -> None:
    def asked() -> list[int]:
        api = registries.api.log.stat().st_size
        return [api, registries.source.requests_of_crane(), registries.target.requests_of_crane()]

    before = asked()
    image = "gcr.io/team/index:1.0"
    names = {"DOCKER_IMAGE": image, "NEW_DOCKER_IMAGE": project.destination(image).by_tag}
    names[variable] += addition
    run = project.run(names["DOCKER_IMAGE"], names["NEW_DOCKER_IMAGE"])
    assert_ended(project, run, "BAD_INPUT", variable)
    assert asked() == before
    assert not list(project.folder.rglob("shown"))


def test_no_expansion_of_the_buildspec_is_left_unquoted() -> None:
    shellcheck = program("shellcheck", "apt-get install shellcheck")
    # Unquoted expansions: command substitutions, arrays, variables, also in arrays and in patterns of other expansions.
    rules = "SC2046,SC2048,SC2068,SC2086,SC2206,SC2207,SC2295"
    for phase in buildspec()["phases"].values():
        for command in phase["commands"]:
            done = subprocess.run(
                [shellcheck, "--shell=bash", f"--include={rules}", "-"],
                input=command,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    shellcheck = program("shellcheck", "apt-get install shellcheck")
    done = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
