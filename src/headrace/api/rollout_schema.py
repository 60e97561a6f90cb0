"""The documents of rollouts. Times are seconds since 1970 (UTC), durations seconds, shares 0..1; steps count from 1."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from headrace.control import rollout_state
from headrace.control.analysis import verdict
from headrace.control.analysis.documents import settings_of
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenReport
from headrace.control.rollout_next import upcoming
from headrace.control.rollout_plan import RolloutRequest
from headrace.control.rollout_state import Phase
from headrace.control.rollout_story import Rollout, StoryLine


class Start(BaseModel):
    """A rollout that is asked for. What is left out is as the `rollout` of the endpoint says, or has its default. At
    most one of `canary`, `linear` and `blue_green`."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str = Field(max_length=255, examples=["fraud"])
    to: str = Field(max_length=4096, description="A version, an alias, `fraud@8`, or a path.", examples=["8"])
    deployment: str | None = Field(None, description="May be left out when the endpoint has only one.")
    canary: str = Field("", max_length=1000, description="Percents.", examples=["1,5,25,50"])
    linear: str = Field("", max_length=100, description="Percent and duration.", examples=["10/2m"])
    blue_green: bool = False
    shadow_first: bool | None = Field(None, description="Mirrored requests first; with canary or linear.")
    bake_s: float | None = Field(None, ge=0, description="Of each step, at least.")
    final_bake_s: float | None = Field(None, ge=0, description="With all traffic, the old version warm.")
    max_step_s: float | None = Field(None, ge=0, description="A step that is still inconclusive then is paused.")
    analysis: dict[str, Any] | None = Field(
        None,
        description="How it is judged, in place of what the endpoint says; what it leaves out has its default.",
        examples=[{"latency": {"margin": 1.1}}],
    )
    take_over: bool = Field(False, description="Decide the traffic of an endpoint that another decides now.")

    def request(self) -> RolloutRequest:
        """Raises BadSettings that names the key."""
        analysis = None if self.analysis is None else settings_of(self.analysis)
        return RolloutRequest(**{**self.model_dump(), "analysis": analysis})


class Measured(BaseModel):
    """A metric of the user, as it is now."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    metric: str = Field(max_length=255, description="As `analysis.metrics` names it.", examples=["chargebacks"])
    value: float


class Step(BaseModel):
    traffic: float = Field(description="Share of the live requests.")
    shadow: float = Field(description="Part of the other requests that is mirrored.")
    bake_s: float = Field(description="How long, at least.")


class Check(BaseModel):
    """What one check says."""

    check: str = Field(examples=["latency p95"])
    finding: Finding
    reason: str = Field(description="In words and numbers.")
    gate: bool = Field(description="False: it can warn, not decide.")
    needed: bool = Field(description="The step does not pass before it passes.")


class Verdict(BaseModel):
    """Of the latest look."""

    finding: Finding
    reason: str
    checks: list[Check]

    @classmethod
    def of(cls, found: verdict.Verdict) -> Verdict:
        checks = [Check(**msgspec.structs.asdict(check)) for check in found.checks]
        return cls(finding=found.finding, reason=found.reason, checks=checks)


class Golden(BaseModel):
    """How the golden requests were answered."""

    finding: Finding
    reason: str
    differences: list[str]

    @classmethod
    def of(cls, report: GoldenReport) -> Golden:
        return cls(finding=report.finding, reason=report.reason, differences=list(report.differences))


class Line(BaseModel):
    """One move of the rollout."""

    at: float
    phase: Phase
    step: int = Field(description="0: none yet.")
    share: float = Field(description="What the new version has from then on.")
    reason: str

    @classmethod
    def of(cls, line: StoryLine) -> Line:
        return cls(at=line.at, phase=line.phase, step=line.step + 1, share=line.share, reason=line.reason)


class Next(BaseModel):
    """`what` follows once `when` is so, not before `earliest`; at `latest`, `otherwise`. Empty: nothing more. What is
    proven bad is rolled back at any time."""

    what: str
    when: str
    earliest: float | None
    otherwise: str
    latest: float | None


class RolloutDocument(BaseModel):
    """A rollout: where it is, why, what comes next, and its story."""

    id: str
    endpoint: str
    deployment: str = Field(description="Name, under the endpoint, of what is rolled.")
    old: str = Field(examples=["fraud@7"])
    new: str = Field(examples=["fraud@8"])
    phase: Phase
    paused_in: Phase | None = Field(description="Of a paused one: the phase that it goes on with.")
    ended: bool
    step: int = Field(description="That is, or was last, in force; 0: none yet; one more than there are: all traffic.")
    steps: list[Step]
    share: float = Field(description="Share of the live requests that the new version has.")
    shadow: float = Field(description="Part of the other requests that is mirrored to it.")
    since: float = Field(description="When the phase, or its step, began.")
    reason: str = Field(description="Why it is in this phase.")
    next: Next
    verdict: Verdict | None = Field(description="null: nothing was judged yet.")
    golden: Golden | None = Field(description="null: they are not answered yet.")
    story: list[Line] = Field(description="Oldest first.")
    final_bake_s: float
    max_step_s: float
    analysis: dict[str, Any] = Field(description="How it is judged, in full.")
    who: str = Field(description="Who started it.")
    started_at: float

    @classmethod
    def of(cls, rollout: Rollout) -> RolloutDocument:
        spec, state = rollout.spec, rollout.state
        return cls(
            id=rollout.id,
            endpoint=rollout.endpoint,
            deployment=rollout.deployment,
            old=spec.old,
            new=spec.new,
            phase=state.phase,
            paused_in=state.paused_in,
            ended=rollout.ended,
            step=state.step + 1,
            steps=[Step(**msgspec.structs.asdict(step)) for step in spec.steps],
            share=rollout_state.share(spec, state),
            shadow=rollout_state.shadow(spec, state),
            since=state.since,
            reason=state.reason,
            next=Next(**msgspec.structs.asdict(upcoming(spec, state))),
            verdict=None if rollout.verdict is None else Verdict.of(rollout.verdict),
            golden=None if rollout.golden is None else Golden.of(rollout.golden),
            story=[Line.of(line) for line in rollout.story],
            final_bake_s=spec.final_bake_s,
            max_step_s=spec.max_step_s,
            analysis=msgspec.to_builtins(rollout.analysis),
            who=rollout.who,
            started_at=rollout.started_at,
        )


class Rollouts(BaseModel):
    rollouts: list[RolloutDocument] = Field(description="Newest first.")
