"""One pod in full: what the webhook does with it, and for each image the rule, the record, ECR and the kubelet."""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import typer

from image_mirror.cli.accounts import Account
from image_mirror.cli.commands.pods.groups import pod_row, within
from image_mirror.cli.held_copies import INDEXES, InECR
from image_mirror.cli.kubelet import next_try, timestamp, waiting
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.live_webhook import expressions, not_sent, our_webhooks
from image_mirror.cli.output import current_time, folded, milliseconds, moment, utc
from image_mirror.cli.pod_causes import NUDGE, RECREATE, SWAP_WHEN, classify
from image_mirror.cli.pod_objects import owner, restart
from image_mirror.cli.pod_reading import (
    ClusterView,
    CopiesView,
    Found,
    Notes,
    Where,
    all_fields,
    as_new,
    found_of,
    view_cluster,
    view_copies,
)
from image_mirror.messages import printable
from image_mirror.pod_images import image_fields
from image_mirror.record import MOST_ATTEMPTS, Record
from image_mirror.review import Json

_UNIT = 1_000_000
_NAME = 9  # columns of a field's name


@dataclass(frozen=True, slots=True)
class CopyInECR:
    """What ECR holds of a copy; all but `state` are None if they are not known or there is none.

    `platforms` is empty for an image that is no index: ECR's manifest does not say its platform.
    """

    state: str
    digest: str | None = None
    size: int | None = None
    pushed_at: str | None = None
    platforms: list[str] | None = None


@dataclass(frozen=True, slots=True)
class RecordOfCopy:
    """The record's history. Times are in ISO 8601 and UTC."""

    state: str | None
    requested_at: str | None
    requested_by: str | None
    updated_at: str | None
    due_at: str | None
    attempts: int
    waits: int
    build: str | None
    signatures: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ImageOfPod:
    """One image of the pod. The fields are the keys of the JSON output; `cause` is None if the kubelet has it."""

    field: str
    image: str
    source: str
    rule: str | None
    pull_policy: str
    cause: str | None
    why: str | None
    do: str | None
    copy: str | None
    record: RecordOfCopy | None
    in_ecr: CopyInECR | None
    reason: str | None
    message: str | None
    tries: int
    last_try: str | None
    next_try: str | None


@dataclass(frozen=True, slots=True)
class OnePod:
    """The pod. The fields are the keys of the JSON output; `dry_run` has the images that a new pod gets, by field.

    `selectors` are those of the webhook that is asked, or of all webhooks for this if none is; a line each.
    """

    pod: str
    namespace: str
    phase: str
    node: str | None
    made_at: str | None
    owner: str | None
    webhook: str
    selectors: list[str]
    dry_run: Mapping[str, str] | None
    warnings: list[str]
    images: list[ImageOfPod]
    notes: list[str] = field(default_factory=list)


def read_one(cluster: Cluster, account: Account, stack_name: str | None, where: Where, name: str) -> OnePod:
    """Read all about the pod `name`. Raises NoAnswerError if the pod cannot be read."""
    pod = cluster.get("pod", name, *where.options())
    notes, now = Notes(), current_time()
    view = view_cluster(cluster, [pod], notes, events=True)
    copies = view_copies(account, stack_name, [pod], notes)
    waits = {each.field.key: each for each in waiting(pod)}
    found = found_of([(pod, each, waits.get(each.key)) for each in all_fields(pod)], view, copies, notes, now)
    unseen = "what the webhook does now with such a pod is not known"
    written = as_new(pod, copies.mirror)
    made = notes.answer(unseen, lambda: cluster.dry_run(written))
    if made is not None:
        found = [_tried(each, written, made) for each in found]
    metadata = pod["metadata"]
    webhook, selectors = _webhook(view, copies, found)
    return OnePod(
        pod=metadata["name"],
        namespace=metadata["namespace"],
        phase=(pod.get("status") or {}).get("phase", "Unknown"),
        node=pod["spec"].get("nodeName"),
        made_at=metadata.get("creationTimestamp"),
        owner="/".join(filter(None, owner(pod))) or None,
        webhook=webhook,
        selectors=selectors,
        dry_run=None if made is None else {each.key: each.image for each in image_fields(made[0])},
        warnings=[] if made is None else made[1],
        images=[_image(each, account, notes, now) for each in found],
        notes=notes.sentences,
    )


def _tried(found: Found, written: Json, made: tuple[Json, list[str]]) -> Found:
    """Return the image with its cause after a dry run of the pod as its author wrote it."""
    new, warnings = made
    before, after = ({each.key: each.image for each in image_fields(pod)} for pod in (written, new))
    key = found.field.key
    if before.get(key) != found.facts.source or after.get(key) != found.facts.source:
        return found
    facts = replace(found.facts, kept_now=warnings)
    return replace(found, facts=facts, cause=classify(facts))


