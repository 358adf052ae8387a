"""A second parser of images and rules, written from docs/rules.md and not from the product's code.

It accepts more than the product: an image that the product refuses never reaches a table, so it is enough that both
agree about images that the product accepts.
"""

from collections.abc import Iterator
from typing import Any

REGISTRY = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"
ORIGINALS = "image-mirror/original-images"


def full_name(image: str) -> str:
    """Return HOST/PATH:TAG or HOST/PATH@DIGEST for an image as a pod may write it."""
    name, at, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    name = head + slash + last
    host, slash, path = name.partition("/")
    if not slash or ("." not in host and ":" not in host and host != "localhost" and host == host.lower()):
        host, path = "docker.io", name
    if host in ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"):
        host = "docker.io"
    if host == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return f"{host}/{path}" + (at + digest if at else f":{tag or 'latest'}")


def destination(source: str) -> tuple[str, str]:
    """Return the repository, with its registry, and the tag of the copy of a full name."""
    name, at, digest = source.partition("@")
    if not at:
        name, _, tag = name.rpartition(":")
    host, _, path = name.partition("/")
    return f"{REGISTRY}/mirror/{host.replace(':', '_')}/{path}", f"digest-{digest.replace(':', '-')}" if at else tag


def is_reserved(source: str) -> bool:
    """Return whether a full name has a tag that only copies by digest have, so that nothing is copied from it."""
    return "@" not in source and source.rpartition(":")[2].startswith("digest-sha256-")


def entry_for(rules: str, source: str) -> str | None:
    """Return the entry of `rules` that decides about a full name, None if none matches."""
    entries = [(entry.removeprefix("!").partition("=")[0], entry) for entry in rules.split()]
    named = {prefix for prefix, _ in entries}
    targets = {entry.partition("=")[2] for _, entry in entries if "=" in entry}
    entries += [(target, f"!{target}") for target in targets - named]
    best = max(((_weight(prefix, source), entry) for prefix, entry in entries), default=((), ""))
    return best[1] if best[0] else None


def rewritten(entry: str, source: str) -> str:
    """Return the full name that a rewriting entry makes of a full name."""
    prefix, _, target = entry.partition("=")
    return "/".join((target, *source.split("/")[prefix.count("/") + 1 :]))


def images(pod: Any, subresource: str | None = None) -> Iterator[tuple[tuple[str, str], str, str]]:
    """Yield (kind, name), the JSON pointer and the text of each image that a request to `subresource` may change.

    A missing image is "".
    """
    kinds = ["ephemeralContainers"] if subresource else ["containers", "initContainers", "volumes"]
    for kind in kinds:
        listed = pod["spec"].get(kind)
        for index, each in enumerate(listed if isinstance(listed, list) else ()):
            if not isinstance(each, dict) or not isinstance(each.get("name"), str):
                continue
            holder, last = (each.get("image"), "image/reference") if kind == "volumes" else (each, "image")
            text = holder.get(last.rpartition("/")[2]) if isinstance(holder, dict) else False
            if text is None or isinstance(text, str):
                yield (kind, each["name"]), f"/spec/{kind}/{index}/{last}", text or ""


def never_pulled(pod: Any, subresource: str | None = None) -> set[str]:
    """Return the JSON pointers of the images whose pull policy is Never."""
    found = set()
    for (kind, _), pointer, _ in images(pod, subresource):
        each = pod["spec"][kind][int(pointer.split("/")[3])]
        policy = each["image"].get("pullPolicy") if kind == "volumes" else each.get("imagePullPolicy")
        if policy == "Never":
            found.add(pointer)
    return found


def _weight(prefix: str, source: str) -> tuple[int, ...]:
    """Return how well a prefix names a source, () if it does not: an exact host first, then the longest match."""
    host, *path = prefix.split("/")
    there, *segments = source.partition("@")[0].split("/")
    there = there.lower()
    if "@" not in source:
        segments[-1] = segments[-1].partition(":")[0]
    wildcard = host.startswith("*.")
    fits = there.endswith(host[1:]) and len(there) >= len(host) if wildcard else there == host
    return (not wildcard, len(host), len(path)) if fits and segments[: len(path)] == path else ()
