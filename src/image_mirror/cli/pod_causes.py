"""Why a pod cannot pull an image, or names a source, and what to do about it. Pure.

`classify` takes what is known of one image of one pod and returns its cause: the first row of what follows that holds.
What the kubelet says of the name, the pull policy, the disk and the platform comes first, because no copy changes it.
Then, for a copy, its record, ECR, and the node's right to pull; for a source, why the webhook left it as written. What
cannot be known is said as "probably". All times are milliseconds since the epoch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from image_mirror.admission import latest_result
from image_mirror.cli.held_copies import Held
from image_mirror.cli.kubelet import Said
from image_mirror.cli.output import local_date, span
from image_mirror.cli.plan import Explanation
from image_mirror.lanes import is_sent_to_main
from image_mirror.messages import printable
from image_mirror.record import DAY, MINUTE, MOST_ATTEMPTS, Record, Status
from image_mirror.swap_when import SwapWhen

_SLOT_AFTER = 2 * MINUTE  # a build that can start does so within a minute
RECREATE = "recreate the pod (kubectl rollout restart)"
"""Stands in `Cause.do` for all pods of a cause; for one pod, its owner says the command."""
SWAP_WHEN = "SwapWhen"
"""The stack's parameter, where it has chosen `Facts.swap_when`."""
NUDGE = "image-mirror nudge"
"""Begins the command in `Cause.do` that patches pods; for one pod, its name follows."""
_WARM = "image-mirror warm --cluster"
_DOCTOR = "image-mirror doctor --kubeconfig FILE"
IMAGE = "IMAGE"
"""Stands in `Cause.do` for the image, whose name is in the same row; `Cause.remedy` fills it in."""


class Code(StrEnum):
    """The causes, as programs read them."""

    INVALID_NAME = "invalid-name"
    NEVER_PULLED = "never-pulled"
    NO_SPACE = "no-space"
    NO_PLATFORM = "no-platform"
    UNAUTHORIZED = "unauthorized"
    TIMEOUT = "time-out"
    COPY_UNKNOWN = "copy-unknown"
    NOT_SERVED = "not-served"
    NO_RECORD = "no-record"
    OLD_RECORD = "old-record"
    FAILED = "failed"
    REFUSED = "refused"
    DELAYED = "delayed"
    REQUESTED = "requested"
    WAITS_FOR_BUILD = "waits-for-build"
    COPYING = "copying"
    GONE = "gone"
    COPIED = "copied"
    OPTED_OUT = "opted-out"
    NOT_SENT = "not-sent"
    NO_RULE = "no-rule"
    REWRITTEN = "rewritten"
    FAILED_BEFORE = "failed-before"
    COPIED_LATER = "copied-later"
    PAUSED = "paused"
    OLDER_THAN_WEBHOOK = "older-than-webhook"
    TOO_MANY = "too-many"
    MISSED = "missed"
    KEPT_NOW = "kept-now"


_SAYS_WHY = frozenset((Code.NOT_SENT, Code.FAILED_BEFORE, Code.COPIED_LATER, Code.PAUSED, Code.TOO_MANY))
"""The causes that explain also why a new pod would keep its source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one image of one pod.

    `image` is what the pod names. `source` is what its author wrote: another text if the pod has a copy of it, or a
    rewritten name. `explained` is what the webhook does with the source in a new pod. `reason` and `said` are the
    kubelet's; a pod that runs has none.

    `opted_out` and `not_sent` say why the webhook leaves the pod or never sees it; None if it does neither, as far as
    is known. `configured_at` is when the webhook's configuration was created, 0 if that is not known.
    `namespace_known` says whether the namespace's labels and the configuration could be read; `rules_known` the same of
    the stack's rules, and `record_known` of the records. `held` is None if ECR was not asked or did not answer.
    `swap_when` is the value that holds for new pods like this one, and `chosen_by` what has chosen it.
    `too_many` says that the pod needs more copies than one pod may request. `nudge` has the options with which
    `image-mirror nudge` can change the image, each after a space; None if it cannot.
    `kept_now` has the warnings of a dry run that has left the source as its author wrote it; None if there was no such
    dry run.
    """

    image: str
    source: str
    explained: Explanation
    is_copy: bool = False
    served: bool = True
    reason: str = ""
    said: Said = Said.NOTHING
    opted_out: str | None = None
    not_sent: str | None = None
    made_at: int = 0
    configured_at: int = 0
    namespace_known: bool = True
    rules_known: bool = True
    record: Record | None = None
    record_known: bool = True
    held: Held | None = None
    swap_when: SwapWhen = "always"
    chosen_by: str = SWAP_WHEN
    too_many: bool = False
    nudge: str | None = None
    kept_now: Sequence[str] | None = None
    now: int = 0


