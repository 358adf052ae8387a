"""The shapes of images that registries hold: indexes, manifests and layers of each kind, built byte by byte."""

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

from e2e.harness.source_images import INDEX, Content, SourceImage

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
EMPTY = Content("application/vnd.oci.empty.v1+json", b"{}")
AMD64, ARM64 = ({"os": "linux", "architecture": name} for name in ("amd64", "arm64"))
UNKNOWN = {"os": "unknown", "architecture": "unknown"}
# A frame of zstd (RFC 8878) with one raw block, "data"; no program here unpacks it.
ZSTD = bytes.fromhex("28b52ffd2004210000") + b"data"


class Shape:
    """An image that is put together: `blobs` and `children` are what its manifests need."""

    def __init__(self) -> None:
        self.blobs: list[Content] = []
        self.children: list[Content] = []

    def layer(self, text: str, kind: str = "+gzip", media_type: str | None = None) -> Content:
        """Add a layer."""
        data = {"+gzip": gzip.compress(text.encode(), mtime=0), "+zstd": ZSTD + text.encode(), "": text.encode()}[kind]
        return self._blob(Content(media_type or LAYER + kind, data))

    def image(
        self,
        layers: Sequence[Content],
        types: tuple[str, str] = (MANIFEST, CONFIG),
        entries: Sequence[dict[str, Any]] = (),
        **more: Any,
    ) -> Content:
        """Return a manifest of `layers`, and of `entries`, layers that no registry holds."""
        manifest_type, config_type = types
        config = more.pop("config", None) or document(
            config_type, {**AMD64, "rootfs": {"type": "layers", "diff_ids": []}}
        )
        self._blob(config)
        listed = [*(each.descriptor() for each in layers), *entries]
        return document(manifest_type, manifest_of(manifest_type, config=config.descriptor(), layers=listed, **more))

    def child(self, manifest: Content) -> Content:
        """Add a manifest that the top one names."""
        if manifest not in self.children:
            self.children.append(manifest)
        return manifest

    def made(self, top: Content) -> SourceImage:
        """Return the image with this manifest."""
        return SourceImage(top, tuple(self.children), tuple(self.blobs))

    def _blob(self, blob: Content) -> Content:
        if blob not in self.blobs:
            self.blobs.append(blob)
        return blob


def manifest_of(media_type: str, **more: Any) -> dict[str, Any]:
    """Return the value of a manifest or an index."""
    return {"schemaVersion": 2, "mediaType": media_type, **more}


def document(media_type: str, value: dict[str, Any]) -> Content:
    """Return a document, indented as no program does it: one that is written again has another digest."""
    return Content(media_type, json.dumps(value, indent=3).encode())


def index_of(*entries: dict[str, Any], media_type: str = INDEX, **more: Any) -> Content:
    """Return an index."""
    return document(media_type, manifest_of(media_type, manifests=list(entries), **more))


def _two(name: str, kinds: tuple[str, str], annotations: dict[str, str] | None = None) -> SourceImage:
    shape, entries = Shape(), []
    for platform, kind in zip((AMD64, ARM64), kinds, strict=True):
        manifest = shape.child(shape.image([shape.layer(f"{name} {platform['architecture']}", kind)]))
        more = {"annotations": annotations} if annotations and kind == "+zstd" else {}
        entries.append(manifest.descriptor(platform=platform, **more))
    return shape.made(index_of(*entries))


def _single(name: str, kind: str) -> SourceImage:
    shape = Shape()
    return shape.made(shape.image([shape.layer(name, kind)]))


def _single_without_layers() -> SourceImage:
    shape = Shape()
    return shape.made(shape.image([]))


def _with_more(name: str, **more: Any) -> SourceImage:
    shape = Shape()
    manifest = shape.child(shape.image([shape.layer(name)]))
    return shape.made(index_of(manifest.descriptor(platform=AMD64, **more.pop("entry", {})), **more))


def _no_media_type(name: str) -> SourceImage:
    shape = Shape()
    manifest = shape.child(shape.image([shape.layer(name)]))
    value = {"schemaVersion": 2, "manifests": [manifest.descriptor(platform=AMD64)]}
    return shape.made(document(INDEX, value))


def _nested(name: str) -> SourceImage:
    shape = Shape()
    one, two = (shape.child(shape.image([shape.layer(f"{name} {number}")])) for number in (1, 2))
    inner = shape.child(index_of(two.descriptor(platform=AMD64)))
    return shape.made(index_of(one.descriptor(platform=ARM64), inner.descriptor()))


def _twice(name: str) -> SourceImage:
    shape = Shape()
    manifest = shape.child(shape.image([shape.layer(name)]))
    variants = ({"variant": "v7"}, {"variant": "v8"})
    return shape.made(index_of(*(manifest.descriptor(platform={**ARM64, **each}) for each in variants)))


