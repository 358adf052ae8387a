"""A push that none of our builds made is noticed, once, and a push of our builds is not taken for one."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from image_mirror.lifecycle import (
    Discard,
    NextStep,
    Save,
    Step,
    after_push_event,
    ended,
    lookup_failed,
    next_step,
    started,
    unexpected_push,
    verified,
    without_copy,
)
from image_mirror.record import (
    HOUR,
    MINUTE,
    Build,
    BuildResult,
    Policy,
    Push,
    Record,
    Status,
    asked_again,
    new_record,
    renew,
)
from image_mirror.reference import destination_of, parse_reference

REGISTRY = "123456789012.dkr.ecr.cn-northwest-1.amazonaws.com.cn"
POLICY = Policy()
NOW = 1_800_000_000_000
OLD, NEW, THEIRS, OTHER = ("sha256:" + letter * 64 for letter in "abcd")


def fresh(image: str = "gcr.io/a:1", now: int = NOW) -> Record:
    source = parse_reference(image)
    return new_record(destination_of(source, REGISTRY, "mirror"), source, now)


FIRST = started(fresh(), "p:1", NOW)
COPIED = replace(FIRST, status=Status.COPIED, digest=OLD, pushed=OLD)
OPEN = replace(COPIED, open_build="p:1", pushed=None)
WAITING = replace(fresh(), digest=OLD, pushed=OLD)
REFRESHING = started(WAITING, "p:2", NOW)
BY_DIGEST = replace(fresh(f"gcr.io/a@{OLD}"), status=Status.COPIED, digest=OLD, pushed=OLD)
MARKED = replace(COPIED, digest=THEIRS, unexpected=f"{OLD} {THEIRS} 5")


def exported(digest: str) -> Build:
    return Build(BuildResult.COPIED, digest=digest)


NOTHING_EXPORTED = Build(BuildResult.COPIED)
LOST = Build(BuildResult.DELAYED, "CodeBuild knows no such build")


@pytest.mark.parametrize(
    ("record", "held", "noticed"),
    [
        pytest.param(COPIED, THEIRS, (OLD, THEIRS), id="another image in place of a copy"),
        pytest.param(replace(COPIED, pushed=None), THEIRS, (OLD, THEIRS), id="in place of a copy of an older stack"),
        pytest.param(MARKED, OTHER, (THEIRS, OTHER), id="a second one"),
        pytest.param(
            replace(MARKED, digest=OLD), THEIRS, (OLD, THEIRS), id="the same one again, after it was replaced"
        ),
        pytest.param(OPEN, THEIRS, (OLD, THEIRS), id="two digests during the one build of a first copy"),
        pytest.param(WAITING, THEIRS, (OLD, THEIRS), id="while a refresh waits for its build"),
        pytest.param(BY_DIGEST, THEIRS, (OLD, THEIRS), id="under the tag of a digest"),
        pytest.param(COPIED, OLD, None, id="a repeated event"),
        pytest.param(MARKED, THEIRS, None, id="a repeated event of a push that was noticed"),
        pytest.param(replace(WAITING, digest=THEIRS), THEIRS, None, id="a repeated event while a refresh waits"),
        pytest.param(replace(COPIED, digest=OLD, pushed=NEW), NEW, None, id="a late event of our refresh"),
        pytest.param(MARKED, OLD, None, id="our digest is put back"),
        pytest.param(FIRST, THEIRS, None, id="a first copy: its build says whose it is"),
        pytest.param(
            replace(FIRST, status=Status.FAILED, due_at=None), THEIRS, None, id="a copy that no build can make"
        ),
        pytest.param(fresh(), THEIRS, None, id="before the first build"),
        pytest.param(REFRESHING, NEW, None, id="while a refresh is built: its build says whose it is"),
        pytest.param(COPIED, None, None, id="deleted"),
        pytest.param(WAITING, None, None, id="deleted while a refresh waits"),
        pytest.param(BY_DIGEST, None, None, id="the copy of a digest is deleted"),
    ],
)
def test_an_event_notices_a_push_that_none_of_our_builds_made(
    record: Record, held: str | None, noticed: tuple[str, str] | None
) -> None:
    step = after_push_event(record, held, NOW, POLICY)
    assert unexpected_push(record, step) == noticed
    if isinstance(step, Save) and noticed:
        assert step.record.unexpected_push == Push(*noticed, NOW)
        assert step.record.digest == held, "the copy stays in use as ECR holds it"
        assert unexpected_push(step.record, after_push_event(step.record, held, NOW + 1, POLICY)) is None, "once"
        assert unexpected_push(step.record, verified(step.record, held, NOW + 1, POLICY)) is None


@pytest.mark.parametrize(
    ("record", "held", "build", "noticed"),
    [
        pytest.param(COPIED, THEIRS, None, (OLD, THEIRS), id="the event was lost"),
        pytest.param(BY_DIGEST, THEIRS, None, (OLD, THEIRS), id="the event was lost, under the tag of a digest"),
        pytest.param(
            OPEN, OLD, exported(NEW), (NEW, OLD), id="pushed before our build, which found it or was overtaken"
        ),
        pytest.param(OPEN, NEW, exported(NEW), (OLD, NEW), id="pushed before our build, which replaced it"),
        pytest.param(OPEN, THEIRS, exported(OLD), (OLD, THEIRS), id="pushed after our build"),
        pytest.param(FIRST, THEIRS, exported(NEW), (NEW, THEIRS), id="a first copy, pushed after its build"),
        pytest.param(REFRESHING, THEIRS, exported(NEW), (NEW, THEIRS), id="a refresh, pushed after its build"),
        pytest.param(REFRESHING, OLD, exported(NEW), (NEW, OLD), id="a refresh, the old image put back"),
        pytest.param(COPIED, OLD, None, None, id="verified"),
        pytest.param(replace(COPIED, digest=OLD, pushed=NEW), NEW, None, None, id="our digest, read late"),
        pytest.param(MARKED, THEIRS, None, None, id="noticed before"),
        pytest.param(OPEN, OLD, exported(OLD), None, id="the build of a first copy"),
        pytest.param(FIRST, NEW, exported(NEW), None, id="a first copy without an event"),
        pytest.param(REFRESHING, NEW, exported(NEW), None, id="a refresh with a new digest"),
        pytest.param(REFRESHING, OLD, exported(OLD), None, id="a refresh that finds nothing new"),
        pytest.param(OPEN, THEIRS, NOTHING_EXPORTED, None, id="a first copy of an older global stack"),
        pytest.param(REFRESHING, THEIRS, NOTHING_EXPORTED, None, id="a refresh of an older global stack"),
        pytest.param(OPEN, THEIRS, LOST, None, id="a build of which nothing is known"),
        pytest.param(COPIED, None, None, None, id="deleted"),
        pytest.param(REFRESHING, None, exported(NEW), None, id="deleted after its build"),
    ],
)
def test_a_look_at_ecr_notices_a_push_that_none_of_our_builds_made(
    record: Record, held: str | None, build: Build | None, noticed: tuple[str, str] | None
) -> None:
    step = verified(record, held, NOW, POLICY, build)
    assert unexpected_push(record, step) == noticed
    if isinstance(step, Save) and held:
        assert (step.record.status, step.record.digest) == (Status.COPIED, held), "the copy stays in use"
        again = [verified(step.record, held, NOW + 1, POLICY), after_push_event(step.record, held, NOW + 1, POLICY)]
        assert [unexpected_push(step.record, each) for each in again] == [None, None], "once"


def saved(step: NextStep) -> Record:
    assert isinstance(step, Save)
    return step.record


def test_the_end_of_a_build_counts_no_push_that_was_noticed_while_it_ran() -> None:
    noticed = saved(after_push_event(OPEN, THEIRS, NOW, POLICY))
    assert noticed.open_build == "p:1"
    step = verified(noticed, THEIRS, NOW + MINUTE, POLICY, exported(OLD))
    assert unexpected_push(noticed, step) is None
    assert saved(step).unexpected == noticed.unexpected
    again = replace(saved(step), open_build="p:1")
    assert unexpected_push(again, verified(again, OTHER, NOW + MINUTE, POLICY, exported(OLD))) == (THEIRS, OTHER)


def test_a_first_copy_whose_build_is_not_known_to_have_ended_counts_as_ours() -> None:
    unknown = lookup_failed(saved(after_push_event(FIRST, THEIRS, NOW, POLICY)), "key refused", NOW, POLICY, key=True)
    assert (unknown.digest, unknown.unexpected) == (THEIRS, None)


@pytest.mark.parametrize(
    "build", [pytest.param(exported(NEW), id="digest exported"), pytest.param(NOTHING_EXPORTED, id="none exported")]
)
def test_a_build_that_makes_the_copy_again_takes_the_mark_away(build: Build) -> None:
    again = asked_again(MARKED, NOW)
    assert again is not None
    made = saved(verified(started(again, "p:9", NOW), NEW, NOW, POLICY, build))
    assert (made.status, made.digest, made.unexpected) == (Status.COPIED, NEW, None)


def test_a_thief_who_pushes_the_same_image_again_is_noticed_again() -> None:
    again = asked_again(MARKED, NOW)
    assert again is not None
    copying = started(again, "p:9", NOW)
    assert unexpected_push(copying, verified(copying, THEIRS, NOW, POLICY, exported(OLD))) == (OLD, THEIRS)


def test_a_retry_makes_a_marked_copy_again_which_stays_in_use_and_marked_until_then() -> None:
    again = asked_again(replace(MARKED, open_build="p:1", requested_by="shop/Pod/p"), NOW + HOUR)
    assert again is not None
    assert (again.status, again.digest, again.unexpected) == (Status.REQUESTED, THEIRS, MARKED.unexpected)
    assert (again.requested_at, again.requested_by, again.open_build) == (NOW + HOUR, None, None)
    assert next_step(again, None, NOW + HOUR, POLICY) is Step.START
    for after in (
        without_copy(started(again, "p:9", NOW), Build(BuildResult.REFUSED, "NOT_FOUND: x"), NOW, POLICY),
        ended(started(again, "p:9", NOW), "NOT_FOUND: x", NOW),
    ):
        assert (after.digest, after.unexpected) == (THEIRS, MARKED.unexpected), "a failed build replaces nothing"


def test_a_pod_requests_a_marked_copy_again_only_as_it_would_refresh_any_copy() -> None:
    """Otherwise a thief who pushes again and again causes a build each time, and undoes it."""
    later = fresh(now=NOW + 23 * HOUR)
    assert renew(MARKED, later, pull_always=True, policy=POLICY) is None
    assert renew(MARKED, fresh(now=NOW + 99 * HOUR), pull_always=False, policy=POLICY) is None
    refresh = renew(MARKED, fresh(now=NOW + 24 * HOUR), pull_always=True, policy=POLICY)
    assert refresh is not None
    assert refresh.unexpected == MARKED.unexpected


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(asked_again(MARKED, NOW, lost=True), id="a retry of a copy that ECR lost"),
        pytest.param(
            saved(after_push_event(replace(WAITING, unexpected=MARKED.unexpected), None, NOW, POLICY)),
            id="deleted while a refresh waits",
        ),
        pytest.param(
            saved(verified(replace(REFRESHING, unexpected=MARKED.unexpected), None, NOW, POLICY, exported(NEW))),
            id="deleted during a refresh",
        ),
    ],
)
def test_a_mark_goes_with_the_copy(gone: Record | None) -> None:
    assert gone is not None
    assert (gone.status, gone.digest, gone.unexpected) == (Status.REQUESTED, None, None)


@pytest.mark.parametrize(
    "text",
    ["", "x", f"{OLD} {NEW}", f"{OLD} {NEW} soon", f"{OLD}  5", f"{OLD} {NEW} 5 ", f"{OLD} {NEW} {'9' * 16}"],
)
def test_a_mark_that_is_written_otherwise_says_nothing(text: str) -> None:
    record = replace(MARKED, unexpected=text)
    assert record.unexpected_push is None
    assert asked_again(record, NOW) is None


class Pushes(RuleBasedStateMachine):
    """One copy with its builds, which take time, and a thief; events come late, repeatedly or never.

    The failed builds here push nothing, and a build's start is always recorded. Where a fault breaks this, a push of
    our own can be taken for a thief's: the simulation counts how often.
    """

    def __init__(self) -> None:
        """Start with a pod that requests the copy."""
        super().__init__()
        self.now = NOW
        self.record: Record | None = fresh()
        self.held: str | None = None
        self.digests = iter(range(10**6))
        self.source = self.digest()
        self.stolen: set[str] = set()
        self.counted: list[tuple[str | None, str]] = []
        self.build = ""
        self.has_pushed = False

    def digest(self) -> str:
        return f"sha256:{next(self.digests):064x}"

    def apply(self, step: NextStep) -> None:
        assert self.record is not None
        if push := unexpected_push(self.record, step):
            self.counted.append(push)
        if isinstance(step, Save):
            self.record = step.record
        elif step is Step.REMOVE or isinstance(step, Discard):
            self.record = None

    @rule(minutes=st.integers(0, 60 * 30))
    def time_passes(self, minutes: int) -> None:
        self.now += minutes * MINUTE

    @rule(pull_always=st.booleans())
    def a_pod_comes(self, pull_always: bool) -> None:
        asked = fresh(now=self.now)
        self.record = (
            renew(self.record, asked, pull_always=pull_always, policy=POLICY) or self.record if self.record else asked
        )

    @precondition(lambda self: self.record is not None and self.record.open_build is None)
    @rule()
    def an_operator_retries(self) -> None:
        assert self.record is not None
        self.record = asked_again(self.record, self.now) or self.record

    @rule()
    def the_tag_moves(self) -> None:
        self.source = self.digest()

    @precondition(lambda self: self.build and not self.has_pushed)
    @rule()
    def the_build_pushes(self) -> None:
        self.held, self.has_pushed = self.build, True

    @precondition(lambda self: self.record is not None)
    @rule(ends=st.sampled_from(["no", "well", "without an export", "failed"]))
    def the_reconciler_looks(self, ends: str) -> None:
        assert self.record is not None
        step, build = next_step(self.record, None, self.now, POLICY), None
        if step is Step.INSPECT:
            build = Build(BuildResult.RUNNING)
            if self.has_pushed and ends in ("well", "without an export"):
                build = Build(BuildResult.COPIED, digest=self.build if ends == "well" else "")
            elif not self.has_pushed and ends == "failed":
                build = Build(BuildResult.DELAYED, "UNREACHABLE: x", code="UNREACHABLE")
            if build.result is not BuildResult.RUNNING:
                self.build, self.has_pushed = "", False
            step = next_step(self.record, build, self.now, POLICY)
        if step is Step.START:
            self.build, self.has_pushed = self.source, False  # an earlier build whose end was not read is over
            step = Save(started(self.record, f"p:{self.now}", self.now))
        if step is Step.VERIFY:
            step = verified(self.record, self.held, self.now, POLICY, build)
        before, refreshed = len(self.counted), self.record.status is Status.COPYING
        self.apply(step)
        if refreshed and build and build.digest and self.held in self.stolen:
            assert len(self.counted) == before + 1, "a push after the build is noticed, once"

    @precondition(lambda self: self.record is not None)
    @rule()
    def an_event_comes(self) -> None:
        assert self.record is not None
        self.apply(after_push_event(self.record, self.held, self.now, POLICY))

    @precondition(lambda self: self.held is not None)
    @rule(seen=st.booleans())
    def a_thief_pushes(self, seen: bool) -> None:
        self.held = self.digest()
        self.stolen.add(self.held)
        if seen and self.record is not None:
            in_use = self.record.status is Status.COPIED
            before = len(self.counted)
            self.an_event_comes()
            assert not in_use or len(self.counted) == before + 1, "a push in place of a copy is noticed, once"

    @precondition(lambda self: not self.build)
    @rule()
    def someone_deletes_the_copy(self) -> None:
        self.held = None

    @invariant()
    def only_a_thief_is_noticed(self) -> None:
        assert all(not self.stolen.isdisjoint(push) for push in self.counted)
        assert len(self.counted) <= 2 * len(self.stolen), "what came and what went"

    @invariant()
    def a_mark_belongs_to_a_copy(self) -> None:
        if self.record is not None and self.record.unexpected:
            assert self.record.digest is not None
            assert self.record.unexpected_push

    def teardown(self) -> None:
        """A retry makes the copy again, and no mark is left."""
        if self.record is None or self.record.unexpected is None:
            return
        for _ in range(9):
            self.now = max(self.now, self.record.due_at or 0)
            if self.record.open_build is None:
                self.record = asked_again(self.record, self.now) or self.record
            if self.build and not self.has_pushed:
                self.the_build_pushes()
            self.the_reconciler_looks("well")
            if self.record.unexpected is None:
                break
        assert (self.record.status, self.record.unexpected) == (Status.COPIED, None)


TestPushes = Pushes.TestCase
TestPushes.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
