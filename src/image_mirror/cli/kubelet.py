"""What the kubelet says of the images that it cannot pull: in a pod's status, and in the events about the pod. Pure.

The status has a reason and a message for each container that waits. Since 1.32 the message of ImagePullBackOff repeats
the container runtime's words; an older kubelet writes them into the events only. The runtime's words are free text:
they are searched for what containerd and CRI-O write. All times are milliseconds since the epoch.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from image_mirror.pod_images import ImageField, image_fields
from image_mirror.record import MINUTE
from image_mirror.review import Json

# pkg/kubelet/images/types.go; the last two are for answers of the container runtime.
REASONS = frozenset(
    (
        "ErrImagePull",
        "ImagePullBackOff",
        "ImageInspectError",
        "ErrImageNeverPull",
        "InvalidImageName",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    )
)
PULLS = frozenset(("ErrImagePull", "ImagePullBackOff"))
"""The reasons of a container whose image is pulled again."""
LONGEST_WAIT = 5 * MINUTE
"""The longest time between two tries (pkg/kubelet/kubelet.go)."""
_FIRST_WAIT = 10_000
_SYNC = 15_000  # a pod's worker looks again after 10 s, times 1 to 1.5
_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
_LISTS = ("initContainers", "containers", "ephemeralContainers")
_COMBINED = "(combined from similar events): "


class Said(StrEnum):
    """What the container runtime's words mean. NOTHING: there are none; OTHER: none of the texts that are known."""

    NOTHING = "nothing"
    NO_SPACE = "no space"
    PLATFORM = "no match for platform"
    RATE_LIMITED = "rate-limited"
    TIMEOUT = "time-out"
    NO_HOST = "no such host"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not found"
    OTHER = "other"


# In this order: "no match for platform in manifest: not found" is no missing image, and a login that runs into a
# time-out is no refusal.
_TEXTS: tuple[tuple[Said, tuple[str, ...]], ...] = (
    (Said.NO_SPACE, ("no space left on device", "disk quota exceeded")),
    (Said.PLATFORM, ("no match for platform", "no image found in image index for architecture")),
    (Said.RATE_LIMITED, ("429 too many requests", "toomanyrequests")),
    (
        Said.TIMEOUT,
        (
            "i/o timeout",
            "tls handshake timeout",
            "context deadline exceeded",
            "timeout awaiting response headers",
            "client.timeout exceeded",
            "connection timed out",
            "connection reset by peer",
            "connection refused",
            "network is unreachable",
            "no route to host",
            "context canceled",  # containerd, when a download makes no progress
        ),
    ),
    (Said.NO_HOST, ("no such host",)),
    (
        Said.UNAUTHORIZED,
        (
            "no basic auth credentials",
            "pull access denied",
            "authorization failed",
            "401 unauthorized",
            "403 forbidden",
            "unauthorized:",
            "authentication required",
            "denied:",
        ),
    ),
    (Said.NOT_FOUND, ("not found", "manifest unknown", "code = notfound")),
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An image that the kubelet cannot pull: where the pod names it, the status's reason, and all words about it."""

    field: ImageField
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Tries:
    """How often the kubelet has tried to pull an image, and when the last try was, as far as events say; 0: unknown.

    `words` is what the runtime said of the latest failure, "" if no event says it.
    """

    count: int = 0
    last: int = 0
    words: str = ""


def waiting(pod: Json) -> list[Waiting]:
    """Return the images of a pod that the kubelet cannot pull, each once.

    A container also waits for the image volumes that it mounts. Its status has the same reason then, and only the
    message names the volume's image.
    """
    fields = {field.key: field for each in ("", "ephemeralcontainers") for field in image_fields(pod, each)}
    volumes = [field for key, field in fields.items() if key.startswith("volumes/")]
    found: dict[str, Waiting] = {}
    for kind, name, reason, message in _statuses(pod):
        field = fields.get(f"{kind}/{name}")
        field = next((each for each in volumes if each.image and f'"{each.image}"' in message), field)
        if field is not None and field.key not in found:
            found[field.key] = Waiting(field, reason, message)
    return list(found.values())


def _statuses(pod: Json) -> Iterator[tuple[str, str, str, str]]:
    status = pod.get("status") or {}
    for statuses, kind in zip(_STATUSES, _LISTS, strict=True):
        for each in status.get(statuses) or ():
            state = (each.get("state") or {}).get("waiting") or {}
            if state.get("reason") in REASONS:
                yield kind, each["name"], state["reason"], state.get("message") or ""


def tries(events: Iterable[Json], image: str) -> Tries:
    """Return what the events of one pod say of the tries to pull `image`."""
    count, last, words, failed_at = 0, 0, "", 0
    for event in events:
        message = (event.get("message") or "").removeprefix(_COMBINED)
        at, times = _time(event), int((event.get("series") or event).get("count") or 1)
        if message == f'Pulling image "{image}"':
            count, last = count + times, max(last, at)
        elif message.startswith(f'Failed to pull image "{image}": '):
            last = max(last, at)
            if at >= failed_at:
                failed_at, words = at, message.partition('": ')[2]
    return Tries(count, last, words)


def next_try(done: Tries, now: int) -> int:
    """Return when the kubelet tries again at the latest.

    It waits 10 s after the first failure, and twice as long after each, up to five minutes. It reports at most about
    one event in five minutes for a pod that fails for long, so events can be too old to say when.
    """
    if done.count and done.last:
        due = done.last + min(_FIRST_WAIT << min(done.count - 1, 16), LONGEST_WAIT) + _SYNC
        if due > now:
            return due
    return now + LONGEST_WAIT


def said(*texts: str) -> Said:
    """Return what the runtime's words mean. A text that only says that the kubelet waits has none of them."""
    whole = " ".join(text for text in texts if not re.fullmatch(r'Back-off pulling image "[^"]*"', text)).lower()
    if not whole.strip():
        return Said.NOTHING
    return next((meaning for meaning, known in _TEXTS if any(text in whole for text in known)), Said.OTHER)


def _time(event: Json) -> int:
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return timestamp(text)


def timestamp(text: object) -> int:
    """Return a time of the API server; 0 for what is none."""
    try:
        return int(datetime.fromisoformat(str(text)).timestamp() * 1000) if text else 0
    except ValueError:
        return 0
