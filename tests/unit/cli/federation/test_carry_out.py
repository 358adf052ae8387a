"""How a step is carried out where AWS answers otherwise than in a good run."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from image_mirror.cli.errors import NoAnswerError
from image_mirror.cli.federation import carry_out
from image_mirror.cli.federation.plan import Found, steps
from image_mirror.cli.probe_builds import NotProvenError
from unit.cli.federation.test_plan import CHINA_TRUSTS, PUSH, PUSHING, STARTS, TRUSTING, State

FAST = "ImagePullProjectFast"


def with_fast_lane() -> Found:
    found = TRUSTING.found()
    found.china.stack.parameters["GlobalFastProjectName"] = FAST  # type: ignore[index]
    found.world.stack.outputs["FastProjectName"] = FAST  # type: ignore[index]
    return found


class Calls:
    """The probes and the updates that a step makes, in their order; the probes of `failing` fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failing: str) -> None:
        self.made: list[tuple[str, Mapping[str, str]]] = []
        self.told: list[str] = []

        def prove(project: str, _: object, variables: Mapping[str, str], **more: Any) -> None:
            assert more["minutes"] <= 10
            self.made.append((project, variables))
            if project in failing:
                raise NotProvenError(f"the probe of {project} failed", has_failed=True)

        def update(stack: Any, values: Mapping[str, str], _: Callable[[str], None]) -> None:
            self.made.append((stack.name, values))

        monkeypatch.setattr(carry_out, "prove", prove)
        monkeypatch.setattr(carry_out, "update", update)
        monkeypatch.setattr("image_mirror.cli.accounts.Account.region", "us-west-2")

    def use_push(self, found: Found) -> None:
        carry_out._use_push(found, steps(found)[0], self.told.append, tries=1)


BY_ROLE, USED = {"CHINA_PUSH_ROLE_ARN": PUSH}, ("image-pulling", {"ChinaPushRoleArn": PUSH})


def test_the_builds_of_a_fast_lane_that_is_in_use_try_the_role_before_they_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(monkeypatch)
    calls.use_push(with_fast_lane())
    assert calls.made == [("ImagePullProject", BY_ROLE), (FAST, BY_ROLE), USED]


def test_a_fast_lane_that_cannot_use_the_role_is_named_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, FAST)
    calls.use_push(with_fast_lane())
    assert calls.made[-1] == USED
    assert [line for line in calls.told if line.startswith("the fast lane is not proven") and FAST in line]


def test_without_a_fast_lane_there_is_one_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    calls.use_push(TRUSTING.found())
    assert calls.made == [("ImagePullProject", BY_ROLE), USED]


@pytest.mark.parametrize(
    ("state", "made"),
    [
        pytest.param(
            PUSHING,
            [("image-mirror", STARTS), ("image-mirror", {"GlobalStartRoleArn": ""})],
            id="set by this run: taken back",
        ),
        pytest.param(
            replace(PUSHING, china={**CHINA_TRUSTS, **STARTS}), [], id="set before: it may be in use, so it stays"
        ),
    ],
)
def test_a_role_whose_proof_gets_no_answer(monkeypatch: pytest.MonkeyPatch, state: State, made: list[Any]) -> None:
    def silent(_: object) -> None:
        raise NoAnswerError("AWS does not answer")

    calls, found = Calls(monkeypatch), state.found()
    monkeypatch.setattr(carry_out, "ask_reconciler", silent)
    with pytest.raises(NoAnswerError):
        carry_out._use_start(found, steps(found)[0], calls.told.append)
    assert calls.made == made
