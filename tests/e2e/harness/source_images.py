"""Small real images, built byte by byte: an OCI index with two platforms, and a single image in Docker's format."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_DOCKER = "application/vnd.docker"
_OCI = "application/vnd.oci.image"
INDEX = f"{_OCI}.index.v1+json"
MANIFEST_TYPES = (
    INDEX,
    f"{_OCI}.manifest.v1+json",
    f"{_DOCKER}.distribution.manifest.list.v2+json",
    f"{_DOCKER}.distribution.manifest.v2+json",
)
"""The media types of a request for a manifest; without them a registry may convert it to an older format."""


@dataclass(frozen=True)
class Content:
    """A blob that a registry stores under its digest: a manifest, an image's configuration or a layer."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """The SHA-256 of the data, as registries write it."""
        return digest_of(self.data)

    def descriptor(self, **more: Any) -> dict[str, Any]:
        """Return its descriptor for a manifest (OCI image specification, "Content Descriptors")."""
        return {"mediaType": self.media_type, "size": len(self.data), "digest": self.digest, **more}


@dataclass(frozen=True)
class SourceImage:
    """An image to push: the manifest of its name, the images of its platforms, and each configuration and layer.

    `platforms` is empty if `manifest` is a single image and not an index.
    """

    manifest: Content
    platforms: tuple[Content, ...]
    blobs: tuple[Content, ...]

    @property
    def last_layer(self) -> Content:
        """The layer that is copied last, of the last platform."""
        return self.blobs[-1]


def digest_of(data: bytes) -> str:
    """Return the digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def docker_image(text: str) -> SourceImage:
    """Return an image in Docker's format (manifest v2, schema 2) with one layer that contains `text`."""
    manifest, blobs = _image(text, "amd64", _DOCKER_TYPES)
    return SourceImage(manifest, (), tuple(blobs))


def oci_index(text: str) -> SourceImage:
    """Return an OCI index of images for two platforms, whose layers contain `text`."""
    platforms, entries, blobs = [], [], []
    for architecture in ("amd64", "arm64"):
        manifest, parts = _image(text, architecture, _OCI_TYPES)
        platforms.append(manifest)
        entries.append(manifest.descriptor(platform={"os": "linux", "architecture": architecture}))
        blobs += parts
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return SourceImage(_document(INDEX, index), tuple(platforms), tuple(blobs))


_DOCKER_TYPES = (
    f"{_DOCKER}.distribution.manifest.v2+json",
    f"{_DOCKER}.container.image.v1+json",
    f"{_DOCKER}.image.rootfs.diff.tar.gzip",
)
_OCI_TYPES = (f"{_OCI}.manifest.v1+json", f"{_OCI}.config.v1+json", f"{_OCI}.layer.v1.tar+gzip")


def _image(text: str, architecture: str, media_types: Sequence[str]) -> tuple[Content, list[Content]]:
    """Return the manifest of an image for one platform, with its configuration and its layer."""
    manifest_type, config_type, layer_type = media_types
    tar = _tar("etc/motd", f"{text} on {architecture}\n".encode())
    layer = Content(layer_type, gzip.compress(tar, mtime=0))
    config = _document(
        config_type,
        {
            "os": "linux",
            "architecture": architecture,
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]},
            "history": [{"created_by": f"COPY {text}"}],
        },
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    }
    return _document(manifest_type, manifest), [config, layer]


def _document(media_type: str, value: dict[str, Any]) -> Content:
    # Indented, as no program does it: a program that rewrites the manifest would change its digest.
    return Content(media_type, json.dumps(value, indent=4).encode())


def _tar(path: str, data: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(path)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()
