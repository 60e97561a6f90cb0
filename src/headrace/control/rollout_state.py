"""The state of a rollout: its phases, the moves between them, and the routing that each state means. Pure.

    starting → warming → golden → step 1 … step n → promoted → done
        │         │         │          │               │
        │         │         └──────────┴── paused ─────┤   a person, or an analysis that stays inconclusive
        └─────────┴─────────┴──────────┴───────────────┴→ rolled back (it failed) | aborted (a person)

The state alone says what the routing must be (``share``, ``shadow``), so that a controller that starts again needs
nothing else.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from headrace.control.strategies import Steps
from headrace.core import errors


class Phase(StrEnum):
    STARTING = "starting"
    """Its first replica is being started."""
    WARMING = "warming"
    """A replica loads or warms up."""
    GOLDEN = "golden"
    """It answers its golden requests."""
    STEP = "step"
    """It has the traffic of a step and is judged."""
    PAUSED = "paused"
    """Nothing moves until a person says so; what is proven bad is still rolled back."""
    PROMOTED = "promoted"
    """It has all traffic; the old deployment stays warm."""
    DONE = "done"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


ENDED = frozenset({Phase.DONE, Phase.ROLLED_BACK, Phase.ABORTED})
_BAD_ENDS = frozenset({Phase.ROLLED_BACK, Phase.ABORTED})

MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.STARTING: frozenset({Phase.WARMING, Phase.GOLDEN, Phase.PAUSED}) | _BAD_ENDS,
    Phase.WARMING: frozenset({Phase.GOLDEN, Phase.PAUSED}) | _BAD_ENDS,
    Phase.GOLDEN: frozenset({Phase.STEP, Phase.PROMOTED, Phase.PAUSED}) | _BAD_ENDS,
    Phase.STEP: frozenset({Phase.STEP, Phase.PROMOTED, Phase.PAUSED}) | _BAD_ENDS,
    Phase.PAUSED: frozenset(
        {Phase.STARTING, Phase.WARMING, Phase.GOLDEN, Phase.STEP, Phase.PROMOTED, Phase.DONE} | _BAD_ENDS
    ),
    Phase.PROMOTED: frozenset({Phase.DONE, Phase.PAUSED}) | _BAD_ENDS,
    Phase.DONE: frozenset(),
    Phase.ROLLED_BACK: frozenset(),
    Phase.ABORTED: frozenset(),
}


class RolloutSpec(msgspec.Struct, frozen=True):
    """Deployment ids, and times in seconds."""

    endpoint: str
    old: str
    new: str
    steps: Steps
    final_bake_s: float = 600.0
    """With all traffic, the old deployment warm."""
    max_step_s: float = 3600.0
    """A step that is still inconclusive then is paused, and a person asked."""
    max_start_s: float = 900.0
    max_golden_s: float = 300.0
    """Golden requests that could not be asked until then: a person is asked."""
    unready_s: float = 30.0
    """Without a ready replica for this long, it is rolled back."""


class RolloutState(msgspec.Struct, frozen=True):
    phase: Phase
    since: float
    """When the phase, or this step of it, began."""
    step: int = -1
    """Index of the step that is, or was last, in force; -1: none yet."""
    reason: str = ""
    """Why it is in this phase."""
    paused_in: Phase | None = None
    """Where a paused rollout goes on."""
    unready_since: float | None = None


def start(now: float) -> RolloutState:
    return RolloutState(Phase.STARTING, now)


def share(spec: RolloutSpec, state: RolloutState) -> float:
    """Share of live requests that the new deployment gets in this state, 0..1."""
    match traffic_phase(state):
        case Phase.PROMOTED | Phase.DONE:
            return 1.0
        case Phase.STEP:
            return spec.steps[state.step].traffic
        case _:
            return 0.0


def shadow(spec: RolloutSpec, state: RolloutState) -> float:
    """Part of the old deployment's requests that is mirrored in this state, 0..1."""
    return spec.steps[state.step].shadow if traffic_phase(state) is Phase.STEP else 0.0


def traffic_phase(state: RolloutState) -> Phase:
    """The phase whose traffic it has: of a paused rollout, the one it was paused in."""
    return state.paused_in if state.phase is Phase.PAUSED and state.paused_in is not None else state.phase


def move(state: RolloutState, to: Phase, reason: str, now: float) -> RolloutState:
    """Raises Bug when the table does not allow the move."""
    if to not in MOVES[state.phase]:
        raise errors.Bug(f"a rollout cannot move from {state.phase} to {to}")
    return msgspec.structs.replace(state, phase=to, since=now, reason=reason, paused_in=None)
