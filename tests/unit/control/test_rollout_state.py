from __future__ import annotations

import pytest

from headrace.control import rollout_state, strategies
from headrace.control.rollout_state import ENDED, Phase, RolloutSpec, RolloutState
from headrace.core import errors

SPEC = RolloutSpec("fraud", "fraud@7", "fraud@8", strategies.shadow_first(strategies.canary("10,50"), shadow=0.3))


def test_illegal_moves_raise() -> None:
    with pytest.raises(errors.Bug, match="cannot move from done to step"):
        rollout_state.move(RolloutState(Phase.DONE, 0.0), Phase.STEP, "", 0.0)


def test_every_phase_has_its_moves_and_every_end_is_an_end() -> None:
    assert set(rollout_state.MOVES) == set(Phase)
    for phase in Phase:
        assert (rollout_state.MOVES[phase] == frozenset()) is (phase in ENDED)


@pytest.mark.parametrize(
    ("phase", "step", "share", "shadow"),
    [
        (Phase.STARTING, -1, 0.0, 0.0),
        (Phase.WARMING, -1, 0.0, 0.0),
        (Phase.GOLDEN, -1, 0.0, 0.0),
        (Phase.STEP, 0, 0.0, 0.3),
        (Phase.STEP, 1, 0.1, 0.0),
        (Phase.STEP, 2, 0.5, 0.0),
        (Phase.PROMOTED, 3, 1.0, 0.0),
        (Phase.DONE, 3, 1.0, 0.0),
        (Phase.ROLLED_BACK, 2, 0.0, 0.0),
        (Phase.ABORTED, 3, 0.0, 0.0),
    ],
)
def test_the_state_says_what_the_routing_is(phase: Phase, step: int, share: float, shadow: float) -> None:
    state = RolloutState(phase, 0.0, step)
    assert (rollout_state.share(SPEC, state), rollout_state.shadow(SPEC, state)) == (share, shadow)
    if phase not in ENDED:
        paused = RolloutState(Phase.PAUSED, 0.0, step, paused_in=phase)
        assert (rollout_state.share(SPEC, paused), rollout_state.shadow(SPEC, paused)) == (share, shadow)
