"""(spec, state, seen, now) → next state and actions, as tables; and what holds for every history."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from headrace.control import rollout, rollout_state, strategies
from headrace.control.analysis.verdict import Finding, Verdict
from headrace.control.golden import GoldenReport
from headrace.control.rollout import (
    Action,
    AskGolden,
    AskPerson,
    BeginStep,
    Command,
    Decision,
    Readiness,
    Retire,
    Seen,
    SetTraffic,
)
from headrace.control.rollout_state import ENDED, Phase, RolloutSpec, RolloutState

OLD, NEW = "fraud@7", "fraud@8"
PASS, FAIL, OPEN = (Verdict(finding, f"because {finding}", ()) for finding in Finding)
GOOD, WRONG, UNASKED = (GoldenReport(finding, f"golden {finding}") for finding in Finding)
BACK = (SetTraffic(0.0, 0.0), Retire(NEW))


def spec(steps: strategies.Steps | None = None, **fields: float) -> RolloutSpec:
    canary = strategies.canary("1,5,25,50")
    return RolloutSpec("fraud", OLD, NEW, canary if steps is None else steps, **fields)


def seen(readiness: Readiness = Readiness.READY, verdict: Verdict | None = None, step: int = 0, **fields: Any) -> Seen:
    return Seen(readiness, verdict=verdict, judged_step=step, **fields)


def state(phase: Phase, step: int = -1, since: float = 0.0, **fields: Any) -> RolloutState:
    return RolloutState(phase, since, step, **fields)


def paused(inside: Phase, step: int = -1) -> RolloutState:
    return state(Phase.PAUSED, step, paused_in=inside)


STEP0 = state(Phase.STEP, 0)


@pytest.mark.parametrize(
    ("before", "observed", "now", "after", "actions"),
    [
        # Before any traffic.
        (state(Phase.STARTING), seen(Readiness.STARTING), 899, (Phase.STARTING, -1), ()),
        (state(Phase.STARTING), seen(Readiness.WARMING), 1, (Phase.WARMING, -1), ()),
        (state(Phase.STARTING), seen(Readiness.READY), 1, (Phase.GOLDEN, -1), (AskGolden(),)),
        (state(Phase.STARTING), seen(Readiness.STARTING), 900, (Phase.ROLLED_BACK, -1), BACK),
        (state(Phase.STARTING), seen(Readiness.FAILED), 1, (Phase.ROLLED_BACK, -1), BACK),
        (state(Phase.WARMING), seen(Readiness.WARMING), 1, (Phase.WARMING, -1), ()),
        (state(Phase.WARMING), seen(Readiness.STARTING), 1, (Phase.WARMING, -1), ()),
        (state(Phase.WARMING), seen(Readiness.READY), 1, (Phase.GOLDEN, -1), (AskGolden(),)),
        (state(Phase.WARMING), seen(Readiness.WARMING), 900, (Phase.ROLLED_BACK, -1), BACK),
        # Golden requests.
        (state(Phase.GOLDEN), seen(), 1, (Phase.GOLDEN, -1), ()),
        (state(Phase.GOLDEN), seen(golden=GOOD), 1, (Phase.STEP, 0), (BeginStep(0), SetTraffic(0.01, 0.0))),
        (state(Phase.GOLDEN), seen(Readiness.WARMING, golden=GOOD), 1, (Phase.GOLDEN, -1), ()),
        (state(Phase.GOLDEN), seen(golden=WRONG), 1, (Phase.ROLLED_BACK, -1), BACK),
        (state(Phase.GOLDEN), seen(golden=UNASKED), 299, (Phase.GOLDEN, -1), ()),
        (
            *(state(Phase.GOLDEN), seen(golden=UNASKED), 300, (Phase.PAUSED, -1)),
            (AskPerson("golden requests could not be asked within 300 s: golden inconclusive"),),
        ),
        (
            *(state(Phase.GOLDEN), seen(Readiness.STARTING), 300, (Phase.PAUSED, -1)),
            (AskPerson("golden requests could not be asked within 300 s: no answer yet"),),
        ),
        # A step.
        (STEP0, seen(verdict=PASS), 599, (Phase.STEP, 0), ()),
        (STEP0, seen(verdict=PASS), 600, (Phase.STEP, 1), (BeginStep(1), SetTraffic(0.05, 0.0))),
        (STEP0, seen(verdict=PASS, step=-1), 600, (Phase.STEP, 0), ()),
        (STEP0, seen(Readiness.WARMING, PASS), 600, (Phase.STEP, 0), ()),
        (STEP0, seen(verdict=OPEN), 3599, (Phase.STEP, 0), ()),
        (
            STEP0,
            seen(verdict=OPEN),
            3600,
            (Phase.PAUSED, 0),
            (AskPerson("inconclusive after 3600 s: because inconclusive"),),
        ),
        (
            STEP0,
            seen(),
            3600,
            (Phase.PAUSED, 0),
            (AskPerson("inconclusive after 3600 s: there is no verdict on this step"),),
        ),
        (STEP0, seen(verdict=FAIL), 1, (Phase.ROLLED_BACK, 0), BACK),
        (STEP0, seen(verdict=FAIL, step=-1), 1, (Phase.ROLLED_BACK, 0), BACK),
        (
            state(Phase.STEP, 3),
            seen(verdict=PASS, step=3),
            600,
            (Phase.PROMOTED, 4),
            (BeginStep(4), SetTraffic(1.0, 0.0)),
        ),
        (STEP0, seen(Readiness.FAILED), 1, (Phase.ROLLED_BACK, 0), BACK),
        (msgspec.structs.replace(STEP0, unready_since=5.0), seen(Readiness.STARTING), 34, (Phase.STEP, 0), ()),
        (msgspec.structs.replace(STEP0, unready_since=5.0), seen(Readiness.STARTING), 35, (Phase.ROLLED_BACK, 0), BACK),
        (msgspec.structs.replace(STEP0, unready_since=5.0), seen(Readiness.READY), 35, (Phase.STEP, 0), ()),
        # All traffic.
        (state(Phase.PROMOTED, 4), seen(), 599, (Phase.PROMOTED, 4), ()),
        (
            state(Phase.PROMOTED, 4),
            seen(verdict=OPEN, step=4),
            600,
            (Phase.DONE, 4),
            (SetTraffic(1.0, 0.0), Retire(OLD)),
        ),
        (state(Phase.PROMOTED, 4), seen(verdict=FAIL, step=4), 600, (Phase.ROLLED_BACK, 4), BACK),
        # Paused: only what is proven bad moves it.
        (paused(Phase.STEP, 1), seen(verdict=PASS, step=1), 99999, (Phase.PAUSED, 1), ()),
        (paused(Phase.STEP, 1), seen(verdict=FAIL, step=1), 1, (Phase.ROLLED_BACK, 1), BACK),
        (paused(Phase.GOLDEN), seen(golden=WRONG), 1, (Phase.ROLLED_BACK, -1), BACK),
        (paused(Phase.STARTING), seen(Readiness.STARTING), 99999, (Phase.PAUSED, -1), ()),
        (paused(Phase.STARTING), seen(Readiness.FAILED), 1, (Phase.ROLLED_BACK, -1), BACK),
        # Ended.
        *((state(phase, 4), seen(verdict=FAIL), 1, (phase, 4), ()) for phase in sorted(ENDED)),
    ],
)
def test_decisions(
    before: RolloutState, observed: Seen, now: float, after: tuple[Phase, int], actions: tuple[Action, ...]
) -> None:
    decision = rollout.decide(spec(), before, observed, float(now))
    assert (decision.state.phase, decision.state.step) == after
    assert decision.actions == actions


def test_reasons_are_those_of_what_was_seen() -> None:
    failed = rollout.decide(spec(), STEP0, seen(verdict=FAIL), 1.0)
    assert failed.state.reason == "because fail"
    loading = rollout.decide(spec(), state(Phase.STARTING), seen(Readiness.FAILED, failure="no such file"), 1.0)
    assert loading.state.reason == "the new deployment cannot be loaded: no such file"
    gone = msgspec.structs.replace(STEP0, unready_since=0.0)
    reason = rollout.decide(spec(), gone, seen(Readiness.STARTING), 30.0).state.reason
    assert reason == "no replica of the new deployment was ready for 30 s"
    assert (
        rollout.decide(spec(), state(Phase.GOLDEN), seen(golden=WRONG), 1.0).state.reason
        == "golden requests: golden fail"
    )


def test_a_replica_that_comes_back_is_forgiven() -> None:
    away = rollout.decide(spec(), STEP0, seen(Readiness.STARTING), 10.0).state
    assert away.unready_since == 10.0
    assert rollout.decide(spec(), away, seen(Readiness.STARTING), 20.0).state.unready_since == 10.0
    assert rollout.decide(spec(), away, seen(), 20.0).state.unready_since is None


def said(before: RolloutState, command: Command, now: float = 50.0) -> Decision:
    return rollout.command(spec(), before, command, "ann", now)


@pytest.mark.parametrize(
    ("before", "command", "after", "actions"),
    [
        (STEP0, Command.PAUSE, (Phase.PAUSED, 0), ()),
        (STEP0, Command.PROMOTE, (Phase.STEP, 1), (BeginStep(1), SetTraffic(0.05, 0.0))),
        (STEP0, Command.ABORT, (Phase.ABORTED, 0), BACK),
        (paused(Phase.STEP, 2), Command.RESUME, (Phase.STEP, 2), ()),
        (paused(Phase.STEP, 2), Command.PROMOTE, (Phase.STEP, 3), (BeginStep(3), SetTraffic(0.5, 0.0))),
        (paused(Phase.STEP, 3), Command.PROMOTE, (Phase.PROMOTED, 4), (BeginStep(4), SetTraffic(1.0, 0.0))),
        (paused(Phase.STEP, 2), Command.ABORT, (Phase.ABORTED, 2), BACK),
        (paused(Phase.GOLDEN), Command.RESUME, (Phase.GOLDEN, -1), (AskGolden(),)),
        (paused(Phase.GOLDEN), Command.PROMOTE, (Phase.STEP, 0), (BeginStep(0), SetTraffic(0.01, 0.0))),
        (paused(Phase.WARMING), Command.RESUME, (Phase.WARMING, -1), ()),
        (state(Phase.STARTING), Command.PAUSE, (Phase.PAUSED, -1), ()),
        (state(Phase.STARTING), Command.ABORT, (Phase.ABORTED, -1), BACK),
        (state(Phase.PROMOTED, 4), Command.PAUSE, (Phase.PAUSED, 4), ()),
        (state(Phase.PROMOTED, 4), Command.PROMOTE, (Phase.DONE, 4), (SetTraffic(1.0, 0.0), Retire(OLD))),
        (paused(Phase.PROMOTED, 4), Command.PROMOTE, (Phase.DONE, 4), (SetTraffic(1.0, 0.0), Retire(OLD))),
        (state(Phase.PROMOTED, 4), Command.ABORT, (Phase.ABORTED, 4), BACK),
    ],
)
def test_commands(
    before: RolloutState, command: Command, after: tuple[Phase, int], actions: tuple[Action, ...]
) -> None:
    decision = said(before, command)
    assert decision.refused == ""
    assert (decision.state.phase, decision.state.step) == after
    assert decision.actions == actions
    assert decision.state.since == 50.0
    assert "ann" in decision.state.reason


@pytest.mark.parametrize(
    ("before", "command", "why"),
    [
        (paused(Phase.STEP, 1), Command.PAUSE, "paused already"),
        (STEP0, Command.RESUME, "not paused: it is step"),
        (state(Phase.STARTING), Command.PROMOTE, "still starting"),
        (state(Phase.GOLDEN), Command.PROMOTE, "still golden"),
        (paused(Phase.WARMING), Command.PROMOTE, "still warming"),
        (msgspec.structs.replace(STEP0, unready_since=1.0), Command.PROMOTE, "no ready replica"),
        *(
            (state(phase, reason="why"), command, f"ended ({phase}: why)")
            for phase in sorted(ENDED)
            for command in Command
        ),
    ],
)
def test_refused_commands_change_nothing(before: RolloutState, command: Command, why: str) -> None:
    decision = said(before, command)
    assert why in decision.refused
    assert decision.state == before
    assert decision.actions == ()


def test_blue_green_gets_all_traffic_after_the_golden_requests_and_can_go_back() -> None:
    plan = spec(strategies.blue_green())
    decision = rollout.decide(plan, state(Phase.GOLDEN), seen(golden=GOOD), 1.0)
    assert decision.actions == (BeginStep(0), SetTraffic(1.0, 0.0))
    assert rollout_state.share(plan, decision.state) == 1.0
    back = rollout.decide(plan, decision.state, seen(verdict=FAIL), 2.0)
    assert back.actions == BACK
    assert rollout_state.share(plan, back.state) == 0.0


def test_shadow_first_mirrors_before_it_serves() -> None:
    plan = spec(strategies.shadow_first(strategies.canary("10"), shadow=0.3))
    first = rollout.decide(plan, state(Phase.GOLDEN), seen(golden=GOOD), 1.0)
    assert first.actions == (BeginStep(0), SetTraffic(0.0, 0.3))
    assert (rollout_state.share(plan, first.state), rollout_state.shadow(plan, first.state)) == (0.0, 0.3)
    second = rollout.decide(plan, first.state, seen(verdict=PASS), 601.0)
    assert second.actions == (BeginStep(1), SetTraffic(0.1, 0.0))
    assert (rollout_state.share(plan, second.state), rollout_state.shadow(plan, second.state)) == (0.1, 0.0)


def test_a_step_that_bakes_longer_than_the_maximum_is_not_cut() -> None:
    plan = spec(strategies.canary("10", bake_s=7200.0))
    assert rollout.decide(plan, STEP0, seen(verdict=OPEN), 7199.0).state.phase is Phase.STEP
    assert rollout.decide(plan, STEP0, seen(verdict=PASS), 7200.0).state.phase is Phase.PROMOTED


# Histories: any sequence of observations, commands and waits.

OBSERVED = st.builds(
    Seen,
    readiness=st.sampled_from(
        [Readiness.READY, Readiness.READY, Readiness.READY, Readiness.STARTING, Readiness.WARMING]
    ),
    golden=st.sampled_from([GOOD, GOOD, GOOD, UNASKED, WRONG, None]),
    verdict=st.sampled_from([PASS, PASS, PASS, OPEN, FAIL, None]),
    judged_step=st.integers(-1, 4),
)
HISTORY = st.lists(
    st.tuples(
        st.one_of(OBSERVED, OBSERVED, OBSERVED, st.sampled_from(Command)), st.sampled_from([0.0, 10.0, 601.0, 4000.0])
    ),
    max_size=60,
)
STRATEGIES = st.sampled_from(
    [
        strategies.canary("1,5,25,50"),
        strategies.linear("10/2m"),
        strategies.blue_green(),
        strategies.shadow_first(strategies.canary("10,50")),
    ]
)


def apply(plan: RolloutSpec, current: RolloutState, event: Seen | Command, now: float) -> Decision:
    if isinstance(event, Command):
        return rollout.command(plan, current, event, "ann", now)
    return rollout.decide(plan, current, event, now)


@settings(max_examples=300, deadline=None)
@given(STRATEGIES, HISTORY)
def test_every_history_keeps_the_promises(steps: strategies.Steps, history: list[tuple[Seen | Command, float]]) -> None:
    plan = spec(steps)
    current, now, routed = rollout_state.start(0.0), 0.0, 0.0
    for event, wait in history:
        now += wait
        decision = apply(plan, current, event, now)
        before, current = current, decision.state
        for action in decision.actions:
            if isinstance(action, SetTraffic):
                routed = action.share
        # The routing that was ordered is the routing of the state, and never more than the step allows.
        assert routed == rollout_state.share(plan, current)
        if 0 <= current.step < len(plan.steps) and current.phase is not Phase.DONE:
            assert routed <= plan.steps[current.step].traffic
        # One step at a time, never back but to nothing.
        assert current.step - before.step in (0, 1)
        if before.phase in ENDED:
            assert current == before
            assert decision.actions == ()
        if decision.refused:
            assert isinstance(event, Command)
            assert current == before
        # Nothing is stopped while it has traffic; what had an end is told once.
        retired = [action.deployment for action in decision.actions if isinstance(action, Retire)]
        assert bool(retired) is (current.phase in ENDED and before.phase not in ENDED)
        assert retired in ([], [OLD] if routed == 1.0 else [NEW])
    # Whatever happened: abort ends it with the old deployment, if it has not ended.
    ended = current.phase in ENDED
    last = rollout.command(plan, current, Command.ABORT, "ann", now)
    assert last.state.phase in ENDED
    assert rollout_state.share(plan, last.state) == (rollout_state.share(plan, current) if ended else 0.0)
    assert bool(last.refused) is ended


@settings(max_examples=100, deadline=None)
@given(STRATEGIES, st.lists(st.sampled_from([PASS, PASS, OPEN]), min_size=1, max_size=200))
def test_a_rollout_that_is_left_alone_ends_or_asks(steps: strategies.Steps, verdicts: list[Verdict]) -> None:
    plan, current, now = spec(steps), rollout_state.start(0.0), 0.0
    for look in range(4000):
        verdict = verdicts[look % len(verdicts)]
        current = rollout.decide(plan, current, seen(verdict=verdict, step=current.step, golden=GOOD), now).state
        now += 60.0
        if current.phase in ENDED or current.phase is Phase.PAUSED:
            break
    assert current.phase is Phase.DONE if PASS in verdicts else current.phase in (Phase.PAUSED, Phase.DONE)


@given(HISTORY)
def test_a_rollout_goes_on_after_a_restart(history: list[tuple[Seen | Command, float]]) -> None:
    plan, current, now = spec(), rollout_state.start(0.0), 0.0
    for event, wait in history:
        now += wait
        current = apply(plan, current, event, now).state
        assert msgspec.json.decode(msgspec.json.encode(current), type=RolloutState) == current
    assert msgspec.json.decode(msgspec.json.encode(plan), type=RolloutSpec) == plan
