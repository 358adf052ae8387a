"""The rows of `image-mirror pods`: one for each image and cause, with its pods. As data, as a table, and in blocks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import typer

from image_mirror.cli.kubelet import next_try
from image_mirror.cli.output import aligned, columns_of, folded, utc
from image_mirror.cli.pod_causes import NUDGE, Code
from image_mirror.cli.pod_reading import Found, Where
from image_mirror.record import MINUTE

_MOST_NAMES = 3
_HEAD = ("PODS", "IMAGE", "WHY", "DO")
_INDENT = " " * 6


@dataclass(frozen=True, slots=True)
class PodRow:
    """One pod of a group; `field` is where it names the image, as containers/NAME."""

    namespace: str
    name: str
    phase: str
    node: str | None
    field: str
    reason: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """The pods that have one image and one cause. The fields are the keys of the JSON output."""

    image: str
    cause: Code
    why: str
    do: str
    copy: str | None
    next_try: str | None
    count: int
    pods: list[PodRow]

    @property
    def names(self) -> list[str]:
        """The pods, each once and with its namespace."""
        return list(dict.fromkeys(f"{pod.namespace}/{pod.name}" for pod in self.pods))


def title(found: Found) -> str:
    """Return the image's name for people: the source, if the pod has its copy."""
    return found.facts.source if found.facts.is_copy else found.facts.image


def grouped(everything: Iterable[Found], now: int, where: Where) -> list[Group]:
    """Group the images by name and cause. The group with the most pods is first.

    Commands in the remedies look `where` the pods were looked for.
    """
    groups: dict[tuple[str, ...], list[Found]] = {}
    for found in everything:
        key = (title(found), found.cause.code, found.cause.why, found.cause.do)
        groups.setdefault(key, []).append(found)
    made = [_group(some, now, where) for some in groups.values()]
    return sorted(made, key=lambda group: (-group.count, group.image, group.cause))


def _group(some: Sequence[Found], now: int, where: Where) -> Group:
    first = some[0]
    # The latest, so that it is true of all pods.
    due = max((next_try(each.tries, now) for each in some if each.waiting), default=None) if first.cause.tries else None
    image = title(first)
    return Group(
        image=image,
        cause=first.cause.code,
        why=first.cause.why + (f"; the kubelet tries {within(due, now)}" if due else ""),
        do=first.cause.remedy(image).replace(NUDGE, where.typed(NUDGE)),
        copy=str(first.copy) if first.copy else None,
        next_try=utc(due),
        count=len({each.name for each in some}),
        pods=[pod_row(each) for each in some],
    )


def pod_row(found: Found) -> PodRow:
    """Return one image of one pod for the JSON output."""
    metadata = found.pod["metadata"]
    return PodRow(
        namespace=metadata["namespace"],
        name=metadata["name"],
        phase=(found.pod.get("status") or {}).get("phase", "Unknown"),
        node=found.pod["spec"].get("nodeName"),
        field=found.field.key,
        reason=found.waiting.reason if found.waiting else None,
        message=" ".join(filter(None, (found.waiting.message, _more(found)))) if found.waiting else None,
    )


def _more(found: Found) -> str:
    """Return the events' words, unless the status repeats them."""
    message, words = found.waiting.message if found.waiting else "", found.tries.words
    return "" if words in message else words


def within(due: int, now: int) -> str:
    """Return how soon a time comes, in minutes rounded up."""
    minutes = max(1, -(-(due - now) // MINUTE))
    return f"within {minutes} minutes" if minutes > 1 else "within a minute"


def table(groups: Sequence[Group], *, wide: bool) -> list[str]:
    """Return a heading and one aligned line for each group, of any length; `wide` adds the pods' names."""
    # The numbers are on the right, below the heading's end.
    lines = [[f"{group.count:>4}", group.image, group.why, group.do] for group in groups]
    if wide:
        lines = [[*line, " ".join(group.names)] for line, group in zip(lines, groups, strict=True)]
    return list(aligned([[*_HEAD, "NAMES"] if wide else list(_HEAD), *lines]))


def blocks(groups: Iterable[Group], *, wide: bool) -> Iterator[str]:
    """Yield a few lines for each group, no wider than the terminal: for one on which the table would wrap."""
    for group in groups:
        first, *more = folded(f"{group.count:>4}  {group.image}")
        yield typer.style(first, bold=True)
        yield from more
        shown = group.names if wide else group.names[:_MOST_NAMES]
        rest = len(group.names) - len(shown)
        names = ", ".join(shown) + (f" and {rest} more" if rest else "")
        for text in (group.why, f"Do: {group.do}" if group.do != "-" else "", f"Pods: {names}"):
            if text:
                yield from folded(text, _INDENT)


def shown(groups: Sequence[Group], width: int | None, *, wide: bool) -> list[str]:
    """Return the groups as lines for a terminal with `width` columns, or of any length if it is None."""
    lines = table(groups, wide=wide)
    if width is None or max(map(columns_of, lines)) <= width:
        return lines
    return list(blocks(groups, wide=wide))


def summary(groups: Sequence[Group], *, missed: bool, all_phases: bool = False) -> str:
    """Return the counts, on one line; if there is no pod, which ones were looked at."""
    count, causes = len({name for group in groups for name in group.names}), len({group.cause for group in groups})
    one, several = ("names a source", "name sources") if missed else ("cannot pull", "cannot pull")
    if not groups:
        if missed:
            return "No pod names a source that a rule copies."
        if all_phases:
            return "No pod waits for an image."
        return "No Pending pod waits for an image; --all-phases looks at the others too."
    counted = f"1 pod {one}" if count == 1 else f"{count:,} pods {several}"
    counted += " that a rule copies" if missed else ""
    return f"{counted}: {causes} cause{'' if causes == 1 else 's'}"
