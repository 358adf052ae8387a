"""Who asks for which copies: for the records, the webhook's log, and the audit log of the cluster. Pure.

The body of a request is hostile: only names that Kubernetes allows are taken from it, and their number is limited.
"""

import json
import re
from collections.abc import Iterable, Mapping

from image_mirror.admission import CopyRequest
from image_mirror.record import Missing, Record
from image_mirror.reference import Destination
from image_mirror.review import Json, Review

_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")
_LONGEST = 4_096  # characters of JSON about the copies of one pod: some dozens of copies


def requester(review: Review) -> str | None:
    """Return who creates the pod: NAMESPACE/KIND/NAME of its controller, or NAMESPACE/Pod/NAME if it has none.

    The name of a pod may be its generateName. A name that Kubernetes does not allow is left out: at most 381
    characters, with the namespace always first. None if there is no namespace.
    """
    metadata = review.object.get("metadata", {})
    namespace = review.namespace or metadata.get("namespace")
    if not _is(_NAMESPACE, namespace):
        return None
    for kind, name in (*_controllers(metadata), ("Pod", metadata.get("generateName")), ("Pod", metadata.get("name"))):
        if _is(_KIND, kind) and _is(_NAME, name):
            return f"{namespace}/{kind}/{name}"
    return str(namespace)


def named_copies(
    copy_requests: Iterable[CopyRequest], records: Mapping[Destination, Record | Missing]
) -> tuple[list[Json], int]:
    """Return the source, the copy and the state of each copy with a record, and how many more there are than fit."""
    named: list[Json] = []
    room, omitted = _LONGEST, 0
    for request in copy_requests:
        destination = request.copy.destination
        record = records.get(destination, Missing.ABSENT)
        if record in (Missing.ABSENT, Missing.UNREAD):
            continue
        state = str(record.status or "NONE") if isinstance(record, Record) else str(record)
        each = {"image": str(request.copy.source), "copy": destination.by_tag, "state": state}
        room -= len(json.dumps(each))
        if room < 0:
            omitted += 1
        else:
            named.append(each)
    return named, omitted


def audit_annotations(named: list[Json], omitted: int) -> dict[str, str]:
    """Return the annotations with which the API server's audit log says what became of the pod's images.

    It puts the webhook's name and "/" before each key.
    """
    if not named:
        return {}
    found = {"copies": json.dumps(named, separators=(",", ":"))}
    return found | {"copies-omitted": str(omitted)} if omitted else found


def _controllers(metadata: Json) -> Iterable[tuple[object, object]]:
    owners = metadata.get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, dict) and owner.get("controller") is True:
            yield owner.get("kind"), owner.get("name")


def _is(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None
