"""The record that is written in place of a damaged one."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_mirror.record import DAY, HOUR, MINUTE, Lane, Policy, Record, Status, new_record
from image_mirror.reference import destination_of, parse_reference
from image_mirror.repair import latest_due, repaired
from image_mirror.table import to_item, to_record
from support.cloud import REGISTRY

NOW = 1_800_000_000_000
REPO = f"{REGISTRY}/mirror/gcr.io/a"
SOURCE = "gcr.io/a:1"
DIGEST = "sha256:" + "a" * 64
POLICY = Policy(verify=10 * DAY)
REQUESTED, COPYING, COPIED, FAILED = Status


def made(status: Status | None, **changes: Any) -> Record:
    record = Record(
        repo=REPO,
        tag="1",
        source=SOURCE,
        status=status,
        requested_at=NOW - HOUR,
        updated_at=NOW - HOUR,
        build_id="ImagePullProject:1",
        digest=DIGEST if status is COPIED else None,
        due_at=None if status is FAILED else NOW + MINUTE,
    )
    return replace(record, **changes)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(made(REQUESTED), id="requested"),
        pytest.param(made(REQUESTED, due_at=NOW + DAY), id="a long wait"),
        pytest.param(
            made(REQUESTED, digest=DIGEST, error="x", same_result="UNREACHABLE 12"), id="a refresh that waits"
        ),
        pytest.param(made(COPYING, due_at=NOW - HOUR), id="copying, overdue"),
        pytest.param(
            made(COPYING, lane=Lane.FAST, claimed_at=NOW - MINUTE, not_fast="TOO_LARGE"), id="copying in the fast lane"
        ),
        pytest.param(made(COPYING, build_id=None), id="copying, without its build: the next step starts it again"),
        pytest.param(made(COPIED, due_at=NOW + 11 * DAY), id="copied, checked as late as the setting allows"),
        pytest.param(made(COPIED, updated_at=NOW + MINUTE), id="the other clock is ahead"),
        pytest.param(made(FAILED, error="NOT_FOUND: x" * 30), id="failed"),
        pytest.param(made(None, source="", due_at=None), id="older deployment"),
        pytest.param(made(REQUESTED, requested_at=0, updated_at=0), id="times that an older release did not write"),
    ],
)
def test_a_record_in_order_is_left_alone(record: Record) -> None:
    assert repaired(record, SOURCE, NOW, POLICY) is record


AGAIN: dict[str, Any] = {"status": REQUESTED, "requested_at": NOW, "updated_at": NOW, "due_at": NOW}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(made(REQUESTED, due_at=NOW + DAY + 1), {"due_at": NOW}, id="requested and due too late"),
        pytest.param(made(COPYING, due_at=NOW + HOUR + 1), {"due_at": NOW}, id="copying and due too late"),
        pytest.param(made(COPIED, due_at=NOW + 14 * DAY), {"due_at": NOW}, id="copied and due too late"),
        pytest.param(made(COPYING, due_at=None), {"due_at": NOW}, id="never due"),
        pytest.param(made(FAILED, due_at=NOW), {"due_at": None}, id="failed and due"),
        pytest.param(made(COPIED, digest=None), {"due_at": NOW}, id="copied without a digest: ECR is asked"),
        pytest.param(made(COPIED, digest="latest"), {"digest": None, "due_at": NOW}, id="copied with another text"),
        pytest.param(made(REQUESTED, digest=DIGEST + "a"), {"digest": None}, id="a digest that is too long"),
        pytest.param(made(COPIED, requested_at=NOW + 2 * HOUR), {"requested_at": NOW}, id="requested in the future"),
        pytest.param(made(FAILED, updated_at=NOW + 2 * HOUR), {"updated_at": NOW}, id="changed in the future"),
        pytest.param(made(FAILED, error="x" * 2_000), {"error": "x" * 1_000}, id="a long reason"),
        pytest.param(made(COPYING, same_result="STALLED " + "9" * 5_000), {"same_result": None}, id="a long count"),
        pytest.param(made(COPYING, same_result="no"), {"same_result": None}, id="no count"),
        pytest.param(
            made(COPYING, attempts=10**7, waits=10**7, failures=10**7),
            {"attempts": 0, "waits": 0, "failures": 0},
            id="large counts",
        ),
        pytest.param(made(COPYING, failing_since=NOW + DAY), {"failing_since": NOW}, id="failing since tomorrow"),
        pytest.param(
            made(COPIED, open_build="ImagePullProject:1", build_id=None),
            {"open_build": None},
            id="an open build that cannot be looked up",
        ),
        pytest.param(made(COPYING, claimed_at=NOW + DAY), {"claimed_at": NOW}, id="claimed tomorrow"),
        pytest.param(made(COPYING, not_fast="SLOW"), {"not_fast": None}, id="an unknown reason against the fast lane"),
        pytest.param(
            made(COPYING, source="gcr.io/b:1", claimed_at=NOW - 1, not_fast="TOO_LARGE"),
            {**AGAIN, "source": SOURCE, "claimed_at": None, "not_fast": None},
            id="claimed for another image's copy",
        ),
        pytest.param(made(COPIED, unexpected="x"), {"unexpected": None}, id="an unexpected push of nothing"),
        pytest.param(
            made(COPIED, source="gcr.io/b:1", unexpected=f"{DIGEST} {DIGEST} 5"),
            {**AGAIN, "source": SOURCE, "digest": None, "unexpected": None},
            id="an unexpected push in place of another image's copy",
        ),
        pytest.param(made(COPIED, source=""), {"source": SOURCE}, id="no source"),
        pytest.param(made(FAILED, source="x"), {"source": SOURCE}, id="failed, with another source"),
        pytest.param(
            made(COPIED, source="gcr.io/b:1", error="x", attempts=3, waits=2, same_result="STALLED 1", failures=1),
            {
                **AGAIN,
                "source": SOURCE,
                "digest": None,
                "error": None,
                "attempts": 0,
                "waits": 0,
                "same_result": None,
                "failures": 0,
            },
            id="copied from another image: nobody knows what ECR holds",
        ),
        pytest.param(made(COPYING, source="gcr.io/b:1"), {**AGAIN, "source": SOURCE}, id="copying another image"),
        pytest.param(made(None), AGAIN, id="an unknown status, due"),
        pytest.param(
            made(None, digest=DIGEST, source=""), {**AGAIN, "source": SOURCE}, id="an unknown copy that is used"
        ),
    ],
)
def test_a_damaged_record_becomes_one_that_can_be(record: Record, expected: dict[str, Any]) -> None:
    after = repaired(record, SOURCE, NOW, POLICY)
    assert after == replace(record, **expected)
    assert repaired(after, SOURCE, NOW, POLICY) is after


@pytest.mark.parametrize("status", [REQUESTED, COPYING, COPIED, None], ids=str)
def test_a_name_that_no_image_s_copy_has_ends_as_failed(status: Status | None) -> None:
    after = repaired(made(status), None, NOW, POLICY)
    assert (after.status, after.error, after.due_at) == (FAILED, "no image has a copy of this name", None)
    assert repaired(after, None, NOW, POLICY) is after


def test_what_reads_as_in_order_but_is_not_is_written_again() -> None:
    read = to_record({**to_item(made(REQUESTED)), "attempts": {"N": "0.5"}})
    assert read == made(REQUESTED)
    after = repaired(read, SOURCE, NOW, POLICY)
    assert after == read
    assert after is not read
    assert after.raw is None


texts = st.sampled_from(["", SOURCE, "gcr.io/b:1", DIGEST, "x", "STALLED 1"])
times = st.integers(0, 10**14)
records = st.builds(
    Record,
    repo=st.just(REPO),
    tag=st.just("1"),
    source=texts,
    status=st.none() | st.sampled_from(Status),
    requested_at=times,
    updated_at=times,
    attempts=times,
    digest=st.none() | texts,
    error=st.none() | st.text(max_size=2_000),
    due_at=st.none() | times,
    same_result=st.none() | texts,
)


@given(records, st.sampled_from([SOURCE, None]))
def test_each_repair_ends_in_a_record_that_needs_none_and_has_a_next_step(record: Record, source: str | None) -> None:
    after = repaired(record, source, NOW, POLICY)
    assert repaired(after, source, NOW, POLICY) is after
    if after.status is None:
        assert after is record
        assert after.due_at is None
    else:
        assert (after.due_at is None) == (after.status is FAILED)
        assert (after.due_at or 0) <= latest_due(NOW, POLICY)
        assert max(after.requested_at, after.updated_at) <= NOW + HOUR
        assert source is None or after.source == source


@pytest.mark.parametrize("image", ["nginx", "gcr.io/a/b:1", f"quay.io/c@{DIGEST}", "localhost:5000/d:2"])
def test_what_a_pod_requests_is_in_order(image: str) -> None:
    source = parse_reference(image)
    record = new_record(destination_of(source, REGISTRY, "mirror"), source, NOW)
    assert repaired(record, record.source, NOW, Policy()) is record
