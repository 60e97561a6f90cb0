"""A rollout as it is kept: everything that is needed to go on with it, and to read afterwards what happened. Pure."""

from __future__ import annotations

import msgspec

from headrace.control.analysis.judge import Judge
from headrace.control.analysis.settings import AnalysisSettings
from headrace.control.analysis.verdict import Verdict
from headrace.control.golden import GoldenReport
from headrace.control.rollout_plan import RolloutPlan, steps_of
from headrace.control.rollout_state import ENDED, Phase, RolloutSpec, RolloutState
from headrace.core.endpoint_records import Document, EndpointRecord


class StoryLine(msgspec.Struct, frozen=True):
    """One move of a rollout."""

    at: float
    """Seconds since 1970 (UTC)."""
    phase: Phase
    step: int
    """Index of the step; -1: none yet."""
    share: float
    """Share of the live requests that the new deployment has from then on, 0..1."""
    reason: str


class Rollout(msgspec.Struct, frozen=True):
    """A rollout, whole: ``msgspec`` encodes it as JSON, so that another process can go on with it.

    It has no hash: the judge grows with what it sees."""

    id: str
    endpoint: str
    deployment: str
    """Name, under the endpoint, of what is rolled."""
    spec: RolloutSpec
    state: RolloutState
    analysis: AnalysisSettings = AnalysisSettings()
    judge: Judge | None = None
    """What it has seen so far; None: no traffic to judge yet."""
    golden: GoldenReport | None = None
    verdict: Verdict | None = None
    """Of the latest look."""
    story: tuple[StoryLine, ...] = ()
    """Oldest first."""
    who: str = ""
    """Who started it."""
    started_at: float = 0.0
    """Seconds since 1970 (UTC)."""
    document: Document = {}
    """Of the endpoint once the rollout is done."""
    before: EndpointRecord | None = None
    """What the endpoint goes back to when it is rolled back or aborted."""

    @property
    def ended(self) -> bool:
        return self.state.phase in ENDED


def spec_of(endpoint: str, plan: RolloutPlan, old: str, new: str) -> RolloutSpec:
    """What is planned, between these deployment ids, with the defaults of what is left out. Raises BadSettings."""
    given = {"final_bake_s": plan.final_bake_s, "max_step_s": plan.max_step_s}
    times = {key: seconds for key, seconds in given.items() if seconds is not None}
    return RolloutSpec(endpoint, old, new, steps_of(plan), **times)
