"""What kubectl prints to people: one line each, at most 120 characters, saying what happens and what to do.

The API server drops a warning with a control character whole, and cuts or drops them past 4,096 characters in all.
"""

from collections.abc import Sequence

_LONGEST = 120
_MOST = 10
_SHORTEST_NAME = 32


def copying(image: str) -> str:
    """Say that the pod was sent to a copy that has not arrived."""
    return _fit(image, " is being copied to ECR; the pod waits in ImagePullBackOff until it arrives")


def copied_later(image: str) -> str:
    """Say that the pod keeps its source until the copy has arrived (SwapWhen=copied)."""
    return _fit(image, " is being copied to ECR; this pod keeps the source, later pods get the copy")


def failed(image: str, reason: str, retry_minutes: int) -> str:
    """Say that a copy failed for good, and in how many minutes a new pod asks for it again."""
    ending = f"; a new pod retries after {retry_minutes} min"
    return _fit(image, f" stays as written, its copy failed: {printable(reason)}", ending)


def left_unchanged(image: str, cause: str) -> str:
    """Say why an image that nothing can be done about stays as it is."""
    return _fit(image, f" stays as written: {printable(cause)}")


def at_most_ten(warnings: Sequence[str]) -> list[str]:
    """Drop repeated warnings, and count those past the tenth instead of printing them."""
    distinct = list(dict.fromkeys(warnings))
    rest = len(distinct) - _MOST
    return [*distinct[:_MOST], f"and {rest} more"] if rest > 0 else distinct


def _fit(image: str, sentence: str, ending: str = "") -> str:
    """Join the three, the sentence cut at its end and the image in its middle where they would be too long."""
    # No more than this of either end is ever shown; an image may be as long as a request.
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
    """Escape what a terminal would act on or not show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
