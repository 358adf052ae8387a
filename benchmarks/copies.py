"""The row about a copy: the shipped buildspec, which copies all platforms, compared with podman, which copies one."""

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from benchmarks.rounds import Row, take_turns
from e2e.fakes.registries import ECR_LOGIN, EcrApi, Registry, ecr_api, registry
from e2e.harness.build import Project, check_programs
from e2e.harness.source_images import Content, SourceImage, digest_of
from e2e.harness.stacks import CHINA

LAYER = 60_000_000  # bytes for each platform
_MOST_ROUNDS = 5  # about seven seconds each
_IMAGE = "bench/app:1"
_OCI = "application/vnd.oci.image"


def copy(rounds: int) -> Iterator[Row]:
    """Time of a copy between two registries on this machine. Skips if a program is missing."""
    check_programs()
    podman = shutil.which("podman")
    if podman is None:
        pytest.skip("podman is not installed: apt-get install podman")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with ecr_api(folder) as api:
            contestants = {"build": partial(_build, folder, api), "podman": partial(_podman, folder, api, podman)}
            take_turns(contestants, 1)  # not counted: it reads the programs from the disk
            costs = take_turns(contestants, min(rounds, _MOST_ROUNDS))
    for reference, parts in (
        ("podman pull, tag, push of one of them", ("copy",)),
        ("the same with the login to ECR that both need", ("login", "copy")),
    ):
        ratios = tuple(cost["build"]["all"] / sum(cost["podman"][part] for part in parts) for cost in costs)
        yield Row("build that copies two platforms of 60 MB", reference, ratios, 1.0)


def without_the_copy(rounds: int) -> Iterator[Row]:
    """Time of a build that finds its image in ECR: it installs crane, logs in and reads two digests.

    The reference is the same login with the installation of earlier releases. Skips without apt or the right to use it.
    """
    check_programs()
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip("apt-get or root is missing, which the reference needs")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with ecr_api(folder) as api:
            contestants = {"build": partial(_unchanged, folder, api), "apt": partial(_apt, api)}
            take_turns(contestants, 1)
            costs = take_turns(contestants, min(rounds, _MOST_ROUNDS))
    ratios = tuple(cost["build"] / cost["apt"] for cost in costs)
    yield Row("build without the copy: install, login, digests", "the login, and skopeo installed by apt", ratios, 0.5)


def _unchanged(parent: Path, api: EcrApi) -> float:
    """Return the time of a build whose image is in ECR."""
    with _registries(parent) as (folder, source, target, pushed):
        project, image = Project(folder / "build", api, target), f"{source.host}/{_IMAGE}"
        destination = project.destination(image)
        target.push(destination.repository, destination.tag, pushed)
        began = time.perf_counter()
        run = project.run(image)
        seconds = time.perf_counter() - began
        assert run.exported.get("COPY_REASON") == "ECR already has this image", run.output
    return seconds


def _apt(api: EcrApi) -> float:
    """Return the time of the login and of what an earlier release installed, from the mirrors of this machine."""
    began = time.perf_counter()
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": api.access_key_id,
        "AWS_SECRET_ACCESS_KEY": api.secret_access_key,
        "AWS_ENDPOINT_URL": api.url,
    }
    login = ["aws", "ecr", "get-login-password", "--region", CHINA.region]
    subprocess.run(login, env=environment, capture_output=True, check=True)
    for words in ("update -qq", "install -qq -y --reinstall --no-install-recommends skopeo"):
        subprocess.run(["apt-get", *words.split()], capture_output=True, check=True)
    return time.perf_counter() - began


def _build(parent: Path, api: EcrApi) -> dict[str, float]:
    """Return the time of a build, which downloads crane from this machine."""
    with _registries(parent) as (folder, source, target, _):
        project, image = Project(folder / "build", api, target), f"{source.host}/{_IMAGE}"
        began = time.perf_counter()
        run = project.run(image)
        seconds = time.perf_counter() - began
        assert run.exported.get("COPY_RESULT") == "COPIED", run.output
        destination = project.destination(image)
        _check(target, destination.repository, destination.tag, platforms=2)
    return {"all": seconds}


