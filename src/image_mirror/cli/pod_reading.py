"""Reads what is known of pods: from the cluster, the table and ECR, and makes the facts of each image from it.

A developer may be allowed to read pods and nothing else. So only the pods are required; for all the rest, a note says
what could not be seen and why, and the causes that depend on it say "probably".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

from image_mirror.cli.accounts import Account
from image_mirror.cli.errors import NoAnswerError, describe_aws_error
from image_mirror.cli.held_copies import Held, look_up
from image_mirror.cli.kubelet import PULLS, Tries, Waiting, said, timestamp, tries, waiting
from image_mirror.cli.kubernetes import Cluster
from image_mirror.cli.live_webhook import Labels, label_values, not_sent, our_webhooks, route_of
from image_mirror.cli.plan import explain, pods_as_written
from image_mirror.cli.pod_causes import SWAP_WHEN, Cause, Facts, classify
from image_mirror.cli.pod_objects import cannot_be_patched, names_tag_and, other_digest, runs_once
from image_mirror.cli.stacks import Stack, china_stack, mirror_of, records_of
from image_mirror.decisions import Mirror
from image_mirror.messages import printable
from image_mirror.pod_images import (
    ORIGINALS,
    SKIP_LABEL,
    ImageField,
    image_fields,
    original_images,
    skip_reason,
)
from image_mirror.record import Record
from image_mirror.reference import (
    Destination,
    InvalidReferenceError,
    NoDestinationError,
    destination_named,
    parse_reference,
    path_below_prefix,
    source_of,
)
from image_mirror.review import Json
from image_mirror.rules import DEFAULT_RULES, parse_rules
from image_mirror.swap_when import LABEL, SwapWhen, parse_swap_when

LIVING = "status.phase!=Succeeded,status.phase!=Failed"
PENDING = "status.phase=Pending"
_UNKNOWN_REGISTRY = "000000000000.dkr.ecr.cn-north-1.amazonaws.com.cn"
_MOST_NEW = 50  # the default of MaxNewImages
_OPTED_OUT_POD = "opted out by the pod's label"
_STATIC = "a static pod: the webhook leaves it as it is"
Key = tuple[str, str]
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Where:
    """Which pods: of one namespace, "" for the context's own, or of all, None; and those with these labels."""

    namespace: str | None = ""
    selector: str | None = None

    def options(self) -> list[str]:
        """Return the options of kubectl."""
        if self.namespace is None:
            return ["--all-namespaces"]
        return [f"--namespace={self.namespace}"] if self.namespace else []

    def typed(self, command: str) -> str:
        """Return a command of image-mirror that looks at the same namespaces, as an operator types it."""
        flags = " -A" if self.namespace is None else f" -n {self.namespace}" if self.namespace else ""
        return command + flags


@dataclass(slots=True)
class ClusterView:
    """What the cluster says. A part that may not be read is None.

    `namespaces` has the labels of each namespace. `events` are by the UID of their pod.
    """

    pods: Sequence[Json] = ()
    namespaces: Mapping[str, Labels] | None = None
    configurations: Sequence[Json] | None = None
    events: Mapping[str, Sequence[Json]] | None = None


@dataclass(slots=True)
class CopiesView:
    """What the account in China says. `stack` is None if it may not be read, and `records` and `held` too.

    Then `mirror` has the default rules, and where copies go as the pods' annotations show it.

    `is_whole` is False if a part of it was asked for in vain.

    `required` is for a command that changes pods: ECR is asked about each copy, also if no record says that it is
    there, and an error of AWS is raised.
    """

    mirror: Mirror
    stack: Stack | None = None
    swap_when: SwapWhen = "always"
    records: Mapping[Key, Record] | None = None
    held: Mapping[str, Held] = field(default_factory=dict)
    required: bool = False
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """One image of one pod, and its cause. `waiting` is None if the kubelet does not wait for it.

    `copy` is the copy that the pod names, or that it would get.
    """

    pod: Json
    field: ImageField
    facts: Facts
    cause: Cause
    copy: Destination | None
    waiting: Waiting | None
    tries: Tries

    @property
    def name(self) -> str:
        """The pod, with its namespace."""
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"


@dataclass(slots=True)
class Notes:
    """What could not be seen and why: one sentence each."""

    sentences: list[str] = field(default_factory=list)

    def answer(self, unseen: str, ask: Callable[[], Answer], *, remedied: bool = False) -> Answer | None:
        """Return an answer; None if there is none, and then a note begins with `unseen`. Our mistakes are raised.

        With `remedied`, the note also says what to do. kubectl's own remedies only repeat its command.
        """
        try:
            return ask()
        except NoAnswerError as error:
            why = str(error) if remedied else error.cause
        except Exception as error:
            text = describe_aws_error(error)
            if text is None:
                raise
            why = text
        sentence = f"{unseen}: {printable(why)}"
        if sentence not in self.sentences:
            self.sentences.append(sentence)
        return None


