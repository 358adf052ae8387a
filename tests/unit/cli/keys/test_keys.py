"""The rotation of access keys: the plan alone, and whole runs that are interrupted anywhere, with a model of AWS."""

import itertools
import json
import re
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from hypothesis import given, settings
from hypothesis import strategies as st

from image_mirror.aws import AccessKey
from image_mirror.cli.keys import probe, rotation
from image_mirror.cli.keys.plan import (
    KeySource,
    NeedsAttentionError,
    NoRoomError,
    Plan,
    StoredKeys,
    UserKey,
    plan,
    shown,
)
from image_mirror.cli.keys.rotation import examine, one_rotation
from support.modelled_keys import NOW, Aws, Clock, CutOff, pass_time, write_again


def user_key(name: str, *, active: bool = True, hours: float = 24, used: bool = True) -> UserKey:
    return UserKey(name, active, NOW - timedelta(hours=hours), NOW if used else None)


OLD, NEW, STRAY = user_key("OLD"), user_key("NEW"), user_key("STRAY")
LOST = user_key("LOST", used=False)
MINUTES_AGO, DAYS_AGO = NOW - timedelta(minutes=20), NOW - timedelta(hours=25)
INACTIVE = user_key("INACTIVE", active=False)
UNUSED = user_key("UNUSED", used=False)


@pytest.mark.parametrize(
    ("keys", "stored", "works", "rotate", "expected"),
    [
        pytest.param([], StoredKeys(), False, False, Plan(KeySource.NEW), id="none-yet"),
        pytest.param([OLD], StoredKeys("OLD"), True, False, Plan(KeySource.CURRENT), id="it-works"),
        pytest.param([OLD], StoredKeys("FOREIGN"), False, False, Plan(KeySource.NEW, kept=(OLD,)), id="anothers-key"),
        pytest.param([OLD], StoredKeys("OLD"), False, False, Plan(KeySource.NEW, kept=(OLD,)), id="it-is-refused"),
        pytest.param([OLD], StoredKeys("OLD"), True, True, Plan(KeySource.NEW, delete_last=OLD), id="rotated"),
        pytest.param(
            [OLD], StoredKeys("OLD"), False, True, Plan(KeySource.NEW, delete_last=OLD), id="rotated-though-refused"
        ),
        pytest.param([], StoredKeys(), False, True, Plan(KeySource.NEW), id="rotated-with-none-yet"),
        pytest.param(
            [OLD, NEW],
            StoredKeys("OLD", "NEW"),
            True,
            True,
            Plan(KeySource.PENDING, delete_last=OLD),
            id="cut-off-early",
        ),
        pytest.param(
            [OLD, NEW],
            StoredKeys("NEW", None, "OLD", MINUTES_AGO),
            True,
            True,
            Plan(KeySource.CURRENT, delete_last=OLD),
            id="cut-off-late",
        ),
        pytest.param(
            [OLD, NEW],
            StoredKeys("NEW", None, "OLD", DAYS_AGO),
            True,
            True,
            Plan(KeySource.NEW, delete_first=OLD, delete_last=NEW),
            id="cut-off-late-and-another-begun-days-later",
        ),
        pytest.param(
            [OLD, NEW],
            StoredKeys("NEW", None, "OLD", DAYS_AGO),
            False,
            True,
            None,
            id="the-previous-key-makes-no-room-if-the-new-key-does-not-work",
        ),
        pytest.param(
            [OLD],
            StoredKeys("OLD", None, "OLD"),
            True,
            True,
            Plan(KeySource.NEW, delete_last=OLD),
            id="written-again-by-hand",
        ),
        pytest.param(
            [OLD, NEW], StoredKeys("OLD", "NEW"), True, False, Plan(KeySource.CURRENT, kept=(NEW,)), id="not-rotated"
        ),
        pytest.param([NEW], StoredKeys(None, "NEW"), False, False, Plan(KeySource.PENDING), id="first-run-cut-off"),
        pytest.param(
            [OLD, STRAY], StoredKeys("OLD"), True, False, Plan(KeySource.CURRENT, kept=(STRAY,)), id="a-stray"
        ),
        pytest.param([OLD, STRAY], StoredKeys("OLD"), True, True, None, id="a-stray-in-use-is-not-deleted"),
        pytest.param([OLD, STRAY], StoredKeys("FOREIGN"), False, False, None, id="nor-is-either-of-two"),
        pytest.param([OLD, LOST], StoredKeys("OLD"), True, True, None, id="nor-is-one-without-a-known-use"),
        pytest.param(
            [OLD, INACTIVE],
            StoredKeys("OLD"),
            True,
            True,
            Plan(KeySource.NEW, INACTIVE, OLD),
            id="an-inactive-one-makes-room",
        ),
        pytest.param(
            [INACTIVE, STRAY],
            StoredKeys("INACTIVE"),
            False,
            False,
            Plan(KeySource.NEW, delete_first=INACTIVE, kept=(STRAY,)),
            id="and-the-secrets-own-inactive-one",
        ),
        pytest.param([UNUSED, STRAY], StoredKeys("UNUSED"), False, False, None, id="but-no-other-one-of-the-secrets"),
        pytest.param(
            [OLD, INACTIVE],
            StoredKeys("OLD", "INACTIVE"),
            True,
            True,
            Plan(KeySource.NEW, INACTIVE, OLD),
            id="an-inactive-one-waits",
        ),
    ],
)
def test_the_plan_follows_from_keys_and_secret(
    keys: list[UserKey], stored: StoredKeys, works: bool, rotate: bool, expected: Plan | None
) -> None:
    if expected is None:
        with pytest.raises(NoRoomError) as caught:
            plan(keys, stored, works=works, rotate=rotate, now=NOW)
        assert list(caught.value.keys) == keys
    else:
        assert plan(keys, stored, works=works, rotate=rotate, now=NOW) == expected


