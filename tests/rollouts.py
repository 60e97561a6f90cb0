"""Rollouts made by hand: ``fraud@7`` to ``fraud@8``."""

from __future__ import annotations

from typing import Any

from headrace.control.analysis.judge import judge
from headrace.control.analysis.settings import AnalysisSettings, MetricSettings
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import GoldenReport
from headrace.control.rollout_state import Phase, RolloutSpec, RolloutState
from headrace.control.rollout_story import Rollout, StoryLine
from headrace.control.strategies import canary, shadow_first
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.endpoints import DeploymentSpec
from headrace.core.models import Artifact, Format
from headrace.core.traffic import EndpointTraffic
from tests.observations import batches, measured, observe, tally

SPEC = RolloutSpec("fraud", "fraud@7", "fraud@8", shadow_first(canary("5,50", bake_s=60.0), bake_s=30.0))
STARTED = 1_700_000_000.0


def rollout(id: str = "r1", endpoint: str = "fraud", **changes: Any) -> Rollout:
    """A rollout that has just been started."""
    values: dict[str, Any] = {
        "spec": SPEC,
        "state": RolloutState(Phase.STARTING, STARTED),
        "who": "ada",
        "started_at": STARTED,
    }
    return Rollout(id, endpoint, "main", **(values | changes))


def judged(id: str = "r1", **changes: Any) -> Rollout:
    """A rollout in its second step that has been judged for a while, with everything that can be kept of one."""
    settings = AnalysisSettings(metrics=(MetricSettings("loss", success="<= 0.2"),))
    seeing = judge(settings)
    seeing.begin_step()
    for number in range(20):
        seeing.look(measured("loss", 0.1 + number / 1000))
        canary_side, stable = tally(ok=200, errors=number % 3, ms=4.0), tally(ok=2000, errors=7, ms=4.0)
        for side in (canary_side, stable):
            side.compute.update(batches(b8=(10, 0.002)))
        verdict = seeing.look(observe(canary_side, stable, tally(ok=200, ms=4.0)))
    spec = DeploymentSpec("fraud", "7", Artifact("/m.onnx", Format.ONNX, "onnx", "sha256:aa"))
    values: dict[str, Any] = {
        "state": RolloutState(Phase.STEP, STARTED + 100, 1, "8 checks passed", unready_since=STARTED + 101),
        "analysis": settings,
        "judge": seeing,
        "golden": GoldenReport(Finding.PASS, "20 answered as recorded"),
        "verdict": verdict,
        "story": (
            StoryLine(STARTED, Phase.STARTING, -1, 0.0, "started by ada"),
            StoryLine(STARTED + 100, Phase.STEP, 1, 0.05, "8 checks passed"),
        ),
        "document": {"model": "fraud@8", "replicas": 2},
        "before": EndpointRecord("fraud", {"model": "fraud@7"}, (spec,), EndpointTraffic().aimed("main", spec.id)),
    }
    return rollout(id, **(values | changes))
