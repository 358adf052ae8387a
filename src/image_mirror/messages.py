"""The warnings that kubectl prints: one line each, at most 120 characters, with what happens and what to do.

The API server drops a warning that contains a control character, and cuts or drops warnings above 4,096 characters in
all.
"""

from collections.abc import Sequence

_LONGEST = 120
_MOST = 10
_SHORTEST_NAME = 32


def copying(image: str) -> str:
    """Return the warning that the pod uses a copy that is not in ECR yet."""
    return _fit(image, " is being copied to ECR; the pod waits in ImagePullBackOff until it arrives")


def copied_later(image: str) -> str:
    """Return the warning that this pod keeps the source because the copy is not in ECR yet (SwapWhen=copied)."""
    return _fit(image, " is being copied to ECR; this pod keeps the source, later pods get the copy")


def not_requested(image: str) -> str:
    """Return the warning that this pod keeps the source, because no copy is there yet (SwapWhen=paused)."""
    return _fit(image, " stays as written: ECR has no copy yet, and image-mirror is paused: it requests none")


def not_read(image: str) -> str:
    """Return the warning that a new pod keeps the source, because its record cannot be read (SwapWhen=paused)."""
    return _fit(image, " stays as written: the table does not answer, and image-mirror is paused")


def unknown_swap_when(value: str) -> str:
    """Return the warning that a pod's label for SwapWhen has an unknown `value`, "" if it is no text."""
    return _fit(value, " is no value of the label image-mirror/swap-when (always, copied, paused) and is ignored")


def refused(image: str, reason: str, attempts: int, most: int, *, waits: bool) -> str:
    """Return the warning that a copy was refused `attempts` times, at `most` of which it ends, and is tried again.

    `reason` is a code or a sentence, "" if it is unknown. `waits`: the pod uses the copy; else it keeps the source.
    """
    counted = f"{attempts} of {most} attempts; {'it waits for its copy' if waits else 'this pod keeps the source'}"
    return _fit(image, f": {printable(reason)}", f", {counted}") if reason else _fit(image, f": {counted}")


def failed(image: str, reason: str, retry_minutes: int) -> str:
    """Return the warning that a copy failed, with the minutes after which a new pod requests it again."""
    ending = f"; a new pod retries after {retry_minutes} min"
    return _fit(image, f" stays as written, its copy failed: {printable(reason)}", ending)


def restored(image: str) -> str:
    """Return the warning that an update keeps the image that the pod has, because it was made from this one."""
    return _fit(image, ": the pod keeps the image that it has already in place of this one")


def left_unchanged(image: str, cause: str) -> str:
    """Return the warning that an image can be neither copied nor rewritten."""
    return _fit(image, f" stays as written: {printable(cause)}")


def too_many(count: int) -> str:
    """Return the warning that `count` images stay as written because their pod names more than it may request."""
    images = f"{count} images stay" if count > 1 else "1 image stays"
    return f"{images} as written: too many are new; run image-mirror warm or raise MaxNewImages, then recreate the pod"


def at_most_ten(warnings: Sequence[str]) -> list[str]:
    """Drop repeated warnings. After the tenth, only say how many more there are."""
    distinct = list(dict.fromkeys(warnings))
    rest = len(distinct) - _MOST
    return [*distinct[:_MOST], f"and {rest} more"] if rest > 0 else distinct


def _fit(image: str, sentence: str, ending: str = "") -> str:
    """Join the three. If they are too long, the sentence is cut at its end and the image in its middle."""
    # Never more than this of either end is shown. An image can be as long as a request.
    ends = image if len(image) <= 2 * _LONGEST else image[:_LONGEST] + image[-_LONGEST:]
    name = printable(ends) or "''"
    longest = _LONGEST - min(len(name), _SHORTEST_NAME) - len(ending)
    sentence = (sentence if len(sentence) <= longest else sentence[:longest].rstrip()) + ending
    room = _LONGEST - len(sentence)
    if len(name) > room:
        end = (room - 3) // 2
        name = name[: room - 3 - end] + "..." + name[len(name) - end :]
    return name + sentence


def printable(text: str) -> str:
    """Escape the characters that control a terminal or are invisible."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