@dataclass(frozen=True, slots=True)
class Cause:
    """Why, and what to do; "-" if nothing is to be done.

    `tries`: all that is missing is the kubelet's next try, so that its time is worth printing.
    """

    code: Code
    why: str
    do: str = "-"
    tries: bool = False

    def remedy(self, image: str) -> str:
        """Return what to do with the image's name filled in."""
        return self.do.replace(IMAGE, image)


def classify(facts: Facts) -> Cause:
    """Return the cause."""
    cause = _of_the_kubelet(facts) or (_of_a_copy(facts) if facts.is_copy else _of_a_source(facts))
    return cause if facts.kept_now is None else _kept_now(facts, facts.kept_now, cause)


def _kept_now(facts: Facts, warnings: Sequence[str], cause: Cause) -> Cause:
    """Return the cause if a new pod would keep its source too, although a rule changes it: no new pod helps then.

    A cause that says itself why it would keep it stays.
    """
    is_there = facts.record is not None and facts.record.digest is not None
    by_mode = facts.swap_when != "always" and not is_there
    is_for_new = cause.code in (Code.MISSED, Code.OLDER_THAN_WEBHOOK) or RECREATE in cause.do
    if facts.explained.becomes == facts.source or by_mode or not is_for_new or cause.code in _SAYS_WHY:
        return cause
    look = f"{_DOCTOR} shows what is wrong"
    if facts.is_copy:
        do = _WARM if cause.do.startswith(_WARM) else f"{look}; then {RECREATE}"
        return Cause(cause.code, f"{cause.why}; a new pod would get its source", do)
    # The webhook's warnings begin with the image, whose middle may be cut, or count images.
    ours = [each for each in warnings if each.startswith(printable(facts.source)[:14]) or " as written" in each]
    why = f"a new pod would keep its source too: {ours[0] if ours else 'the webhook does not answer, or is not asked'}"
    if facts.record is not None and facts.record.status is Status.FAILED:
        return Cause(Code.KEPT_NOW, why, f"{_do_about(facts.record, ended=True)}, then {_swap(facts)}")
    do = f"{'do what the warning says' if ours else look}, then {_swap_with_copy(facts)}"
    return Cause(Code.KEPT_NOW, why, do)


def _of_the_kubelet(facts: Facts) -> Cause | None:
    """Return the cause if it has nothing to do with copies."""
    match facts.reason, facts.said:
        case "InvalidImageName", _:
            return Cause(Code.INVALID_NAME, "the kubelet cannot read the name", "correct the name in the manifest")
        case "ErrImageNeverPull", _:
            do = "load the image onto the node, or change imagePullPolicy"
            return Cause(Code.NEVER_PULLED, "not on the node, and its pull policy is Never", do)
        case _, Said.NO_SPACE:
            return Cause(Code.NO_SPACE, "no space left on the node's disk", "free space there, or use larger disks")
        case _, Said.PLATFORM:
            do = "choose nodes or an image of another architecture"
            return Cause(Code.NO_PLATFORM, "the image has no platform for the node", do)
    return None


