"""Warnings: one line each, which kubectl prints whole."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image_mirror.decisions import Leave
from image_mirror.messages import (
    at_most_ten,
    copied_later,
    copying,
    failed,
    left_unchanged,
    not_read,
    not_requested,
    refused,
    restored,
    too_many,
    unknown_swap_when,
)
from image_mirror.reference import InvalidReferenceError, NoDestinationError, destination_of, parse_reference
from support.reviews_data import DIGEST, MIRROR

steady = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
any_text = (
    st.text(max_size=30)
    | st.text(min_size=60, max_size=400)
    | st.text(alphabet="\0\n\x1b\u202eé\U0001f600", max_size=60)
)


@pytest.mark.parametrize(
    ("warning", "text"),
    [
        pytest.param(
            copying("gcr.io/x:1"),
            "gcr.io/x:1 is being copied to ECR; the pod waits in ImagePullBackOff until it arrives",
            id="copying",
        ),
        pytest.param(
            copied_later("gcr.io/x:1"),
            "gcr.io/x:1 is being copied to ECR; this pod keeps the source, later pods get the copy",
            id="copied-later",
        ),
        pytest.param(
            not_requested("gcr.io/x:1"),
            "gcr.io/x:1 stays as written: ECR has no copy yet, and image-mirror is paused: it requests none",
            id="not-requested",
        ),
        pytest.param(
            not_read("gcr.io/x:1"),
            "gcr.io/x:1 stays as written: the table does not answer, and image-mirror is paused",
            id="not-read",
        ),
        pytest.param(
            unknown_swap_when("pause"),
            "pause is no value of the label image-mirror/swap-when (always, copied, paused) and is ignored",
            id="unknown-swap-when",
        ),
        pytest.param(
            failed("gcr.io/x:1", "NOT_FOUND", 60),
            "gcr.io/x:1 stays as written, its copy failed: NOT_FOUND; a new pod retries after 60 min",
            id="failed",
        ),
        pytest.param(
            refused("nginx:9.99", "NOT_FOUND", 2, 5, waits=True),
            "nginx:9.99: NOT_FOUND, 2 of 5 attempts; it waits for its copy",
            id="refused",
        ),
        pytest.param(
            refused("nginx:9.99", "DENIED", 1, 5, waits=False),
            "nginx:9.99: DENIED, 1 of 5 attempts; this pod keeps the source",
            id="refused-and-the-source-kept",
        ),
        pytest.param(
            refused("nginx:9.99", "", 4, 5, waits=True),
            "nginx:9.99: 4 of 5 attempts; it waits for its copy",
            id="refused-for-an-unknown-reason",
        ),
        pytest.param(
            restored("gcr.io/x:1"),
            "gcr.io/x:1: the pod keeps the image that it has already in place of this one",
            id="restored",
        ),
        pytest.param(
            too_many(450),
            "450 images stay as written: too many are new; run image-mirror warm or raise MaxNewImages, "
            "then recreate the pod",
            id="too-many",
        ),
        pytest.param(
            too_many(1),
            "1 image stays as written: too many are new; run image-mirror warm or raise MaxNewImages, "
            "then recreate the pod",
            id="one-too-many",
        ),
        pytest.param(left_unchanged("auto", "it is empty"), "auto stays as written: it is empty", id="left-alone"),
        pytest.param(left_unchanged("", "it is empty"), "'' stays as written: it is empty", id="empty-name"),
    ],
)
def test_a_short_warning_says_what_happens_in_full(warning: str, text: str) -> None:
    assert warning == text


@steady
@given(any_text, any_text, st.integers(0, 525_600))
def test_a_warning_is_one_printable_line_of_at_most_120_characters(image: str, reason: str, minutes: int) -> None:
    of_refusal = (refused(image, reason, minutes, 5, waits=waits) for waits in (True, False))
    others = (copying(image), copied_later(image), failed(image, reason, minutes), left_unchanged(image, reason))
    of_swap_when = (not_requested(image), unknown_swap_when(image))
    for warning in (*others, *of_refusal, *of_swap_when, restored(image), too_many(minutes + 1)):
        assert 0 < len(warning) <= 120
        assert warning.isprintable()
        warning.encode()


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        pytest.param("a\nb", r"a\nb", id="newline"),
        pytest.param("a\x1b[31mb", r"a\x1b[31mb", id="terminal-escape"),
        pytest.param("a\u202eb", r"a\u202eb", id="right-to-left-override"),
        pytest.param("a\u2028b", r"a\u2028b", id="line-separator"),
        pytest.param("a\x7fb\x85c", r"a\x7fb\x85c", id="delete-and-next-line"),
        pytest.param("a\ud800b", r"a\ud800b", id="lone-surrogate"),
        pytest.param("é镜像", "é镜像", id="letters-stay"),
    ],
)
def test_control_characters_are_escaped(image: str, shown: str) -> None:
    assert copying(image).startswith(shown + " is being copied")
    assert f"copy failed: {shown};" in failed("x", image, 60)


@pytest.mark.parametrize("wording", [copying, copied_later])
def test_a_long_reference_keeps_its_beginning_and_its_end(wording: object) -> None:
    assert callable(wording)
    image = "registry.example.com/" + "x" * 200 + ":v1.2.3-tag"
    warning = wording(image)
    head, dots, rest = warning.partition("...")
    assert image.startswith(head)
    assert len(head) >= 8
    assert dots
    assert rest.split(" ")[0].endswith(":v1.2.3-tag")
    assert image.endswith(rest.split(" ")[0])
    assert len(warning) == 120


def test_a_reference_that_just_fits_is_not_shortened() -> None:
    room = 120 - len(copying("x")) + 1
    assert copying("x" * room).startswith("x" * room + " ")
    assert "..." in copying("x" * (room + 1))


words = st.text(alphabet="abc/:. ", min_size=1, max_size=90)


@steady
@given(words, words)
def test_nothing_is_cut_from_a_warning_that_fits(image: str, reason: str) -> None:
    for warning, whole in (
        (left_unchanged(image, reason), f"{image} stays as written: {reason}"),
        (
            failed(image, reason, 60),
            f"{image} stays as written, its copy failed: {reason}; a new pod retries after 60 min",
        ),
    ):
        assert len(whole) > 120 or warning == whole


def test_a_long_image_that_an_update_does_not_change_keeps_its_beginning_and_its_end() -> None:
    warning = restored("registry.example.com/" + "x" * 200 + ":v1.2.3")
    assert warning.startswith("registry")
    assert warning.endswith(":v1.2.3: the pod keeps the image that it has already in place of this one")
    assert len(warning) == 120


def test_a_long_reason_of_a_refusal_leaves_room_for_the_image_and_the_count() -> None:
    warning = refused("registry.example.com/" + "x" * 200 + ":v1.2.3", "r" * 500, 2, 5, waits=True)
    assert warning.startswith("registry")
    assert ":v1.2.3: rrr" in warning
    assert warning.endswith("r, 2 of 5 attempts; it waits for its copy")


def test_a_long_reason_leaves_room_for_the_image_and_for_what_to_do() -> None:
    warning = failed("registry.example.com/" + "x" * 200 + ":v1.2.3", "r" * 500, 60)
    assert warning.startswith("registry")
    assert ":v1.2.3 stays as written, its copy failed: rrr" in warning
    assert warning.endswith("; a new pod retries after 60 min")


@pytest.mark.parametrize(
    "image",
    [
        pytest.param("Nginx", id="upper-case"),
        pytest.param("__X__", id="placeholder"),
        pytest.param("nginx:", id="tag"),
        pytest.param("a@sha256:1", id="digest"),
        pytest.param("a_b.c/d", id="registry"),
        pytest.param("a.b//c", id="repository"),
        pytest.param("GCR.IO/x", id="no-destination"),
    ],
)
def test_beside_a_short_name_the_cause_is_printed_whole(image: str) -> None:
    """A sentence that is cut within a word is of no use."""
    decision = MIRROR.decide(image)[0]
    assert isinstance(decision, Leave)
    assert decision.warning is not None
    try:
        destination_of(parse_reference(image), MIRROR.registry, MIRROR.prefix)
    except (InvalidReferenceError, NoDestinationError) as error:
        cause = error.cause
    assert decision.warning == f"{image} stays as written: {cause}"


def test_ten_warnings_are_printed_and_the_rest_counted() -> None:
    warnings = [copying(f"x:{number}") for number in range(25)]
    assert at_most_ten(warnings[:10]) == warnings[:10]
    assert at_most_ten(warnings[:11]) == [*warnings[:10], "and 1 more"]
    assert at_most_ten(warnings) == [*warnings[:10], "and 15 more"]
    assert at_most_ten([]) == []


def test_a_warning_is_given_once_and_counted_once() -> None:
    warnings = [copying(f"x:{number % 11}") for number in range(100)]
    assert at_most_ten(warnings[:10] * 3) == warnings[:10]
    assert at_most_ten(warnings) == [*warnings[:10], "and 1 more"]


@steady
@given(st.lists(any_text.map(copying)))
def test_all_warnings_together_stay_below_what_the_api_server_cuts(warnings: list[str]) -> None:
    printed = at_most_ten(warnings)
    assert len(printed) <= 11
    assert sum(len(warning) for warning in printed) <= 4096


def test_a_digest_keeps_its_last_digits() -> None:
    warning = copying(f"registry.example.com/team/project/application@{DIGEST}")
    assert DIGEST[-12:] + " is being copied" in warning


@pytest.mark.parametrize(
    "image",
    [
        pytest.param("gcr.io/some-project/some-team/some-application:_" + "v" * 128, id="tag"),
        pytest.param("gcr.io/some-project/some-team/some-application:.1", id="start-of-a-tag"),
        pytest.param("a-" * 500, id="repository"),
        pytest.param("gcr.io/" + "a" * 250, id="name"),
    ],
)
def test_the_cause_is_whole_beside_a_long_name(image: str) -> None:
    decision, _ = MIRROR.decide(image)
    assert isinstance(decision, Leave)
    try:
        destination_of(parse_reference(image), MIRROR.registry, MIRROR.prefix)
    except (InvalidReferenceError, NoDestinationError) as error:
        cause = error.cause
    assert (decision.warning or "").endswith(f" stays as written: {cause}")
