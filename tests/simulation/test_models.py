"""The simulation's models behave like AWS."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from image_mirror.aws import CallLimits
from simulation.codebuild import EC2, TOKEN_HELD_FOR, CodeBuild, Lane
from simulation.ecr import Registry
from simulation.expressions import ExpressionError, Scope, apply_update, parse_condition, parse_update
from simulation.faults import FAULTS, NO_FAULTS
from simulation.patterns import matches
from simulation.replacements import Executor
from simulation.sources import Sources
from simulation.stream import Stream
from simulation.table import DynamoDB, Table
from simulation.threads import Process
from simulation.world import World

ITEM = {"a": {"S": "x"}, "n": {"N": "9"}}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        pytest.param("attribute_exists(a)", True, id="exists"),
        pytest.param("attribute_not_exists(#b)", True, id="not-exists"),
        pytest.param("a = :x AND n < :ten", True, id="and"),
        pytest.param("a = :ten OR NOT n >= :ten", True, id="numbers-compare-as-numbers"),
        pytest.param("#b = :x", False, id="missing-is-never-equal"),
        pytest.param("NOT a IN (:ten, :x)", False, id="in"),
        pytest.param("(a = :x OR a = :x) AND n = :ten", False, id="parentheses"),
    ],
)
def test_conditions_hold_as_they_are_written(text: str, holds: bool) -> None:
    scope = Scope(ITEM, {"#b": "b"}, {":x": {"S": "x"}, ":ten": {"N": "10"}})
    assert parse_condition(text).holds(scope) is holds


@pytest.mark.parametrize("text", ["size(a) = :x", "a = ", "a = :x)", "a + :x", "begins_with(a, :x)"])
def test_what_is_not_modelled_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse_condition(text)


def test_an_update_sets_and_removes_from_the_item_as_it_was() -> None:
    update = parse_update("SET b = a, #n = :n REMOVE a")
    after = apply_update(update, Scope(ITEM, {"#n": "n"}, {":n": {"N": "1"}}))
    assert after == {"b": {"S": "x"}, "n": {"N": "1"}}


def run(world: World, *functions: Any) -> None:
    for function in functions:
        instance = type("Instance", (), {"calls": world.counts})()
        world.threads.start(Process(instance), function)
    world.clock.run(3600)


def put(client: DynamoDB, tag: str, **attributes: Any) -> None:
    client.put_item(
        Item={"repo": {"S": "r"}, "tag": {"S": tag}, **attributes},
        ConditionExpression="attribute_not_exists(repo)",
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )


def test_the_loser_of_a_conditional_put_gets_the_winners_item() -> None:
    world = World(0, NO_FAULTS)
    client = DynamoDB(world, Table(world), CallLimits(connect=1, read=1, attempts=1))
    lost: list[Any] = []

    def second() -> None:
        try:
            put(client, "1", source={"S": "second"})
        except ClientError as error:
            lost.append(error.response.get("Item"))

    run(world, lambda: put(client, "1", source={"S": "first"}), second)
    assert [item["source"] for item in lost] == [{"S": "first"}]


def test_the_index_follows_later_and_its_pages_lose_nothing() -> None:
    world = World(0, FAULTS.times(0))
    table = Table(world)
    client = DynamoDB(world, table, CallLimits(connect=1, read=1, attempts=1))
    seen: list[list[str]] = []

    def query() -> None:
        pages = client.paginate(
            KeyConditionExpression="due = :due AND due_at <= :now",
            ExpressionAttributeValues={":due": {"S": "DUE"}, ":now": {"N": "249"}},
        )
        seen.append([item["tag"]["S"] for page in pages for item in page["Items"]])

    def write() -> None:
        for number in range(300):
            put(client, f"{number:03}", due={"S": "DUE"}, due_at={"N": str(number)})
        query()
        world.threads.sleep(10)
        query()

    run(world, write)
    assert len(seen[0]) < 250
    assert seen[1] == [f"{number:03}" for number in range(250)]


def test_one_token_starts_one_build_for_five_minutes_and_a_full_queue_refuses() -> None:
    world = World(0, NO_FAULTS)
    registry = Registry(world, lambda _: None)
    codebuild = CodeBuild(world, registry, Sources(world), Lane(EC2, 1))

    def start(tag: str, token: str) -> str:
        variables = {"DOCKER_IMAGE": f"gcr.io/a:{tag}", "NEW_DOCKER_IMAGE": f"host/mirror/gcr.io/a:{tag}"}
        return codebuild.start(EC2.project, variables, token).build_id

    first = start("1", "t")
    assert start("1", "t") == first
    with pytest.raises(ClientError, match="InvalidInputException"):
        start("2", "t")
    for number in range(5):
        start(f"queued{number}", str(number))
    with pytest.raises(ClientError, match="AccountLimitExceededException"):
        start("3", "u")
    world.clock.run(TOKEN_HELD_FOR)
    assert start("1", "t") != first


def test_a_batch_that_fails_goes_on_from_its_lowest_number_and_a_crashed_one_is_halved() -> None:
    world = World(0, NO_FAULTS)
    batches: list[list[str]] = []

    def invoke(event: dict[str, Any], done: Any) -> None:
        batches.append([entry["dynamodb"]["Keys"]["tag"]["S"] for entry in event["Records"]])
        numbers = [entry["dynamodb"]["SequenceNumber"] for entry in event["Records"]]
        if len(batches) == 1:
            done({"batchItemFailures": [{"itemIdentifier": number} for number in numbers[2:]]})
        else:
            done(None if len(batches) == 2 else {"batchItemFailures": []})

    pattern = '{"dynamodb":{"NewImage":{"status":{"S":["REQUESTED"]}}}}'
    mapping = {"FilterCriteria": {"Filters": [{"Pattern": pattern}]}, "BatchSize": 100, "MaximumRetryAttempts": 10}
    stream = Stream(world, mapping, invoke)
    stream.changed(("r", "1"), None, {"status": {"S": "COPIED"}})
    for _ in range(4):
        stream.changed(("r", "1"), None, {"status": {"S": "REQUESTED"}})
    world.clock.run(3600)
    assert [len(batch) for batch in batches] == [4, 2, 1, 1]
    assert stream.idle


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        pytest.param({"a": ["x", "y"]}, True, id="one-of"),
        pytest.param({"b": {"c": [{"prefix": "mir"}]}}, True, id="prefix"),
        pytest.param({"b": {"d": [{"exists": True}]}}, False, id="exists"),
        pytest.param({"b": {"c": ["other"]}}, False, id="another-value"),
    ],
)
def test_event_patterns_match_as_event_bridge_does(pattern: dict[str, Any], matched: bool) -> None:
    assert matches(pattern, {"a": "x", "b": {"c": "mirror/x"}}) is matched


def test_threads_interleave_at_calls_and_crash_together() -> None:
    world = World(0, NO_FAULTS)
    steps: list[str] = []

    def step(name: str) -> str:
        for number in range(3):
            world.threads.sleep(1)
            steps.append(f"{name}{number}")
        return name

    def invocation() -> None:
        assert list(Executor(world.threads, 2).map(step, "ab")) == ["a", "b"]
        steps.append("end")
        Executor(world.threads, 2).submit(step, "lost")
        world.threads.sleep(1.5)
        world.threads.crash(world.threads.process)

    run(world, invocation)
    assert steps == ["a0", "b0", "a1", "b1", "a2", "b2", "end", "lost0"]
