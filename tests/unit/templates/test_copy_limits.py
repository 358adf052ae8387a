"""The limits of a build: a program that reads nothing, reads too much or takes too long is ended."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from support.buildspec_runner import FAST, MAIN, CodeBuild, resolve, template
from support.copy_program import PROGRAM

SETTINGS = {
    "PATH": "/usr/bin:/bin",
    "COPY_PAUSES": "0 0",
    "COPY_STALL_SECONDS": "3600",
    "COPY_WATCH_SECONDS": "0.01",
    "MAX_IMAGE_GIGABYTES": "40",
    "BUILD_TIMEOUT_MINUTES": "1",
}


FAST_LANE = {"FAST_LANE": "true"}


def build(folder: Path, **settings: str) -> Any:
    return PROGRAM.Build(SETTINGS | settings, folder)


def ended(folder: Path, *command: str, **settings: str) -> tuple[str, str]:
    with pytest.raises(PROGRAM.Ended) as raised:
        build(folder, **settings).run(*command)
    return raised.value.result, raised.value.reason


def test_a_program_that_reads_nothing_for_too_long_is_stalled(tmp_path: Path) -> None:
    result, reason = ended(tmp_path, "sleep", "30", COPY_STALL_SECONDS="0.05")
    assert (result, reason) == ("STALLED", "nothing was read for 0.05 s")


def test_a_program_that_goes_on_reading_is_not_stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count(10_000, 10_000)
    monkeypatch.setattr(PROGRAM, "bytes_read", lambda _: next(numbers))
    status, _, _ = build(tmp_path, COPY_STALL_SECONDS="0").run("sleep", "0.2")
    assert status == 0


def test_a_few_bytes_now_and_then_are_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crane that waits reads its cgroup's limits and HTTP/2 pings."""
    numbers = itertools.count(step=3)
    monkeypatch.setattr(PROGRAM, "bytes_read", lambda _: next(numbers))
    with pytest.raises(PROGRAM.Ended) as raised:
        build(tmp_path, COPY_STALL_SECONDS="0.05", BUILD_TIMEOUT_MINUTES="1").run("sleep", "30")
    assert raised.value.result == "STALLED"
    assert raised.value.reason.startswith("nothing was read")


@pytest.mark.parametrize(("lane", "expected"), [({}, "UNREACHABLE"), (FAST_LANE, "OUT_OF_TIME")], ids=["main", "fast"])
def test_layers_of_an_earlier_try_count_if_the_time_is_over(
    tmp_path: Path, lane: dict[str, str], expected: str
) -> None:
    running = build(tmp_path, **lane)
    script = "echo '2026/11/29 pushed blob: sha256:a' >&2"
    assert running.run("bash", "-c", f"{script}; exit 1", sends_layers=True)[0] == 1
    running.deadline = 0.0
    with pytest.raises(PROGRAM.Ended) as raised:
        running.run("sleep", "30", sends_layers=True)
    assert raised.value.result == expected
    assert "1 layers arrived" in raised.value.reason


def test_layers_of_the_image_do_not_count_for_what_has_a_limit_of_its_own(tmp_path: Path) -> None:
    running = build(tmp_path)
    running.arrived = 3
    with pytest.raises(PROGRAM.Ended) as raised:
        running.limited(0.0, 1e9).run("sleep", "30")
    assert raised.value.result == "STALLED"
    assert running.arrived == 3


def test_what_a_program_has_read_is_known_after_its_end(tmp_path: Path) -> None:
    running = build(tmp_path)
    running.run("head", "-c", "1000000", "/dev/zero")
    assert 1_000_000 <= running.read < 1_200_000
    running.run("true")
    assert running.read < 200_000


def test_only_the_end_of_many_errors_is_read(tmp_path: Path) -> None:
    _, _, errors = build(tmp_path).run("bash", "-c", "yes x | head -c 1000000 >&2; echo 'Error: last' >&2")
    assert len(errors) == 131_072
    assert errors.endswith("Error: last\n")


def test_a_program_that_reads_too_much_is_ended(tmp_path: Path) -> None:
    result, reason = ended(
        tmp_path, "dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=50000", MAX_IMAGE_GIGABYTES="0.05"
    )
    assert (result, reason) == ("TOO_LARGE", "more than 0.05 GB were read; MaxImageGigabytes allows more")


