from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from headrace.control import strategies
from headrace.control.analysis.settings import AnalysisSettings, MetricSettings
from headrace.control.analysis.verdict import Finding
from headrace.control.rollout_state import ENDED, Phase, RolloutSpec, RolloutState
from headrace.control.rollout_story import Rollout, RolloutRequest, spec_of, steps_of
from headrace.core import errors
from tests import rollouts
from tests.observations import observe, tally


def request(**more: Any) -> RolloutRequest:
    return RolloutRequest("fraud", "8", **more)


def again(rollout: Rollout) -> Rollout:
    return msgspec.json.decode(msgspec.json.encode(rollout), type=Rollout)


def test_a_rollout_that_has_just_begun_is_encoded_and_decoded() -> None:
    assert again(rollouts.rollout()) == rollouts.rollout()


def test_a_judge_that_was_decoded_goes_on_where_it_was() -> None:
    first = rollouts.judged()
    second = again(first)
    assert second == first
    assert first.judge is not None
    assert second.judge is not None
    for _ in range(40):
        bad = observe(tally(ok=150, errors=50, ms=4.0), tally(ok=2000, errors=7, ms=4.0), tally(ok=200, ms=4.0))
        verdict = first.judge.look(bad)
        assert second.judge.look(bad) == verdict
    assert verdict.finding is Finding.FAIL
    assert again(second).judge == first.judge


@pytest.mark.parametrize("phase", list(Phase))
def test_it_has_ended_in_the_three_ends(phase: Phase) -> None:
    assert rollouts.rollout(state=RolloutState(phase, 1.0)).ended == (phase in ENDED)


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        ({}, strategies.canary("1,5,25,50")),
        ({"bake_s": 30.0}, strategies.canary("1,5,25,50", 30.0)),
        ({"canary": "10", "bake_s": 0.0}, strategies.canary("10", 0.0)),
        ({"linear": "25/30s"}, strategies.linear("25/30s")),
        ({"blue_green": True}, ()),
        ({"shadow_first": True}, strategies.shadow_first(strategies.canary("1,5,25,50"))),
        (
            {"shadow_first": True, "canary": "10", "bake_s": 9.0},
            strategies.shadow_first(strategies.canary("10", 9.0), bake_s=9.0),
        ),
        (
            {"shadow_first": True, "linear": "50/1m", "bake_s": 9.0},
            strategies.shadow_first(strategies.linear("50/1m"), bake_s=9.0),
        ),
    ],
)
def test_steps(more: dict[str, Any], steps: strategies.Steps) -> None:
    assert steps_of(request(**more)) == steps


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"canary": "5", "linear": "10/2m"}, "one strategy, got canary and linear"),
        ({"canary": "5", "blue_green": True}, "one strategy, got canary and blue-green"),
        ({"linear": "10/2m", "blue_green": True}, "one strategy, got linear and blue-green"),
        ({"blue_green": True, "shadow_first": True}, "combine shadow-first with canary or linear"),
        ({"blue_green": True, "bake_s": 5.0}, "set the time of the final bake"),
        ({"linear": "10/2m", "bake_s": 5.0}, "leave the bake time out"),
        ({"canary": "5,1"}, "steps must rise"),
    ],
)
def test_wrong_combinations_say_what_to_do(more: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.BadSettings, match=says):
        steps_of(request(**more))


@pytest.mark.parametrize("key", ["bake_s", "final_bake_s", "max_step_s"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_times_are_finite_and_not_negative(key: str, value: float) -> None:
    with pytest.raises(errors.BadSettings, match="a number of seconds from 0 on; got"):
        request(**{key: value})


def test_what_is_left_out_of_a_request_has_its_default() -> None:
    spec = spec_of(request(), "fraud@7", "fraud@8")
    assert spec == RolloutSpec("fraud", "fraud@7", "fraud@8", strategies.canary("1,5,25,50"))
    given = spec_of(request(blue_green=True, final_bake_s=0.0, max_step_s=5.0), "a", "b")
    assert given == RolloutSpec("fraud", "a", "b", (), final_bake_s=0.0, max_step_s=5.0)


def test_a_request_is_encoded_and_decoded() -> None:
    made = request(
        canary="5", final_bake_s=1.0, analysis=AnalysisSettings(metrics=(MetricSettings("loss", success="< 1"),))
    )
    assert msgspec.json.decode(msgspec.json.encode(made), type=RolloutRequest) == made
