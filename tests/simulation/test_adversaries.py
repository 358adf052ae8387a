"""No author of pods costs much or stops the copies of others, an alarm rings, and a bound that is removed is missed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from simulation import mistakes
from simulation.adversaries import (
    ATTACKS,
    BIG_POD,
    FOUR_DAYS,
    NAMES,
    POISON,
    PUSH_KEY,
    SILENCE,
    SMALL,
    STALLS,
    Attack,
    Size,
    problems,
    run_attack,
    seconds_alone,
)
from simulation.codebuild import INSTALLING, PROVISIONING

_SEEDS = 25
Mistake = Callable[[], AbstractContextManager[None]]
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))


@each_attack
def test_an_attack_of_hours_is_bounded_and_others_get_their_copies(attack: Attack) -> None:
    for seed in range(_SEEDS):
        assert problems(attack, SMALL, run_attack(attack, SMALL, seed)) == [], f"seed {seed}"


@each_attack
def test_an_attack_of_days_is_bounded(attack: Attack) -> None:
    assert problems(attack, FOUR_DAYS, run_attack(attack, FOUR_DAYS, 0, repaired=False)) == []


def test_a_refused_key_costs_less_than_a_dollar_a_day() -> None:
    assert run_attack(PUSH_KEY, replace(FOUR_DAYS, images=20), 0, repaired=False).usd < 4


@pytest.mark.parametrize("attack", [STALLS, NAMES], ids=lambda attack: attack.name.replace(" ", "-"))
def test_others_get_their_copies_although_the_account_runs_fewer_builds_than_the_setting(attack: Attack) -> None:
    size = replace(SMALL, images=60, quota=4, setting=20)
    for seed in range(5):
        assert problems(attack, size, run_attack(attack, size, seed)) == [], f"seed {seed}"


def test_with_a_quota_of_one_an_image_waits_for_one_copy_that_hangs() -> None:
    """CodeBuild runs one build at a time, so the bound is the longest build of another namespace."""
    size = replace(SMALL, quota=1)
    waits = [wait for seed in range(5) for wait in run_attack(STALLS, size, seed).waits]
    longest = PROVISIONING + INSTALLING + 602
    assert longest < max(waits) < 2 * longest + 2 * seconds_alone(1)


def test_alone_an_image_needs_its_build_and_little_more() -> None:
    assert 0 < seconds_alone(4) - (PROVISIONING + INSTALLING + 45) < 5


@pytest.mark.parametrize(
    ("mistake", "attack", "size", "seen"),
    [
        pytest.param(mistakes.never_giving_up, SILENCE, FOUR_DAYS, "hours of builds without", id="never-giving-up"),
        pytest.param(
            mistakes.as_many_builds_for_each_further_request, NAMES, SMALL, "builds of one image", id="five-each-time"
        ),
        pytest.param(mistakes.the_same_pause_after_each_failure, NAMES, SMALL, "builds of one image", id="no-doubling"),
        pytest.param(mistakes.the_short_pause_after_long_builds, STALLS, SMALL, "builds of one image", id="stalls"),
        pytest.param(mistakes.no_waits_beyond_an_hour, SILENCE, FOUR_DAYS, "builds of one image", id="no-long-waits"),
        pytest.param(mistakes.no_share_of_a_namespace, STALLS, SMALL, "of another namespace", id="no-share"),
        pytest.param(mistakes.the_longest_due_first, STALLS, SMALL, "of another namespace", id="no-fair-choice"),
        pytest.param(mistakes.slots_that_are_not_reserved, STALLS, SMALL, "of another namespace", id="not-reserved"),
        pytest.param(
            mistakes.every_record_tries_a_refused_key,
            PUSH_KEY,
            SMALL,
            "while a key is refused",
            id="every-record-tries",
        ),
        pytest.param(mistakes.damage_that_stays, POISON, SMALL, "still damaged", id="damage-that-stays"),
        pytest.param(mistakes.as_many_new_images_as_a_pod_has, BIG_POD, SMALL, "500 records", id="all-images"),
    ],
)
def test_a_bound_that_is_removed_is_missed_within_ten_seeds(
    mistake: Mistake, attack: Attack, size: Size, seen: str
) -> None:
    with mistake():
        found = (problems(attack, size, run_attack(attack, size, seed, repaired=False)) for seed in range(10))
        assert any(seen in problem for some in found for problem in some)
