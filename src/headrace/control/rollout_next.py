"""What happens next to a rollout, and when: for people who look at it. Pure; follows what ``rollout.py`` decides."""

from __future__ import annotations

import msgspec

from headrace.control.rollout_state import ENDED, Phase, RolloutSpec, RolloutState

_PASSED = "every gate that is needed has passed in this step"
_ASKS = "it pauses and asks a person"
_GOES_BACK = "it is rolled back"


class Next(msgspec.Struct, frozen=True):
    """``what`` follows ``when`` something is so; ``otherwise`` happens at ``latest``. Empty words: nothing more.
    Times are seconds since 1970 (UTC); None: no time decides."""

    what: str = ""
    when: str = ""
    earliest: float | None = None
    otherwise: str = ""
    latest: float | None = None


def upcoming(spec: RolloutSpec, state: RolloutState) -> Next:
    """The next move of a rollout in this state. What is proven bad is rolled back at any time; that is not said."""
    if state.phase in ENDED:
        return Next()
    since = state.since
    match state.phase:
        case Phase.STARTING | Phase.WARMING:
            return Next("golden requests", "a replica is ready", None, _GOES_BACK, since + spec.max_start_s)
        case Phase.GOLDEN:
            what = _after(spec, state.step)
            return Next(what, "they are answered as recorded", None, _ASKS, since + spec.max_golden_s)
        case Phase.STEP:
            bake_s = spec.steps[state.step].bake_s
            latest = since + max(spec.max_step_s, bake_s)
            return Next(_after(spec, state.step), _PASSED, since + bake_s, _ASKS, latest)
        case Phase.PROMOTED:
            what = "done: the old deployment is stopped"
            return Next(what, "nothing is proven against it until then", since + spec.final_bake_s)
        case _:
            return Next("it goes on, or back", "a person says resume, promote or abort")


def describe_step(spec: RolloutSpec, index: int) -> str:
    """``step 2 of 4: 5 % of the requests``."""
    step = spec.steps[index]
    parts = [f"{step.traffic * 100:g} % of the requests"] if step.traffic else []
    parts += [f"{step.shadow * 100:g} % of them mirrored"] if step.shadow else []
    return f"step {index + 1} of {len(spec.steps)}: {', '.join(parts)}"


def _after(spec: RolloutSpec, index: int) -> str:
    return describe_step(spec, index + 1) if index + 1 < len(spec.steps) else "all traffic"
