"""How far a burst of copies is, and when it ends: from the records' own times, whatever this machine's clock says."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_mirror.cli.commands.status.estimate import under_way
from image_mirror.record import DAY, HOUR, MINUTE, Record, Status
from support.clock import NOON
from support.recorded import DIGEST, record


def some(count: int, status: Status, minutes: float, **changes: Any) -> list[Record]:
    """Return records requested so many minutes ago; each COPIED one has arrived a minute after the one before."""
    made = []
    for number in range(count):
        build = {"build_id": f"P:{number}"} if status is Status.COPYING else {}
        written = NOON - number * MINUTE if status is Status.COPIED else NOON
        each = record(f"gcr.io/{status.lower()}-{minutes:.0f}-{len(changes)}:{number}", status, hours=minutes / 60)
        requested = NOON - int(minutes * MINUTE)
        made.append(replace(each, **{"requested_at": requested, "updated_at": written, **build, **changes}))
    return made


COPIED = some(10, Status.COPIED, 12)
RUNNING = some(5, Status.COPYING, 12)
WAITING = some(7, Status.REQUESTED, 12)
SENT_TO_MAIN = some(2, Status.REQUESTED, 12, error="fast lane: OUT_OF_TIME: 13 minutes", not_fast="OUT_OF_TIME")
AGAIN = some(3, Status.REQUESTED, 12, error="RATE_LIMITED: slow")
EARLIER = [
    replace(each, requested_at=NOON - DAY - number * 3 * MINUTE, updated_at=NOON - DAY)
    for number, each in enumerate(some(100, Status.COPIED, 24 * 60))
]
QUEUED = {f"P:{number}": number > 2 for number in range(5)}


@pytest.mark.parametrize(
    ("records", "queued", "now", "text"),
    [
        pytest.param([], {}, NOON, None, id="no-record"),
        pytest.param(COPIED, {}, NOON, None, id="nothing-under-way"),
        pytest.param(
            COPIED + RUNNING + WAITING,
            QUEUED,
            NOON,
            "22 requested: 10 copied, 3 running, 2 queued, 7 waiting; 0.8 a minute, about 14 minutes left",
            id="a-burst",
        ),
        pytest.param(
            COPIED + RUNNING,
            {},
            NOON,
            "15 requested: 10 copied, 5 running or queued; 0.8 a minute, about 6 minutes left",
            id="codebuild-was-not-asked",
        ),
        pytest.param(
            COPIED + RUNNING + AGAIN,
            QUEUED,
            NOON,
            "18 requested: 10 copied, 3 running, 2 queued, 3 to be tried again; 0.8 a minute, "
            "about 6 minutes left for the others",
            id="some-wait-for-another-try",
        ),
        pytest.param(
            COPIED + RUNNING + SENT_TO_MAIN + AGAIN,
            QUEUED,
            NOON,
            "20 requested: 10 copied, 3 running, 2 queued, 2 waiting, 3 to be tried again; 0.8 a minute, "
            "about 8 minutes left for the others",
            id="some-go-on-in-the-main-lane",
        ),
        pytest.param(
            COPIED + AGAIN,
            {},
            NOON,
            "13 requested: 10 copied, 3 to be tried again; 0.8 a minute",
            id="only-other-tries-are-left",
        ),
        pytest.param(WAITING, {}, NOON, "7 requested: 7 waiting", id="nothing-has-ended"),
        pytest.param(some(1, Status.REQUESTED, 0), {}, NOON, "1 requested: 1 waiting", id="requested-this-moment"),
        pytest.param(
            some(4, Status.COPIED, 0, updated_at=NOON) + some(1, Status.REQUESTED, 0),
            {},
            NOON,
            "5 requested: 4 copied, 1 waiting; 4.0 a minute, about 1 minute left",
            id="all-in-one-moment",
        ),
        pytest.param(
            some(4, Status.FAILED, 12) + RUNNING,
            QUEUED,
            NOON,
            "9 requested: 4 failed, 3 running, 2 queued; 0.3 a minute, about 15 minutes left",
            id="failures-end-too",
        ),
        pytest.param(
            COPIED + some(2_000, Status.REQUESTED, 12),
            {},
            NOON,
            "2,010 requested: 10 copied, 2,000 waiting; 0.8 a minute, about 40h left",
            id="for-more-than-two-hours",
        ),
        pytest.param(
            some(5, Status.COPIED, 21) + some(1, Status.COPIED, 32) + some(2, Status.COPYING, 12),
            {},
            NOON,
            "7 requested: 5 copied, 2 running or queued; 0.3 a minute, about 6 minutes left",
            id="a-pause-of-ten-minutes-separates-two-bursts",
        ),
        pytest.param(
            COPIED + some(1, Status.COPYING, 3 * 24 * 60, error="an earlier delay") + WAITING,
            {},
            NOON,
            "18 requested: 10 copied, 1 running or queued, 7 waiting; 0.8 a minute, about 10 minutes left",
            id="a-copy-that-waits-for-days-does-not-bring-its-days",
        ),
        pytest.param(
            [
                *some(1, Status.COPYING, 1),
                *(
                    replace(each, requested_at=NOON - number * 9 * MINUTE)
                    for number, each in enumerate(some(200, Status.COPIED, 0))
                ),
            ],
            {},
            NOON,
            "82 requested: 81 copied, 1 running or queued; 1.1 a minute, about 1 minute left",
            id="a-burst-has-twelve-hours",
        ),
        pytest.param(
            COPIED + WAITING, {}, NOON + 15 * MINUTE + 1, "17 requested: 10 copied, 7 waiting", id="nothing-moves"
        ),
        pytest.param(
            COPIED + RUNNING + WAITING,
            QUEUED,
            NOON + 6 * MINUTE,
            "22 requested: 10 copied, 3 running, 2 queued, 7 waiting; 0.8 a minute, about 14 minutes left",
            id="this-machines-clock-is-six-minutes-ahead",
        ),
        pytest.param(
            some(1, Status.REQUESTED, 3 * 24 * 60) + EARLIER + some(1, Status.REQUESTED, 1),
            {},
            NOON,
            "2 requested: 2 waiting",
            id="a-copy-that-has-waited-for-days-does-not-bring-what-ended-since",
        ),
        pytest.param(
            some(1, Status.REQUESTED, 20 * 60, error="UNREACHABLE: x") + some(100, Status.COPIED, 10 * 60),
            {},
            NOON,
            "1 requested: 1 to be tried again",
            id="a-copy-that-is-tried-for-hours-does-not-bring-another-burst",
        ),
        pytest.param(
            some(1, Status.REQUESTED, 6 * 60) + some(9, Status.COPIED, 3 * 60) + COPIED + WAITING,
            {},
            NOON,
            "18 requested: 10 copied, 8 waiting; 0.7 a minute, about 12 minutes left",
            id="what-ended-between-two-bursts-is-of-neither",
        ),
        pytest.param(
            COPIED + WAITING,
            {},
            NOON - DAY,
            "17 requested: 10 copied, 7 waiting; 0.8 a minute, about 8 minutes left",
            id="this-machines-clock-is-a-day-behind",
        ),
        pytest.param([Record(repo="x/y", tag="1"), *RUNNING], {}, NOON, "5 requested: 5 running or queued", id="older"),
    ],
)
def test_a_burst_is_counted_and_its_end_estimated(
    records: list[Record], queued: dict[str, bool], now: int, text: str | None
) -> None:
    found = under_way(records, queued, now)
    assert (str(found) if found else None) == text


TIMES = st.one_of(st.integers(NOON - DAY, NOON + HOUR), st.integers(0, 2**53), st.just(0))


@st.composite
def any_record(draw: st.DrawFn) -> Record:
    return Record(
        repo="r",
        tag=draw(st.text("abc", min_size=1, max_size=5)),
        status=draw(st.sampled_from([*Status, None])),
        requested_at=draw(TIMES),
        updated_at=draw(TIMES),
        build_id=draw(st.sampled_from(["P:1", "P:2", "P:3", None])),
        error=draw(st.sampled_from([None, "RATE_LIMITED: slow"])),
        digest=draw(st.sampled_from([None, DIGEST])),
    )


@settings(deadline=None, max_examples=300)
@given(st.lists(any_record(), max_size=30), TIMES)
def test_no_times_make_a_count_or_an_estimate_impossible(records: list[Record], now: int) -> None:
    found = under_way(records, {"P:1": True, "P:2": False}, now)
    pending = sum(each.status in (Status.REQUESTED, Status.COPYING) for each in records)
    assert (found is None) is (pending == 0)
    if found is None:
        return
    assert found.rest + found.again == pending
    assert pending <= found.requested <= len(records)
    assert found.per_minute is None or 0 < found.per_minute <= found.copied + found.failed
    assert found.minutes_left is None or (found.minutes_left >= 1 and found.rest > 0)
    assert "-" not in str(found)


@settings(deadline=None, max_examples=200)
@given(st.lists(any_record(), max_size=30), st.integers(0, 2 * DAY), st.integers(0, 2 * DAY))
def test_only_the_differences_of_the_records_times_count(records: list[Record], later: int, behind: int) -> None:
    def shifted(each: Record) -> Record:
        return replace(each, requested_at=each.requested_at + later, updated_at=each.updated_at + later)

    first = min((each.updated_at for each in records), default=0)
    found = under_way(records, {}, first)
    assert found == under_way(records, {}, first - behind), "a clock that is behind changes nothing"
    assert found == under_way([shifted(each) for each in records], {}, first + later)