def _webhook(view: ClusterView, copies: CopiesView, found: Sequence[Found]) -> tuple[str, list[str]]:
    """Return a sentence about the live configuration and this pod, and the selectors that decide that."""
    if view.configurations is None:
        ours = []
    else:
        url = copies.stack.outputs.get("APIGatewayURL") if copies.stack else None
        ours = our_webhooks(view.configurations, url)
    asked = [each for each in ours if not (found and _leaves_out(each[1], found[0].pod, view))]
    shown = asked[:1] or ours
    selectors = [
        line for _, webhook in shown for line in _selectors(webhook, "" if len(shown) == 1 else webhook["name"])
    ]
    facts = found[0].facts if found else None
    if facts is not None and (facts.opted_out or facts.not_sent):
        return f"not asked: {facts.opted_out or facts.not_sent}", selectors
    if view.configurations is None:
        return "its configuration is not known", []
    if not asked:
        return "not asked: the cluster has no webhook configuration for this", selectors
    configuration, webhook = asked[0]
    policy, seconds = webhook.get("failurePolicy", "Fail"), webhook.get("timeoutSeconds", 10)
    since = configuration["metadata"].get("creationTimestamp") or "an unknown time"
    conditions = [each["name"] for each in webhook.get("matchConditions") or ()]
    text = f"asked: {configuration['metadata']['name']} selects the pod; failurePolicy {policy}, {seconds} s"
    if facts and (facts.swap_when, facts.chosen_by) != ("always", SWAP_WHEN):
        text += f"; {facts.swap_when} by {facts.chosen_by}"
    text += f"; exists since {since}" + (f"; conditions: {', '.join(conditions)}" if conditions else "")
    return text, selectors


def _selectors(webhook: Json, name: str) -> Iterator[str]:
    """Yield a line for each selector of a webhook; `name` is the webhook's, "" if it is the only one."""
    for what, key in (("namespaces", "namespaceSelector"), ("pods", "objectSelector")):
        asked = [
            " ".join(filter(None, (label, operator, ", ".join(values))))
            for label, operator, values in expressions(webhook.get(key) or {})
        ]
        yield printable(f"{f'{name}: ' if name else ''}{what} with {'; '.join(asked) or 'any labels'}")


def _leaves_out(webhook: Json, pod: Json, view: ClusterView) -> bool:
    metadata = pod["metadata"]
    labels = None if view.namespaces is None else view.namespaces.get(metadata["namespace"])
    return not_sent(webhook, metadata["namespace"], labels, metadata.get("labels") or {}) is not None


def _image(found: Found, account: Account, notes: Notes, now: int) -> ImageOfPod:
    facts, row, record = found.facts, pod_row(found), found.facts.record
    held = None
    if facts.is_copy and found.copy and facts.held is not None:
        state = str(facts.held.state)
        asked = notes.answer(
            "the size and the platforms in ECR are not known", lambda: _in_ecr(account.client("ecr"), found, state)
        )
        held = asked or CopyInECR(state, facts.held.digest)
    policy = "Always" if found.field.pull_always else "Never" if found.field.pull_never else "IfNotPresent"
    waits, done = found.waiting is not None, found.tries
    # A source that runs can be a problem too: it was missed.
    has_cause = waits or (not facts.is_copy and facts.explained.copy is not None and not found.field.pull_never)
    return ImageOfPod(
        field=found.field.key,
        image=facts.image,
        source=facts.source,
        rule=facts.explained.rule,
        pull_policy=policy,
        cause=found.cause.code if has_cause else None,
        why=found.cause.why if has_cause else None,
        do=_remedy(found) if has_cause else None,
        copy=str(found.copy) if found.copy else None,
        record=_history(record) if record else None,
        in_ecr=held,
        reason=row.reason,
        message=row.message,
        tries=done.count,
        last_try=utc(done.last),
        next_try=utc(next_try(done, now)) if waits else None,
    )


def _remedy(found: Found) -> str:
    """Return what to do, with the commands for this one pod."""
    metadata = found.pod["metadata"]
    nudge = f"{NUDGE} -n {metadata['namespace']} {metadata['name']}"
    return found.cause.remedy(found.facts.source).replace(RECREATE, restart(found.pod)).replace(NUDGE, nudge)


def _history(record: Record) -> RecordOfCopy:
    return RecordOfCopy(
        state=record.status,
        requested_at=utc(record.requested_at),
        requested_by=record.requested_by,
        updated_at=utc(record.updated_at),
        due_at=utc(record.due_at),
        attempts=record.attempts,
        waits=record.waits,
        build=record.build_id,
        signatures=record.signatures,
        reason=record.error,
    )