def _of_a_copy(facts: Facts) -> Cause:
    record = facts.record
    if not facts.served:
        why = "a copy below a prefix or registry that the stack no longer serves"
        return Cause(Code.NOT_SERVED, why, RECREATE)
    if facts.said is Said.UNAUTHORIZED:
        do = "give the node's role AmazonEC2ContainerRegistryReadOnly; in another account, set PullAccounts"
        return Cause(Code.UNAUTHORIZED, "ECR refuses the node: its role may not pull", do)
    if not facts.record_known:
        return _of_an_unknown_copy(facts)
    if record is None:
        return _without_record(facts)
    there = "the copy is there" if facts.held else "copied, says its record; ECR was not asked"
    return cause_of_record(record, facts.held, facts.now) or _there(facts, there)


def cause_of_record(record: Record, held: Held | None, now: int) -> Cause | None:
    """Return why pods cannot pull a copy, from its record and ECR alone; None if they can.

    `held` is None if ECR was not asked or did not answer: then the record is believed.
    """
    lost = held is not None and held.lost
    if record.status is None:
        do = f"image-mirror warm --cluster, or {RECREATE}"
        return Cause(Code.OLD_RECORD, "an older deployment wrote the record, which requests nothing", do)
    if record.status is Status.FAILED:
        return Cause(Code.FAILED, f"the copy failed: {_code(record)}", _do_about(record, ended=True))
    if record.digest is None or (lost and record.status is not Status.COPIED):
        return _under_way(record, now)
    if lost:
        do = f"image-mirror retry {IMAGE}"
        return Cause(Code.GONE, f"{'archived in' if 'archived' in str(held) else 'gone from'} ECR", do)
    return None


def _of_an_unknown_copy(facts: Facts) -> Cause:
    if facts.said in (Said.TIMEOUT, Said.NO_HOST):
        return _there(facts, "the copy is probably there")
    who = f"wait; with AWS permissions: image-mirror status {IMAGE}"
    why = "a copy, probably still being made" if facts.said is Said.NOT_FOUND else "a copy; its record is not known"
    return Cause(Code.COPY_UNKNOWN, why, who)


def _without_record(facts: Facts) -> Cause:
    if facts.held is not None and facts.held.digest is not None and not facts.held.lost:
        return _there(facts, "the copy is there, without a record")
    why = "a copy that has no record: it was removed or forgotten"
    return Cause(Code.NO_RECORD, why, f"image-mirror warm --cluster, or {RECREATE}")


def _there(facts: Facts, why: str) -> Cause:
    """Return the cause of a copy that ECR holds."""
    match facts.said:
        case Said.TIMEOUT:
            do = "check the node's way to ECR and S3: NAT, VPC endpoints, security groups"
            return Cause(Code.TIMEOUT, f"{why}; the node's connection to ECR times out", do, tries=True)
        case Said.NO_HOST:
            return Cause(Code.TIMEOUT, f"{why}; the node does not find ECR's host", "check the node's DNS", tries=True)
    do = "wait" if facts.held is None or facts.nudge is None else f"wait, or {NUDGE}{facts.nudge}"
    return Cause(Code.COPIED, why, do, tries=True)


def _under_way(record: Record, now: int) -> Cause:
    """Return the cause of a copy that is requested or being built."""
    counted = f"{min(record.attempts, MOST_ATTEMPTS)} of {MOST_ATTEMPTS} attempts refused: {_code(record)}"
    if record.status is Status.COPYING:
        refused = f", after {counted}" if record.attempts else ""
        return Cause(Code.COPYING, f"being copied since {clock(record.updated_at, now)}{refused}", "wait")
    if record.attempts:
        return Cause(Code.REFUSED, f"requested, {counted}{_next(record, now)}", _do_about(record))
    if record.error and not is_sent_to_main(record):
        times = f" {record.waits} time{'' if record.waits == 1 else 's'}" if record.waits else ""
        return Cause(Code.DELAYED, f"delayed{times}: {_code(record)}{_next(record, now)}", _do_about(record))
    if now - record.requested_at < _SLOT_AFTER:
        return Cause(Code.REQUESTED, "the copy is requested", "wait")
    waited = span(now - record.requested_at)
    do = "wait; image-mirror doctor shows the quota of builds"
    return Cause(Code.WAITS_FOR_BUILD, f"requested {waited} ago, waits for a free build", do)


