"""A rollout as it is asked for, and as it is kept: everything that is needed to go on with it, and to read afterwards
what happened. Pure."""

from __future__ import annotations

import math

import msgspec

from headrace.control import strategies
from headrace.control.analysis.judge import Judge
from headrace.control.analysis.settings import AnalysisSettings
from headrace.control.analysis.verdict import Verdict
from headrace.control.golden import GoldenReport
from headrace.control.rollout_state import ENDED, Phase, RolloutSpec, RolloutState
from headrace.control.strategies import Steps
from headrace.core import errors
from headrace.core.endpoint_records import Document, EndpointRecord

DEFAULT_CANARY = "1,5,25,50"


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


class RolloutRequest(msgspec.Struct, frozen=True):
    """What somebody asks for. At most one of ``canary``, ``linear`` and ``blue_green``; see ``steps_of``."""

    endpoint: str
    to: str
    """The new version: ``8``, an alias, ``fraud@8``, or a path."""
    deployment: str | None = None
    """Name under the endpoint; None: its only one."""
    canary: str = ""
    """Percents: ``1,5,25,50``."""
    linear: str = ""
    """Percent and duration: ``10/2m``."""
    blue_green: bool = False
    shadow_first: bool = False
    """Mirrored requests before the first live one."""
    bake_s: float | None = None
    """Of each step; None: the default."""
    final_bake_s: float | None = None
    """With all traffic, the old deployment warm; None: the default."""
    max_step_s: float | None = None
    """A step that is still inconclusive then pauses the rollout; None: the default."""
    analysis: AnalysisSettings = AnalysisSettings()
    take_over: bool = False
    """Decide the traffic of an endpoint that another decides now."""

    def __post_init__(self) -> None:
        times = {"bake": self.bake_s, "final bake": self.final_bake_s, "longest step": self.max_step_s}
        for what, seconds in times.items():
            if seconds is not None and not 0 <= seconds < math.inf:
                raise errors.BadSettings(f"the time of the {what} is a number of seconds from 0 on; got {seconds:g}")


def steps_of(request: RolloutRequest) -> Steps:
    """The steps of the strategy that is asked for; canary in four steps when none is named. Raises BadSettings."""
    _check_combination(request)
    bake_s = strategies.BAKE_S if request.bake_s is None else request.bake_s
    if request.blue_green:
        return strategies.blue_green()
    if request.linear:
        steps = strategies.linear(request.linear)
    else:
        steps = strategies.canary(request.canary or DEFAULT_CANARY, bake_s)
    return strategies.shadow_first(steps, bake_s=bake_s) if request.shadow_first else steps


def spec_of(request: RolloutRequest, old: str, new: str) -> RolloutSpec:
    """What is asked for, between these deployment ids, with the defaults of what is left out. Raises BadSettings."""
    given = {"final_bake_s": request.final_bake_s, "max_step_s": request.max_step_s}
    times = {key: seconds for key, seconds in given.items() if seconds is not None}
    return RolloutSpec(request.endpoint, old, new, steps_of(request), **times)


def _check_combination(request: RolloutRequest) -> None:
    named = {"canary": request.canary, "linear": request.linear, "blue-green": request.blue_green}
    chosen = [name for name, value in named.items() if value]
    if len(chosen) > 1:
        raise errors.BadSettings(f"a rollout has one strategy, got {' and '.join(chosen)}: choose one")
    if request.blue_green and request.shadow_first:
        raise errors.BadSettings(
            "blue-green has no steps for mirrored requests to come before: combine shadow-first with canary or linear"
        )
    if request.bake_s is None:
        return
    if request.blue_green:
        raise errors.BadSettings("blue-green has no steps to bake: set the time of the final bake")
    if request.linear and not request.shadow_first:
        raise errors.BadSettings(
            f"linear {request.linear} says how long each step bakes: leave the bake time out, or change the duration"
        )
