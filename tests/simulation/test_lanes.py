"""CodeBuild's two projects and the kubelet are modelled as they are known, and two lanes make copies start sooner."""

from dataclasses import replace
from itertools import islice
from random import Random
from statistics import median

import pytest
from botocore.exceptions import ClientError

from simulation.clock import HOUR, MINUTE
from simulation.codebuild import EC2, LAMBDA, Build, CodeBuild, Compute, Lane, LaneFault
from simulation.ecr import Registry
from simulation.faults import NO_FAULTS
from simulation.kubelet import PULLING, seconds_to_running, tries
from simulation.sources import LARGE, SLOW, Ending, Size, Sources
from simulation.world import World

IMAGE = "gcr.io/team/app:1"
QUICK = Ending("COPIED", 10)


class Account:
    """CodeBuild with both projects, and a registry that has the repository of every image that is copied."""

    def __init__(self, *, fast: Compute = LAMBDA, fast_quota: int = 1) -> None:
        self.world = World(0, NO_FAULTS)
        self.registry = Registry(self.world, lambda _: None)
        self.sources = Sources(self.world)
        self.codebuild = CodeBuild(self.world, self.registry, self.sources, Lane(EC2, 1), Lane(fast, fast_quota))

    def start(self, compute: Compute, image: str = IMAGE, token: str = "") -> Build:
        self.registry.repositories.setdefault(f"mirror/{image.partition(':')[0]}", {})
        variables = {"DOCKER_IMAGE": image, "NEW_DOCKER_IMAGE": f"host/mirror/{image}"}
        return self.codebuild.start(compute.project, variables, token or str(len(self.codebuild.builds)))

    def seconds(self, build: Build) -> float:
        """Let a build end, and return how long it ran."""
        self.world.clock.run(2 * HOUR)
        assert build.began is not None
        return build.ended_at - build.began

    def status(self, *builds: Build) -> list[str]:
        described = self.codebuild.describe([build.build_id for build in builds])
        return [each["buildStatus"] for each in described["builds"]]


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.mark.parametrize(
    ("compute", "seconds"),
    [
        pytest.param(EC2, 40 + EC2.installing + 10, id="main"),
        pytest.param(LAMBDA, 3 + LAMBDA.installing + 10, id="fast"),
    ],
)
def test_a_build_of_the_fast_lane_starts_sooner(account: Account, compute: Compute, seconds: float) -> None:
    account.sources.endings[IMAGE] = QUICK
    assert account.seconds(account.start(compute)) == pytest.approx(seconds)


def test_each_lane_has_its_own_quota_and_queue(account: Account) -> None:
    account.sources.endings[IMAGE] = QUICK
    builds = [account.start(LAMBDA, f"gcr.io/team/app:{tag}") for tag in range(6)]
    other = account.start(EC2, "gcr.io/team/other:1")
    assert [build.began is not None for build in (*builds, other)] == [True, *5 * [False], True]
    with pytest.raises(ClientError, match="AccountLimitExceeded"):
        account.start(LAMBDA, "gcr.io/team/app:7")
    account.start(EC2, "gcr.io/team/app:7")


def test_a_lane_without_a_queue_refuses_a_build_above_its_quota() -> None:
    account = Account(fast=replace(LAMBDA, queues=False), fast_quota=2)
    for tag in range(2):
        account.start(LAMBDA, f"gcr.io/team/app:{tag}")
    with pytest.raises(ClientError, match="AccountLimitExceeded"):
        account.start(LAMBDA, "gcr.io/team/app:3")


def test_a_token_that_started_a_build_in_one_lane_is_refused_in_the_other(account: Account) -> None:
    first = account.start(LAMBDA, token="t")
    assert account.start(LAMBDA, token="t") is first
    with pytest.raises(ClientError, match="InvalidInputException"):
        account.start(EC2, token="t")


def test_builds_of_one_image_in_both_lanes_are_duplicates(account: Account) -> None:
    account.start(LAMBDA)
    account.start(EC2)
    assert account.world.counts["duplicate builds"] == 1


@pytest.mark.parametrize(
    ("size", "fast", "main"),
    [
        pytest.param(None, "COPIED", "COPIED", id="usual"),
        pytest.param(Size(2.9, 500), "COPIED", "COPIED", id="almost-too-large"),
        pytest.param(LARGE, "TOO_LARGE", "COPIED", id="too-large-for-the-fast-lane"),
        pytest.param(SLOW, "OUT_OF_TIME", "COPIED", id="too-slow-for-the-fast-lane"),
        pytest.param(Size(1, 5000), "OUT_OF_TIME", "UNREACHABLE", id="too-slow-for-both"),
        pytest.param(Size(50, 3000), "TOO_LARGE", "TOO_LARGE", id="too-large-for-both"),
    ],
)
def test_the_fast_lane_ends_what_is_too_large_or_too_slow(size: Size | None, fast: str, main: str) -> None:
    for compute, ended in ((LAMBDA, fast), (EC2, main)):
        account = Account()
        if size is not None:
            account.sources.sizes[IMAGE] = size
        build = account.start(compute)
        assert account.seconds(build) <= compute.stops_at
        assert build.ended == ended


