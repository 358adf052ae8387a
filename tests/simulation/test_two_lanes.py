"""Nothing is lost with two lanes, whatever fails in one or both of them, and mistakes about lanes are found."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from simulation import lane_mistakes as mistakes
from simulation.clock import HOUR, MINUTE
from simulation.cluster import Pod
from simulation.codebuild import EC2, LAMBDA, LaneFault
from simulation.faults import NO_FAULTS
from simulation.fleet import ONE_LANE, TWO_LANES, Fleet, running
from simulation.lanes import Setup, run_rush
from simulation.seed import Story, run_seed
from simulation.sources import LARGE, SLOW, Ending, Size
from simulation.week import run_week

IMAGE = "gcr.io/team/app:1"
_SEEDS = 232
_CHUNK = 58
_WHAT_GOES_WRONG = (
    *(f"{lane.project}: {fault.name}" for lane in (EC2, LAMBDA) for fault in LaneFault),
    *(f"fast builds that ended {ended}" for ended in ("COPIED", "OUT_OF_TIME", "TOO_LARGE", "FAULT", "TIMED_OUT")),
    *(story.value for story in Story),
    "builds that ended QUEUE_TIMED_OUT",
    "builds that ended VANISHED",
    "keys refused",
)
Mistake = Callable[[], AbstractContextManager[None]]


@pytest.mark.parametrize("first", range(0, _SEEDS, _CHUNK), ids=lambda first: f"seeds-{first}-to-{first + _CHUNK - 1}")
def test_every_copy_arrives_with_two_lanes_whatever_fails(first: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first, first + _CHUNK):
        result = run_seed(seed, two_lanes=True)
        total += result.counts
        if result.violations:
            history = "\n".join(run_seed(seed, two_lanes=True, keeps_history=True).history)
            pytest.fail(f"{history}\n\nseed {seed}: " + "\n".join(result.violations))
    assert [name for name in _WHAT_GOES_WRONG if not total[name]] == []
    assert total["end as COPIED"] > 200
    assert total["fast builds"] > 200
    assert total["tokens used with other parameters"] == 0
    # A start whose answer is lost again and again for more than five minutes costs another build.
    silent = sum(total[f"{lane.project}: {LaneFault.SILENT.name}"] for lane in (EC2, LAMBDA))
    assert total["duplicate builds"] <= total["builds"] * 0.015 + silent / 4
    assert total["builds the table never knew"] <= total["builds"] * 0.03 + silent


def test_a_key_is_tried_in_both_lanes_although_the_main_one_never_answers() -> None:
    """In this seed copies wait for a key, and starts in the main lane have no answer from then on."""
    assert run_seed(681, two_lanes=True).violations == ()


@pytest.mark.parametrize(
    ("mistake", "seeds", "seen"),
    [
        pytest.param(mistakes.failures_of_the_fast_lane_that_count, range(4, 8), "FAILED after 0", id="they-count"),
        pytest.param(mistakes.waiting_for_fast_builds_for_ever, range(16, 80, 16), "stuck as", id="waits-for-ever"),
        pytest.param(mistakes.refreshes_in_the_main_lane_alone, range(1, 30, 4), "stuck as", id="refreshes"),
    ],
)
def test_a_mistake_that_loses_copies_is_found(mistake: Mistake, seeds: range, seen: str) -> None:
    with mistake():
        found = (violation for seed in seeds for violation in run_seed(seed, two_lanes=True).violations)
        assert any(seen in violation for violation in found)


@contextmanager
def _fleet(**settings: str) -> Iterator[Fleet]:
    with running(0, NO_FAULTS, quota=5, keeps_history=False, **settings) as fleet:
        yield fleet


def _lanes(fleet: Fleet) -> list[tuple[str, str | None]]:
    """Return the lane of each build, and how it ended."""
    names = {EC2.project: "main", LAMBDA.project: "fast"}
    return [(names[build.lane], build.ended) for build in fleet.codebuild.builds.values()]


def _copied(size: Size) -> list[tuple[str, str | None]]:
    with _fleet(**TWO_LANES) as fleet:
        fleet.sources.sizes[IMAGE] = size
        fleet.cluster.create(Pod((IMAGE,)))
        fleet.world.clock.run(2 * HOUR)
        assert fleet.ledger.waiting == 0
        return _lanes(fleet)


@pytest.mark.parametrize(("size", "ended"), [(LARGE, "TOO_LARGE"), (SLOW, "OUT_OF_TIME")], ids=["large", "slow"])
def test_what_the_fast_lane_cannot_copy_goes_on_in_the_main_lane_at_once(size: Size, ended: str) -> None:
    assert _copied(size) == [("fast", ended), ("main", "COPIED")]
    with mistakes.remembering_no_reason():
        assert _copied(size)[:2] == [("fast", ended), ("fast", "COPIED")]


def _builds_without_an_answer() -> list[tuple[str, str | None]]:
    with _fleet(**TWO_LANES) as fleet:
        fleet.sources.endings[IMAGE] = Ending("COPIED", 200)
        fleet.codebuild.fail(LAMBDA.project, LaneFault.SILENT)
        fleet.cluster.create(Pod((IMAGE,)))
        fleet.world.clock.run(HOUR)
        assert fleet.ledger.waiting == 0
        return _lanes(fleet)


def test_a_start_without_an_answer_keeps_its_lane() -> None:
    assert _builds_without_an_answer() == [("fast", "COPIED")]
    with mistakes.claims_that_forget_their_lane():
        assert _builds_without_an_answer() == [("fast", "COPIED"), ("main", "COPIED")]


def _duplicates_of_two_runs() -> int:
    with _fleet(**TWO_LANES, FAST_BUILD_QUOTA="20") as fleet:
        fleet.fast.quota = 20
        fleet.table.listeners.remove(fleet.stream.changed)  # so that the schedule finds all of them at once
        for number in range(10):
            fleet.cluster.create(Pod((f"gcr.io/team/app{number}:1",), namespace=f"team{number}"))
        fleet.world.clock.run(30)
        fleet.reconciler.recycle()  # both runs begin with a cold start
        for _ in range(2):
            fleet.run_schedule()
        fleet.world.clock.run(10 * MINUTE)
        assert fleet.ledger.waiting == 0
        return fleet.world.counts["duplicate builds"]


def test_of_two_runs_at_once_only_one_starts_a_build_of_a_copy() -> None:
    assert _duplicates_of_two_runs() == 0
    with mistakes.claims_that_ask_for_nothing():
        assert _duplicates_of_two_runs() > 0


def _error_of_the_main_lane_after_the_fast_one_is_denied() -> str:
    with _fleet(**TWO_LANES) as fleet:
        fast, main = "gcr.io/team/fast:1", "gcr.io/team/main:1"
        fleet.sources.endings |= {fast: Ending("COPIED", 600), main: Ending("NOT_FOUND", 30)}
        for image in (fast, main):
            fleet.cluster.create(Pod((image,)))
            fleet.world.clock.run(MINUTE)
        assert _lanes(fleet) == [("fast", None), ("main", None)]
        fleet.codebuild.fail(LAMBDA.project, LaneFault.DENIED)
        fleet.world.clock.run(3 * MINUTE)
        return fleet.table.items[fleet.cluster.key(main)]["error"]["S"]


def test_builds_of_the_main_lane_are_seen_while_the_fast_lane_is_denied() -> None:
    assert _error_of_the_main_lane_after_the_fast_one_is_denied().startswith("NOT_FOUND")
    with mistakes.one_call_for_the_builds_of_both_lanes():
        assert "AccessDenied" in _error_of_the_main_lane_after_the_fast_one_is_denied()


def _fast_builds_while_all_fail() -> int:
    with _fleet(**TWO_LANES) as fleet:
        fleet.codebuild.fail(LAMBDA.project, LaneFault.FAULTS)
        for number in range(60):
            pod = Pod((f"gcr.io/team/app{number}:1",))
            fleet.world.clock.after(number * 3 * MINUTE, partial(fleet.cluster.create, pod))
        fleet.world.clock.run(3 * HOUR + 10 * MINUTE)
        assert fleet.ledger.waiting == 0
        return sum(lane == "fast" for lane, _ in _lanes(fleet))


def test_a_fast_lane_whose_builds_all_fail_costs_three_builds_an_hour() -> None:
    assert _fast_builds_while_all_fail() <= 12
    with mistakes.a_fast_lane_that_is_never_off():
        assert _fast_builds_while_all_fail() == 60


def test_a_stack_can_be_updated_to_two_lanes_and_back_while_builds_run() -> None:
    with _fleet(**ONE_LANE) as fleet:
        for number, settings in enumerate((ONE_LANE, TWO_LANES, ONE_LANE, TWO_LANES)):
            image = f"gcr.io/team/app{number}:1"
            fleet.sources.endings[image] = Ending("COPIED", 300)
            fleet.configure(**settings)
            fleet.world.clock.run(70)  # until the schedule has found the slots of the lanes
            fleet.cluster.create(Pod((image,)))
            fleet.world.clock.run(20)
        fleet.world.clock.run(HOUR)
        assert fleet.ledger.waiting == 0
        # The second image's build has not ended when there are two lanes again, and the fast one has one slot.
        assert _lanes(fleet) == [(lane, "COPIED") for lane in ("main", "fast", "main", "main")]
        assert fleet.world.counts["duplicate builds"] == 0


def test_two_lanes_make_copies_arrive_sooner_at_a_lower_price() -> None:
    one, two = (run_rush(Setup(quota=2, fast_quota=fast), images=40) for fast in (0, 10))
    assert two.known.copied.median < one.known.copied.median / 3
    assert two.known.nudged.median <= two.known.running.median < one.known.running.median / 3
    assert two.usd < one.usd / 2
    assert (one.builds, one.fast_builds, two.builds) == (40, 0, 40)
    assert two.fast_builds > 20


def test_a_small_week_with_two_lanes_copies_new_images_in_half_the_time() -> None:
    one, two = (
        run_week(Setup(quota=5, fast_quota=fast), admissions=600, images=50, per_rollout=1, days=3) for fast in (0, 5)
    )
    assert (one.waiting, two.waiting) == (0, 0)
    assert two.later.copied.median < one.later.copied.median * 0.6
    assert two.later.nudged.median < two.later.running.median < one.later.running.median
    assert two.usd["CodeBuild"] < one.usd["CodeBuild"]
    assert 0 < two.fast_builds <= two.builds
