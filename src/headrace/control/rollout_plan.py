"""How an endpoint's rollouts go: what its ``rollout:`` section says, and what a request says otherwise. Pure."""

from __future__ import annotations

import math

import msgspec

from headrace.control import strategies
from headrace.control.analysis.settings import AnalysisSettings
from headrace.control.strategies import Steps
from headrace.core import errors

DEFAULT_CANARY = "1,5,25,50"


class RolloutPlan(msgspec.Struct, frozen=True):
    """At most one of ``canary``, ``linear`` and ``blue_green``; none: canary 1,5,25,50. See ``steps_of``."""

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


class RolloutRequest(msgspec.Struct, frozen=True):
    """What somebody asks for. What is left out is as the endpoint's plan says; see ``planned``."""

    endpoint: str
    to: str
    """The new version: ``8``, an alias, ``fraud@8``, or a path."""
    deployment: str | None = None
    """Name under the endpoint; None: its only one."""
    canary: str = ""
    linear: str = ""
    blue_green: bool = False
    shadow_first: bool | None = None
    bake_s: float | None = None
    final_bake_s: float | None = None
    max_step_s: float | None = None
    analysis: AnalysisSettings | None = None
    """Instead of the plan's, as a whole."""
    take_over: bool = False
    """Decide the traffic of an endpoint that another decides now."""

    def __post_init__(self) -> None:
        times = {"bake": self.bake_s, "final bake": self.final_bake_s, "longest step": self.max_step_s}
        for what, seconds in times.items():
            if seconds is not None and not 0 <= seconds < math.inf:
                raise errors.BadSettings(f"the time of the {what} is a number of seconds from 0 on; got {seconds:g}")


def planned(request: RolloutRequest, plan: RolloutPlan) -> RolloutPlan:
    """The plan with what the request says otherwise.

    A strategy that is asked for replaces the plan's; what the plan says of bake time or mirrored requests and the
    strategy has no place for is left out then. What the request itself says always stays, fitting or not."""
    named = bool(request.canary or request.linear or request.blue_green)
    strategy = request if named else plan
    shadow_first, bake_s = request.shadow_first, request.bake_s
    if shadow_first is None:
        shadow_first = plan.shadow_first and not strategy.blue_green
    if bake_s is None and not (strategy.blue_green or (strategy.linear and not shadow_first)):
        bake_s = plan.bake_s
    return RolloutPlan(
        canary=strategy.canary,
        linear=strategy.linear,
        blue_green=strategy.blue_green,
        shadow_first=shadow_first,
        bake_s=bake_s,
        final_bake_s=plan.final_bake_s if request.final_bake_s is None else request.final_bake_s,
        max_step_s=plan.max_step_s if request.max_step_s is None else request.max_step_s,
        analysis=plan.analysis if request.analysis is None else request.analysis,
    )


def steps_of(plan: RolloutPlan) -> Steps:
    """The steps of the strategy; canary in four steps when none is named. Raises BadSettings."""
    _check_combination(plan)
    bake_s = strategies.BAKE_S if plan.bake_s is None else plan.bake_s
    if plan.blue_green:
        return strategies.blue_green()
    canary = plan.canary or DEFAULT_CANARY
    steps = strategies.linear(plan.linear) if plan.linear else strategies.canary(canary, bake_s)
    return strategies.shadow_first(steps, bake_s=bake_s) if plan.shadow_first else steps


def _check_combination(plan: RolloutPlan) -> None:
    named = {"canary": plan.canary, "linear": plan.linear, "blue-green": plan.blue_green}
    chosen = [name for name, value in named.items() if value]
    if len(chosen) > 1:
        raise errors.BadSettings(f"a rollout has one strategy, got {' and '.join(chosen)}: choose one")
    if plan.blue_green and plan.shadow_first:
        raise errors.BadSettings(
            "blue-green has no steps for mirrored requests to come before: combine shadow-first with canary or linear"
        )
    if plan.bake_s is None:
        return
    if plan.blue_green:
        raise errors.BadSettings("blue-green has no steps to bake: set the time of the final bake")
    if plan.linear and not plan.shadow_first:
        raise errors.BadSettings(
            f"linear {plan.linear} says how long each step bakes: leave the bake time out, or change the duration"
        )
