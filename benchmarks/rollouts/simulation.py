"""One simulated rollout, from the first step to its end; and the rates over many of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.rollouts.traffic import INTERVAL_S, Scenario, Traffic
from headrace.control import rollout, rollout_state, strategies
from headrace.control.analysis.judge import judge
from headrace.control.analysis.settings import AnalysisSettings
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenReport
from headrace.control.rollout import BeginStep, Readiness, Seen
from headrace.control.rollout_state import ENDED, Phase, RolloutSpec
from headrace.core.tallies import Observation

SPEC = RolloutSpec("sim", "sim@1", "sim@2", strategies.canary("1,5,25,50", bake_s=600.0))
_GOLDEN = GoldenReport(Finding.PASS, "simulated")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a rollout ended: done, rolled_back, or paused for a person."""

    phase: Phase
    share: float
    """Of traffic that the canary had in its last step."""
    seconds: float
    """Since its first traffic."""
    reason: str


def run(scenario: Scenario, seed: tuple[int, ...], settings: AnalysisSettings, spec: RolloutSpec = SPEC) -> Ended:
    """Judge and steer one rollout as a controller does: a look every interval, a decision after each."""
    traffic = Traffic(scenario, np.random.default_rng(seed))
    judging = judge(settings, scenario.slo)
    state = rollout_state.start(0.0)
    observations: Iterator[Observation] = iter(())
    now, verdict, share = 0.0, None, 0.0
    while True:
        seen = Seen(Readiness.READY, golden=_GOLDEN, verdict=verdict, judged_step=state.step)
        decision = rollout.decide(spec, state, seen, now)
        state = decision.state
        if state.phase in ENDED or state.phase is Phase.PAUSED:
            return Ended(state.phase, share, now, state.reason)
        if any(isinstance(action, BeginStep) for action in decision.actions):
            share = rollout_state.share(spec, state)
            judging.begin_step()
            observations = traffic.step(share)
            verdict = None
        if share:
            verdict = judging.look(next(observations))
            now += INTERVAL_S


@dataclass(frozen=True, slots=True)
class Rates:
    """Counts over the rollouts of one scenario."""

    scenario: str
    rollouts: int
    early: int
    """Rolled back before the canary had 25 % of traffic."""
    rolled_back: int
    done: int
    paused: int
    median_s: float
    """Median time to the end."""
    reasons: dict[str, int]
    """Checks that failed first, of those rolled back."""


def rates(scenario: Scenario, ends: Iterable[Ended]) -> Rates:
    all_ends = list(ends)
    back = [end for end in all_ends if end.phase is Phase.ROLLED_BACK]
    reasons: dict[str, int] = {}
    for end in back:
        check = end.reason.split(":", 1)[0]
        reasons[check] = reasons.get(check, 0) + 1
    return Rates(
        scenario.name,
        len(all_ends),
        early=sum(end.share < 0.25 for end in back),
        rolled_back=len(back),
        done=sum(end.phase is Phase.DONE for end in all_ends),
        paused=sum(end.phase is Phase.PAUSED for end in all_ends),
        median_s=float(np.median([end.seconds for end in all_ends])),
        reasons=reasons,
    )


def interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson confidence interval of a rate."""
    from scipy.stats import beta  # only the report needs it, and it is slow to import

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, count, total - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, total - count)) if count < total else 1.0
    return low, high