def test_what_is_too_large_for_the_fast_lane_names_its_parameter(tmp_path: Path) -> None:
    command = ("dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=50000")
    result, reason = ended(tmp_path, *command, MAX_IMAGE_GIGABYTES="0.05", **FAST_LANE)
    assert (result, reason) == ("TOO_LARGE", "more than 0.05 GB were read; FastLaneGigabytes allows more")


def test_a_build_without_time_left_is_stalled_if_no_layer_arrived(tmp_path: Path) -> None:
    result, reason = ended(tmp_path, "sleep", "30", BUILD_TIMEOUT_MINUTES="0.0001")
    assert (result, reason) == ("STALLED", "the time of the build is over (BuildTimeoutMinutes), and no layer arrived")


def test_a_build_of_the_fast_lane_without_time_left_says_nothing_about_the_image(tmp_path: Path) -> None:
    result, reason = ended(tmp_path, "sleep", "30", BUILD_TIMEOUT_MINUTES="0.0001", **FAST_LANE)
    assert (result, reason) == ("OUT_OF_TIME", "the time of the build is over, and no layer arrived")


def test_a_build_of_the_fast_lane_that_reads_nothing_is_stalled(tmp_path: Path) -> None:
    result, reason = ended(tmp_path, "sleep", "30", COPY_STALL_SECONDS="0.05", BUILD_TIMEOUT_MINUTES="15", **FAST_LANE)
    assert (result, reason) == ("STALLED", "nothing was read for 0.05 s")


def test_a_build_without_time_left_waits_if_a_layer_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = tmp_path / "arrived"
    script = f"echo '2026/11/29 pushed blob: sha256:a' >&2; touch {arrived}; exec sleep 30"
    running = build(tmp_path)
    seen: Any = PROGRAM.bytes_read

    def late(pid: int) -> int:
        """Let the time be over when the layer has arrived."""
        if arrived.exists():
            running.deadline = 0.0
        found: int = seen(pid)
        return found

    monkeypatch.setattr(PROGRAM, "bytes_read", late)
    with pytest.raises(PROGRAM.Ended) as raised:
        running.run("bash", "-c", script, sends_layers=True)
    assert raised.value.result == "UNREACHABLE"
    assert raised.value.reason.endswith("1 layers arrived, and the next build continues")


def test_all_processes_of_a_program_that_is_ended_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pid"
    script = f"sleep 30 & echo $! >{file}; wait"
    running = build(tmp_path)
    seen: Any = PROGRAM.bytes_read

    def late(pid: int) -> int:
        if file.exists() and file.read_text().strip():
            running.deadline = 0.0
        found: int = seen(pid)
        return found

    monkeypatch.setattr(PROGRAM, "bytes_read", late)
    with pytest.raises(PROGRAM.Ended):
        running.run("bash", "-c", script)
    status = Path(f"/proc/{file.read_text().strip()}/stat")
    while status.exists() and status.read_text().split()[2] != "Z":
        time.sleep(0.01)


@pytest.mark.parametrize("lane", [{}, FAST_LANE | {"BUILD_TIMEOUT_MINUTES": "15"}], ids=["main", "fast"])
def test_a_source_that_never_says_the_digest_is_stalled_long_before_the_build_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lane: dict[str, str]
) -> None:
    """crane follows a loop of redirects without end, and reads bytes all the time."""
    monkeypatch.setattr(PROGRAM, "DIGEST_SECONDS", 0.05)
    crane = tmp_path / "crane"
    crane.write_text("#!/bin/bash\nsleep 30\n")
    crane.chmod(0o755)
    source = PROGRAM.Source("gcr.io", "a", ":1")
    with pytest.raises(PROGRAM.Ended) as raised:
        PROGRAM.digest_of_source(build(tmp_path, **lane), str(crane), source, lambda errors: ("UNEXPLAINED", errors))
    assert (raised.value.result, raised.value.reason) == ("STALLED", "the source has not said the digest in 0.05 s")


