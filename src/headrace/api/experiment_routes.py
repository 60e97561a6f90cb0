"""/api/v1/experiments: start, report and stop one on an endpoint, and POST …/feedback for what came of its requests."""

from __future__ import annotations

from fastapi import APIRouter

from headrace.api import problems
from headrace.api.caller import Who
from headrace.api.endpoint_changes import Seen
from headrace.api.experiment_schema import (
    Experiment,
    Experiments,
    Outcome,
    Outcomes,
    Receipt,
    Receipts,
    Report,
    Start,
)
from headrace.api.ports import ExperimentCommands


def router(commands: ExperimentCommands) -> APIRouter:
    """An endpoint's name may have slashes in it; only POST has a word after it."""
    routes = APIRouter(prefix="/experiments", tags=["experiments"])
    refusals = problems.described(400, 404, 409, 412, 422, 503)

    @routes.get("", summary="All experiments, newest first")
    async def every_experiment() -> Experiments:
        return Experiments(experiments=[Experiment.of(experiment) for experiment in await commands.all()])

    @routes.post(
        "/{name:path}/feedback",
        summary="What came of one request or of many; sending it again changes nothing",
        responses=problems.described(400, 404, 413, 422, 507),
    )
    async def feedback(name: str, body: Outcome | Outcomes) -> Receipts:
        outcomes = body.outcomes if isinstance(body, Outcomes) else [body]
        receipts = await commands.feedback(name, [outcome.value() for outcome in outcomes])
        return Receipts(receipts=[Receipt.of(receipt) for receipt in receipts])

    @routes.put("/{name:path}", summary="Start an experiment on an endpoint", responses=refusals)
    async def start(name: str, body: Start, who: Who, seen: Seen) -> Report:
        report = await commands.start(
            name,
            body.arms,
            weights=body.weights,
            bandit=None if body.bandit is None else body.bandit.settings(),
            metric=body.metric,
            confidence=body.confidence,
            who=who,
            take_over=body.take_over,
            generation=seen,
        )
        return Report.of(report)

    @routes.get("/{name:path}", summary="What the last experiment on an endpoint has shown", responses=refusals)
    async def report(name: str) -> Report:
        return Report.of(await commands.report(name))

    @routes.delete("/{name:path}", summary="End it; the shares stay", responses=refusals)
    async def stop(name: str, who: Who, seen: Seen) -> Report:
        return Report.of(await commands.stop(name, who=who, generation=seen))

    return routes