def test_an_access_key_is_shown_by_its_last_four_characters() -> None:
    key = user_key("AKIAIOSFODNN7EXAMPLE", used=False, hours=2)
    assert (str(key), shown(key.access_key_id)) == ("...MPLE", "...MPLE")
    assert key.details == "...MPLE (active, created 2026-11-23 10:00, no known use)"


# ---- whole runs ----


def run_and_fix(sides: list[Aws], *, rotate: bool) -> None:
    """Run the command. If keys must be deleted by hand first, delete them and run it again."""
    for _ in range(3):
        try:
            return run(sides, rotate=rotate)
        except NeedsAttentionError as error:
            for problem, side in itertools.product(error.problems, sides):
                ending, *_ = re.findall(rf"--user-name {side.name} .*?the one that ends in (\w+)", problem) or ["none"]
                for name in [name for name in side.keys if name.endswith(ending)]:
                    side.client("iam").delete_access_key(AccessKeyId=name)
    raise AssertionError("the remedies were applied, and do not help")


def run(sides: list[Aws], *, rotate: bool) -> None:
    """One run of the command for both keys."""
    states = one_rotation([examine(each.setup(), rotate=rotate) for each in sides])
    for state in states:
        assert list(state.describe())
        list(state.steps())
    rotation.carry_out(states, lambda _: None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "datetime", Clock)
    # Only the command's own pauses advance this clock.
    passed = [0.0]

    def pause(seconds: float) -> None:
        passed[0] += seconds

    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: passed[0], sleep=pause))


PLACEHOLDER = json.dumps({"Region": "cn-north-1", "AccessKey": "", "AccessSecretKey": "", "Other": "kept"})
ERRORS: list[BaseException] = [
    CutOff(),
    KeyboardInterrupt(),
    ReadTimeoutError(endpoint_url="https://x"),
    ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "X"),
]


def both(refusals: int) -> list[Aws]:
    """Return one side with an empty secret of a stack, and one without a secret."""
    made_by_a_stack = Aws(refusals=refusals)
    made_by_a_stack.client("secretsmanager").put_secret_value(SecretString=PLACEHOLDER)
    return [made_by_a_stack, Aws(exists=False, name="other", refusals=refusals)]


@settings(max_examples=300)
@given(data=st.data())
def test_whatever_interrupts_a_run_a_key_that_worked_still_works_and_the_next_run_continues(
    data: st.DataObject,
) -> None:
    sides = both(data.draw(st.integers(0, 2)))
    for number in range(data.draw(st.integers(1, 4))):
        rotate = data.draw(st.booleans(), label=f"run {number} rotates")
        worked = [side.works() for side in sides]
        pass_time(sides, hours=data.draw(st.sampled_from([0, 5])))
        if data.draw(st.booleans(), label="another entry is changed by hand") and sides[number % 2].exists:
            write_again(sides[number % 2])
        for side in sides:
            side.calls, side.dead = 0, False
            side.cut = data.draw(st.integers(-1, 4))
            side.takes_effect = data.draw(st.booleans())
            side.kills = data.draw(st.booleans())
            side.error = CutOff() if side.kills else data.draw(st.sampled_from(ERRORS))
        with suppress(CutOff, KeyboardInterrupt, ClientError, ReadTimeoutError, NeedsAttentionError):
            run(sides, rotate=rotate)
        for side, before in zip(sides, worked, strict=True):
            side.dead, side.cut = False, -1
            assert side.works() or not before
    pass_time(sides, hours=5)  # by now AWS knows of each use
    run_and_fix(sides, rotate=False)
    assert all(side.works() for side in sides)
    run_and_fix(sides, rotate=True)
    if [len(side.keys) for side in sides] != [1, 1]:
        run_and_fix(sides, rotate=True)
    assert all(side.works() for side in sides)
    assert [list(side.keys) for side in sides] == [[side.current()] for side in sides]
    assert json.loads(sides[0].label("AWSCURRENT")["text"])["Other"] == "kept"  # type: ignore[index]


