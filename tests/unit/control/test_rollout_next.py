"""What is said about the next move is what ``decide`` then does."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from headrace.control.analysis.verdict import Finding, Verdict
from headrace.control.golden import GoldenReport
from headrace.control.rollout import Readiness, Seen, decide
from headrace.control.rollout_next import Next, describe_step, upcoming
from headrace.control.rollout_state import ENDED, Phase, RolloutState
from tests.rollouts import SPEC

GOOD = Seen(
    Readiness.READY,
    golden=GoldenReport(Finding.PASS, "answered as recorded"),
    verdict=Verdict(Finding.PASS, "all passed", ()),
)
UNSURE = Seen(Readiness.READY, verdict=Verdict(Finding.INCONCLUSIVE, "not yet", ()))
WAITING = Seen(Readiness.WARMING)


def moved(state: RolloutState, seen: Seen, at: float) -> Phase | None:
    """The phase it has moved to; None: it stayed."""
    found = decide(SPEC, state, msgspec.structs.replace(seen, judged_step=state.step), at).state
    return None if (found.phase, found.step) == (state.phase, state.step) else found.phase


@pytest.mark.parametrize(
    ("state", "what", "then"),
    [
        (RolloutState(Phase.STEP, 100.0, 0), "step 2 of 3: 5 % of the requests", Phase.STEP),
        (RolloutState(Phase.STEP, 100.0, 2), "all traffic", Phase.PROMOTED),
        (RolloutState(Phase.PROMOTED, 100.0, 3), "done: the old deployment is stopped", Phase.DONE),
    ],
)
def test_the_earliest_moment_is_when_it_moves(state: RolloutState, what: str, then: Phase) -> None:
    found = upcoming(SPEC, state)
    assert found.what == what
    assert found.earliest is not None
    assert moved(state, GOOD, found.earliest - 0.01) is None
    assert moved(state, GOOD, found.earliest) is then


@pytest.mark.parametrize(
    ("state", "seen", "otherwise", "then"),
    [
        (RolloutState(Phase.WARMING, 100.0), WAITING, "it is rolled back", Phase.ROLLED_BACK),
        (RolloutState(Phase.GOLDEN, 100.0), UNSURE, "it pauses and asks a person", Phase.PAUSED),
        (RolloutState(Phase.STEP, 100.0, 1), UNSURE, "it pauses and asks a person", Phase.PAUSED),
    ],
)
def test_the_latest_moment_is_when_it_is_given_up(state: RolloutState, seen: Seen, otherwise: str, then: Phase) -> None:
    found = upcoming(SPEC, state)
    assert found.otherwise == otherwise
    assert found.latest is not None
    assert moved(state, seen, found.latest - 0.01) is None
    assert moved(state, seen, found.latest) is then


def test_before_the_first_step_it_says_what_is_waited_for() -> None:
    starting = upcoming(SPEC, RolloutState(Phase.STARTING, 1.0))
    assert (starting.what, starting.when, starting.earliest) == ("golden requests", "a replica is ready", None)
    golden = upcoming(SPEC, RolloutState(Phase.GOLDEN, 1.0))
    assert (golden.what, golden.when) == ("step 1 of 3: 10 % of them mirrored", "they are answered as recorded")
    bare = msgspec.structs.replace(SPEC, steps=())
    assert upcoming(bare, RolloutState(Phase.GOLDEN, 1.0)).what == "all traffic"


def test_a_paused_one_waits_for_a_person() -> None:
    found = upcoming(SPEC, RolloutState(Phase.PAUSED, 1.0, 1, paused_in=Phase.STEP))
    assert found == Next("it goes on, or back", "a person says resume, promote or abort")


@pytest.mark.parametrize("phase", sorted(ENDED))
def test_nothing_happens_after_the_end(phase: Phase) -> None:
    assert upcoming(SPEC, RolloutState(phase, 1.0, 2)) == Next()


def test_steps_in_words() -> None:
    assert describe_step(SPEC, 2) == "step 3 of 3: 50 % of the requests"
