from __future__ import annotations

import pytest

from headrace.control import strategies
from headrace.control.strategies import Step
from headrace.core import errors


def test_canary() -> None:
    steps = strategies.canary("1,5,25,50", bake_s=60)
    assert [step.traffic for step in steps] == pytest.approx([0.01, 0.05, 0.25, 0.5])
    assert {step.bake_s for step in steps} == {60}


@pytest.mark.parametrize(
    ("text", "shares", "bake_s"),
    [
        ("10/2m", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], 120.0),
        ("25/30s", [0.25, 0.5, 0.75], 30.0),
        ("40/1.5h", [0.4, 0.8], 5400.0),
    ],
)
def test_linear(text: str, shares: list[float], bake_s: float) -> None:
    steps = strategies.linear(text)
    assert [step.traffic for step in steps] == pytest.approx(shares)
    assert {step.bake_s for step in steps} == {bake_s}


def test_shadow_first_has_no_live_traffic_in_its_first_step() -> None:
    first, *rest = strategies.shadow_first(strategies.canary("10"), shadow=0.2)
    assert first == Step(0.0, strategies.BAKE_S, 0.2)
    assert tuple(rest) == strategies.canary("10")


def test_blue_green_has_no_steps() -> None:
    assert strategies.blue_green() == ()


@pytest.mark.parametrize("text", ["", "a", "1,,5", "5,1", "5,5", "50,100", "-1,5", "0,5", "nan"])
def test_wrong_canary_steps(text: str) -> None:
    with pytest.raises(errors.BadSettings, match=r"canary steps .* 1,5,25,50|steps must rise|a step needs"):
        strategies.canary(text)


@pytest.mark.parametrize("text", ["", "10", "10/", "10/2", "10/2d", "0/2m", "100/2m", "-5/2m", "x/2m", "nan/2m"])
def test_wrong_linear_steps(text: str) -> None:
    with pytest.raises(errors.BadSettings, match="10/2m"):
        strategies.linear(text)


@pytest.mark.parametrize("step", [Step(0.5, -1.0), Step(0.5, 1.0, 2.0), Step(0.0, 1.0)])
def test_wrong_steps(step: Step) -> None:
    with pytest.raises(errors.BadSettings, match="a step needs"):
        strategies.check((step,))


def test_steps_can_be_counted() -> None:
    assert len(strategies.linear("0.1/1s")) == 999
    with pytest.raises(errors.BadSettings, match="more than 1000: rise by"):
        strategies.linear("0.0000001/1s")