def _of_a_source(facts: Facts) -> Cause:
    explained, record = facts.explained, facts.record
    kubelet = _SOURCE_SAYS.get(facts.said, "")
    if facts.opted_out:
        return Cause(Code.OPTED_OUT, facts.opted_out + kubelet)
    if facts.not_sent:
        do = "see image-mirror webhook-config and doctor, then " + RECREATE
        return Cause(Code.NOT_SENT, facts.not_sent, do)
    if facts.image != facts.source or explained.copy is None:
        return _not_copied(facts, kubelet)
    if record is not None and record.status is Status.FAILED and record.updated_at <= facts.made_at:
        do = f"{_do_about(record, ended=True)}, then {_swap(facts)}"
        return Cause(Code.FAILED_BEFORE, f"its copy had failed when the pod was made: {_code(record)}", do)
    if facts.configured_at > facts.made_at > 0:
        return Cause(Code.OLDER_THAN_WEBHOOK, "made before the webhook's configuration", _swap_with_copy(facts))
    if facts.swap_when == "copied" and record is not None and not _was_there(facts):
        chosen = "SwapWhen=copied" if facts.chosen_by == SWAP_WHEN else f"copied by {facts.chosen_by}"
        probably = "probably " if _is_there(record) else ""
        why = f"{chosen}, and the copy was {probably}not there when the pod was made"
        return Cause(Code.COPIED_LATER, why, _swap_with_copy(facts))
    if facts.swap_when == "paused" and not _was_there(facts):
        return Cause(Code.PAUSED, f"paused by {facts.chosen_by}{_in_a_pause(facts)}", _swap_with_copy(facts))
    if facts.too_many:
        do = f"image-mirror warm --cluster, then {_swap(facts)}; or raise MaxNewImages"
        return Cause(Code.TOO_MANY, "probably one image too many for its pod (MaxNewImages)", do)
    why = "probably made while the webhook did not answer"
    if not facts.namespace_known:
        why += ", or opted out by its namespace"
    if not facts.rules_known:
        why += "; by the default rules"
    return Cause(Code.MISSED, why, _swap_with_copy(facts))


def _swap(facts: Facts) -> str:
    """Return how a pod that names a source gets its copy, once that is in ECR. A pod that runs must be recreated."""
    known = facts.namespace_known and facts.record_known and facts.reason
    return f"{NUDGE} --missed{facts.nudge}" if known and facts.nudge is not None else RECREATE


def _swap_with_copy(facts: Facts) -> str:
    """Return the same; if the copy is not there, it is requested or waited for first."""
    record, do = facts.record, _swap(facts)
    if record is not None and _is_there(record):
        return do
    if record is not None and record.status is Status.FAILED:
        return f"{_do_about(record, ended=True)}, then {do}"
    if do == RECREATE and facts.swap_when == "always":  # the new pod requests it, and waits
        return do
    if record is None or record.status is None:
        pause = ", or end the pause; " if facts.swap_when == "paused" else ", "
        return f"image-mirror warm --cluster{pause}then {do}"
    first = _under_way(record, facts.now).do
    return f"when it is there, {do}" if first.startswith("wait") else f"{first}; when it is there, {do}"


def _in_a_pause(facts: Facts) -> str:
    """Return why a pod was made with its source while nothing is requested, as the rest of a sentence."""
    record = facts.record
    if record is None or record.status is None:
        return ": no copy is requested"
    if _is_there(record):
        return ": the copy was probably not there when the pod was made"
    cause = cause_of_record(record, None, facts.now)
    return f"; {cause.why}" if cause else ""


def _is_there(record: Record) -> bool:
    return record.is_active and record.digest is not None


def _was_there(facts: Facts) -> bool:
    """Return whether the copy was there when the pod was made, and the webhook knew it: it remembers for a minute."""
    record = facts.record
    return record is not None and _is_there(record) and record.updated_at <= facts.made_at - MINUTE


