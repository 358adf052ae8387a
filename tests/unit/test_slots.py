"""Which waiting copies get the next builds: the limits, the order, and the refused key."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.record import HOUR, MINUTE, Build, BuildResult, Lane, Status, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.slots import (
    Refusal,
    Slots,
    State,
    Waiting,
    after_builds,
    after_fast_builds,
    after_race,
    build_of,
    choose,
    for_stream,
    limits,
    may_run_early,
    may_try,
    namespace_of,
    out_of_both,
    refused_again,
    runs_at_once,
    tried,
    waiting,
    with_more_out,
)
from image_mirror.state_item import state_item, to_state
from support.clock import NOON as NOW
from support.cloud import REGISTRY

SOURCE = parse_reference("gcr.io/team/app:1")
REQUESTED = new_record(destination_of(SOURCE, REGISTRY, "mirror"), SOURCE, NOW, "shop/Deployment/web")


def waits(text: str) -> list[Waiting]:
    """Return one entry for each word, each due a second after the one before: `a` is of namespace a, `a+` repeats."""
    return [
        Waiting((word, str(number)), NOW + number * 1000, NOW, word.rstrip("+"), word.endswith("+"), arrived=False)
        for number, word in enumerate(text.split())
    ]


def names(chosen: list[tuple[Waiting, Lane]]) -> str:
    return " ".join(each.key[0] for each, _ in chosen)


def main(most: int, share: int, out: Mapping[str, int]) -> dict[Lane, Slots]:
    """Return the slots of the main lane alone."""
    return {Lane.MAIN: Slots(runs=most, most=most, share=share, out=out)}


# ---- how many ----


@pytest.mark.parametrize(
    ("known", "running", "queued", "grows", "runs"),
    [
        pytest.param(20, 0, 0, False, 20, id="nothing runs: as before"),
        pytest.param(20, 20, 10, False, 20, id="the quota is what the setting says"),
        pytest.param(20, 1, 29, False, 1, id="a real quota of 1 is found by what queues"),
        pytest.param(20, 0, 3, True, 1, id="others use the account's whole quota: one still waits in the queue"),
        pytest.param(20, 25, 5, False, 20, id="a real quota above the setting is not used"),
        pytest.param(4, 7, 0, False, 7, id="more run than were known, and none queues"),
        pytest.param(4, 3, 0, False, 4, id="a namespace whose copies hang gets no more"),
        pytest.param(4, 3, 0, True, 6, id="a namespace that is alone and gets its copies tries more"),
        pytest.param(1, 1, 0, True, 2, id="from one"),
        pytest.param(19, 14, 0, True, 20, id="never above the setting"),
        pytest.param(30, 0, 0, False, 20, id="the setting was lowered"),
    ],
)
def test_the_real_quota_is_found_by_what_runs_and_what_queues(
    known: int, running: int, queued: int, grows: bool, runs: int
) -> None:
    assert runs_at_once(20, known, running, queued, may_grow=grows) == runs


@pytest.mark.parametrize(
    ("quota", "runs", "most", "share"),
    [
        pytest.param(20, 20, 30, 15, id="20: half as many more may queue, and one namespace has three quarters"),
        pytest.param(20, 8, 13, 6, id="a smaller real quota"),
        pytest.param(20, 1, 2, 1, id="a real quota of 1"),
        pytest.param(1, 1, 2, 1, id="a setting of 1"),
        pytest.param(3, 3, 5, 2, id="3"),
    ],
)
def test_half_as_many_builds_as_run_may_queue(quota: int, runs: int, most: int, share: int) -> None:
    assert limits(quota, runs) == (most, share)


@pytest.mark.parametrize("alone", [False, True], ids=["two namespaces", "one namespace"])
def test_a_raised_quota_is_found_within_a_few_looks(alone: bool) -> None:
    runs, looks = 1, 0
    while runs < 20:
        most, share = limits(20, runs)
        runs, looks = runs_at_once(20, runs, share if alone else most, 0, may_grow=alone), looks + 1
    assert looks <= 10


# ---- which ----


@pytest.mark.parametrize(
    ("candidates", "out", "most", "share", "chosen"),
    [
        pytest.param("a a a b", {}, 3, 2, "a b a", id="in turn, the one due longest first"),
        pytest.param("a a b", {"a": 1}, 2, 2, "b", id="what is out counts for its namespace and for all"),
        pytest.param("a a b", {"a": 1}, 3, 2, "b a", id="the fewest builds out first, then what is due longest"),
        pytest.param("a a a a", {}, 9, 2, "a a", id="one namespace has only its share, even alone"),
        pytest.param("a b", {"c": 5}, 5, 4, "", id="no slot is free"),
        pytest.param("a b", {"c": 9}, 5, 4, "", id="more are out than may be"),
        pytest.param("", {}, 5, 4, "", id="nothing waits"),
        pytest.param("a b c", {}, 2, 1, "a b", id="three namespaces and two slots"),
    ],
)
def test_the_namespace_with_the_fewest_builds_out_is_first(
    candidates: str, out: dict[str, int], most: int, share: int, chosen: str
) -> None:
    assert names(choose(waits(candidates), main(most, share, out), 0)[0]) == chosen


@pytest.mark.parametrize(
    ("candidates", "turn", "chosen", "turn_after"),
    [
        pytest.param("a a a a a+ a+", 0, "a a a a+ a a+", 1, id="every fourth"),
        pytest.param("a+ a+ a a", 3, "a+ a a a+", 2, id="the count goes on from the run before"),
        pytest.param("a+ a+ a+", 0, "a+ a+ a+", 0, id="only repeats wait: they take all"),
        pytest.param("a a a a a", 3, "a a a a a", 3, id="only first tries wait: they take all"),
        pytest.param("a a b+ b+", 0, "a a b+ b+", 2, id="of other namespaces"),
    ],
)
def test_every_fourth_start_is_a_repeat_where_both_wait(
    candidates: str, turn: int, chosen: str, turn_after: int
) -> None:
    picked, after = choose(waits(candidates), main(99, 99, {}), turn)
    assert (names(picked), after) == (chosen, turn_after)


entries = st.lists(
    st.builds(
        Waiting,
        key=st.tuples(st.text("xyz", min_size=1), st.text("123", min_size=1)),
        due_at=st.integers(0, 50),
        requested_at=st.just(0),
        namespace=st.sampled_from("abcde"),
        repeats=st.booleans(),
        arrived=st.booleans(),
    ),
    max_size=40,
    unique_by=lambda each: each.key,
)


@given(
    entries, st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)), st.integers(0, 40), st.integers(1, 20),
    st.integers(0, 3),
)  # fmt: skip
def test_no_slot_stays_free_that_a_candidate_could_use_and_none_is_used_twice(
    candidates: list[Waiting], out: dict[str, int], most: int, share: int, turn: int
) -> None:
    picked, after = choose(candidates, main(most, share, out), turn)
    chosen = [each for each, _ in picked]
    busy = Counter(out) + Counter(each.namespace for each in chosen)
    assert len({each.key for each in chosen}) == len(chosen)
    assert len(chosen) <= max(0, most - Counter(out).total())
    assert all(busy[name] <= max(share, out.get(name, 0)) for name in busy)
    left = [each for each in candidates if each not in chosen]
    assert busy.total() >= most or all(busy[each.namespace] >= share for each in left)
    assert 0 <= after <= 3
    for each in left:  # in one namespace and of one kind, what is due longer is first
        same = [one for one in chosen if (one.namespace, one.repeats) == (each.namespace, each.repeats)]
        assert all((one.due_at, one.key) < (each.due_at, each.key) for one in same)


@pytest.mark.parametrize(
    ("requested_by", "namespace"),
    [
        pytest.param("shop/Deployment/web", "shop", id="a pod's owner"),
        pytest.param(None, "", id="an operator, or an older release"),
        pytest.param("n" * 64 + "/Job/x", "", id="longer than a namespace can be"),
        pytest.param("shop", "shop", id="without an owner"),
    ],
)
def test_the_namespace_is_that_of_the_pod_that_requested_the_copy(requested_by: str | None, namespace: str) -> None:
    assert namespace_of(replace(REQUESTED, requested_by=requested_by)) == namespace


@pytest.mark.parametrize(
    ("changes", "repeats"),
    [
        pytest.param({}, False, id="new"),
        pytest.param({"build_id": "b:1"}, False, id="asked for again by an operator"),
        pytest.param({"attempts": 1}, True, id="its source has refused it"),
        pytest.param({"waits": 1}, True, id="delayed"),
        pytest.param({"failures": 1}, True, id="asked for again after it failed"),
    ],
)
def test_a_record_repeats_if_its_request_or_the_one_before_has_failed(
    changes: dict[str, int | str], repeats: bool
) -> None:
    assert waiting(replace(REQUESTED, **changes), NOW).repeats is repeats  # type: ignore[arg-type]


def test_a_build_holds_a_slot_until_its_end_has_been_read() -> None:
    assert build_of(replace(REQUESTED, build_id="b:1")) is None
    assert build_of(replace(REQUESTED, status=Status.COPYING, build_id="b:1")) == "b:1"
    copied = replace(REQUESTED, status=Status.COPIED, build_id="b:1")
    assert build_of(copied) is None
    assert build_of(replace(copied, open_build="b:1")) == "b:1", "its copy arrived, but it may still run"


# ---- between the runs ----

TRIED, LATEST = Refusal(at=NOW, times=3, in_build=True), Refusal(at=NOW, times=4, in_build=True)
FULL = State(at=NOW - MINUTE, main=Slots(runs=20, most=30, share=15))


@pytest.mark.parametrize(
    ("state", "free"),
    [
        pytest.param(None, 4, id="nothing has ever run"),
        pytest.param(FULL, 15, id="half of the slots"),
        pytest.param(replace(FULL, main=FULL.main.with_out({"a": 9, "b": 3})), 3, id="what is out counts"),
        pytest.param(replace(FULL, main=Slots(runs=1, most=2, share=1)), 1, id="of two slots one"),
        pytest.param(replace(FULL, at=NOW - 3 * MINUTE), 0, id="the schedule has not run for three minutes"),
        pytest.param(replace(FULL, at=NOW + 1), 15, id="the clock of another instance is ahead"),
        pytest.param(replace(FULL, at=NOW + 2 * MINUTE), 0, id="written by hand, in the future"),
        pytest.param(
            replace(FULL, main=replace(FULL.main, most=10**15, share=10**15)), 15, id="written by hand, very many"
        ),
        pytest.param(State(at=0, main=Slots(out={"a": 2})), 0, id="the first batch of all added its starts"),
        pytest.param(replace(FULL, refusal=Refusal(at=NOW)), 0, id="a key is refused"),
    ],
)
def test_a_batch_of_the_stream_starts_builds_while_fewer_than_half_are_out(state: State | None, free: int) -> None:
    slots = for_stream(state, {Lane.MAIN: 20}, NOW)
    assert len(choose(waits("x y z " * 20), slots, 0)[0]) == free


@pytest.mark.parametrize(
    ("read", "found", "out"),
    [
        pytest.param(None, None, {"x": 3}, id="somebody has deleted it"),
        pytest.param(
            State(at=1, main=Slots(out={"x": 5})),
            State(at=1, main=Slots(out={"x": 7, "y": 1})),
            {"x": 5, "y": 1},
            id="two batches",
        ),
        pytest.param(
            State(at=1, main=Slots(out={"x": 5})),
            State(at=2, main=Slots(out={"x": 1, "y": 1})),
            {"x": 3, "y": 1},
            id="another run",
        ),
        pytest.param(None, State(at=2, main=Slots(out={"x": 4})), {"x": 4}, id="the first run"),
    ],
)
def test_what_others_have_started_since_the_state_was_read_is_out_too(
    read: State | None, found: State | None, out: dict[str, int]
) -> None:
    mine = State(at=3, main=Slots(most=9, out={"x": 3}))
    assert out_of_both(mine, read, found, Lane.MAIN) == Slots(most=9, out=out)
    assert after_race(mine, read, found).main.out == out
    assert after_race(mine, read, found).fast == Slots()


def in_main(text: str) -> list[tuple[Waiting, Lane]]:
    return [(each, Lane.MAIN) for each in waits(text)]


def test_a_state_reserves_a_slot_for_each_record_that_is_chosen() -> None:
    state = with_more_out(State(at=NOW, main=Slots(most=9, out={"x": 1})), in_main("x y x"))
    assert state == State(at=NOW, main=Slots(most=9, out={"x": 3, "y": 1}))
    assert with_more_out(None, in_main("x")) == State(at=0, main=Slots(out={"x": 1}))


@pytest.mark.parametrize(
    ("state", "runs"),
    [
        pytest.param(None, False, id="nothing has ever run"),
        pytest.param(State(at=NOW - 15_000, waits=1), True, id="fifteen seconds after the last run"),
        pytest.param(State(at=NOW - 14_999, waits=1), False, id="sooner"),
        pytest.param(State(at=NOW - MINUTE), False, id="nothing waits"),
        pytest.param(State(at=NOW - MINUTE, waits=1, refusal=Refusal(at=NOW)), False, id="a key is refused"),
    ],
)
def test_a_copy_that_arrives_is_a_reason_to_fill_the_slots(state: State | None, runs: bool) -> None:
    assert may_run_early(state, NOW) is runs


refusals = st.builds(
    Refusal,
    at=st.integers(0, 10**14),
    times=st.integers(1, 99),
    in_build=st.booleans(),
    build=st.sampled_from(("", "p:1")),
    runs_since=st.integers(0, 10**14),
)
slots_of_a_lane = st.builds(
    Slots,
    runs=st.integers(0, 99),
    most=st.integers(0, 99),
    share=st.integers(0, 99),
    out=st.dictionaries(st.text("ab-", max_size=3), st.integers(0, 99)),
)
states = st.builds(
    State,
    at=st.integers(0, 10**14),
    main=slots_of_a_lane,
    fast=slots_of_a_lane,
    fast_failures=st.integers(0, 9),
    fast_off_until=st.integers(0, 10**14),
    waits=st.integers(0, 99),
    turn=st.integers(0, 3),
    refusal=st.none() | refusals,
    repaired_at=st.integers(0, 10**14),
    oldest=st.lists(st.tuples(st.text("ré/:", min_size=1), st.text("1.", min_size=1)), max_size=10).map(tuple),
    version=st.integers(0, 10**9),
)


@given(states)
def test_the_state_is_read_as_it_was_written(state: State) -> None:
    assert to_state(state_item(state)) == state


anything = st.one_of(
    st.builds(lambda number: {"N": str(number)}, st.integers(-(10**20), 10**20) | st.floats(allow_nan=False)),
    st.builds(lambda text: {"S": text}, st.text()),
    st.just({"BOOL": True}),
)
WHOLE = State(at=1, refusal=Refusal(at=1, build="p:1"), oldest=(("r", "t"),), main=Slots(out={"a": 1}))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(state_item(WHOLE), anything)), st.sampled_from((None, "p:1")))
def test_a_state_that_was_written_by_hand_ends_in_no_error_and_delays_a_refused_key_for_half_an_hour(
    item: dict[str, dict[str, object]], build: str | None
) -> None:
    state = to_state(item)
    assert to_state(state_item(state)) == state
    slots = for_stream(state, {Lane.MAIN: 20}, NOW)
    assert len(choose(waits("x y z " * 20), slots, state.turn)[0]) <= 15
    may_run_early(state, NOW)
    if state.refusal is not None:
        assert may_try(state.refusal, {}, NOW + HOUR) or may_try(state.refusal, {}, NOW - HOUR)
        after_builds(state.refusal, {build: RUNNING} if build else {}, NOW)
    limits(20, runs_at_once(20, state.main.runs or 1, 0, 0, may_grow=True))


@pytest.mark.parametrize(
    ("found", "refusal", "repaired_at"),
    [
        pytest.param(None, TRIED, 1, id="no state any more"),
        pytest.param(State(at=5, refusal=TRIED), TRIED, 1, id="a batch of the stream has reserved slots"),
        pytest.param(State(at=5, repaired_at=7), None, 7, id="an operator has replaced the key"),
        pytest.param(State(at=6, refusal=LATEST), LATEST, 1, id="another run has tried the key meanwhile"),
    ],
)
def test_what_another_run_has_learned_of_a_key_is_not_written_over(
    found: State | None, refusal: Refusal | None, repaired_at: int
) -> None:
    mine = State(at=9, refusal=TRIED, repaired_at=1)
    after = after_race(mine, State(at=5, refusal=TRIED), found)
    assert (after.refusal, after.repaired_at) == (refusal, repaired_at)


# ---- a refused key ----


def test_a_refused_key_is_tried_less_and_less_often_and_at_least_each_half_hour() -> None:
    refusal, tries, now = Refusal(at=NOW), [], NOW
    while now < NOW + 24 * HOUR:
        now += MINUTE
        if may_try(refusal, {}, now):
            tries.append((now - refusal.at) // MINUTE)
            refusal = refused_again(refusal, now, in_build=True)
    assert tries[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert len(tries) == 51
    assert max(tries) == 30


@pytest.mark.parametrize(
    ("builds", "tries"),
    [
        pytest.param({"p:9": Build(BuildResult.RUNNING)}, False, id="it runs"),
        pytest.param({"p:9": None}, False, id="CodeBuild does not answer"),
        pytest.param({"p:8": Build(BuildResult.RUNNING)}, True, id="it was not seen, so its record is gone"),
    ],
)
def test_no_other_build_tries_a_key_while_one_does(builds: dict[str, Build | None], tries: bool) -> None:
    assert may_try(TRYING, builds, NOW + HOUR) is tries


def test_a_build_that_takes_longer_than_the_pause_proves_the_key() -> None:
    refusal: Refusal | None = Refusal(at=0, in_build=True)
    tries = 0
    for minute in range(1, 10):  # each build ends with a copy, after a minute and a half
        seen = {f"p:{minute - 1}": RUNNING, f"p:{minute - 2}": Build(BuildResult.COPIED)}
        refusal = after_builds(refusal, seen, minute * MINUTE)
        if refusal is None:
            break
        if may_try(refusal, seen, minute * MINUTE):
            refusal, tries = tried(refusal, f"p:{minute}", minute * MINUTE), tries + 1
    assert (refusal, tries) == (None, 1)


def test_a_call_that_is_accepted_proves_the_global_key_and_not_chinas() -> None:
    assert tried(refused_again(None, NOW, in_build=False), "p:1", NOW) is None
    in_build = refused_again(None, NOW - HOUR, in_build=True)
    trying = tried(in_build, "p:1", NOW)
    assert trying == replace(in_build, at=NOW, build="p:1")
    assert tried(refused_again(in_build, NOW, in_build=False), "p:1", NOW) is not None, (
        "a build's login was refused too"
    )


TRYING = Refusal(at=NOW, times=3, in_build=True, build="p:9")
KEY = Build(BuildResult.DELAYED, "TARGET_LOGIN: x", key=True, code="TARGET_LOGIN")
RUNNING = Build(BuildResult.RUNNING)
LATER = NOW + 10 * MINUTE


@pytest.mark.parametrize(
    ("refusal", "builds", "after"),
    [
        pytest.param(None, {"p:1": RUNNING}, None, id="no key is refused"),
        pytest.param(None, {"p:1": RUNNING, "p:2": KEY}, Refusal(at=LATER, in_build=True), id="a login is refused"),
        pytest.param(None, {"p:1": Build(BuildResult.COPIED), "p:2": KEY}, None, id="another login has worked"),
        *(
            pytest.param(
                TRYING,
                {"p:9": Build(BuildResult.DELAYED, "x", code=code)},
                replace(TRYING, times=4, build=""),
                id=f"{code} can come before the login",
            )
            for code in ("BAD_INPUT", "AUTH_FILE", "UNREACHABLE", "TARGET_BUSY")
        ),
        pytest.param(TRYING, {"p:1": KEY}, TRYING, id="another build that started before is refused too"),
        pytest.param(
            TRYING, {"p:1": Build(BuildResult.COPIED)}, TRYING, id="another build that started before succeeds"
        ),
        pytest.param(TRYING, {"p:9": KEY}, Refusal(at=LATER, times=4, in_build=True), id="refused again"),
        pytest.param(TRYING, {"p:9": Build(BuildResult.COPIED)}, None, id="the copy is made"),
        pytest.param(TRYING, {"p:9": Build(BuildResult.REFUSED, "x", code="NOT_FOUND")}, None, id="its source refuses"),
        pytest.param(
            TRYING,
            {"p:9": Build(BuildResult.REFUSED, "x")},
            replace(TRYING, times=4, build=""),
            id="stopped by hand: no proof",
        ),
        pytest.param(
            TRYING,
            {"p:9": Build(BuildResult.DELAYED, "x", code="UNEXPLAINED")},
            replace(TRYING, times=4, build=""),
            id="an unknown end proves nothing",
        ),
        pytest.param(TRYING, {"p:9": RUNNING}, replace(TRYING, runs_since=LATER), id="it runs"),
        pytest.param(TRYING, {"p:9": replace(RUNNING, queued=True)}, TRYING, id="it queues"),
        pytest.param(
            replace(TRYING, runs_since=LATER - 10 * MINUTE), {"p:9": RUNNING}, None, id="it has run for ten minutes"
        ),
        pytest.param(
            replace(TRYING, runs_since=LATER - 9 * MINUTE),
            {"p:9": RUNNING},
            replace(TRYING, runs_since=LATER - 9 * MINUTE),
            id="it has run for nine minutes",
        ),
        pytest.param(TRYING, {}, TRYING, id="it was not looked up"),
    ],
)
def test_only_the_build_that_tries_a_refused_key_says_whether_it_is_accepted(
    refusal: Refusal | None, builds: dict[str, Build | None], after: Refusal | None
) -> None:
    assert after_builds(refusal, builds, LATER) == after


# ---- two lanes ----

BOTH, ONLY_MAIN, MAIN_FIRST = (Lane.FAST, Lane.MAIN), (Lane.MAIN,), (Lane.MAIN, Lane.FAST)


def one_of(namespace: str, number: int, lanes: tuple[Lane, ...] = BOTH) -> Waiting:
    return replace(waits(namespace)[0], key=(namespace, str(number)), due_at=NOW + number, lanes=lanes)


@pytest.mark.parametrize(
    ("fast", "main", "candidates", "lanes"),
    [
        pytest.param(Slots(runs=1, most=2, share=2), Slots(runs=2, most=3, share=3), [BOTH] * 6,
                     "fast main main fast main", id="free slots before places in a queue, the preferred lane first"),
        pytest.param(Slots(runs=2, most=3, share=3), Slots(runs=2, most=3, share=3), [MAIN_FIRST] * 3,
                     "main main fast", id="another preference"),
        pytest.param(Slots(runs=2, most=3, share=1), Slots(runs=2, most=3, share=1), [BOTH] * 4,
                     "fast main", id="a namespace has its share of each lane"),
        pytest.param(Slots(runs=2, most=2, share=2), Slots(runs=1, most=1, share=1), [ONLY_MAIN] * 3 + [BOTH] * 3,
                     "main fast fast", id="what cannot use the fast lane does not keep others from it"),
        pytest.param(None, Slots(runs=2, most=2, share=2), [BOTH] * 4, "main main", id="the fast lane is off"),
        pytest.param(Slots(runs=2, most=2, share=2), None, [BOTH, ONLY_MAIN], "fast", id="the main lane is full"),
    ],
)  # fmt: skip
def test_the_record_that_is_next_takes_the_first_free_slot_of_its_lanes(
    fast: Slots | None, main: Slots | None, candidates: list[tuple[Lane, ...]], lanes: str
) -> None:
    slots = {lane: each for lane, each in ((Lane.MAIN, main), (Lane.FAST, fast)) if each is not None}
    chosen, _ = choose([one_of("a", number, each) for number, each in enumerate(candidates)], slots, 0)
    assert " ".join(lane for _, lane in chosen) == lanes


def test_the_namespace_with_the_fewest_builds_in_both_lanes_is_first() -> None:
    slots = {Lane.MAIN: Slots(runs=9, most=9, share=9, out={"a": 1}), Lane.FAST: Slots(runs=1, most=1, share=1)}
    chosen, _ = choose([one_of("a", 1), one_of("a", 2), one_of("b", 3)], slots, 0)
    assert [(each.namespace, lane) for each, lane in chosen] == [
        ("b", Lane.FAST), ("a", Lane.MAIN), ("a", Lane.MAIN),
    ]  # fmt: skip


lane_slots = st.builds(
    Slots,
    runs=st.integers(0, 9),
    most=st.integers(0, 9),
    share=st.integers(0, 5),
    out=st.dictionaries(st.sampled_from("abc"), st.integers(0, 4)),
)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([BOTH, ONLY_MAIN, MAIN_FIRST])), max_size=30),
    st.dictionaries(st.sampled_from(Lane), lane_slots),
)  # fmt: skip
def test_no_slot_of_either_lane_stays_free_that_a_candidate_could_use_and_none_is_used_twice(
    wanted: list[tuple[str, tuple[Lane, ...]]], slots: dict[Lane, Slots]
) -> None:
    candidates = [one_of(namespace, number, lanes) for number, (namespace, lanes) in enumerate(wanted)]
    chosen, _ = choose(candidates, slots, 0)
    assert len({each.key for each, _ in chosen}) == len(chosen)
    left = [each for each in candidates if each.key not in {one.key for one, _ in chosen}]
    for lane, its in slots.items():
        added = Counter(each.namespace for each, taken in chosen if taken is lane)
        out = Counter(its.out) + added
        assert not added or out.total() <= its.most
        assert all(out[name] <= its.share for name in added)
        could = [each for each in left if lane in each.lanes and out[each.namespace] < its.share]
        assert not could or out.total() >= its.most
    assert all(lane in each.lanes and lane in slots for each, lane in chosen)


@pytest.mark.parametrize(
    ("builds", "stuck", "unanswered", "failures", "off"),
    [
        pytest.param("", False, 0, 2, False, id="nothing new"),
        pytest.param("?", False, 0, 0, True, id="the third failure in a row"),
        pytest.param("+", False, 0, 0, False, id="a copy"),
        pytest.param("+?", False, 0, 1, False, id="a copy and a failure"),
        pytest.param("+?++?+?+?+?", False, 0, 2, False, id="several failures among more copies"),
        pytest.param("+???", False, 0, 0, True, id="three failures and one copy"),
        pytest.param("!", False, 0, 0, False, id="the source's answer shows that the lane works"),
        pytest.param("...", False, 0, 2, False, id="builds that run say nothing"),
        pytest.param("", False, 1, 0, True, id="a start without an answer"),
        pytest.param("+++", True, 0, 0, True, id="a build that does not end"),
    ],
)
def test_the_fast_lane_is_off_for_an_hour_after_three_failures_in_a_row(
    builds: str, stuck: bool, unanswered: int, failures: int, off: bool
) -> None:
    meaning = {
        "?": Build(BuildResult.DELAYED, code="UNEXPLAINED"),
        "+": Build(BuildResult.COPIED),
        "!": Build(BuildResult.REFUSED, code="NOT_FOUND"),
        ".": RUNNING,
    }
    before = State(at=NOW, fast_failures=2)
    after = after_fast_builds(before, [meaning[each] for each in builds], NOW, stuck=stuck, unanswered=unanswered)
    assert (after.fast_failures, after.fast_is_off(NOW)) == (failures, off)
    assert not after.fast_is_off(NOW + HOUR)
    assert after.fast_is_off(NOW + HOUR - 1) is off
    assert after.fast_is_off(NOW - 1000) is off, "another run's clock may be behind"
    if off:
        assert for_stream(after, {Lane.MAIN: 1, Lane.FAST: 1}, NOW).keys() == {Lane.MAIN}
        assert after_race(before, before, after).fast_off_until == after.fast_off_until
