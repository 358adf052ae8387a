"""A build of image-pulling.yaml's project with real programs: bash, Python, curl, crane and the AWS CLI."""

import hashlib
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from e2e.fakes.internet import internet
from e2e.fakes.registries import EcrApi, Registry
from e2e.fakes.servers import Answer, serving
from e2e.harness.processes import absent, program
from image_mirror.reference import Destination, destination_of, parse_reference
from support.buildspec_runner import MAIN, CodeBuild, Run, make_archive

PREFIX = "mirror"
# The first releases of versions 1 and 2 that read AWS_ENDPOINT_URL; older ones would call the real AWS.
_CRANE = "go install github.com/google/go-containerregistry/cmd/crane@v0.21.9"
_AWS_CLI = {1: (1, 29), 2: (2, 13)}


@dataclass(frozen=True)
class Project:
    """The project on the global side, with ECR's API and registry in China, and the real places of the images.

    `folder` must not exist yet, and is for one build. `locations` has the host and path that is used instead of a
    registry on the Internet. `key` replaces entries of the secret ImagePullSecret, `registry_auth` is the text of the
    secret with logins for the sources. `project` is the template's project, MAIN or FAST, and
    `parameters` are further ones of the stack.
    """

    folder: Path
    api: EcrApi
    target: Registry
    locations: Mapping[str, str] = field(default_factory=dict)
    key: Mapping[str, str] = field(default_factory=dict)
    registry_auth: str | None = None
    project: str = MAIN
    parameters: Mapping[str, str] = field(default_factory=dict)

    def destination(self, image: str) -> Destination:
        """Return the destination that the package computes for `image`."""
        return destination_of(parse_reference(image), self.target.host, PREFIX)

    def run(self, image: str, target: str | None = None, **environment: str) -> Run:
        """Copy `image` to its destination, or to `target`. The build writes files only in `folder`.

        `environment` replaces variables of the project.
        """
        check_programs()
        self.folder.mkdir(parents=True)
        codebuild = CodeBuild(
            self.folder,
            parameters={"RepositoryPrefix": PREFIX, **self.parameters},
            secret={
                "Region": "cn-northwest-1",
                "AccessKey": self.api.access_key_id,
                "AccessSecretKey": self.api.secret_access_key,
                **self.key,
            },
            registry_auth=self.registry_auth,
            project=self.project,
            path=f"{self.folder / 'programs'}:{os.environ['PATH']}",
        )
        # A name that must be quoted, because of its space and its pattern characters.
        scratch = self.folder / "a [b]* $c"
        scratch.mkdir()
        with ExitStack() as stack:
            settings = self._proxy(stack)
            archive = self._archive(settings)
            port = stack.enter_context(serving(lambda _: Answer(200, archive)))
            run = codebuild.run(
                image,
                target if target is not None else self.destination(image).by_tag,
                **{
                    "TARGET_REGISTRY": self.target.host,
                    "TMPDIR": str(scratch),
                    "AWS_ENDPOINT_URL": self.api.url,
                    "CRANE_URL": f"http://127.0.0.1:{port}/crane.tar.gz",
                    "CRANE_SHA256": hashlib.sha256(archive).hexdigest(),
                    **environment,
                },
            )
        assert not list(scratch.iterdir()), "the build left files behind"
        return run

    def _proxy(self, stack: ExitStack) -> str:
        """Start the registries of the Internet. Return the variables with which crane and curl reach them."""
        if not self.locations:
            return ""
        world = stack.enter_context(internet(self.folder, self.locations))
        certificate = shlex.quote(str(world.certificate))
        settings = f"HTTPS_PROXY={world.url} SSL_CERT_FILE={certificate} CURL_CA_BUNDLE={certificate}"
        (self.folder / "programs").mkdir()
        _write_script(self.folder / "programs" / "curl", settings, program("curl", "apt-get install curl"))
        return settings

    def _archive(self, settings: str) -> bytes:
        """Return the archive that the build downloads: crane, or a script that runs it behind the proxy."""
        crane = program("crane", _CRANE)
        if not settings:
            return _packed(crane)
        script = self.folder / "crane"
        _write_script(script, settings, crane)
        return _packed.__wrapped__(script)


def _write_script(path: Path, settings: str, behind: str | Path) -> None:
    path.write_text(f'#!/bin/sh\n{settings} exec {shlex.quote(str(behind))} "$@"\n')
    path.chmod(0o755)


@cache
def _packed(crane: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "crane.tar.gz"
        make_archive(crane, archive)
        return archive.read_bytes()


def write_home(folder: Path, target: Registry) -> Path:
    """Write a HOME directory in which skopeo reads that `target` is served by HTTP, and return it."""
    path = folder / ".config" / "containers" / "registries.conf"
    path.parent.mkdir(parents=True)
    path.write_text(f'[[registry]]\nprefix = "{target.host}"\nlocation = "{target.host}"\ninsecure = true\n')
    return folder


@cache
def check_programs() -> None:
    """Skip the test, or fail it in CI, if a program of the build is missing or too old."""
    program("curl", "apt-get install curl")
    program("crane", _CRANE)
    aws = program("aws", "pip install awscli")
    said = subprocess.run([aws, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"aws-cli/(\d+)\.(\d+)", said)
    assert found, said
    version = (int(found[1]), int(found[2]))
    if version < _AWS_CLI.get(version[0], _AWS_CLI[1]):
        absent(f"{aws} is {said.strip()}, which reads no AWS_ENDPOINT_URL; put a newer one on PATH: pip install awscli")
