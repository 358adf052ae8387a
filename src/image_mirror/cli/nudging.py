"""Reads the pods that wait for an image, patches those that can be, and says what was done with each image.

The choice is in pod_patches.py. Each pod is one call of the API server, eight at once. A pod that has changed since it
was read is read and patched once more. Nothing is deleted. What was done until Ctrl-C is said too.
"""

import shutil
import sys
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.kubelet import waiting
from image_mirror.cli.kubernetes import Cluster, NotFoundError, Refusal, RefusedError
from image_mirror.cli.output import aligned, columns_of, current_time, folded
from image_mirror.cli.pod_patches import Choice, Kept, PodPatch, choose
from image_mirror.cli.pod_reading import (
    LIVING,
    Notes,
    Where,
    copies_of,
    find,
    read_pods,
    view_cluster,
    view_events,
)
from image_mirror.cli.stacks import Stack
from image_mirror.cli.terminal import each
from image_mirror.messages import printable
from image_mirror.reference import Destination

_AGAIN = "run the command again"
_ASK = "ask for it, or use another context"


class Result(StrEnum):
    """What was done with an image."""

    PATCHED = "patched"
    PLANNED = "would be patched"
    KEPT = "not patched"
    IDLE = "not waiting"
    OVER = "no longer waits"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """One image of one pod. The fields are the keys of the JSON output; `image` is the source."""

    result: Result
    namespace: str
    pod: str
    field: str
    image: str
    becomes: str | None = None
    why: str | None = None
    do: str | None = None

    @property
    def is_well(self) -> bool:
        """Whether nothing is left for the operator."""
        return self.result not in (Result.KEPT, Result.FAILED)