@pytest.mark.parametrize("takes_effect", [True, False])
@pytest.mark.parametrize("cut", range(4))
@pytest.mark.parametrize("side", [0, 1])
def test_a_rotation_that_was_interrupted_is_finished_by_the_next_and_no_second_one_begins(
    side: int, cut: int, takes_effect: bool
) -> None:
    sides = both(0)
    run(sides, rotate=False)
    first = [each.current() for each in sides]
    sides[side].calls, sides[side].cut, sides[side].takes_effect = 0, cut, takes_effect
    sides[side].error = KeyboardInterrupt()
    with suppress(KeyboardInterrupt):
        run(sides, rotate=True)
    sides[side].cut = -1
    pass_time(sides, hours=5)
    run_and_fix(sides, rotate=True)
    assert all(each.works() and len(each.keys) == 1 for each in sides)
    assert not {each.current() for each in sides} & set(first)
    is_lost = (cut == 0 and takes_effect) or cut == 1  # a key that was made and is in no secret
    had_ended = (side, cut, takes_effect) == (0, 3, True)  # all but the answer to the last call had come
    assert (sides[side].made, sides[1 - side].made) == (3 if is_lost or had_ended else 2, 3 if had_ended else 2)


@pytest.mark.parametrize("hours", [1, 25])
@pytest.mark.parametrize("cut_side", [0, 1])
def test_a_rotation_a_day_after_one_that_was_not_finished_makes_new_keys(cut_side: int, hours: int) -> None:
    sides = both(0)
    run(sides, rotate=False)
    side = sides[cut_side]
    side.calls, side.cut, side.error = 0, 3, KeyboardInterrupt()  # its old key is to be deleted
    with suppress(KeyboardInterrupt):
        run(sides, rotate=True)
    side.cut = -1
    assert len(side.keys) == 2
    stored = [each.current() for each in sides]
    pass_time(sides, hours=hours)
    run(sides, rotate=True)
    assert all(each.works() and list(each.keys) == [each.current()] for each in sides)
    assert [each.current() != before for each, before in zip(sides, stored, strict=True)] == [hours > 24] * 2


def test_a_setup_whose_key_is_old_is_rotated_while_the_other_ones_rotation_is_ended() -> None:
    [ending, old] = sides = both(0)
    run(sides, rotate=False)
    pass_time(sides, hours=720)
    ending.calls, ending.cut = 0, 3
    with suppress(CutOff):
        run([ending], rotate=True)
    ending.cut = -1
    before = [each.current() for each in sides]
    run(sides, rotate=True)
    assert (ending.current(), len(ending.keys)) == (before[0], 1)
    assert (old.current() != before[1], len(old.keys)) == (True, 1)


@pytest.mark.parametrize("is_used", [True, False])
def test_a_key_that_another_put_beside_it_is_never_deleted(is_used: bool) -> None:
    [side, other] = both(0)
    run([side, other], rotate=False)
    made = side.client("iam").create_access_key()["AccessKey"]
    if is_used:
        side.test_key(AccessKey("", made["AccessKeyId"], made["SecretAccessKey"]))
    pass_time([side, other], hours=720)
    use = "last used" if is_used else "no known use"
    end = made["AccessKeyId"][-4:]
    user = "--region cn-north-1 --user-name user"
    delete = rf"delete-access-key {user} --access-key-id '<the one that ends in {end}>'"
    with pytest.raises(
        NeedsAttentionError, match=rf"has two keys, .*: \.\.\.\w+ \(active, .*\), in the secret and .*{use}.*{delete}"
    ):
        run([side, other], rotate=True)
    run([side, other], rotate=False)
    assert len(side.keys) == 2


