"""The fleet in the simulation keeps every promise, under faults and without, and mistakes do not go unseen."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path

import pytest

from simulation import mistakes
from simulation.batches import seconds_to_copied
from simulation.burst import run_burst
from simulation.codebuild import PROVISIONING
from simulation.seed import run_seed
from simulation.week import run_week

_SEEDS = 200
_CHUNK = 25


@pytest.mark.parametrize("first", range(0, _SEEDS, _CHUNK), ids=lambda first: f"seeds-{first}-to-{first + _CHUNK - 1}")
def test_every_promised_copy_arrives_whatever_fails(first: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first, first + _CHUNK):
        outcome = run_seed(seed)
        total += outcome.counts
        if outcome.violations:
            history = "\n".join(run_seed(seed, keeps_history=True).history)
            pytest.fail(f"{history}\n\nseed {seed}: " + "\n".join(outcome.violations))
    # The faults were there, and were survived.
    assert total["crashes"] > 100
    assert total["end as COPIED"] > 200
    assert total["end as FAILED"] > 0
    assert total["deleted behind our back"] > 0
    assert total["seeds with two reconcilers at once"] == _CHUNK
    # A lost answer to StartBuild costs a second build only where its token has run out meanwhile.
    assert total["duplicate builds"] <= total["builds"] * 0.02
    assert total["builds the table never knew"] <= total["builds"] * 0.03


def test_ten_thousand_pods_of_five_hundred_images_make_five_hundred_copies() -> None:
    figures = run_burst()
    assert figures.violations == ()
    assert figures.statuses == {"COPIED": 500}
    assert (figures.builds, figures.duplicate_builds) == (500, 0)
    assert figures.admitted == 10_000
    # An instance asks once a minute for each image: here for six pods of ten, and never twice for one.
    assert 0.05 <= figures.calls <= 1


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
        lost = [violation for seed in range(3, 9) for violation in run_seed(seed).violations if "stuck" in violation]
    assert lost


@pytest.mark.parametrize(
    ("mistake", "most_seeds"),
    [
        pytest.param(mistakes.putting_without_a_condition, 3, id="of-the-webhook"),
        # Two writes have to meet within a call's time, so it takes some seeds.
        pytest.param(mistakes.writes_that_ask_for_nothing, 100, id="of-every-step"),
    ],
)
def test_a_write_without_its_condition_is_found(
    mistake: Callable[[], AbstractContextManager[None]], most_seeds: int
) -> None:
    with mistake():
        assert any(run_seed(seed).violations for seed in range(most_seeds))


def test_tokens_that_do_not_follow_from_the_record_show_as_duplicate_builds() -> None:
    with mistakes.tokens_that_differ_by_call():
        total = sum((run_seed(seed).counts for seed in range(2, 12, 3)), Counter[str]())
    assert total["duplicate builds"] > total["builds"] * 0.02


def test_a_small_week_arrives_and_its_cost_follows_from_its_calls() -> None:
    week = run_week(admissions=3_000, images=50, quota=5)
    assert (week.images, week.waiting) == (50, 0)
    assert PROVISIONING < week.median <= week.p99 < 1800
    assert week.calls["Lambda webhook"] == week.admissions
    assert week.usd["API Gateway"] == pytest.approx(week.admissions / 1e6)
    assert week.usd["CodeBuild"] >= week.builds * 0.005


def test_batches_save_no_more_than_the_provisioning() -> None:
    single, batched = (seconds_to_copied(images=500, quota=1, batch=batch) for batch in (1, 10))
    assert single[-1] - batched[-1] == pytest.approx(450 * PROVISIONING)


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
