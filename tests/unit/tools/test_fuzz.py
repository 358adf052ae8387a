"""Sends mutated reviews and any bytes through the handler; and tests that the oracle can fail."""

import json
from collections import Counter
from itertools import product
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.events import BREAK, ENCODED, HEADERS, MARKED, event_of, joined
from fuzz.mistakes import MISTAKES
from fuzz.mutations import mutated
from fuzz.oracle import Bug, Checked, check
from fuzz.scenarios import SCENARIOS, _settings
from support.reviews_data import CAPTURED, captured

REVIEWS = {name: captured(name) for name in CAPTURED}
# Most bodies are plain, as the gateway passes them; with a wrong mark a body cannot be read.
ENCODINGS = (0, 0, 0, 0, MARKED | ENCODED, MARKED | ENCODED, MARKED, ENCODED)
bent = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def bend(dice: Random) -> bytes:
    """Make an input of one of the captured reviews."""
    body = json.dumps(mutated(REVIEWS[dice.choice(CAPTURED)], dice)).encode()
    timeout = dice.choice((b"10s", b"10s", b"10s", b"30s", b"1s", b"0s", b"-1s", b"999999999s"))
    encoding, scenario = dice.choice(ENCODINGS), dice.randrange(len(SCENARIOS))
    return joined(body, b"timeout=" + timeout, HEADERS, encoding, scenario)


@bent
@given(st.randoms(use_true_random=False))
def test_the_answer_to_any_mutated_review_satisfies_the_oracle(dice: Random) -> None:
    check(*event_of(bend(dice)))


@bent
@given(st.lists(st.binary() | st.text().map(str.encode) | st.sampled_from(["", "{}", "[", "\ufeff{}"]).map(str.encode)))
def test_any_bytes_are_answered(parts: list[bytes]) -> None:
    assert check(*event_of(BREAK.join(parts))).status in (200, 400)


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("scenario", range(len(SCENARIOS)))
def test_a_review_as_it_was_captured_is_an_input_and_is_answered(name: str, scenario: int) -> None:
    checked = check(*event_of(joined(json.dumps(REVIEWS[name]).encode(), scenario=scenario)))
    assert checked.status == 200 or SCENARIOS[scenario].refuses
    if scenario == 0:
        assert bool(checked.patch) is (name not in ("label-update.json", "nudge.json"))


def test_an_image_whose_tag_is_that_of_another_s_copy_is_no_mistake() -> None:
    review, digest = captured("create-pod.json"), "c0f429e1" * 8
    images = (f"gcr.io/a@sha256:{digest}", f"gcr.io/a:digest-sha256-{digest}")
    for order in (images, images[::-1]):
        review["request"]["object"]["spec"] = {
            "containers": [{"name": f"c{number}", "image": image} for number, image in enumerate(order)]
        }
        checked = check(*event_of(joined(json.dumps(review).encode())))
        assert [each["path"] for each in checked.patch if each["path"].startswith("/spec")] == [
            f"/spec/containers/{order.index(images[0])}/image"
        ]


def test_mutated_reviews_reach_every_kind_of_answer() -> None:
    def kind(checked: Checked) -> tuple[int, bool, bool]:
        return checked.status, bool(checked.patch), checked.calls > 0

    ends = Counter(kind(check(*event_of(bend(Random(seed))))) for seed in range(300))
    for end in (400, False, False), (503, False, True), *product((200,), (True, False), (True, False)):
        assert ends[end], f"none of {ends} is {end}"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_oracle_finds_each_of_these_mistakes(mistake: str, request: pytest.FixtureRequest) -> None:
    # The settings remember decisions, and those made under another mistake would be found here.
    _settings.cache_clear()
    request.addfinalizer(_settings.cache_clear)

    def judge(inputs: int) -> None:
        for seed in range(inputs):
            check(*event_of(bend(Random(seed))))

    with MISTAKES[mistake](), pytest.raises((AssertionError, Bug)):
        judge(6000)
