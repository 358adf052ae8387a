"""One seed: busy hours with faults, calm until nothing is under way, the next pod of every image; with all checks.

A seed with two lanes also has a story of these: one lane fails for good, or both fail now and then, or the stack is
updated to two lanes and back.
"""

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from unittest.mock import patch

from image_mirror.record import MOST_ATTEMPTS, NOT_FAST, OUT_OF_TIME, TOO_LARGE, Record, Status
from image_mirror.table import to_record
from simulation.clock import HOUR, MINUTE
from simulation.cluster import Pod
from simulation.codebuild import EC2, LAMBDA, LaneFault
from simulation.faults import FAULTS
from simulation.fleet import ONE_LANE, TWO_LANES, Fleet, running
from simulation.sources import LARGE, SLOW
from simulation.table import Key

_BUSY = 3 * HOUR
_LONGEST_CALM = 16 * HOUR  # five attempts with their back-offs, some behind an hour's wait or a full queue
_SLOW = {**dict.fromkeys([None, *LaneFault], 1), LaneFault.STUCK: 3, LaneFault.HANGS: 2}  # times as long
_SETTINGS = {"VERIFY_HOURS": "2", "REFRESH_HOURS": "1", "RETRY_FAILED_MINUTES": "30"}
_VERIFIED = 2.2 * HOUR + 10 * MINUTE


class Story(Enum):
    """What happens to the two lanes of a seed."""

    FAST_FAILS = "the fast lane fails for good"
    MAIN_FAILS = "the main lane fails for good"
    BOTH_FAIL = "each lane fails now and then"
    UPDATES = "the stack is updated to two lanes, and back"


_FOR_GOOD = {
    Story.FAST_FAILS: (LAMBDA.project, tuple(LaneFault)),
    # Not DENIED: then the key is wrong, and nothing can be copied until somebody has replaced it.
    Story.MAIN_FAILS: (EC2.project, tuple(fault for fault in LaneFault if fault is not LaneFault.DENIED)),
}


@dataclass(frozen=True, slots=True)
class SeedResult:
    """The result of a seed: the invariants that did not hold, counts, and in a replay its history."""

    seed: int
    violations: tuple[str, ...]
    counts: Counter[str]
    history: tuple[str, ...]


