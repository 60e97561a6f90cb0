"""The documents of experiments and of feedback."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from headrace.control.experiments.intervals import Interval, Lift, Method
from headrace.control.experiments.report import ArmReport, ExperimentReport
from headrace.core import experiments
from headrace.core.experiments import MAX_OUTCOMES, BanditSettings, Joined

Finite = Annotated[float, Field(allow_inf_nan=False)]
_DEFAULTS = BanditSettings()


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Bandit(_Request):
    """Thompson sampling: shares follow the outcomes."""

    floor: Finite = Field(_DEFAULTS.floor, description="Least share of every arm.")
    minimum: int = Field(_DEFAULTS.minimum, description="Outcomes of every arm before the first move.")
    every_s: Finite = Field(_DEFAULTS.every_s, description="Seconds between two looks at the outcomes.")
    least_move: Finite = Field(_DEFAULTS.least_move, description="A smaller change of shares is not made.")

    def settings(self) -> BanditSettings:
        return BanditSettings(**self.model_dump())


class Start(_Request):
    arms: list[str] = Field(description="Deployments, the control first.", examples=[["champion", "challenger"]])
    weights: dict[str, Finite] | None = Field(None, description="By arm, in any unit; null: every arm has the same.")
    bandit: Bandit | None = Field(None, description="null: the shares stay.")
    metric: str = Field("reward", max_length=100, description="What the rewards stand for, for people.")
    confidence: Finite = Field(0.95, description="Of the intervals.")
    take_over: bool = Field(False, description="Decide the traffic, whoever decides it now.")


class Outcome(_Request):
    """What came of a request. The latest one of a request counts."""

    request_id: str = Field(max_length=1024, description="`X-Request-Id` of the answer; `id` in gRPC streams.")
    reward: Finite = Field(description="0 or 1, or any number: more is better.")
    at: Finite | None = Field(None, description="Seconds since 1970 (UTC); null: now.")

    def value(self) -> experiments.Outcome:
        return experiments.Outcome(self.request_id, self.reward, self.at)


class Outcomes(_Request):
    outcomes: list[Outcome] = Field(max_length=MAX_OUTCOMES)


class Receipt(BaseModel):
    request_id: str
    status: Joined = Field(
        description="joined; replaced: an outcome before it; unchanged: it was known; older: a later one is known;"
        " not_counted: the request named its deployment itself; unknown: no such request, or too long ago."
    )
    arm: str = Field(description="The deployment that the request was given to; empty when unknown.")

    @classmethod
    def of(cls, receipt: experiments.Receipt) -> Receipt:
        return cls(request_id=receipt.request_id, status=receipt.status, arm=receipt.arm)


class Receipts(BaseModel):
    receipts: list[Receipt] = Field(description="One for each outcome, in order.")


class Bounds(BaseModel):
    """null: without bound."""

    estimate: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, interval: Interval) -> Bounds:
        low, high = (bound if math.isfinite(bound) else None for bound in (interval.low, interval.high))
        return cls(estimate=interval.estimate, low=low, high=high)


class Comparison(BaseModel):
    """The arm's mean less the control's."""

    method: Method
    absolute: Bounds
    relative: Bounds | None = Field(description="In parts of the control's mean; null where that is not above 0.")

    @classmethod
    def of(cls, lift: Lift) -> Comparison:
        relative = None if lift.relative is None else Bounds.of(lift.relative)
        return cls(method=lift.method, absolute=Bounds.of(lift.absolute), relative=relative)


class Arm(BaseModel):
    arm: str
    share: float = Field(description="Of the endpoint's requests now.")
    requests: int = Field(description="Answered, and given to it by chance.")
    outcomes: int
    mean: float
    deviation: float = Field(description="Standard deviation of the rewards.")
    probability_best: float
    lift: Comparison | None = Field(description="For a single look; null for the control.")
    sequential: Comparison | None = Field(description="However often one looks; null for the control.")

    @classmethod
    def of(cls, arm: ArmReport) -> Arm:
        return cls(
            arm=arm.arm,
            share=arm.share,
            requests=arm.requests,
            outcomes=arm.outcomes,
            mean=arm.mean,
            deviation=arm.deviation,
            probability_best=arm.probability_best,
            lift=None if arm.lift is None else Comparison.of(arm.lift),
            sequential=None if arm.sequential is None else Comparison.of(arm.sequential),
        )


class Experiment(BaseModel):
    id: str
    endpoint: str
    arms: list[str]
    metric: str
    bandit: Bandit | None
    confidence: float
    started: float = Field(description="Seconds since 1970 (UTC).")
    started_by: str
    ended: float | None
    why: str = Field(description="It ended.")

    @classmethod
    def of(cls, experiment: experiments.Experiment) -> Experiment:
        bandit = experiment.bandit
        return cls(
            id=experiment.id,
            endpoint=experiment.endpoint,
            arms=list(experiment.arms),
            metric=experiment.metric,
            bandit=None
            if bandit is None
            else Bandit(
                floor=bandit.floor, minimum=bandit.minimum, every_s=bandit.every_s, least_move=bandit.least_move
            ),
            confidence=experiment.confidence,
            started=experiment.started,
            started_by=experiment.who,
            ended=experiment.ended,
            why=experiment.why,
        )


class Experiments(BaseModel):
    experiments: list[Experiment] = Field(description="Newest first.")


class Report(BaseModel):
    """What an experiment has shown so far."""

    experiment: Experiment
    arms: list[Arm]
    sample_ratio_p: float = Field(description="Probability of requests spread so unevenly when nothing is wrong.")
    sample_ratio_mismatch: bool = Field(description="It is so small that the arms are not comparable.")
    needed_per_arm: int | None = Field(
        description="Outcomes of each arm to find a difference of a twentieth of the control's mean (power 0.8)."
    )
    notes: list[str] = Field(description="What to know before one believes the numbers.")

    @classmethod
    def of(cls, report: ExperimentReport) -> Report:
        return cls(
            experiment=Experiment.of(report.experiment),
            arms=[Arm.of(arm) for arm in report.arms],
            sample_ratio_p=report.sample_ratio.p_value,
            sample_ratio_mismatch=report.sample_ratio.mismatch,
            needed_per_arm=report.needed_per_arm,
            notes=list(report.notes),
        )
