"""Signatures that travel with an image: real cosign signs the source and verifies the copy by its name in ECR."""

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from e2e.fakes.registries import ECR_LOGIN, EcrApi, Registry, ecr_api, forwarded, registry, with_referrers
from e2e.fakes.servers import Answer, Request, serving
from e2e.harness.build import Project
from e2e.harness.image_shapes import EMPTY, MANIFEST, document, manifest_of
from e2e.harness.processes import program
from e2e.harness.source_images import Content, SourceImage, oci_index
from support.buildspec_runner import Run

LOGIN = ("puller", "a password")


@dataclass(frozen=True)
class World:
    """A source with the referrers API and one without, one that requires a login, the target, ECR's API, cosign."""

    source: Registry
    old_source: Registry
    private: Registry
    target: Registry
    api: EcrApi
    cosign: "Cosign"


@dataclass(frozen=True)
class Cosign:
    """cosign with a key pair and the logins, in `folder`."""

    folder: Path

    def run(self, *words: str, fails: bool = False) -> str:
        command = [str(program("cosign", "go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3")), *words]
        environment = os.environ | {"COSIGN_PASSWORD": "", "DOCKER_CONFIG": str(self.folder), "HOME": str(self.folder)}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails, done.stderr
        return done.stderr

    def log_in(self, host: str, login: tuple[str, str]) -> None:
        path = self.folder / "config.json"
        auths = json.loads(path.read_text())["auths"] if path.exists() else {}
        auths[host] = {"auth": base64.b64encode(":".join(login).encode()).decode()}
        path.write_text(json.dumps({"auths": auths}))

    def sign(self, image: str, *more: str) -> None:
        """Sign without a service of Sigstore."""
        self.run("sign", "--key=cosign.key", "--use-signing-config=false", "--tlog-upload=false", *more, image)

    def verify(self, image: str, *more: str, fails: bool = False) -> str:
        return self.run("verify", "--key=cosign.pub", "--insecure-ignore-tlog", *more, image, fails=fails)


AS_COSIGN_2 = ("--new-bundle-format=false",)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:

        def run(name: str, login: tuple[str, str] | None = None) -> Registry:
            return stack.enter_context(registry(tmp_path_factory.mktemp(name), login))

        cosign = Cosign(tmp_path_factory.mktemp("cosign"))
        cosign.run("generate-key-pair")
        source = stack.enter_context(with_referrers(run("source")))
        target = stack.enter_context(with_referrers(run("target", ECR_LOGIN)))
        private = stack.enter_context(with_referrers(run("private", LOGIN)))
        cosign.log_in(target.host, ECR_LOGIN)
        cosign.log_in(private.host, LOGIN)
        api = stack.enter_context(ecr_api(tmp_path_factory.mktemp("api")))
        yield World(source, run("old-source"), private, target, api, cosign)


@pytest.fixture
def project(world: World, tmp_path: Path) -> Project:
    locations = {
        "gcr.io": f"{world.source.host}/gcr.io",
        "quay.io": f"{world.old_source.host}/quay.io",
        "private.example": f"{world.private.host}/private.example",
    }
    return Project(tmp_path / "build", world.api, world.target, locations)


def copied(project: Project, image: str, signatures: str, **environment: str) -> Run:
    """Run the build, and check that it copied the image and what it says of the signatures."""
    run = project.run(image, **environment)
    assert run.exported["COPY_RESULT"] == "COPIED", run.output
    assert run.exported["COPY_SIGNATURES"] == signatures, run.output
    return run


def tags(world: World, project: Project, image: str) -> set[str]:
    return set(world.target.catalogue()[project.destination(image).repository])


@pytest.mark.parametrize(
    ("image", "source", "options", "its_own_tag"),
    [
        pytest.param("gcr.io/signed/bundle:1", "source", (), False, id="cosign 3, found by the referrers API"),
        pytest.param("quay.io/signed/bundle:1", "old_source", (), False, id="cosign 3, found by the tag sha256-<hex>"),
        pytest.param("gcr.io/signed/tag:1", "source", AS_COSIGN_2, True, id="cosign 2, found by its tag"),
        pytest.param("quay.io/signed/tag:1", "old_source", AS_COSIGN_2, True, id="cosign 2, without the referrers API"),
    ],
)
def test_a_signed_image_is_verified_by_the_name_of_its_copy(
    world: World, project: Project, image: str, source: str, options: Sequence[str], its_own_tag: bool
) -> None:
    origin: Registry = getattr(world, source)
    pushed, repository = oci_index(image), image.removesuffix(":1")
    origin.push(repository, "1", pushed)
    world.cosign.sign(f"{origin.host}/{repository}@{pushed.manifest.digest}", *options)
    copied(project, image, "1")
    copy = str(project.destination(image))
    world.cosign.verify(copy, *options)
    tag = pushed.manifest.digest.replace(":", "-")
    # In ECR the tag sha256-<hex> would be an image of its own that refers to the signatures.
    assert tags(world, project, image) == {"1", f"{tag}.sig"} if its_own_tag else {"1"}


def test_an_image_without_signatures_is_not_verified(world: World, project: Project) -> None:
    world.source.push("gcr.io/team/unsigned", "1", oci_index("unsigned"))
    copied(project, "gcr.io/team/unsigned:1", "0")
    said = world.cosign.verify(str(project.destination("gcr.io/team/unsigned:1")), fails=True)
    assert "no signatures found" in said


