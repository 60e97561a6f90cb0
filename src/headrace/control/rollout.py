"""A rollout: from (spec, state, what is seen, now) to the next state and what to do. Pure; the controller acts.

The phases and their moves are in ``rollout_state.py``. Routing follows the state; actions are what has to happen once.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

import msgspec

from headrace.control.analysis.verdict import Finding, Verdict
from headrace.control.golden import GoldenReport
from headrace.control.rollout_state import ENDED, Phase, RolloutSpec, RolloutState, move, traffic_phase
from headrace.control.strategies import Step
from headrace.core import errors


class Command(StrEnum):
    """What a person may say."""

    PAUSE = "pause"
    RESUME = "resume"
    """Go on where it was paused; the time of the phase starts anew."""
    PROMOTE = "promote"
    """Take the next step now."""
    ABORT = "abort"
    """Back to the old deployment."""


class Readiness(StrEnum):
    """What can be seen of the new deployment's replicas."""

    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"
    """It cannot be loaded."""


class Seen(msgspec.Struct, frozen=True):
    """What is observed at a look."""

    readiness: Readiness
    failure: str = ""
    """Why it cannot be loaded."""
    golden: GoldenReport | None = None
    """None: not answered yet."""
    verdict: Verdict | None = None
    judged_step: int = -1
    """Step that the verdict is about: a pass of an earlier one does not count."""


class SetTraffic(msgspec.Struct, frozen=True, tag=True):
    """One routing change: this share of live requests to the new deployment, the rest to the old."""

    share: float
    shadow: float


class AskGolden(msgspec.Struct, frozen=True, tag=True):
    """Send the golden requests to the new deployment."""


class BeginStep(msgspec.Struct, frozen=True, tag=True):
    """Tell the judge that a step begins."""

    step: int


class AskPerson(msgspec.Struct, frozen=True, tag=True):
    reason: str


class Retire(msgspec.Struct, frozen=True, tag=True):
    """Drain and stop a deployment that has no traffic any more."""

    deployment: str


Action = SetTraffic | AskGolden | BeginStep | AskPerson | Retire


class Decision(msgspec.Struct, frozen=True):
    state: RolloutState
    actions: tuple[Action, ...] = ()
    """In the order in which they are to be done."""
    refused: str = ""
    """Why a command was not accepted; the state is unchanged then."""


def decide(spec: RolloutSpec, state: RolloutState, seen: Seen, now: float) -> Decision:
    """The next state; at most one move. Without one, the state (but for ``unready_since``) stays as it is."""
    if state.phase in ENDED:
        return Decision(state)
    state = _note_readiness(state, seen, now)
    bad = _proven_bad(spec, state, seen, now)
    if bad:
        return _end(spec, state, Phase.ROLLED_BACK, bad, now)
    match state.phase:
        case Phase.STARTING | Phase.WARMING:
            return _starting(spec, state, seen, now)
        case Phase.GOLDEN:
            return _golden(spec, state, seen, now)
        case Phase.STEP:
            return _step(spec, state, seen, now)
        case Phase.PROMOTED:
            if now - state.since >= spec.final_bake_s:
                return _end(spec, state, Phase.DONE, "the bake time is over", now)
            return Decision(state)
        case Phase.PAUSED:
            return Decision(state)
        case Phase.DONE | Phase.ROLLED_BACK | Phase.ABORTED:
            raise errors.Bug(f"a rollout that is {state.phase} was decided on")
        case _:
            assert_never(state.phase)


def command(spec: RolloutSpec, state: RolloutState, said: Command, who: str, now: float) -> Decision:
    """What a person's word does; ``refused`` says why not, when it does nothing."""
    if state.phase in ENDED:
        return Decision(state, refused=f"the rollout has ended ({state.phase}: {state.reason})")
    match said:
        case Command.ABORT:
            return _end(spec, state, Phase.ABORTED, f"aborted by {who}", now)
        case Command.PAUSE:
            if state.phase is Phase.PAUSED:
                return Decision(state, refused=f"the rollout is paused already ({state.reason})")
            return Decision(_pause(state, f"paused by {who}", now))
        case Command.RESUME:
            return _resume(state, who, now)
        case Command.PROMOTE:
            return _promote(spec, state, who, now)
        case _:
            assert_never(said)


def _note_readiness(state: RolloutState, seen: Seen, now: float) -> RolloutState:
    if seen.readiness is Readiness.READY:
        return msgspec.structs.replace(state, unready_since=None) if state.unready_since is not None else state
    return msgspec.structs.replace(state, unready_since=now) if state.unready_since is None else state


