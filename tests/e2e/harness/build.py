"""A build of image-pulling.yaml's project with real programs: bash, skopeo and the AWS CLI."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from e2e.fakes.registries import EcrApi, Registry
from e2e.harness.processes import absent, program
from image_mirror.reference import Destination, destination_of, parse_reference
from support.buildspec_runner import CodeBuild, Run

PREFIX = "mirror"
# The first releases of versions 1 and 2 that read AWS_ENDPOINT_URL; older ones would call the real AWS.
_AWS_CLI = {1: (1, 29), 2: (2, 13)}


@dataclass(frozen=True)
class Project:
    """The project on the global side, with ECR's API and registry in China, and the real places of the images.

    `folder` must not exist yet, and is for one build. `locations` has the host and path that is used instead of a
    registry on the Internet. `key` replaces entries of the secret ImagePullSecret, `registry_auth` is the text of the
    secret with logins for the sources.
    """

    folder: Path
    api: EcrApi
    target: Registry
    locations: Mapping[str, str] = field(default_factory=dict)
    key: Mapping[str, str] = field(default_factory=dict)
    registry_auth: str | None = None

    def destination(self, image: str) -> Destination:
        """Return the destination that the package computes for `image`."""
        return destination_of(parse_reference(image), self.target.host, PREFIX)

    def run(self, image: str, target: str | None = None) -> Run:
        """Copy `image` to its destination, or to `target`. The build writes files only in `folder`."""
        check_programs()
        programs = self.folder / "programs"
        programs.mkdir(parents=True)
        # The real apt-get would change this machine, where skopeo is installed already.
        (programs / "apt-get").write_text("#!/bin/sh\n")
        (programs / "apt-get").chmod(0o755)
        codebuild = CodeBuild(
            self.folder,
            parameters={"RepositoryPrefix": PREFIX},
            secret={
                "Region": "cn-northwest-1",
                "AccessKey": self.api.access_key_id,
                "AccessSecretKey": self.api.secret_access_key,
                **self.key,
            },
            registry_auth=self.registry_auth,
            path=f"{programs}:{os.environ['PATH']}",
        )
        # A name that must be quoted, because of its space and its pattern characters.
        scratch = self.folder / "a [b]* $c"
        scratch.mkdir()
        run = codebuild.run(
            image,
            target if target is not None else self.destination(image).by_tag,
            TARGET_REGISTRY=self.target.host,
            HOME=str(write_home(self.folder / "home", self.target, self.locations)),
            TMPDIR=str(scratch),
            AWS_ENDPOINT_URL=self.api.url,
        )
        assert not list(scratch.iterdir()), "the build left files behind"
        return run


def write_home(folder: Path, target: Registry, locations: Mapping[str, str]) -> Path:
    """Write the HOME directory from which skopeo reads the places of registries, and return it."""
    entry = '[[registry]]\nprefix = "{}"\nlocation = "{}"\ninsecure = true\n'
    path = folder / ".config" / "containers" / "registries.conf"
    path.parent.mkdir(parents=True)
    path.write_text("".join(entry.format(*pair) for pair in {target.host: target.host, **locations}.items()))
    return folder


@cache
def check_programs() -> None:
    """Skip the test, or fail it in CI, if a program of the build is missing or too old."""
    program("skopeo", "apt-get install skopeo")
    aws = program("aws", "pip install awscli")
    said = subprocess.run([aws, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"aws-cli/(\d+)\.(\d+)", said)
    assert found, said
    version = (int(found[1]), int(found[2]))
    if version < _AWS_CLI.get(version[0], _AWS_CLI[1]):
        absent(f"{aws} is {said.strip()}, which reads no AWS_ENDPOINT_URL; put a newer one on PATH: pip install awscli")
