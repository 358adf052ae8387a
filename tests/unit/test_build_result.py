"""The result of a build: only the source's own answer costs an attempt."""

from typing import Any

import pytest

from image_mirror.build_result import EXIT_CODES, read_build
from image_mirror.record import Build, BuildResult

DIGEST = "sha256:" + "d" * 64


def failed(message: str = "", phase: str = "BUILD", status: str = "FAILED", **exported: str) -> dict[str, Any]:
    """Return a failed build as in BatchGetBuilds."""
    return {
        "id": "ImagePullProject:1",
        "buildStatus": status,
        "currentPhase": "COMPLETED",
        "phases": [
            {"phaseType": "SUBMITTED", "phaseStatus": "SUCCEEDED"},
            {"phaseType": phase, "phaseStatus": status, "contexts": [{"statusCode": "X", "message": message}]},
            {"phaseType": "COMPLETED"},
        ],
        "exportedEnvironmentVariables": [{"name": name, "value": value} for name, value in exported.items()],
    }


@pytest.mark.parametrize(
    ("exported", "digest", "signatures"),
    [
        pytest.param({}, "", "", id="an older stack exports neither"),
        pytest.param({"COPY_DIGEST": DIGEST, "COPY_SIGNATURES": "2"}, DIGEST, "2", id="both"),
        pytest.param(
            {"COPY_DIGEST": "latest", "COPY_SIGNATURES": "1 of 2:\n x\x1b[m"}, "", "1 of 2: x [m", id="odd texts"
        ),
        pytest.param({"COPY_SIGNATURES": "x" * 999}, "", "x" * 400, id="a long text"),
    ],
)
@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED"])
def test_a_build_with_a_copy_says_what_it_pushed(
    exported: dict[str, str], digest: str, signatures: str, status: str
) -> None:
    build = failed(status=status, COPY_RESULT="COPIED", **exported)
    assert read_build(build) == Build(BuildResult.COPIED, digest=digest, signatures=signatures)


COMMAND = "Error while executing command: copy. Reason: exit status "


@pytest.mark.parametrize(
    ("build", "result", "reason"),
    [
        pytest.param({"buildStatus": "IN_PROGRESS", "currentPhase": "QUEUED"}, BuildResult.RUNNING, "", id="queued"),
        pytest.param({"buildStatus": "IN_PROGRESS", "currentPhase": "BUILD"}, BuildResult.RUNNING, "", id="running"),
        pytest.param({"buildStatus": "SUCCEEDED"}, BuildResult.COPIED, "", id="succeeded"),
        pytest.param(
            failed(COMMAND + "44", COPY_RESULT="NOT_FOUND", COPY_REASON="manifest unknown"),
            BuildResult.REFUSED,
            "NOT_FOUND: manifest unknown",
            id="not found",
        ),
        pytest.param(
            failed(COPY_RESULT="DENIED", COPY_REASON="unauthorized"),
            BuildResult.REFUSED,
            "DENIED: unauthorized",
            id="denied",
        ),
        pytest.param(
            failed(COPY_RESULT="BAD_INPUT", COPY_REASON="x"), BuildResult.REFUSED, "BAD_INPUT: x", id="bad input"
        ),
        pytest.param(
            failed(COPY_RESULT="RATE_LIMITED", COPY_REASON="429"),
            BuildResult.DELAYED,
            "RATE_LIMITED: 429",
            id="rate limit",
        ),
        pytest.param(
            failed(COPY_RESULT="UNREACHABLE", COPY_REASON="no such host"),
            BuildResult.DELAYED,
            "UNREACHABLE: no such host",
            id="unreachable",
        ),
        pytest.param(
            failed(COPY_RESULT="TARGET_LOGIN", COPY_REASON="denied"),
            BuildResult.DELAYED,
            "TARGET_LOGIN: denied",
            id="login",
        ),
        pytest.param(
            failed("later", phase="FINALIZING", COPY_RESULT="COPIED"), BuildResult.COPIED, "", id="failed after it"
        ),
        pytest.param(
            failed("no such thing"),
            BuildResult.DELAYED,
            "UNEXPLAINED: no such thing",
            id="unexplained",
        ),
        pytest.param(
            failed(COMMAND + "1"),
            BuildResult.DELAYED,
            f"UNEXPLAINED: {COMMAND}1",
            id="unexplained exit code",
        ),
        pytest.param(
            failed("no capacity", phase="PROVISIONING"),
            BuildResult.DELAYED,
            "the build failed in phase PROVISIONING: no capacity",
            id="no machine",
        ),
        pytest.param(
            failed("Secrets Manager can't find the secret", phase="DOWNLOAD_SOURCE"),
            BuildResult.DELAYED,
            "the build failed in phase DOWNLOAD_SOURCE: Secrets Manager can't find the secret",
            id="secret missing in the global region",
        ),
        pytest.param(
            failed("", phase="QUEUED", status="TIMED_OUT"),
            BuildResult.DELAYED,
            "the build ran out of time in phase QUEUED: no message",
            id="time-out in the queue",
        ),
        pytest.param(
            failed("", status="TIMED_OUT"),
            BuildResult.REFUSED,
            "the build ran out of time; BuildTimeoutMinutes allows more",
            id="time-out of the copy",
        ),
        pytest.param(failed("", status="STOPPED"), BuildResult.REFUSED, "the build was stopped by hand", id="stopped"),
        pytest.param(
            failed("internal", status="FAULT"),
            BuildResult.DELAYED,
            "CodeBuild failed: internal",
            id="fault",
        ),
        pytest.param({}, BuildResult.DELAYED, "UNEXPLAINED: no message", id="nothing known"),
    ],
)
def test_each_end_of_a_build_has_its_result(build: dict[str, Any], result: BuildResult, reason: str) -> None:
    found = read_build(build)
    assert (found.result, found.reason) == (result, reason)
    # These two last until someone corrects a key or its secret, so there is an alarm for them.
    assert found.key is (reason.startswith("TARGET_LOGIN") or "Secrets Manager" in reason)


@pytest.mark.parametrize(("code", "result"), EXIT_CODES.items())
def test_the_exit_code_says_the_same_where_the_export_is_missing(code: int, result: str) -> None:
    by_code = read_build(failed(f"{COMMAND}{code}"))
    by_export = read_build(failed(COPY_RESULT=result, COPY_REASON="y"))
    assert by_code.result is by_export.result
    assert by_code.reason == f"{result}: {COMMAND}{code}"


def test_a_reason_is_one_printable_line_of_bounded_length() -> None:
    reason = read_build(failed(COPY_RESULT="DENIED", COPY_REASON="a\n\tb\x1b[31m " + "c" * 1000)).reason
    assert reason.startswith("DENIED: a b [31m ccc")
    assert len(reason) == 400
    assert reason.isprintable()