def _proven_bad(spec: RolloutSpec, state: RolloutState, seen: Seen, now: float) -> str:
    """Why the new deployment must not have traffic, whatever else is going on; empty when nothing is proven."""
    if seen.readiness is Readiness.FAILED:
        return f"the new deployment cannot be loaded: {seen.failure}"
    at = traffic_phase(state)
    if at is Phase.GOLDEN and seen.golden is not None and seen.golden.finding is Finding.FAIL:
        return f"golden requests: {seen.golden.reason}"
    if at in (Phase.STEP, Phase.PROMOTED):
        if seen.verdict is not None and seen.verdict.finding is Finding.FAIL:
            return seen.verdict.reason
        if state.unready_since is not None and now - state.unready_since >= spec.unready_s:
            return f"no replica of the new deployment was ready for {spec.unready_s:g} s"
    return ""


def _starting(spec: RolloutSpec, state: RolloutState, seen: Seen, now: float) -> Decision:
    if seen.readiness is Readiness.READY:
        return Decision(move(state, Phase.GOLDEN, "a replica is ready", now), (AskGolden(),))
    if now - state.since >= spec.max_start_s:
        reason = f"no replica was ready {spec.max_start_s:g} s after the phase {state.phase} began"
        return _end(spec, state, Phase.ROLLED_BACK, reason, now)
    if seen.readiness is Readiness.WARMING and state.phase is Phase.STARTING:
        return Decision(move(state, Phase.WARMING, "the replica process runs", now))
    return Decision(state)


def _golden(spec: RolloutSpec, state: RolloutState, seen: Seen, now: float) -> Decision:
    report = seen.golden
    ready = seen.readiness is Readiness.READY
    if ready and report is not None and report.finding is Finding.PASS:
        return _advance(spec, state, f"golden requests: {report.reason}", now)
    if now - state.since >= spec.max_golden_s:
        why = report.reason if report is not None else "no answer yet"
        return _ask(state, f"golden requests could not be asked within {spec.max_golden_s:g} s: {why}", now)
    return Decision(state)


def _step(spec: RolloutSpec, state: RolloutState, seen: Seen, now: float) -> Decision:
    current = spec.steps[state.step]
    if now - state.since < current.bake_s or seen.readiness is not Readiness.READY:
        return Decision(state)
    verdict = seen.verdict if seen.judged_step == state.step else None
    if verdict is not None and verdict.finding is Finding.PASS:
        return _advance(spec, state, verdict.reason, now)
    if now - state.since >= max(spec.max_step_s, current.bake_s):
        why = verdict.reason if verdict is not None else "there is no verdict on this step"
        return _ask(state, f"inconclusive after {now - state.since:.0f} s: {why}", now)
    return Decision(state)


def _advance(spec: RolloutSpec, state: RolloutState, reason: str, now: float) -> Decision:
    """To the next step, or to all traffic after the last."""
    index = state.step + 1
    if index < len(spec.steps):
        step: Step = spec.steps[index]
        moved = msgspec.structs.replace(move(state, Phase.STEP, reason, now), step=index)
        return Decision(moved, (BeginStep(index), SetTraffic(step.traffic, step.shadow)))
    moved = msgspec.structs.replace(move(state, Phase.PROMOTED, reason, now), step=index)
    return Decision(moved, (BeginStep(index), SetTraffic(1.0, 0.0)))


def _end(spec: RolloutSpec, state: RolloutState, phase: Phase, reason: str, now: float) -> Decision:
    """Routing first, so that no request meets a deployment that is being stopped."""
    ended = move(state, phase, reason, now)
    if phase is Phase.DONE:
        return Decision(ended, (SetTraffic(1.0, 0.0), Retire(spec.old)))
    return Decision(ended, (SetTraffic(0.0, 0.0), Retire(spec.new)))


def _ask(state: RolloutState, reason: str, now: float) -> Decision:
    return Decision(_pause(state, reason, now), (AskPerson(reason),))


def _pause(state: RolloutState, reason: str, now: float) -> RolloutState:
    return msgspec.structs.replace(move(state, Phase.PAUSED, reason, now), paused_in=state.phase)


def _resume(state: RolloutState, who: str, now: float) -> Decision:
    if state.phase is not Phase.PAUSED or state.paused_in is None:
        return Decision(state, refused=f"the rollout is not paused: it is {state.phase}")
    resumed = move(state, state.paused_in, f"resumed by {who}", now)
    # The golden requests are asked again: their answers may be lost, or be the reason of the pause.
    return Decision(resumed, (AskGolden(),) if resumed.phase is Phase.GOLDEN else ())


def _promote(spec: RolloutSpec, state: RolloutState, who: str, now: float) -> Decision:
    at = traffic_phase(state)
    reason = f"promoted by {who}"
    if at is Phase.PROMOTED:
        return _end(spec, state, Phase.DONE, reason, now)
    if at is Phase.STEP or (at is Phase.GOLDEN and state.phase is Phase.PAUSED):
        if state.unready_since is not None:
            return Decision(state, refused="the new deployment has no ready replica; wait for one, or abort")
        return _advance(spec, state, reason, now)
    return Decision(state, refused=f"the new deployment is still {at}: it has not answered its golden requests yet")