def _in_ecr(ecr: Any, found: Found, state: str) -> CopyInECR | None:
    """Return the copy's details; None if pods cannot pull it. Raises ClientError, BotoCoreError."""
    copy, held = found.copy, found.facts.held
    if copy is None or held is None or held.digest is None or held.state is InECR.ARCHIVED:
        return None
    named = {"repositoryName": copy.repository, "imageIds": [{"imageTag": copy.tag}]}
    [details] = ecr.describe_images(**named)["imageDetails"]
    images = ecr.batch_get_image(**named, acceptedMediaTypes=list(INDEXES)).get("images", ())
    return CopyInECR(
        state=state,
        digest=held.digest,
        size=details.get("imageSizeInBytes"),
        pushed_at=utc(milliseconds(details["imagePushedAt"])),
        platforms=[text for image in images for text in _platforms(image["imageManifest"])],
    )


def _platforms(manifest: str) -> list[str]:
    """Return the platforms that an index names; attestations have the platform unknown/unknown."""
    try:
        platforms = [each.get("platform") or {} for each in json.loads(manifest).get("manifests") or ()]
        parts = [(each.get("os"), each.get("architecture"), each.get("variant")) for each in platforms]
        texts = dict.fromkeys("/".join(filter(None, each)) for each in parts)
    except (ValueError, AttributeError, TypeError, RecursionError):  # whoever pushes may push any text
        return []
    return [text for text in texts if text and not text.startswith("unknown")]


def full(one: OnePod, now: int, width: int | None) -> Iterator[str]:
    """Yield the lines for people: for a terminal with `width` columns, no word broken; of any length if it is None."""
    head = {
        "pod": f"{one.namespace}/{one.pod}, {one.phase}" + (f" on {one.node}" if one.node else ""),
        "made": moment(timestamp(one.made_at), now) + (f" by {one.owner}" if one.owner else ""),
        "webhook": one.webhook,
    }
    more = [("selects", line) for line in one.selectors] + [("warning", line) for line in one.warnings]
    yield from _fields([*head.items(), *more], "", width)
    for each in one.images:
        yield ""
        title = f"{each.field}: {each.source}"
        for line in [printable(title)] if width is None else folded(title, width=width):
            yield typer.style(line, bold=True)
        yield from _fields(_of_image(each, one, now).items(), "  ", width)


def _fields(fields: Iterable[tuple[str, str]], indent: str, width: int | None) -> Iterator[str]:
    """Yield each value after its name; its further lines are below the value, unless a word fits only without that."""
    below = len(indent) + _NAME
    for name, value in fields:
        if not value.strip():
            continue
        first = f"{indent}{name:<{_NAME}}"
        if width is None or " " not in value:
            yield first + printable(value)
            continue
        lines = textwrap.wrap(printable(value), max(20, width - below), break_long_words=False, break_on_hyphens=False)
        if below + len(lines[0]) > width:
            yield first.rstrip()
            first = ""
        for number, line in enumerate(lines):
            start = first if number == 0 else " " * below
            yield start + line if below + len(line) <= width else line


def _of_image(each: ImageOfPod, one: OnePod, now: int) -> dict[str, str]:
    new = (one.dry_run or {}).get(each.field, "")
    kubelet = f"{each.reason}: {each.message}" if each.reason else ""
    tried = f"{each.tries} tries, the last {moment(timestamp(each.last_try), now)}" if each.tries else ""
    return {
        "image": each.image if each.image != each.source else "as its author wrote it",
        "rule": each.rule or "none names it",
        "policy": each.pull_policy,
        "new pod": f"would get {'the same' if new == each.image else new}" if new else "",
        "record": _record(each.record, now) if each.record else "",
        "in ECR": _held(each.in_ecr) if each.in_ecr else "",
        "kubelet": kubelet,
        "tried": tried,
        "why": each.why or "the kubelet has no trouble with it",
        "next": f"the kubelet tries {within(timestamp(each.next_try), now)}" if each.next_try else "",
        "do": each.do if each.do and each.do != "-" else "",
    }


def _record(record: RecordOfCopy, now: int) -> str:
    parts = [
        f"{record.state or 'no state'} since {moment(timestamp(record.updated_at), now)}",
        f"requested {moment(timestamp(record.requested_at), now)}",
        f"by {record.requested_by}" if record.requested_by else "",
        f"{record.attempts} of {MOST_ATTEMPTS} attempts used" if record.attempts else "",
        f"delayed {record.waits} times" if record.waits else "",
        f"next look {moment(timestamp(record.due_at), now)}" if record.due_at else "",
        f"build {record.build}" if record.build else "",
        f"signatures: {record.signatures}" if record.signatures else "",
        f"reason: {record.reason}" if record.reason else "",
    ]
    return printable(", ".join(filter(None, parts)))


def _held(held: CopyInECR) -> str:
    size = f"{held.size / _UNIT:,.0f} MB" if held.size is not None else ""
    pushed = f"pushed {held.pushed_at}" if held.pushed_at else ""
    platforms = ", ".join(held.platforms or ()) or ("one platform" if held.platforms == [] else "")
    return "; ".join(filter(None, (held.state, held.digest, size, pushed, platforms)))