def _attested(name: str, *, as_artifact: bool) -> SourceImage:
    shape = Shape()
    manifest = shape.child(shape.image([shape.layer(name)]))
    statement = shape.layer(f"{name} statement", "", "application/vnd.in-toto+json")
    more: dict[str, Any] = {}
    if as_artifact:
        more = {
            "config": EMPTY,
            "artifactType": "application/vnd.docker.attestation.manifest.v1+json",
            "subject": manifest.descriptor(),
        }
    attestation = shape.child(shape.image([statement], **more))
    reference = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": manifest.digest}
    entry = attestation.descriptor(platform=UNKNOWN, annotations=reference)
    if as_artifact:
        entry["artifactType"] = more["artifactType"]
    return shape.made(index_of(manifest.descriptor(platform=AMD64), entry))


def _soci(name: str) -> SourceImage:
    shape, kind = Shape(), "application/vnd.amazon.soci.index.v2+json"
    manifest = shape.child(shape.image([shape.layer(name)]))
    table = shape.layer(f"{name} ztoc", "", "application/octet-stream")
    soci = shape.child(shape.image([table], config=EMPTY, artifactType=kind))
    entry = soci.descriptor(
        platform=AMD64,
        artifactType=kind,
        annotations={"com.amazon.soci.image-manifest-digest": manifest.digest},
    )
    return shape.made(index_of(manifest.descriptor(platform=AMD64), entry))


def _docker(name: str, children: str, top: str) -> SourceImage:
    shape = Shape()
    docker = children == DOCKER_MANIFEST
    layer = shape.layer(name, "+gzip", DOCKER_LAYER if docker else None)
    types = (DOCKER_MANIFEST, DOCKER_CONFIG) if docker else (MANIFEST, CONFIG)
    manifest = shape.child(shape.image([layer], types))
    return shape.made(index_of(manifest.descriptor(platform=AMD64), media_type=top))


def _foreign(name: str) -> SourceImage:
    shape = Shape()
    entry = Content(FOREIGN_LAYER, b"elsewhere").descriptor(urls=["https://mcr.example/layer"])
    return shape.made(
        shape.image([shape.layer(name, "+gzip", DOCKER_LAYER)], (DOCKER_MANIFEST, DOCKER_CONFIG), [entry])
    )


def _helm(name: str) -> SourceImage:
    shape = Shape()
    config = document(
        "application/vnd.cncf.helm.config.v1+json", {"name": name, "version": "1.0.0", "apiVersion": "v2"}
    )
    chart = shape.layer(name, "+gzip", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    return shape.made(shape.image([chart], config=config))


def with_data(name: str, *, true: bool) -> SourceImage:
    """Return an index whose entry has its manifest embedded, or other bytes of the same length."""
    shape = Shape()
    manifest = shape.child(shape.image([shape.layer(name)]))
    data = manifest.data if true else manifest.data[:-1] + b" "
    entry = manifest.descriptor(platform=AMD64, data=base64.b64encode(data).decode())
    return shape.made(index_of(entry))


SHAPES: dict[str, SourceImage] = {
    "an OCI index of gzip": _two("gzip", ("+gzip", "+gzip")),
    "zstd without annotation": _two("zstd", ("+zstd", "+zstd")),
    "zstd with annotation": _two("annotated", ("+gzip", "+zstd"), {"io.github.containers.compression.zstd": "true"}),
    "gzip and zstd mixed": _two("mixed", ("+gzip", "+zstd")),
    "one zstd image": _single("one zstd", "+zstd"),
    "uncompressed": _single("uncompressed", ""),
    "an index without mediaType": _no_media_type("no media type"),
    "an index with more fields": _with_more(
        "more fields",
        artifactType="application/vnd.example",
        annotations={"org.opencontainers.image.title": "x"},
        unknown={"field": [1, 2.50]},
        entry={"annotations": {"a": "b"}, "unknown": True},
    ),
    "a nested index": _nested("nested"),
    "the same child twice": _twice("twice"),
    "an attestation": _attested("attestation", as_artifact=False),
    "an attestation as an artifact": _attested("artifact", as_artifact=True),
    "SOCI v2": _soci("soci"),
    "an entry with its data": with_data("data", true=True),
    "a Docker list": _docker("docker list", DOCKER_MANIFEST, DOCKER_LIST),
    "a Docker list of OCI manifests": _docker("list of oci", MANIFEST, DOCKER_LIST),
    "an OCI index of Docker manifests": _docker("index of docker", DOCKER_MANIFEST, INDEX),
    "foreign layers": _foreign("foreign"),
    "no layers": _single_without_layers(),
    "a helm chart": _helm("chart"),
}
