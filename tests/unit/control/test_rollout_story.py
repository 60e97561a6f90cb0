from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from headrace.control import strategies
from headrace.control.analysis.verdict import Finding
from headrace.control.rollout_plan import RolloutPlan
from headrace.control.rollout_state import ENDED, Phase, RolloutSpec, RolloutState
from headrace.control.rollout_story import Rollout, spec_of
from tests import rollouts
from tests.observations import observe, tally


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


def test_what_is_left_out_of_a_plan_has_its_default() -> None:
    spec = spec_of("fraud", RolloutPlan(), "fraud@7", "fraud@8")
    assert spec == RolloutSpec("fraud", "fraud@7", "fraud@8", strategies.canary("1,5,25,50"))
    given = spec_of("fraud", RolloutPlan(blue_green=True, final_bake_s=0.0, max_step_s=5.0), "a", "b")
    assert given == RolloutSpec("fraud", "a", "b", (), final_bake_s=0.0, max_step_s=5.0)
