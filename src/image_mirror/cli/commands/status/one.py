"""One copy in full: its record, the rule that decides today, what ECR holds, and what to do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from image_mirror.cli.commands.status.records import lane_of
from image_mirror.cli.held_copies import Held, InECR
from image_mirror.cli.image_selection import title
from image_mirror.cli.output import moment
from image_mirror.cli.plan import explain
from image_mirror.cli.pod_causes import cause_of_record
from image_mirror.decisions import Mirror
from image_mirror.messages import printable
from image_mirror.record import MOST_ATTEMPTS, OUT_OF_TIME, TOO_LARGE, UNEXPLAINED, Record, Status

_ROTATE = "image-mirror connect --rotate"
# Only the global stack says whether builds use the role already, and it is not read here.
_REVOKE = (
    "end the sessions of PushRole (docs/by-hand.md), and run image-mirror connect --federate --delete-keys, or "
    f"{_ROTATE} if builds still use a key"
)
_NOT_FAST = {
    OUT_OF_TIME: "not the fast one: OUT_OF_TIME, this image takes longer than a build there may",
    TOO_LARGE: "not the fast one: TOO_LARGE, this image is larger than FastLaneGigabytes",
    UNEXPLAINED: "not the fast one: UNEXPLAINED, a build there failed without a reason; the next request may use it",
}
"""Why an image is not copied in the fast lane, by `Record.not_fast`."""


@dataclass(frozen=True, slots=True)
class OneCopy:
    """What is known of one copy. `held` is None if ECR was not asked or did not answer.

    `rule` is the deployed rule that copies the source, or what the rules do with it instead; None if the record has no
    source. `do` is what to do, None if nothing.
    """

    record: Record
    held: Held | None
    rule: str | None
    do: str | None


def one_copy(record: Record, held: Held | None, mirror: Mirror, now: int, *, role_pushes: bool) -> OneCopy:
    """Return what is known of a copy. `role_pushes` says that China's stack has a role with which builds can push."""
    rule = None
    if record.source:
        explained = explain(record.source, mirror)
        is_copied = explained.copy is not None and explained.copy.destination.by_tag == record.destination
        rule = explained.rule if is_copied else str(explained)
    return OneCopy(record, held, rule, what_to_do(record, held, now, role_pushes=role_pushes))


def what_to_do(record: Record, held: Held | None, now: int, *, role_pushes: bool) -> str | None:
    """Return what an operator does about a copy, in the words of `image-mirror pods`; None if nothing."""
    image = title(record)
    stop = _REVOKE if role_pushes else _ROTATE
    if record.unexpected_push:
        return f"if nobody of yours has pushed it: {stop}, then image-mirror retry {image}"
    cause = cause_of_record(record, held, now)
    if cause is not None:
        return cause.remedy(image)
    if held is not None and held.state is InECR.OTHER_DIGEST and record.status is Status.COPIED:
        return f"if nobody of yours has pushed it: {stop}"
    return None


def full(one: OneCopy, now: int) -> Iterator[str]:
    """Yield all that is known, one line each."""
    record = one.record
    fields: dict[str, str] = {
        "image": title(record),
        "copy": record.destination,
        "rule": one.rule or "-",
        "state": record.status or "none: an older deployment wrote the record; the next pod requests the copy",
        "requested": moment(record.requested_at, now),
        "requester": record.requested_by or "not a pod, or a pod of an older release",
        "changed": moment(record.updated_at, now),
        "next look": moment(record.due_at or 0, now),
        "attempts": f"{record.attempts} of {MOST_ATTEMPTS} used, {record.waits} delayed for a reason that costs none",
        "failing": _failing(record, now),
        "build": record.build_id or "-",
        "lane": "; ".join(filter(None, (lane_of(record) or "-", _NOT_FAST.get(record.not_fast or "")))),
        "digest": record.digest or "-",
        "in ECR": _in_ecr(record, one.held),
        "signatures": record.signatures or "-",
        "reason": record.error or "-",
    }
    if push := record.unexpected_push:
        fields["unexpected"] = (
            f"{push.after} in place of {push.before}, noticed {moment(push.noticed_at, now)}; none of our builds made "
            "this push"
        )
    yield from _lines(fields | {"Do:": one.do or "nothing"})


def _lines(fields: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, fields))
    for name, value in fields.items():
        yield f"{name:<{width}}  {printable(value)}"


def _failing(record: Record, now: int) -> str:
    """Return since when builds of this request end without a copy, and how many requests in a row have failed."""
    since = f"since {moment(record.failing_since, now)}" if record.failing_since else ""
    times = f"{record.failures} request{'' if record.failures == 1 else 's'} in a row" if record.failures else ""
    return ", ".join(filter(None, (since, times))) or "-"


def _in_ecr(record: Record, held: Held | None) -> str:
    if held is None:
        return "not known" if record.digest else "-"
    return f"{held.state}, {held.digest}" if held.state is InECR.OTHER_DIGEST else str(held.state)