def read_pods(cluster: Cluster, where: Where, phases: str) -> Sequence[Json]:
    """Return the pods. Raises NoAnswerError."""
    options = where.options() + ([f"--selector={where.selector}"] if where.selector else [])
    found: Sequence[Json] = cluster.get("pods", f"--field-selector={phases}", *options)["items"]
    return found


def view_cluster(cluster: Cluster, pods: Sequence[Json], notes: Notes, *, events: bool) -> ClusterView:
    """Read the namespaces of these pods, the webhook configurations and, if wanted, the pods' events."""
    view = ClusterView(pods)
    names = {pod["metadata"]["namespace"] for pod in pods}
    # One namespace is read by its name, which needs a permission in that namespace only.
    named = list(names) if len(names) == 1 else []
    answer = notes.answer("the namespaces' labels are not known", lambda: cluster.get("namespaces", *named))
    if answer is not None:
        items = answer.get("items", [answer])
        view.namespaces = {each["metadata"]["name"]: each["metadata"].get("labels") or {} for each in items}
    answer = notes.answer(
        "the webhook's configuration is not known", lambda: cluster.get("mutatingwebhookconfigurations")
    )
    view.configurations = None if answer is None else answer["items"]
    if events:
        view.events = view_events(cluster, pods, notes).events
    return view


def view_events(cluster: Cluster, pods: Sequence[Json], notes: Notes) -> ClusterView:
    """Read only the pods' events, which have an older kubelet's words."""
    view = ClusterView(pods)
    names = {pod["metadata"]["namespace"] for pod in pods}
    scope = ["--all-namespaces"] if len(names) > 1 else [f"--namespace={name}" for name in names]
    of_pods = "--field-selector=involvedObject.kind=Pod"
    answer = notes.answer("the kubelet's events are not known", lambda: cluster.get("events", of_pods, *scope))
    if answer is not None:
        by_pod: dict[str, list[Json]] = {}
        for event in answer["items"]:
            by_pod.setdefault(event["involvedObject"].get("uid", ""), []).append(event)
        view.events = by_pod
    return view


def view_copies(account: Account, stack_name: str | None, pods: Iterable[Json], notes: Notes) -> CopiesView:
    """Read the stack in China; where that is not possible, guess. The records come later."""
    unseen = "AWS was not asked, so records and ECR are not known, and the default rules decide"

    def ask() -> CopiesView:
        return copies_of(china_stack(account, stack_name))

    return notes.answer(unseen, ask, remedied=True) or CopiesView(guessed_mirror(pods), is_whole=False)


def copies_of(stack: Stack, *, required: bool = False) -> CopiesView:
    """Return what the stack itself says; the records come later."""
    swap_when = cast("SwapWhen", stack.parameters.get("SwapWhen", "always"))
    return CopiesView(mirror_of(stack), stack, swap_when, required=required)


def guessed_mirror(pods: Iterable[Json]) -> Mirror:
    """Return a mirror with the default rules; where copies go is what the first annotation shows."""
    rules = parse_rules(DEFAULT_RULES)
    for pod in pods:
        originals = original_images(pod)
        for each in all_fields(pod):
            try:
                copy, path = parse_reference(each.image), path_below_prefix(parse_reference(originals[each.key]))
            except (KeyError, InvalidReferenceError):
                continue
            prefix = copy.repository.removesuffix(f"/{path}")
            if prefix != copy.repository:
                return Mirror(copy.registry, prefix, rules)
    return Mirror(_UNKNOWN_REGISTRY, "mirror", rules)


def find(cluster: ClusterView, copies: CopiesView, notes: Notes, now: int, *, missed: bool = False) -> list[Found]:
    """Return the images of the pods that the kubelet cannot pull; with `missed`, the sources that rules would copy.

    The records and ECR are read for these images only.
    """
    wanted: list[tuple[Json, ImageField, Waiting | None]] = []
    for pod in cluster.pods:
        waits = {each.field.key: each for each in waiting(pod)}
        wanted += [
            (pod, each, waits.get(each.key))
            for each in all_fields(pod)
            if each.image and (_is_missed(pod, each, copies.mirror) if missed else each.key in waits)
        ]
    return found_of(wanted, cluster, copies, notes, now, missed=missed)


