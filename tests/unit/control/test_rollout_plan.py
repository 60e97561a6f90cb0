from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from headrace.control import strategies
from headrace.control.analysis.settings import AnalysisSettings, MetricSettings
from headrace.control.rollout_plan import RolloutPlan, RolloutRequest, planned, steps_of
from headrace.core import errors


def request(**more: Any) -> RolloutRequest:
    return RolloutRequest("fraud", "8", **more)


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
    assert steps_of(planned(request(**more), RolloutPlan())) == steps


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
        steps_of(planned(request(**more), RolloutPlan()))


@pytest.mark.parametrize("key", ["bake_s", "final_bake_s", "max_step_s"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_times_are_finite_and_not_negative(key: str, value: float) -> None:
    with pytest.raises(errors.BadSettings, match="a number of seconds from 0 on; got"):
        request(**{key: value})


def test_a_request_is_encoded_and_decoded() -> None:
    made = request(
        canary="5", final_bake_s=1.0, analysis=AnalysisSettings(metrics=(MetricSettings("loss", success="< 1"),))
    )
    assert msgspec.json.decode(msgspec.json.encode(made), type=RolloutRequest) == made


STRICT = AnalysisSettings(false_alarm=0.001)
MANUAL = AnalysisSettings(block_s=5.0)


def fits(plan: RolloutPlan) -> bool:
    try:
        steps_of(plan)
    except errors.BadSettings:
        return False
    return True


TIMES = st.none() | st.sampled_from([0.0, 30.0])
PLANS = st.builds(
    RolloutPlan,
    canary=st.sampled_from(["", "5,50"]),
    linear=st.sampled_from(["", "10/2m"]),
    blue_green=st.booleans(),
    shadow_first=st.booleans(),
    bake_s=TIMES,
    final_bake_s=TIMES,
    max_step_s=TIMES,
    analysis=st.sampled_from([AnalysisSettings(), STRICT]),
).filter(fits)
STRATEGIES = st.sampled_from([{}, {"canary": "20"}, {"linear": "25/1m"}, {"blue_green": True}])


@given(PLANS)
def test_a_request_that_says_nothing_is_the_plan(plan: RolloutPlan) -> None:
    assert planned(request(), plan) == plan


@given(PLANS, STRATEGIES, st.sampled_from([None, False]), TIMES, TIMES, st.sampled_from([None, MANUAL]))
def test_what_a_request_says_holds_and_the_rest_is_the_plans_as_far_as_it_fits(
    plan: RolloutPlan,
    strategy: dict[str, Any],
    shadow_first: bool | None,
    final_bake_s: float | None,
    max_step_s: float | None,
    analysis: AnalysisSettings | None,
) -> None:
    asked = request(
        **strategy, shadow_first=shadow_first, final_bake_s=final_bake_s, max_step_s=max_step_s, analysis=analysis
    )
    made = planned(asked, plan)
    assert fits(made)
    wanted = {"canary": "", "linear": "", "blue_green": False, **strategy} if strategy else {}
    for name in ("canary", "linear", "blue_green"):
        assert getattr(made, name) == wanted.get(name, getattr(plan, name))
    for name in ("final_bake_s", "max_step_s", "analysis"):
        said = getattr(asked, name)
        assert getattr(made, name) == (getattr(plan, name) if said is None else said)
    assert made.shadow_first == (plan.shadow_first and shadow_first is None and not made.blue_green)
    if made.bake_s != plan.bake_s:
        assert made.bake_s is None
        assert made.blue_green or made.linear


def test_what_a_request_says_itself_and_does_not_fit_is_refused() -> None:
    with pytest.raises(errors.BadSettings, match="leave the bake time out"):
        steps_of(planned(request(bake_s=5.0), RolloutPlan(linear="10/2m")))
    with pytest.raises(errors.BadSettings, match="combine shadow-first with canary or linear"):
        steps_of(planned(request(shadow_first=True), RolloutPlan(blue_green=True)))