def test_signatures_of_a_private_source_are_found_with_its_login(world: World, project: Project) -> None:
    pushed, repository = oci_index("private"), "private.example/team/signed"
    world.private.push(repository, "1", pushed)
    world.cosign.sign(f"{world.private.host}/{repository}@{pushed.manifest.digest}")
    login = base64.b64encode(":".join(LOGIN).encode()).decode()
    project = replace(project, registry_auth=json.dumps({"auths": {"private.example": {"auth": login}}}))
    run = copied(project, f"{repository}:1", "1")
    assert LOGIN[1] not in run.output
    assert login not in run.output


def test_signatures_are_found_with_the_token_that_the_source_asks_for(world: World, project: Project) -> None:
    pushed, repository = oci_index("token"), "private.example/team/token"
    world.private.push(repository, "1", pushed)
    world.cosign.sign(f"{world.private.host}/{repository}@{pushed.manifest.digest}")
    login, token = base64.b64encode(":".join(LOGIN).encode()).decode(), "a-token-of-this-test"
    scopes: set[str] = set()

    def token_server(request: Request) -> Answer:
        query = parse_qs(urlsplit(request.path).query)
        if request.headers.get("authorization") != f"Basic {login}" or query["service"] != ["a registry"]:
            return Answer(401)
        scopes.update(query["scope"])
        return Answer(200, json.dumps({"token": token}).encode())

    def source(request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {token}":
            challenge = 'Bearer realm="https://auth.example/token",service="a registry"'
            return Answer(401, headers={"WWW-Authenticate": challenge})
        headers = {**request.headers, "authorization": f"Basic {login}"}
        return forwarded(world.private, replace(request, headers=headers))

    with serving(token_server) as tokens, serving(source) as port:
        locations = {"private.example": f"localhost:{port}/private.example", "auth.example": f"localhost:{tokens}"}
        auth = json.dumps({"auths": {"private.example": {"auth": login}}})
        run = copied(replace(project, locations=locations, registry_auth=auth), f"{repository}:1", "1")
    assert scopes == {"repository:team/token:pull"}
    assert not [secret for secret in (login, token, LOGIN[1]) if secret in run.output]


def test_signatures_are_not_copied_if_the_parameter_says_so(world: World, project: Project) -> None:
    pushed = oci_index("not wanted")
    world.source.push("gcr.io/team/off", "1", pushed)
    world.cosign.sign(f"{world.source.host}/gcr.io/team/off@{pushed.manifest.digest}")
    run = project.run("gcr.io/team/off:1", WITH_SIGNATURES="false")
    assert (run.exported["COPY_RESULT"], run.exported["COPY_SIGNATURES"]) == ("COPIED", "")
    assert "no signatures found" in world.cosign.verify(str(project.destination("gcr.io/team/off:1")), fails=True)


def test_an_unchanged_image_is_not_looked_at_for_signatures(world: World, project: Project, tmp_path: Path) -> None:
    world.source.push("gcr.io/team/same", "1", oci_index("same"))
    copied(project, "gcr.io/team/same:1", "0")
    copied(replace(project, folder=tmp_path / "again"), "gcr.io/team/same:1", "")


def artifacts(of: SourceImage, count: int, size: int = 1) -> list[SourceImage]:
    """Return artifacts that refer to an image, each with one layer of `size` bytes."""
    made = []
    for number in range(count):
        layer = Content("application/vnd.example", (b"%d " % number * size)[: max(size, 4)])
        value = manifest_of(
            MANIFEST,
            artifactType="application/vnd.example",
            config=EMPTY.descriptor(),
            layers=[layer.descriptor()],
            subject=of.manifest.descriptor(),
        )
        made.append(SourceImage(document(MANIFEST, value), (), (EMPTY, layer)))
    return made


def push_with(world: World, repository: str, some: Callable[[SourceImage], list[SourceImage]]) -> SourceImage:
    pushed = oci_index(repository)
    world.source.push(repository, "1", pushed)
    for each in some(pushed):
        world.source.push(repository, each.manifest.digest, each)
    return pushed


def test_at_most_fifty_artifacts_are_copied(world: World, project: Project) -> None:
    push_with(world, "gcr.io/team/many", lambda image: artifacts(image, 52))
    copied(project, "gcr.io/team/many:1", "50 of 52: at most 50 are copied")


def test_an_artifact_that_cannot_be_copied_fails_neither_the_others_nor_the_image(
    world: World, project: Project
) -> None:
    broken: list[SourceImage] = []

    def some(image: SourceImage) -> list[SourceImage]:
        broken.extend(artifacts(image, 3))
        return broken

    push_with(world, "gcr.io/team/broken", some)
    world.source.corrupt(broken[1].last_layer)
    run = project.run("gcr.io/team/broken:1")
    assert run.exported["COPY_RESULT"] == "COPIED"
    assert run.exported["COPY_SIGNATURES"].startswith("2 of 3: "), run.output
    assert broken[1].last_layer.digest in run.exported["COPY_SIGNATURES"]


def test_a_source_that_refuses_to_list_signatures_does_not_fail_the_copy(world: World, project: Project) -> None:
    world.source.push("gcr.io/team/refused", "1", oci_index("refused"))
    tag_or_referrers = ("/referrers/", "/manifests/sha256-")

    def answer(request: Request) -> Answer:
        if any(each in request.path for each in tag_or_referrers):
            return Answer(403, b"no")
        return forwarded(world.source, request)

    with serving(answer) as port:
        project = replace(project, locations={"gcr.io": f"localhost:{port}/gcr.io"})
        run = project.run("gcr.io/team/refused:1")
    assert run.exported["COPY_RESULT"] == "COPIED", run.output
    assert "the source answered 403" in run.exported["COPY_SIGNATURES"]