def found_of(
    wanted: Sequence[tuple[Json, ImageField, Waiting | None]],
    cluster: ClusterView,
    copies: CopiesView,
    notes: Notes,
    now: int,
    *,
    missed: bool = False,
) -> list[Found]:
    """Return these images with their facts and causes."""
    named = [_copy_named(pod, each, copies.mirror) for pod, each, _ in wanted]
    _read_copies(copies, [copy for copy in named if copy], notes)
    found = [
        _found(pod, each, wait, copy, cluster, copies, now)
        for (pod, each, wait), copy in zip(wanted, named, strict=True)
    ]
    # A namespace that opts out names sources on purpose.
    return [each for each in found if not (missed and each.facts.opted_out)]


@dataclass(frozen=True, slots=True)
class CopyNamed:
    """The copy that a pod has or would get; `is_copy`: its image is the copy's own name."""

    destination: Destination
    source: str
    is_copy: bool


def _copy_named(pod: Json, each: ImageField, mirror: Mirror) -> CopyNamed | None:
    """Return the copy that the pod names, or that a rule would make of its image; None if there is none."""
    try:
        reference = parse_reference(each.image)
    except InvalidReferenceError:
        return None
    original = original_images(pod).get(each.key)
    # An apply while the webhook does not answer puts the source back, and leaves the annotation.
    if original is not None and (original == each.image or not mirror.may_be_copy_of(each.image, original)):
        original = None
    if reference.registry == mirror.registry:
        try:
            destination = destination_named(reference, mirror.registry, mirror.prefix)
        except NoDestinationError:
            return None
        source = source_of(destination.repo, destination.tag, mirror.registry, mirror.prefix)
        if original is None and (source is None or not mirror.serves(destination.repo)):
            return None  # an image of the account's own
        return CopyNamed(destination, original or source or each.image, is_copy=True)
    copy = explain(each.image, mirror).copy
    return CopyNamed(copy.destination, each.image, is_copy=False) if copy and original is None else None


def _read_copies(copies: CopiesView, named: Sequence[CopyNamed], notes: Notes) -> None:
    """Read the records of these copies, 100 in a call, and what ECR holds of those that a pod has."""
    stack = copies.stack
    if stack is None or not named:
        return
    keys = [(each.destination.repo, each.destination.tag) for each in named]

    def records() -> Mapping[Key, Record]:
        return records_of(stack).get_all(keys)

    copies.records = records() if copies.required else notes.answer("the records are not known", records)
    asked: dict[str, Record] = {}
    for each in named:
        key = each.destination.repo, each.destination.tag
        record = (copies.records or {}).get(key)
        if copies.required or (each.is_copy and (record is None or record.digest is not None)):
            asked[each.destination.by_tag] = record or Record(repo=key[0], tag=key[1], source=each.source)

    def held() -> Mapping[str, Held]:
        return look_up(stack.account.client("ecr"), copies.mirror, asked.values()) if asked else {}

    answered = held() if copies.required else notes.answer("what ECR holds is not known", held)
    copies.held = answered or {}
    copies.is_whole = copies.is_whole and copies.records is not None and answered is not None


def _found(
    pod: Json,
    each: ImageField,
    wait: Waiting | None,
    named: CopyNamed | None,
    cluster: ClusterView,
    copies: CopiesView,
    now: int,
) -> Found:
    metadata, mirror = pod["metadata"], copies.mirror
    done = tries((cluster.events or {}).get(metadata["uid"], ()), each.image)
    original = original_images(pod).get(each.key)
    is_copy = named is not None and named.is_copy
    source = named.source if named else each.image
    if not is_copy and original is not None and mirror.may_be_copy_of(each.image, original):
        source = original
    labels = None if cluster.namespaces is None else cluster.namespaces.get(metadata["namespace"])
    opted_out, unsent, configured_at, webhook = _webhook_sees(pod, cluster, labels, copies)
    swap_when, chosen_by = _swap_when(pod, webhook, copies)
    destination = named.destination if named else None
    held = copies.held.get(destination.by_tag) if destination else None
    facts = Facts(
        image=each.image,
        source=source,
        explained=explain(source, mirror),
        is_copy=is_copy,
        served=destination is None or mirror.serves(destination.repo),
        reason=wait.reason if wait else "",
        said=said(wait.message, done.words) if wait else said(),
        opted_out=opted_out,
        not_sent=unsent,
        made_at=timestamp(metadata.get("creationTimestamp")),
        configured_at=configured_at,
        namespace_known=labels is not None and cluster.configurations is not None,
        rules_known=copies.stack is not None,
        record=(copies.records or {}).get((destination.repo, destination.tag)) if destination else None,
        record_known=copies.records is not None,
        held=held,
        too_many=not is_copy and _copied_count(pod, mirror) > _most_new(copies.stack),
        swap_when=swap_when,
        chosen_by=chosen_by,
        nudge=_nudge(pod, each, wait, held.digest if held and is_copy else None),
        now=now,
    )
    return Found(pod, each, facts, classify(facts), destination, wait, done)


