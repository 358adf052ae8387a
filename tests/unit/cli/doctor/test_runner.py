"""How doctor runs checks: each needs one registration, each answer is fetched once, missing answers are reported."""

from collections.abc import Callable, Sequence

import pytest
from botocore.exceptions import ClientError

from image_mirror.cli.doctor.accounts import SharedAccount
from image_mirror.cli.doctor.runner import Check, CheckResult, Context, Fetch, State, fetch, fine, run
from image_mirror.cli.errors import NoAnswerError


@pytest.fixture
def context() -> Context:
    return Context(SharedAccount("china"), SharedAccount("global"), None, "image-pulling")


def judge(count: int) -> Sequence[CheckResult]:
    return [fine("buckets", f"{count} buckets")]


def no_buckets(_: Context) -> int:
    raise NoAnswerError("S3 is closed", "wait")


def denied(_: Context) -> int:
    message = "You are not authorized to perform: s3:ListBuckets"
    raise ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "ListBuckets")


def test_a_check_needs_one_registration_and_its_missing_answer_is_reported(context: Context) -> None:
    buckets = Fetch("buckets", lambda _: 3)
    assert run([Check("buckets", judge, (buckets,))], context) == [fine("buckets", "3 buckets")]
    missing = Fetch("buckets", no_buckets)
    expected = CheckResult("buckets", State.SKIPPED, "S3 is closed", "wait")
    assert run([Check("buckets", judge, (missing,))], context) == [expected]


@pytest.mark.parametrize(
    ("call", "required", "state", "found"),
    [
        pytest.param(no_buckets, False, "skipped", "S3 is closed", id="unknown"),
        pytest.param(no_buckets, True, "failed", "S3 is closed", id="required"),
        pytest.param(denied, True, "skipped", "not permitted (s3:ListBuckets)", id="required-and-denied"),
    ],
)
def test_without_an_answer_nothing_has_failed_unless_it_is_required(
    call: Callable[[Context], int], required: bool, state: str, found: str, context: Context
) -> None:
    [result] = run([Check("buckets", judge, (Fetch("buckets", call),), required=required)], context)
    assert (result.state, result.found) == (state, found)


def test_a_check_that_needs_a_missing_answer_names_the_check_that_says_why(context: Context) -> None:
    buckets = Fetch("buckets", no_buckets)
    objects = Fetch("objects", lambda each: each.answer(buckets) * 100)
    unnamed = Fetch(None, lambda each: each.answer(buckets) * 100)
    checks = [Check("buckets", judge, (buckets,)), Check("objects", judge, (objects,)), Check("age", judge, (unnamed,))]
    results = run(checks, context)
    assert [each.found for each in results] == ["S3 is closed"] + ['not asked: it needs "buckets"'] * 2
    assert [each.needs for each in results] == [None, "buckets", "buckets"]


def test_what_nobody_reports_is_reported_by_each_that_needs_it(context: Context) -> None:
    shared = Fetch(None, no_buckets)
    objects = Fetch("objects", lambda each: each.answer(shared) * 100)
    checks = [Check("age", judge, (shared,)), Check("objects", judge, (objects,))]
    assert [(each.topic, each.found) for each in run(checks, context)] == [
        ("age", "S3 is closed"),
        ("objects", "S3 is closed"),
    ]


def test_each_is_fetched_once_for_all_that_need_it(context: Context) -> None:
    calls: list[Context] = []

    @fetch(None)
    def buckets(context: Context) -> int:
        calls.append(context)
        return len(calls)

    double = Fetch(None, lambda each: each.answer(buckets) * 2)
    checks = [Check("buckets", judge, (each,)) for each in (buckets, double, buckets)]
    # What is said twice is printed once.
    assert [each.found for each in run(checks, context)] == ["1 buckets", "2 buckets"]
    assert calls == [context]


def test_what_only_helps_is_none_where_it_is_missing(context: Context) -> None:
    def judge_with(count: int, age: int | None) -> Sequence[CheckResult]:
        return [fine("buckets", f"{count}, {age}")]

    buckets, age, missing = Fetch(None, lambda _: 3), Fetch(None, lambda _: 9), Fetch(None, no_buckets)
    checks = [Check("buckets", judge_with, (buckets,), helps=(each,)) for each in (age, missing)]
    assert [each.found for each in run(checks, context)] == ["3, 9", "3, None"]


def test_what_a_fetch_hides_is_masked_in_the_results_of_all(context: Context) -> None:
    @fetch(None)
    def secret(context: Context) -> str:
        context.hide("hunter", "hunter2", "")
        return "hunter2"

    def quote(secret: str) -> Sequence[CheckResult]:
        return [CheckResult("quote", State.FAILED, f"it is {secret}", f"change {secret}")]

    [result] = run([Check("quote", quote, (secret,))], context)
    assert (result.found, result.remedy) == ("it is ***", "change ***")


def test_a_bug_is_not_hidden(context: Context) -> None:
    with pytest.raises(ZeroDivisionError):
        run([Check("buckets", judge, (Fetch("buckets", lambda _: 1 // 0),))], context)
