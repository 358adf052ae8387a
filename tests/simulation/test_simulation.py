"""Every invariant holds in the simulated fleet, with faults and without, and mistakes made on purpose are found."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from hashlib import sha256
from multiprocessing import dummy
from pathlib import Path

import pytest

from image_mirror.reference import destination_of, parse_reference
from simulation import __main__ as command
from simulation import expiry, mistakes
from simulation.batches import seconds_to_copied
from simulation.big_pod import run_big_pod
from simulation.burst import run_burst
from simulation.codebuild import INSTALLING, PROVISIONING
from simulation.expiry import run_expiry
from simulation.faults import FAULTS, NO_FAULTS
from simulation.fleet import REGISTRY, running
from simulation.functions import WebhookInstance
from simulation.lanes import Setup
from simulation.seed import run_seed
from simulation.thief import run_thief
from simulation.week import run_week

_SEEDS = 200
_CHUNK = 25
_WHAT_GOES_WRONG = (
    "calls failed before their effect",
    "calls failed after their effect",
    "calls throttled",
    "calls timed out",
    "events twice",
    "events late",
    "events never",
    "stream batches twice",
    "stream batches late",
    "stream entries never",
    "builds that ended NOT_FOUND",
    "builds that ended RATE_LIMITED",
    "builds that ended FAULT",
    "builds that ended TIMED_OUT",
    "builds that ended VANISHED",
    "keys rotated",
    "keys refused",
    "deleted behind our back",
    "refreshes given up",
)


@pytest.mark.parametrize("first", range(0, _SEEDS, _CHUNK), ids=lambda first: f"seeds-{first}-to-{first + _CHUNK - 1}")
def test_every_copy_that_a_pod_was_sent_to_arrives_whatever_fails(first: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first, first + _CHUNK):
        result = run_seed(seed)
        total += result.counts
        if result.violations:
            history = "\n".join(run_seed(seed, keeps_history=True).history)
            pytest.fail(f"{history}\n\nseed {seed}: " + "\n".join(result.violations))
    # Each kind of fault did happen.
    assert [name for name in _WHAT_GOES_WRONG if not total[name]] == []
    assert total["crashes"] > 100
    assert total["end as COPIED"] > 200
    assert total["end as FAILED"] > 0
    assert total["seeds with two reconcilers at once"] == _CHUNK
    # A lost answer to StartBuild costs a second build only where its token has run out meanwhile: after five minutes in
    # which each run of the schedule crashed before it started any build, or in which a key was refused.
    assert total["duplicate builds"] <= total["builds"] * 0.015
    assert total["builds the table never knew"] <= total["builds"] * 0.02
    # Pushes of other clients are noticed, and at most a few of our own, for which the alarm's threshold has room.
    assert total["pushes of strangers noticed"] > 0
    assert total["pushes of builds held against us"] <= total["builds"] * 0.003
    # Few pods were answered from an outdated cache. The ledger checks that it was outdated for at most a minute.
    assert total["pods answered from a warm cache after a deletion"] <= total["pods sent to a copy"] * 0.01


def test_the_clocks_of_the_functions_differ_by_two_seconds() -> None:
    with running(0, FAULTS, quota=1) as fleet:
        times = {WebhookInstance(fleet.services).time() for _ in range(20)}
    assert max(times) - min(times) == 2


def test_a_failing_seed_prints_its_history_and_replays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "Pool", dummy.Pool)  # threads share the mistake and the output
    with mistakes.putting_without_stream_and_schedule():
        assert _main(monkeypatch, "--seeds", "2", "--first", "3") == 1
        printed = capsys.readouterr().out
        assert _main(monkeypatch, "--seed", "3") == 1
        replayed = capsys.readouterr().out
    assert "failed: 3, 4; replay one by --seed" in printed
    assert replayed in printed
    assert replayed.count("\n") > 100
    assert "VIOLATION" in replayed
    assert "stuck as" in replayed.splitlines()[-1]


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["simulation", *arguments])
    return command.main()


def test_ten_thousand_pods_of_five_hundred_images_make_five_hundred_copies() -> None:
    figures = run_burst()
    assert figures.violations == ()
    assert figures.statuses == {"COPIED": 500}
    assert (figures.builds, figures.duplicate_builds) == (500, 0)
    assert figures.admitted == 10_000
    # An instance asks once a minute for each image: here for six pods of ten, and never twice for one.
    assert figures.calls == pytest.approx(0.62, abs=0.05)  # docs/simulation.md has it


@pytest.mark.parametrize("images", [500, 10_000])
def test_one_pod_of_very_many_images_makes_fifty_records_and_builds(images: int) -> None:
    caused = run_big_pod(images, NO_FAULTS)
    assert caused.violations == ()
    assert (caused.records, caused.builds, caused.sent) == (50, 50, 50)


def test_a_big_pod_makes_no_more_records_while_calls_fail_and_are_repeated() -> None:
    runs = [run_big_pod(500, FAULTS, seed=seed) for seed in range(12)]
    assert sum(caused.repeated_calls for caused in runs) > 0
    assert max(caused.records for caused in runs) <= 50


def _copies(*images: str) -> set[str]:
    destinations = [destination_of(parse_reference(image), REGISTRY, "mirror") for image in images]
    return {f"{destination.repository}:{destination.tag}" for destination in destinations}


@pytest.mark.parametrize("seed", range(10))
def test_with_expire_days_copies_go_that_no_pod_uses_and_no_others(seed: int) -> None:
    expired = run_expiry(seed, factor=0.3 * (seed % 2))
    assert expired.violations == ()
    stay = _copies(*expiry.DAILY, expiry.MOVING, expiry.AGAIN, expiry.BY_DIGEST)
    assert expired.recorded == stay
    assert expired.held >= stay
    if seed % 2 == 0:
        assert expired.held == stay, "a crash can leave a copy without its record"
        assert expired.counts["pods that never pulled"] == 0
    assert 0 < expired.untagged < 10, "of twelve images that lost their tag, each unused for another day"


@pytest.mark.parametrize("mistake", [mistakes.expiring_by_the_push_alone, mistakes.believing_the_times_of_pulls])
def test_a_mistake_that_deletes_copies_in_use_is_found(mistake: Callable[[], AbstractContextManager[None]]) -> None:
    with mistake():
        violations = run_expiry(0, factor=0).violations
    assert any("deleted, though it was used in the days before" in violation for violation in violations)


@pytest.mark.parametrize("lost", [0.0, 0.5], ids=["events arrive", "half of the events are lost"])
def test_each_copy_that_a_thief_replaces_is_marked_until_a_build_makes_it_again(lost: float) -> None:
    for seed in range(3):
        theft = run_thief(replace(NO_FAULTS, event_lost=lost), seed=seed)
        assert theft.violations == ()
        assert (theft.replaced, theft.marked, theft.marked_after_refresh) == (12, 12, 0)
        assert theft.held_against_builds == 0


@pytest.mark.parametrize(
    "mistake",
    [
        mistakes.starting_the_build_before_the_put,
        mistakes.putting_without_stream_and_schedule,
        mistakes.forgetting_due_on_a_retry,
    ],
    ids=lambda mistake: mistake.__name__.replace("_", "-"),
)
def test_a_mistake_that_loses_copies_is_found(mistake: Callable[[], AbstractContextManager[None]]) -> None:
    with mistake():
        found = [violation for seed in range(3, 9) for violation in run_seed(seed).violations]
    assert any("stuck" in violation or "without being due" in violation for violation in found)


@pytest.mark.parametrize(
    ("mistake", "most_seeds"),
    [
        pytest.param(mistakes.putting_without_a_condition, 3, id="of-the-webhook"),
        # Two writes have to meet within a call's time, so it takes some seeds.
        pytest.param(mistakes.writes_that_ask_for_nothing, 200, id="of-every-step"),
    ],
)
def test_a_write_without_its_condition_is_found(
    mistake: Callable[[], AbstractContextManager[None]], most_seeds: int
) -> None:
    with mistake():
        assert any(run_seed(seed).violations for seed in range(most_seeds))


@pytest.mark.parametrize(
    ("mistake", "seen"),
    [
        pytest.param(mistakes.charging_waits_as_attempts, "FAILED after", id="fewer-than-five-real-attempts"),
        pytest.param(mistakes.failing_a_refresh_for_good, "FAILED, though it has a digest", id="a-copy-in-use-fails"),
        pytest.param(
            mistakes.leaving_images_unchanged_during_a_refresh,
            "a pod was not sent to it",
            id="a-digest-stops-rewriting",
        ),
        pytest.param(
            mistakes.keeping_the_record_of_a_deleted_copy, "while ECR holds None", id="a-deleted-copy-stays-away"
        ),
    ],
)
def test_a_mistake_in_the_answers_to_pods_is_found(
    mistake: Callable[[], AbstractContextManager[None]], seen: str
) -> None:
    with mistake():
        assert any(seen in violation for seed in range(3, 12) for violation in run_seed(seed).violations)


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(mistakes.tokens_that_differ_by_call, id="tokens-that-do-not-follow-from-the-record"),
        pytest.param(mistakes.starting_before_the_put_and_following_all_the_same, id="starts-before-the-put"),
    ],
)
def test_what_starts_builds_twice_shows_as_duplicates(
    mistake: Callable[[], AbstractContextManager[None]],
) -> None:
    with mistake():
        total = sum((run_seed(seed).counts for seed in range(2, 12, 3)), Counter[str]())
    assert total["duplicate builds"] > total["builds"] * 0.03


def test_a_small_week_copies_all_images_and_its_cost_follows_from_its_calls() -> None:
    week = run_week(Setup(quota=5), admissions=3_000, images=50)
    assert (week.images, week.waiting) == (50, 0)
    assert PROVISIONING + INSTALLING < week.times.median <= week.times.p99 < 1800
    assert week.later.copied.p99 <= week.times.p99
    assert week.calls["Lambda webhook"] == week.admissions
    assert week.usd["API Gateway"] == pytest.approx(week.admissions / 1e6)
    assert week.usd["CodeBuild"] >= week.builds * 0.005


def test_batches_save_the_provisioning_and_what_is_copied_at_once() -> None:
    single, batched, at_once, one_line = (
        seconds_to_copied(images=500, quota=1, batch=batch, at_once=at_once, one_line=one_line)[-1]
        for batch, at_once, one_line in ((1, 1, False), (10, 1, False), (10, 4, False), (10, 4, True))
    )
    assert single - batched == pytest.approx(450 * (PROVISIONING + INSTALLING))
    assert at_once < one_line < batched


def test_a_seed_is_the_same_run_in_every_process() -> None:
    program = (
        "import sys; from simulation.seed import run_seed; print(*run_seed(5, keeps_history=True).history, sep='\\n')"
    )
    histories = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert len(histories[0].splitlines()) > 100
    assert len({sha256(history).hexdigest() for history in histories}) == 1