@dataclass(slots=True)
class Nudged:
    """The rows; the images that wait for something else; and notes.

    `missing` is the permission that is missing, or ""; `stopped` is what has ended the work early, such as Ctrl-C.
    """

    rows: list[Row] = field(default_factory=list)
    others: int = 0
    notes: list[str] = field(default_factory=list)
    missing: str = ""
    stopped: BaseException | None = None

    @property
    def is_well(self) -> bool:
        """Whether nothing is left for the operator."""
        return all(row.is_well for row in self.rows)

    def require_all(self) -> None:
        """Raise what has ended the work early, or NoAnswerError if a permission is missing."""
        if self.stopped is not None:
            raise self.stopped
        if self.missing:
            raise NoAnswerError(self.missing, _ASK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which pods are patched. `pod` is the name of one pod; `missed` says that pods which name a source are meant.

    `only` has the copies that are meant, None for all. `jobs`: also pods that run once. `dry_run`: none is patched.
    """

    where: Where
    pod: str | None = None
    missed: bool = False
    jobs: bool = False
    dry_run: bool = False
    only: Container[Destination] | None = None


def nudge_pods(cluster: Cluster, stack: Stack, wish: Wish) -> Nudged:
    """Patch the pods that wait. Raises NoAnswerError, ClientError, BotoCoreError.

    A pod with a container that has run before is Running, also while that container waits for its image again.
    """
    if wish.pod is None:
        pods = read_pods(cluster, wish.where, LIVING)
    else:
        pods = [cluster.get("pod", wish.pod, *wish.where.options())]
    if not wish.missed:
        pods = [pod for pod in pods if waiting(pod)]
    if not pods:
        return Nudged()
    notes, now = Notes(), current_time()
    view = view_cluster(cluster, pods, notes, events=True) if wish.missed else view_events(cluster, pods, notes)
    everything = find(view, copies_of(stack, required=True), notes, now, missed=wish.missed)
    if wish.only is not None:
        everything = [found for found in everything if found.copy in wish.only]
    choice = choose(everything, missed=wish.missed, jobs=wish.jobs, named=wish.pod is not None)
    rows = [_kept(kept) for kept in choice.kept]
    done = Nudged(rows, choice.others, notes.sentences)
    if wish.dry_run:
        done.rows += [row for patch in choice.patches for row in _rows(patch, Result.PLANNED)]
    else:
        _patch_all(cluster, choice, done)
    done.rows.sort(key=lambda row: (row.namespace, row.pod, row.field))
    return done


def _patch_all(cluster: Cluster, choice: Choice, done: Nudged) -> None:
    """Patch each pod. After a missing permission, no pod of the same namespace is tried."""
    refused: dict[str, str] = {}

    def patch(one: PodPatch) -> None:
        namespace = one.pod["metadata"]["namespace"]
        if namespace in refused:
            done.rows.extend(_rows(one, Result.FAILED, refused[namespace], _ASK))
            return
        try:
            done.rows.extend(_patched(cluster, one))
        except RefusedError as error:
            do = _AGAIN if error.refusal is Refusal.CONFLICT else None
            if error.refusal is Refusal.NO_PERMISSION:
                refused[namespace], do = str(error), _ASK
            done.rows.extend(_rows(one, Result.FAILED, str(error), do))
        except NoAnswerError as error:
            done.rows.extend(_rows(one, Result.FAILED, error.cause, _AGAIN))

    try:
        each("patching pods", patch, choice.patches)
    except BaseException as error:  # noqa: BLE001 - raised when the rows are printed
        done.stopped = error
    done.missing = "; ".join(sorted(refused.values()))


def _patched(cluster: Cluster, one: PodPatch) -> list[Row]:
    """Patch a pod, and once more as it is then if it has changed. Raises RefusedError, NoAnswerError."""
    metadata = one.pod["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    try:
        try:
            cluster.patch_pod(namespace, name, one.body())
        except RefusedError as error:
            if error.refusal is not Refusal.CONFLICT:
                raise
        else:
            return _rows(one, Result.PATCHED)
        latest = one.of(cluster.get("pod", name, f"--namespace={namespace}"))
        if latest is None:
            return _rows(one, Result.OVER, "the pod has changed meanwhile")
        cluster.patch_pod(namespace, name, latest.body())
    except NotFoundError:
        return _rows(one, Result.OVER, "the pod is gone")
    over = PodPatch(one.pod, [change for change in one.changes if change not in latest.changes])
    return _rows(latest, Result.PATCHED) + _rows(over, Result.OVER, "the container has changed meanwhile")


def _rows(one: PodPatch, result: Result, why: str | None = None, do: str | None = None) -> list[Row]:
    metadata = one.pod["metadata"]
    return [
        Row(result, metadata["namespace"], metadata["name"], change.key, change.source, change.becomes, why, do)
        for change in one.changes
    ]


def _kept(kept: Kept) -> Row:
    metadata, facts = kept.found.pod["metadata"], kept.found.facts
    key = kept.found.field.key
    result = Result.KEPT if kept.found.waiting else Result.IDLE
    return Row(result, metadata["namespace"], metadata["name"], key, facts.source, None, kept.why, kept.do)


def shown(rows: Sequence[Row]) -> list[str]:
    """Return a heading and one line for each image; on a terminal on which they would wrap, a few lines for each."""
    head = ("RESULT", "POD", "FIELD", "IMAGE", "WHY", "DO")
    cells = [(row.result, f"{row.namespace}/{row.pod}", row.field, row.image, *_reason(row)) for row in rows]
    lines = list(aligned([head, *cells]))
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or max(map(columns_of, lines), default=0) <= width:
        return lines
    return [line for row in rows for line in _block(row)]


def sentence(row: Row) -> str:
    """Return a row as one line without columns, for a command that prints each as it comes."""
    reason = "; ".join(filter(None, _reason(row)))
    return printable(
        f"{row.namespace}/{row.pod} {row.field} {row.image}: {row.result}" + (f": {reason}" if reason else "")
    )


def as_lines(done: Nudged) -> Iterable[str]:
    """Yield all of it as lines without columns: the rows, the notes, and the counts."""
    yield from map(sentence, done.rows)
    yield from (f"Note: {note}" for note in done.notes)
    yield summary(done)


def _reason(row: Row) -> tuple[str, str]:
    return row.why or "", row.do or ""


def _block(row: Row) -> Iterable[str]:
    yield from folded(f"{row.namespace}/{row.pod} {row.field}: {row.result}")
    for text in (row.image, row.why or "", f"Do: {row.do}" if row.do else ""):
        if text:
            yield from folded(text, "  ")


def summary(done: Nudged, *, missed: bool = False) -> str:
    """Return the counts of pods, on one line."""
    by_result: dict[Result, set[str]] = {}
    for row in done.rows:
        by_result.setdefault(row.result, set()).add(f"{row.namespace}/{row.pod}")
    counts = [f"{len(names)} {result}" for result, names in by_result.items()]
    text = f"Pods: {', '.join(counts)}" if counts else _nothing(missed=missed)
    if done.others:
        others = "1 other image waits" if done.others == 1 else f"{done.others} other images wait"
        text += f"; {others}: image-mirror pods says for what"
    return text


def _nothing(*, missed: bool) -> str:
    if missed:
        return "No pod names a source that a rule copies"
    return "No pod waits for a copy that is in ECR"
