"""Makes pods for tests, and reads the images and the annotation of a pod."""

import json
from typing import Any

from e2e.harness.control_plane import Cluster
from image_mirror.cli.emulation import REGISTRY
from image_mirror.pod_images import ORIGINALS
from support.templates import ROOT

COPIES = f"{REGISTRY}/mirror"
EVERY_FIELD = ROOT / "samples" / "every-image-field.yaml"
FULL = "every-image-field"
"""The name of that sample's pod."""
Json = dict[str, Any]


def pod(name: str, *images: str, **metadata: Json) -> Json:
    """A bare pod with a container c0, c1, ... for each image."""
    named = enumerate(images or ("gcr.io/probe/probe",))
    containers = [{"name": f"c{number}", "image": image} for number, image in named]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": containers},
    }


def pods_of(cluster: Cluster, selector: str) -> list[Json]:
    """Return the pods with these labels."""
    found: list[Json] = cluster.get("pods", "-l", selector)["items"]
    return found


def images(pod: Json) -> dict[str, str]:
    """Return the image of each container and volume by its name."""
    spec = pod["spec"]
    found = {
        each["name"]: each["image"]
        for kind in ("containers", "initContainers", "ephemeralContainers")
        for each in spec.get(kind, ())
    }
    return found | {each["name"]: each["image"]["reference"] for each in spec.get("volumes", ()) if "image" in each}


def originals(pod: Json) -> dict[str, str]:
    """Return the content of the webhook's annotation, by "containers/NAME" and so on; {} without it."""
    found: dict[str, str] = json.loads(pod["metadata"].get("annotations", {}).get(ORIGINALS, "{}"))
    return found


def version(pod: Json) -> tuple[str, int]:
    """Return the resourceVersion, which changes with each write, and the generation."""
    return pod["metadata"]["resourceVersion"], pod["metadata"].get("generation", 0)