def test_layers_that_have_arrived_are_not_sent_again(account: Account) -> None:
    account.sources.sizes[IMAGE] = SLOW
    account.seconds(account.start(LAMBDA))
    arrived = LAMBDA.stops_at - LAMBDA.starting - LAMBDA.installing - 10
    again = account.start(EC2)
    assert account.seconds(again) == pytest.approx(40 + EC2.installing + 10 + SLOW.seconds - arrived)
    assert again.ended == "COPIED"


@pytest.mark.parametrize("fault", [LaneFault.FULL, LaneFault.THROTTLED, LaneFault.DENIED], ids=lambda each: each.name)
def test_a_lane_can_refuse_builds_while_the_other_takes_them(account: Account, fault: LaneFault) -> None:
    account.codebuild.fail(LAMBDA.project, fault)
    with pytest.raises(ClientError):
        account.start(LAMBDA)
    account.start(EC2)
    account.codebuild.fail(LAMBDA.project, None)
    account.start(LAMBDA, "gcr.io/team/other:1")


def test_a_call_that_asks_for_a_build_of_a_denied_project_is_refused_as_a_whole(account: Account) -> None:
    builds = [account.start(LAMBDA), account.start(EC2, "gcr.io/team/other:1")]
    assert account.status(*builds) == 2 * ["IN_PROGRESS"]
    account.codebuild.fail(LAMBDA.project, LaneFault.DENIED)
    with pytest.raises(ClientError, match="AccessDenied"):
        account.status(*builds)
    assert account.status(builds[1]) == ["IN_PROGRESS"]


def test_builds_that_are_stuck_in_the_queue_of_the_fast_lane_start_when_it_is_repaired(account: Account) -> None:
    account.codebuild.fail(LAMBDA.project, LaneFault.STUCK)
    build = account.start(LAMBDA)
    account.world.clock.run(24 * HOUR)
    assert build.began is None
    assert not account.codebuild.busy
    account.codebuild.fail(LAMBDA.project, None)
    assert account.codebuild.busy
    account.seconds(build)
    assert build.ended == "COPIED"


@pytest.mark.parametrize(
    ("fault", "ended", "seconds"),
    [
        pytest.param(LaneFault.FAULTS, "FAULT", 3, id="FAULT"),
        pytest.param(LaneFault.UNEXPLAINED, "UNEXPLAINED", 3 + LAMBDA.installing, id="unexplained"),
        pytest.param(LaneFault.HANGS, "TIMED_OUT", 15 * MINUTE, id="hangs"),
    ],
)
def test_all_builds_of_a_lane_can_end_alike(account: Account, fault: LaneFault, ended: str, seconds: float) -> None:
    account.codebuild.fail(LAMBDA.project, fault)
    build = account.start(LAMBDA)
    assert account.seconds(build) == seconds
    assert build.ended == ended


def test_a_build_of_the_fast_lane_is_billed_by_the_second(account: Account) -> None:
    account.sources.endings[IMAGE] = QUICK
    account.seconds(account.start(LAMBDA))
    account.seconds(account.start(EC2))
    assert account.world.counts["fast build seconds"] == 3 + LAMBDA.installing + 10
    assert account.world.counts["build minutes"] == 1


def test_the_kubelet_tries_again_when_its_source_says() -> None:
    dice = Random(0)
    pods = [list(islice(tries(dice), 7)) for _ in range(2_000)]
    medians = [median(times) for times in zip(*pods, strict=True)]
    assert medians == pytest.approx([0, 13, 39, 88, 175, 342, 649], abs=2)


@pytest.mark.parametrize(
    ("present_after", "alone", "nudged"),
    [
        pytest.param(0, (0, 0), (0, 0), id="already-there"),
        pytest.param(20, (30, 46), (21, 32), id="soon"),
        pytest.param(60, (70, 106), (61, 72), id="a-minute"),
        pytest.param(200, (310, 370), (201, 212), id="minutes"),
    ],
)
def test_a_pod_runs_after_the_next_try_or_after_a_nudge(
    present_after: float, alone: tuple[float, float], nudged: tuple[float, float]
) -> None:
    dice = Random(0)
    for is_nudged, (earliest, latest) in ((False, alone), (True, nudged)):
        for _ in range(200):
            seconds = seconds_to_running(present_after, dice, nudged=is_nudged)
            assert earliest <= seconds - PULLING <= latest