def test_what_somebody_else_puts_into_the_secret_is_not_taken_away() -> None:
    side = both(0)[0]
    run([side], rotate=False)
    state = examine(side.setup(), rotate=True)
    running = rotation.prepare(state, lambda _: None)
    running.wait_until_it_works()
    running.make_current()
    side.client("secretsmanager").put_secret_value(SecretString=PLACEHOLDER)
    with pytest.raises(NeedsAttentionError, match="somebody else has just changed it"):
        running.delete_old()
    assert len(side.keys) == 2


def put_back(side: Aws, name: str) -> None:
    """Make an earlier key current again, as another operator or an update of the stack could do."""
    entries = {"Region": "cn-north-1", "AccessKey": name, "AccessSecretKey": f"secret of {name}"}
    side.client("secretsmanager").put_secret_value(SecretString=json.dumps(entries))


def test_an_old_key_that_the_secret_contains_again_while_builds_end_is_not_deleted() -> None:
    side = both(0)[0]
    run([side], rotate=False)
    old = side.current()
    setup = replace(side.setup(), wait_for_users=lambda _: put_back(side, old))
    running = rotation.prepare(examine(setup, rotate=True), lambda _: None)
    running.wait_until_it_works()
    running.make_current()
    with pytest.raises(NeedsAttentionError, match=r"somebody else has just changed it; key .* is not deleted"):
        running.delete_old()
    assert side.current() == old
    assert side.works()


def test_an_old_key_that_the_secret_contains_again_is_not_deleted_to_make_room() -> None:
    side = both(0)[0]
    run([side], rotate=False)
    old = side.current()
    side.calls, side.cut = 0, 3
    with suppress(CutOff):
        run([side], rotate=True)
    side.cut = -1
    pass_time([side], hours=25)
    state = examine(side.setup(), rotate=True)
    put_back(side, old)
    with pytest.raises(NeedsAttentionError, match=r"somebody else has just changed it; key .* is not deleted"):
        rotation.prepare(state, lambda _: None)
    assert side.works()


def test_what_somebody_else_gives_while_a_new_key_is_tried_is_not_overwritten() -> None:
    side = both(0)[0]
    run([side], rotate=False)
    running = rotation.prepare(examine(side.setup(), rotate=True), lambda _: None)
    running.wait_until_it_works()
    put_back(side, "AKIAOTHER")
    with pytest.raises(NeedsAttentionError, match=r"somebody else has just changed it; key .* is not made current"):
        running.make_current()
    assert side.current() == "AKIAOTHER"


def test_an_old_key_that_somebody_else_deletes_meanwhile_counts_as_deleted() -> None:
    side = both(0)[0]
    printed: list[str] = []
    run([side], rotate=False)
    old = side.current()
    setup = replace(side.setup(), wait_for_users=lambda _: side.client("iam").delete_access_key(AccessKeyId=old))
    rotation.carry_out([examine(setup, rotate=True)], printed.append)
    assert printed[-1] == f"user (china): key {shown(old)} was already deleted"
    assert list(side.keys) == [side.current()]


def test_an_unused_key_from_before_the_secret_was_written_by_hand_is_deleted() -> None:
    side = both(0)[0]
    run([side], rotate=False)
    state = examine(side.setup(), rotate=True)
    waiting = rotation.prepare(state, lambda _: None).key.access_key_id
    pass_time([side], hours=5)
    for _ in range(2):  # so that it is not the version before the current one either
        write_again(side)
    run_and_fix([side], rotate=True)
    assert waiting not in side.keys
    assert side.works()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(
            ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DeleteAccessKey"),
            "(AWS: Delete",
            id="refused",
        ),
        pytest.param(ResponseParserError("<html>"), "(the answer is not from AWS", id="a-page-of-a-proxy"),
    ],
)
def test_a_key_that_could_neither_be_stored_nor_deleted_is_named(
    error: Exception, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    side = both(0)[0]
    side.cut, side.kills, side.error = 2, False, ERRORS[3]  # its third change, after the placeholder and the key
    state = examine(side.setup(), rotate=False)

    def refuse(**_: str) -> None:
        raise error

    state.setup.iam.delete_access_key = refuse
    with pytest.raises(ClientError):
        rotation.prepare(state, lambda _: None)
    [name] = side.keys
    printed = capsys.readouterr().err
    assert f"key ...{name[-4:]} of user (china) was created, could not be stored, and still exists {words}" in printed
    assert f"--user-name user --access-key-id '<the one that ends in {name[-4:]}>'" in printed
    assert "secret of" not in printed
