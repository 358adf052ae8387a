"""The tests' own event source mapping: it handles errors like the real service."""

from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest

from e2e.fakes.event_source_mapping import EventSourceMapping, Json, passes

CHANGE: Json = {"eventName": "INSERT", "dynamodb": {"NewImage": {"status": {"S": "REQUESTED"}}}}
PATTERN: Json = {"eventName": ["INSERT", "MODIFY"], "dynamodb": {"NewImage": {"status": {"S": ["REQUESTED"]}}}}


def batch_of(*numbers: int) -> list[Json]:
    return [{"dynamodb": {"SequenceNumber": str(number)}} for number in numbers]


def mapping_to(function: Any) -> EventSourceMapping:
    return EventSourceMapping(None, "arn", function)


def numbers_of(event: Json) -> list[int]:
    return [int(each["dynamodb"]["SequenceNumber"]) for each in event["Records"]]


def test_the_lowest_failure_of_a_batch_is_where_it_goes_on() -> None:
    seen: list[list[int]] = []

    def function(event: Json) -> Json:
        seen.append(numbers_of(event))
        return {"batchItemFailures": [{"itemIdentifier": "3"}, {"itemIdentifier": "2"}] if len(seen) == 1 else []}

    mapping_to(function).deliver(batch_of(1, 2, 3, 4))
    assert seen == [[1, 2, 3, 4], [2, 3, 4]]


def test_a_batch_that_raises_is_halved_until_the_bad_record_is_alone_and_is_discarded() -> None:
    done: list[int] = []

    def function(event: Json) -> Json:
        if 3 in numbers_of(event):
            raise RuntimeError("poison")
        done.extend(numbers_of(event))
        return {"batchItemFailures": []}

    mapping = mapping_to(function)
    mapping.deliver(batch_of(1, 2, 3, 4))
    assert sorted(done) == [1, 2, 4]
    assert numbers_of({"Records": mapping.dead_letters}) == [3]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        pytest.param({}, True, id="all as asked for"),
        pytest.param({"eventName": "MODIFY"}, True, id="the other value"),
        pytest.param({"eventName": "REMOVE"}, False, id="a value not listed"),
        pytest.param({"dynamodb": {"NewImage": {"status": {"S": "COPYING"}}}}, False, id="a value deep within"),
        pytest.param({"dynamodb": {"NewImage": {"status": {"N": "1"}}}}, False, id="a leaf of another type"),
        pytest.param({"dynamodb": {"NewImage": {}}}, False, id="no leaf"),
        pytest.param({"dynamodb": {}}, False, id="no branch"),
        pytest.param({"dynamodb": {"NewImage": "REQUESTED"}}, False, id="a value in a branch's place"),
    ],
)
def test_an_event_passes_where_each_leaf_has_one_of_the_values(change: Json, wanted: bool) -> None:
    assert passes(PATTERN, CHANGE | change) is wanted


def test_what_the_template_s_filter_lets_through_is_delivered_and_nothing_else() -> None:
    created = datetime.fromtimestamp(1_800_000_000, UTC)
    image = {"status": {"S": "REQUESTED"}}
    records = [
        {
            "eventName": name,
            "dynamodb": {"NewImage": image, "SequenceNumber": str(number), "ApproximateCreationDateTime": created},
        }
        for number, name in enumerate(("INSERT", "REMOVE", "MODIFY"))
    ]
    streams = Mock()
    streams.describe_stream.return_value = {"StreamDescription": {"Shards": [{"ShardId": "shard"}]}}
    streams.get_shard_iterator.return_value = {"ShardIterator": "start"}
    streams.get_records.return_value = {"Records": records}
    seen: list[list[int]] = []

    def function(event: Json) -> Json:
        seen.append(numbers_of(event))
        return {"batchItemFailures": []}

    assert EventSourceMapping(streams, "arn", function).poll() == 2
    assert seen == [[0, 2]]