def test_the_time_that_the_build_has_used_already_counts(tmp_path: Path) -> None:
    began = str(int((time.time() - 200 * 60) * 1000))
    used = build(tmp_path, CODEBUILD_START_TIME=began, BUILD_TIMEOUT_MINUTES="240")
    fresh = build(tmp_path, BUILD_TIMEOUT_MINUTES="240")
    assert 199 * 60 < fresh.deadline - used.deadline < 201 * 60
    assert fresh.deadline - fresh.began == pytest.approx(238 * 60), "two minutes are left for the result"
    assert build(tmp_path, BUILD_TIMEOUT_MINUTES="5").deadline > time.monotonic() + 4 * 60


@pytest.mark.parametrize(
    ("seconds", "left"),
    [
        pytest.param(20, 13 * 60 - 20, id="what crane's download takes"),
        pytest.param(59, 13 * 60 - 59, id="up to a minute"),
        pytest.param(3 * 3600, 12 * 60, id="hours in the queue"),
        pytest.param(-3600, 13 * 60, id="a clock that is behind"),
    ],
)
def test_time_in_the_queue_does_not_count_in_the_fast_lane(tmp_path: Path, seconds: int, left: int) -> None:
    """Where CODEBUILD_START_TIME is the submission, the build has its time all the same."""
    began = str(int((time.time() - seconds) * 1000))
    running = build(tmp_path, CODEBUILD_START_TIME=began, BUILD_TIMEOUT_MINUTES="15", **FAST_LANE)
    assert running.deadline - running.began == pytest.approx(left, abs=5)


def test_a_build_of_the_fast_lane_ends_itself_two_minutes_before_the_end(tmp_path: Path) -> None:
    running = build(tmp_path, BUILD_TIMEOUT_MINUTES="15", **FAST_LANE)
    assert running.deadline - running.began == pytest.approx(13 * 60)


@pytest.mark.parametrize(("name", "limits"), [(MAIN, ("40", "240")), (FAST, ("3", "15"))])
def test_the_template_has_the_limits_of_a_real_build(name: str, limits: tuple[str, str]) -> None:
    project = resolve(template()["Resources"][name]["Properties"])
    variables = {each["Name"]: each["Value"] for each in project["Environment"]["EnvironmentVariables"]}
    assert variables["CRANE_SHA256"] == "5c16d8ddb971cb1d5e6ed8b1e743da8224414eeba2c2762d8f1a61b2f095699e"
    assert not {"COPY_PAUSES", "COPY_STALL_SECONDS", "COPY_WATCH_SECONDS", "CRANE_PAUSE_SECONDS"} & variables.keys()
    assert variables["CRANE_URL"].endswith("/v0.21.9/go-containerregistry_Linux_x86_64.tar.gz")
    assert (variables["MAX_IMAGE_GIGABYTES"], variables["BUILD_TIMEOUT_MINUTES"]) == limits


def test_a_build_waits_as_long_as_a_source_needs(tmp_path: Path) -> None:
    limits = {"MAX_IMAGE_GIGABYTES": "40", "BUILD_TIMEOUT_MINUTES": "240"}
    running = PROGRAM.Build(limits, tmp_path)
    assert (running.pauses, running.stall, running.interval) == ([10.0, 30.0], 600.0, 1.0)


@pytest.mark.parametrize(
    ("hosts", "is_allowed"),
    [
        pytest.param("*", True, id="all"),
        pytest.param("quay.io gcr.io", True, id="named"),
        pytest.param("*.gcr.io quay.io", False, id="a wildcard for hosts below it"),
        pytest.param("cr.io gcr.io.evil.example", False, id="similar hosts"),
    ],
)
def test_a_build_reads_only_from_the_hosts_that_are_allowed(tmp_path: Path, hosts: str, is_allowed: bool) -> None:
    run = CodeBuild(tmp_path, parameters={"SourceRegistries": hosts}).run()
    assert run.exported["COPY_RESULT"] == ("COPIED" if is_allowed else "BAD_INPUT"), run.output
    if not is_allowed:
        assert "SourceRegistries" in run.exported["COPY_REASON"]
        assert {call.arguments[0] for call in run.calls} == {"curl"}


def test_secrets_are_masked_the_longest_first(tmp_path: Path) -> None:
    running = build(tmp_path)
    running.hide("abc", "abcdef", "")
    assert running.shown("x abcdef abc abcde") == "x *** *** ***de"