def _podman(parent: Path, api: EcrApi, podman: str) -> dict[str, float]:
    """Return the time of the login, and the time of pull, tag and push, with an empty local storage."""
    with _registries(parent) as (folder, source, target, _):
        environment = {
            **os.environ,
            "STORAGE_DRIVER": "vfs",
            "TMPDIR": str(folder),
            "AWS_ACCESS_KEY_ID": api.access_key_id,
            "AWS_SECRET_ACCESS_KEY": api.secret_access_key,
            "AWS_ENDPOINT_URL": api.url,
        }
        origin, copied = f"{source.host}/{_IMAGE}", f"{target.host}/{_IMAGE}"
        at_target = ("--tls-verify=false", "--authfile", str(folder / "auth.json"))

        def run(*command: str, stdin: str = "") -> str:
            done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        run_podman = partial(run, podman, "--root", str(folder / "root"), "--runroot", str(folder / "runroot"))
        began = time.perf_counter()
        password = run("aws", "ecr", "get-login-password", "--region", CHINA.region)
        run_podman("login", *at_target, "--username", "AWS", "--password-stdin", target.host, stdin=password)
        logged_in = time.perf_counter()
        run_podman("pull", "--tls-verify=false", origin)
        run_podman("tag", origin, copied)
        run_podman("push", *at_target, copied)
        ended = time.perf_counter()
        repository, _, tag = _IMAGE.partition(":")
        _check(target, repository, tag, platforms=1)
    return {"login": logged_in - began, "copy": ended - logged_in}


@contextmanager
def _registries(parent: Path) -> Iterator[tuple[Path, Registry, Registry, SourceImage]]:
    """Yield a folder, a registry with a new random image, an empty one that requires ECR's login, and the image.

    So no program finds anything in a cache.
    """
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        (folder / "source").mkdir()
        (folder / "target").mkdir()
        with registry(folder / "source") as source, registry(folder / "target", ECR_LOGIN) as target:
            repository, _, tag = _IMAGE.partition(":")
            pushed = random_image(1, LAYER)
            source.push(repository, tag, pushed)
            yield folder, source, target, pushed


def _check(target: Registry, repository: str, tag: str, platforms: int) -> None:
    """Check that the copy has `platforms` platforms, each with its layer."""
    manifest = json.loads(target.manifest(repository, tag).data)
    digests = [entry["digest"] for entry in manifest.get("manifests", [])]
    images = [json.loads(target.manifest(repository, digest).data) for digest in digests] or [manifest]
    assert len(images) == platforms
    for image in images:
        [layer] = image["layers"]
        assert layer["size"] >= LAYER
        stored = target.storage / "docker/registry/v2/blobs/sha256" / layer["digest"][7:9] / layer["digest"][7:]
        assert (stored / "data").stat().st_size == layer["size"]


def random_image(layers: int, size: int) -> SourceImage:
    """Return an OCI index of two platforms, each with `layers` layers of `size` bytes that cannot be compressed."""
    platforms, entries, blobs = [], [], []
    for architecture in ("amd64", "arm64"):
        tars = [_tar(os.urandom(size)) for _ in range(layers)]
        packed = [Content(f"{_OCI}.layer.v1.tar+gzip", gzip.compress(tar, compresslevel=0, mtime=0)) for tar in tars]
        rootfs = {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]}
        config = _document("config", {"os": "linux", "architecture": architecture, "config": {}, "rootfs": rootfs})
        parts = {"config": config.descriptor(), "layers": [each.descriptor() for each in packed]}
        manifest = _document("manifest", {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", **parts})
        platforms.append(manifest)
        entries.append(manifest.descriptor(platform={"os": "linux", "architecture": architecture}))
        blobs += [config, *packed]
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": entries}
    return SourceImage(_document("index", index), tuple(platforms), tuple(blobs))


def _document(kind: str, value: dict[str, object]) -> Content:
    return Content(f"{_OCI}.{kind}.v1+json", json.dumps(value).encode())


def _tar(data: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("data")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()
