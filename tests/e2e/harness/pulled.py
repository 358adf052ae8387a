"""Pulls a copy as a node does: by the name that the webhook writes into the pod, with ECR's login."""

import json
import os
import subprocess
from pathlib import Path

from e2e.fakes.registries import ECR_LOGIN, Registry
from e2e.harness.build import write_home
from e2e.harness.processes import program
from e2e.harness.source_images import SourceImage, digest_of


def assert_pulled(folder: Path, target: Registry, name: str, pushed: SourceImage) -> None:
    """Pull `name` from `target` into `folder`, and check that it equals `pushed` in every byte."""
    skopeo_program = program("skopeo", "apt-get install skopeo")
    environment = os.environ | {"HOME": str(write_home(folder / "node", target))}
    login = ":".join(ECR_LOGIN)

    def skopeo(*words: str | Path) -> str:
        command = [skopeo_program, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    seen = json.loads(skopeo("inspect", "--override-arch", "amd64", "--creds", login, f"docker://{name}"))
    assert seen["Digest"] == pushed.manifest.digest
    assert seen["Architecture"] == "amd64"
    image = folder / "pulled"
    skopeo("copy", "--all", "--preserve-digests", "--src-creds", login, f"docker://{name}", f"dir:{image}")
    assert digest_of((image / "manifest.json").read_bytes()) == pushed.manifest.digest
    for blob in pushed.blobs:
        assert (image / blob.digest.removeprefix("sha256:")).read_bytes() == blob.data