def run_seed(seed: int, *, two_lanes: bool = False, keeps_history: bool = False) -> SeedResult:
    """Run one seed to its end."""
    factor = (0.3, 1.0, 3.0)[seed % 3]
    quota = (1, 2, 20)[seed // 3 % 3]
    settings = {**_SETTINGS, "SWAP_WHEN": ("always", "always", "copied")[seed // 9 % 3]}
    with (
        # So that due records need several rounds of an invocation, and many wait for capacity, as in a real fleet.
        patch("image_mirror.reconciler._CHUNK", 3),
        patch("image_mirror.reconciler.PARALLEL", 2),
        running(seed, FAULTS.times(factor), quota=quota, keeps_history=keeps_history, **settings) as fleet,
    ):
        images = _populate(fleet)
        if two_lanes:
            _populate_lanes(fleet, images, seed)
        fleet.world.clock.run(_BUSY)
        fleet.calm()
        _repair_lanes(fleet)
        _wait_until_idle(fleet)
        fleet.world.clock.run(_VERIFIED)
        _wait_until_idle(fleet)
        check_images(fleet, "at the end")
        for image in images:
            if fleet.cluster.key(image) in fleet.ledger.expected_copies:
                fleet.cluster.create(Pod((image,)))
        fleet.world.clock.run(MINUTE)
        _wait_until_idle(fleet)
        check_images(fleet, "after the next pod", after_next_pod=True)
        return SeedResult(seed, tuple(fleet.world.violations), _figures(fleet), tuple(fleet.world.history))


def _populate(fleet: Fleet) -> list[str]:
    """Plan the images, and the events of pods and people in the busy hours."""
    world, dice, cluster = fleet.world, fleet.world.dice, fleet.cluster
    images = [f"gcr.io/team/app{number}:1" for number in range(dice.randint(4, 16))]
    images += [f"gcr.io/team/app{number}@sha256:{number:064}" for number in range(dice.randint(1, 4))]

    def at_some_time(action: object, *arguments: object) -> None:
        assert callable(action)
        world.clock.after(dice.uniform(0, _BUSY), lambda: action(*arguments))

    for image in images:
        source = image
        if world.happens(0.15):
            fleet.sources.absent[source] = True
            if world.happens(0.5):
                at_some_time(fleet.sources.publish, source)
        elif world.happens(0.15):
            at_some_time(fleet.sources.withdraw, source)
        if "@" not in image and world.happens(0.3):
            at_some_time(fleet.sources.move, source)
        if "@" not in image and world.happens(0.1):
            at_some_time(_push_as_a_stranger, fleet, image)
    for _ in range(dice.randint(5, 15)):  # bursts, as rollouts make them
        start = dice.uniform(0, _BUSY)
        if world.happens(0.4):  # people delete a copy just before they deploy its image again
            gone = cluster.key(dice.choice(images))
            world.clock.after(start + dice.uniform(0, 20), lambda gone=gone: fleet.ledger.delete(gone))  # type: ignore[misc]
        for _ in range(dice.randint(1, 15)):
            pod = Pod(tuple(dice.sample(images, k=dice.randint(1, 3))), pull_always=world.happens(0.3))
            world.clock.after(start + dice.uniform(0, 20), partial(cluster.create, pod))
    for _ in range(dice.randint(0, 3)):
        at_some_time(fleet.account.rotate, dice.choice((0.0, 30.0, 900.0)))
    for _ in range(5):
        at_some_time(fleet.webhook.recycle)
        at_some_time(fleet.reconciler.recycle)
    return images


def _populate_lanes(fleet: Fleet, images: list[str], seed: int) -> None:
    """Give a fleet its second lane, and plan what happens to the lanes in the busy hours."""
    world, dice, codebuild = fleet.world, fleet.world.dice, fleet.codebuild
    story, kind = list(Story)[seed % len(Story)], seed // len(Story)
    world.note("story", story.value)
    world.counts[story.value] += 1
    fleet.fast.quota = dice.choice((1, 3, 10))
    # Whether Lambda compute queues a build above its quota is not known.
    fleet.fast.compute = replace(LAMBDA, queues=world.happens(0.5), starting=dice.choice((3.0, 8.0)))
    for image in images:
        if world.happens(0.2):
            fleet.sources.sizes[image] = dice.choice((LARGE, SLOW))
    fleet.configure(**TWO_LANES, FAST_BUILD_QUOTA=str(dice.choice((1, 3, 20))))
    if story in _FOR_GOOD:
        project, faults = _FOR_GOOD[story]
        fault = faults[kind % len(faults)]
        world.clock.after(dice.uniform(0, _BUSY / 2), lambda: codebuild.fail(project, fault))
    elif story is Story.BOTH_FAIL:
        for project in (EC2.project, LAMBDA.project):
            start = 0.0
            while (start := start + dice.uniform(0, HOUR)) < _BUSY:
                fault = dice.choice(list(LaneFault))
                world.clock.after(start, lambda project=project, fault=fault: codebuild.fail(project, fault))  # type: ignore[misc]
                start += dice.uniform(MINUTE, HOUR / 2)
                world.clock.after(start, lambda project=project: codebuild.fail(project, None))  # type: ignore[misc]
    else:
        fleet.configure(**ONE_LANE)
        start, settings = 0.0, (TWO_LANES, ONE_LANE)
        while (start := start + dice.uniform(0, HOUR)) < _BUSY:
            world.clock.after(start, lambda settings=settings: fleet.configure(**settings[0]))  # type: ignore[misc]
            settings = settings[::-1]


def _repair_lanes(fleet: Fleet) -> None:
    """Repair what does not fail for good."""
    for project in fleet.codebuild.lanes:
        if not any(fleet.world.counts[story.value] and project == its for story, (its, _) in _FOR_GOOD.items()):
            fleet.codebuild.fail(project, None)


def _push_as_a_stranger(fleet: Fleet, image: str) -> None:
    fleet.ledger.push_as_a_stranger(fleet.cluster.key(image), f"sha256:{fleet.world.dice.getrandbits(256):064x}")


def _wait_until_idle(fleet: Fleet) -> None:
    """Let time pass until nothing is under way; it is a violation if that takes too long.

    Between five attempts in the fast lane are four builds in the main one. If that has failed for good, each of these
    can wait eight hours in the queue, or hang for an hour.
    """
    end = fleet.world.clock.now + _LONGEST_CALM * _SLOW[fleet.main.fault]
    while _under_way(fleet):
        if fleet.world.clock.now > end:
            for key in _unfinished(fleet):
                fleet.world.violated(f"{_name(key)}: stuck as {dict(fleet.table.items[key])}")
            return
        fleet.world.clock.run(5 * MINUTE)
    fleet.world.clock.run(10)  # for the index to follow


def _under_way(fleet: Fleet) -> bool:
    return bool(_unfinished(fleet) or fleet.codebuild.busy or not fleet.stream.idle)


def _unfinished(fleet: Fleet) -> list[Key]:
    return [key for key, item in fleet.table.items.items() if _is_unfinished(fleet, to_record(item))]


def _is_unfinished(fleet: Fleet, record: Record) -> bool:
    """Return whether a copy is on its way; not one that waits for the main lane while that has failed for good.

    An image whose fast build has failed without a reason may use the fast lane again after a failure in the main one.
    Where builds stay in the queue, that takes eight hours, and several times that after several attempts.
    """
    lasts = (OUT_OF_TIME, TOO_LARGE) if fleet.main.fault is not LaneFault.STUCK else NOT_FAST
    if fleet.main.fault is not None and record.not_fast in lasts:
        return False
    return record.status not in (Status.COPIED, Status.FAILED)


def check_images(fleet: Fleet, when: str, *, after_next_pod: bool = False) -> None:
    """Check that every copy that a pod was sent to is COPIED, or FAILED with a reason after five real attempts.

    A copy that had failed before, and was requested again, fails with the first build that has ended.
    A copy that was deleted in ECR may lack a record; not with `after_next_pod`, since that pod has requested it again.
    """
    for key in fleet.ledger.expected_copies:
        item, repository = fleet.table.items.get(key), key[0].partition("/")[2]
        held = fleet.registry.held(repository, key[1])
        if item is None:
            if after_next_pod or not fleet.ledger.deleted[key]:
                fleet.world.violated(f"{_name(key)}: {when} a pod was sent to it and it has no record")
            continue
        record = to_record(item)
        if record.status is Status.COPIED and record.digest != held:
            fleet.world.violated(f"{_name(key)}: {when} COPIED as {record.digest}, while ECR holds {held}")
        if record.status is Status.FAILED:
            real = [
                build
                for build in fleet.codebuild.by_target.get((repository, key[1]), [])
                if build.submitted >= record.requested_at / 1000 - fleet.world.clocks_differ
                and (build.charges_an_attempt or (build.pushed and fleet.ledger.deleted[key]))
            ]
            needed = 1 if record.failures > 1 else MOST_ATTEMPTS
            if needed == 1:
                real = fleet.codebuild.by_target.get((repository, key[1]), [])[-1:]
            if not record.error or record.attempts < needed or len(real) < needed:
                fleet.world.violated(
                    f"{_name(key)}: {when} FAILED after {len(real)} attempts of {record.attempts}: {record.error}"
                )
    for key, item in fleet.table.items.items():
        due_at = to_record(item).due_at
        if fleet.table.indexed(key) != due_at:
            fleet.world.violated(f"{_name(key)}: {when} due at {due_at}, but {fleet.table.indexed(key)} in the index")


def _figures(fleet: Fleet) -> Counter[str]:
    counts = fleet.world.counts
    counts["builds"] = len(fleet.codebuild.builds)
    counts["fast builds"] = sum(build.lane == LAMBDA.project for build in fleet.codebuild.builds.values())
    counts["pods sent to a copy"] = len(fleet.ledger.sent_pods)
    counts["builds the table never knew"] = sum(
        each not in fleet.ledger.recorded_builds for each in fleet.codebuild.builds
    )
    counts["dead letters"] = fleet.stream.dead_letters
    counts["seeds with two reconcilers at once"] = int(fleet.reconciler.most_at_once > 1)
    for item in fleet.table.items.values():
        counts[f"end as {item['status']['S']}"] += 1
    return counts


def _name(key: Key) -> str:
    return f"{key[0].partition('/')[2]}:{key[1]}"