def _nudge(pod: Json, each: ImageField, wait: Waiting | None, digest: str | None) -> str | None:
    """Return the options with which `image-mirror nudge` can change this image, None if it cannot.

    `digest` is what ECR holds under the name of the copy that the pod names.
    """
    if wait is None or wait.reason not in PULLS or pod["metadata"].get("deletionTimestamp"):
        return None
    if cannot_be_patched(pod, each):
        return None
    if digest is not None and (names_tag_and(digest, each.image) or other_digest(pod, each, digest)):
        return None
    return " --jobs" if runs_once(pod) else ""


def _copied_count(pod: Json, mirror: Mirror) -> int:
    """Return how many copies the pod has or would get, each once."""
    named = [_copy_named(pod, each, mirror) for each in all_fields(pod)]
    return len({each.destination for each in named if each})


def _most_new(stack: Stack | None) -> int:
    text = stack.parameters.get("MaxNewImages", "") if stack else ""
    return int(text) if text.isdecimal() else _MOST_NEW


def _webhook_sees(
    pod: Json, cluster: ClusterView, labels: Labels | None, copies: CopiesView
) -> tuple[str | None, str | None, int, Json | None]:
    """Return why the pod is opted out, why the webhook is not asked about it, when it was configured (0: unknown), and
    the webhook that is asked, None if that is not known.

    If several webhooks are for this project, one that is asked is enough.
    """
    metadata = pod["metadata"]
    skipped = skip_reason(pod)
    if skipped:
        return (_OPTED_OUT_POD if SKIP_LABEL in skipped else _STATIC), None, 0, None
    if cluster.configurations is None:  # as shipped, as far as is known
        by_namespace = labels is not None and labels.get(SKIP_LABEL) == "true"
        return ("opted out by the namespace's label" if by_namespace else None), None, 0, None
    url = copies.stack.outputs.get("APIGatewayURL") if copies.stack else None
    ours = our_webhooks(cluster.configurations, url)
    if not ours:
        return None, "the cluster has no webhook configuration for this", 0, None
    reasons = []
    for configuration, webhook in ours:
        reason = not_sent(webhook, metadata["namespace"], labels, metadata.get("labels") or {})
        if reason is None:
            return None, None, timestamp(configuration["metadata"].get("creationTimestamp")), webhook
        reasons.append(reason)
    opted_out = next((each for each in reasons if each.startswith("opted out")), None)
    return opted_out, None if opted_out else reasons[0], 0, None


def _swap_when(pod: Json, webhook: Json | None, copies: CopiesView) -> tuple[SwapWhen, str]:
    """Return the value of SwapWhen that holds for new pods like this one, and what has chosen it."""
    try:
        return parse_swap_when((pod["metadata"].get("labels") or {}).get(LABEL)), "the pod's label"
    except ValueError:
        value = route_of(webhook) if webhook else None
    if webhook is None or value is None:
        return copies.swap_when, SWAP_WHEN
    return value, "the namespace's label" if label_values(webhook) == {value} else "the webhook's configuration"


def _is_missed(pod: Json, each: ImageField, mirror: Mirror) -> bool:
    """Return whether an image of a pod that is not opted out is a source that a rule copies."""
    if skip_reason(pod) or each.pull_never:
        return False
    named = _copy_named(pod, each, mirror)
    return named is not None and not named.is_copy


def all_fields(pod: Json) -> Iterator[ImageField]:
    """Yield all images of a pod, those of ephemeral containers last."""
    for subresource in ("", "ephemeralcontainers"):
        yield from image_fields(pod, subresource)


def as_new(pod: Json, mirror: Mirror) -> Json:
    """Return the pod as its author wrote it, without what the API server and the kubelet have added, to dry-run it.

    Its owner is left out, so that no permission for the owner is needed.
    """
    [written] = pods_as_written([pod], [], mirror).pods
    metadata, spec = pod["metadata"], written.pod["spec"]
    kept: Json = {name: metadata[name] for name in ("namespace", "labels") if name in metadata}
    annotations = metadata.get("annotations") or {}
    kept["annotations"] = {key: value for key, value in annotations.items() if key != ORIGINALS}
    kept["generateName"] = "image-mirror-dry-run-"
    spec = {key: value for key, value in spec.items() if key not in ("nodeName", "ephemeralContainers")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": kept, "spec": spec}