def _not_copied(facts: Facts, kubelet: str) -> Cause:
    """Return the cause of an image that no rule copies, or that a rule has given another name."""
    explained = facts.explained
    do = _SOURCE_DO.get(facts.said, "check the image's registry, or add it to MirrorRules")
    if facts.image != facts.source:
        host = facts.image.partition("/")[0]
        if explained.becomes != facts.image:
            return Cause(Code.NOT_SERVED, f"pulled from {host}, where the rules no longer point it", RECREATE)
        return Cause(Code.REWRITTEN, f"pulled from {host} by rule {explained.rule}{kubelet}", do)
    why = explained.warning.rpartition("stays as written: ")[2] if explained.warning else explained.cause
    if explained.becomes != explained.image:
        why = f"{why}: the pod was not rewritten"
        do = RECREATE
    elif not facts.rules_known:
        why = f"{why}, by the default rules"
    return Cause(Code.NO_RULE, f"left as written: {why}{kubelet}", do)


_SOURCE_SAYS: Mapping[Said, str] = {
    Said.UNAUTHORIZED: "; its registry refuses the node",
    Said.TIMEOUT: "; its registry does not answer the node",
    Said.NO_HOST: "; the node does not find its registry's host",
    Said.NOT_FOUND: "; its registry does not have it",
    Said.RATE_LIMITED: "; its registry limits the rate",
}
_SOURCE_DO: Mapping[Said, str] = {
    Said.UNAUTHORIZED: "correct the name, or the pod's imagePullSecrets",
    Said.NOT_FOUND: "correct the name in the manifest",
    Said.TIMEOUT: "add it to MirrorRules if its registry is blocked",
    Said.NO_HOST: "correct the name, or the node's DNS",
    Said.RATE_LIMITED: "give the pod imagePullSecrets, or add it to MirrorRules",
}
# What to do about a result of a build; and, if it needs more than a retry, the same for a copy that has FAILED.
_DO: Mapping[str, str] = {
    "NOT_FOUND": "correct the name in the manifest",
    "BAD_INPUT": "correct the name in the manifest",
    "DENIED": "set RegistryAuthSecretArn to a login for the source",
    "RATE_LIMITED": "wait, or set RegistryAuthSecretArn",
    "UNREACHABLE": "wait",
    "TARGET_BUSY": "wait",
    "TARGET_LOGIN": "image-mirror connect, or image-mirror doctor if the accounts federate",
    "TARGET_DENIED": "image-mirror doctor",
    "AUTH_FILE": "correct the secret of RegistryAuthSecretArn",
    "TOO_LARGE": "raise MaxImageGigabytes",
    "STALLED": "raise BuildTimeoutMinutes",
    "OUT_OF_TIME": "raise BuildTimeoutMinutes",
    "REFUSED": f"see the reason: image-mirror status {IMAGE}",
    "UNEXPLAINED": f"see the log: image-mirror status {IMAGE}",
}
_BY_NAME = frozenset(("NOT_FOUND", "BAD_INPUT"))


def _code(record: Record) -> str:
    """Return the latest build's code, or the latest reason; it is one line."""
    return latest_result(record) or "the reason is unknown"


def _do_about(record: Record, *, ended: bool = False) -> str:
    code = _code(record)
    do = _DO.get(code, "image-mirror doctor shows what is wrong")
    if not ended:
        return do
    retry = f"image-mirror retry {IMAGE}"
    if do.startswith("wait"):
        return retry
    return f"{do}; if it is right now, {retry}" if code in _BY_NAME else f"{do}, then {retry}"


def _next(record: Record, now: int) -> str:
    return f", next try {clock(record.due_at, now)}" if record.due_at and record.due_at > now else ", next try now"


def clock(then: int, now: int) -> str:
    """Return a time of the day in this machine's time zone, with the date if it is not within twelve hours."""
    date = local_date(then)
    if date is None:
        return "at an unknown time"
    return date.strftime("%H:%M" if abs(then - now) < DAY // 2 else "%Y-%m-%d %H:%M")
