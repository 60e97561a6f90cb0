"""/api/v1/rollouts: start one, look at it, and what a person may say to it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query
from starlette.responses import Response

from headrace.api import problems
from headrace.api.caller import Who
from headrace.api.idempotency import Requests, Sent
from headrace.api.pages import listed
from headrace.api.ports import RolloutCommands
from headrace.api.rollout_schema import Measured, RolloutDocument, Rollouts, Start
from headrace.control.rollout import Command
from headrace.control.rollout_story import Rollout

_SUMMARIES = {
    Command.PAUSE: "Nothing moves until a person says so",
    Command.RESUME: "Go on where it was paused",
    Command.PROMOTE: "Take the next step now",
    Command.ABORT: "Back to the old version",
}


def router(commands: RolloutCommands, requests: Requests) -> APIRouter:
    """Verbs stand before the endpoint's name, which may have slashes in it."""
    routes = APIRouter(prefix="/rollouts", tags=["rollouts"])
    _reading(routes, commands)
    _starting(routes, commands, requests)
    _measuring(routes, commands, requests)
    for said in Command:
        _command(routes, commands, requests, said)
    return routes


def _reading(routes: APIRouter, commands: RolloutCommands) -> None:
    @routes.get("", summary="Rollouts, newest first", responses=problems.described(422, 503))
    async def latest(
        endpoint: Annotated[str | None, Query(max_length=255, description="Only of this one.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
    ) -> Rollouts:
        found = await commands.rollouts(endpoint, limit)
        return Rollouts(rollouts=[RolloutDocument.of(rollout) for rollout in found])

    @routes.get(
        "/of/{name:path}",
        summary="The rollout of an endpoint that is under way, else its latest",
        responses=problems.described(404, 422, 503),
    )
    async def one(name: str) -> RolloutDocument:
        return RolloutDocument.of(await commands.rollout(name))


def _starting(routes: APIRouter, commands: RolloutCommands, requests: Requests) -> None:
    @routes.post(
        "",
        summary="Move an endpoint to another version, in judged steps",
        status_code=201,
        response_model=RolloutDocument,
        responses=problems.described(400, 404, 409, 422, 503),
    )
    async def start(wanted: Start, who: Who, sent: Sent) -> Response:
        return await requests.answer(
            commands,
            sent,
            wanted,
            lambda answering: commands.start(wanted.request(), who=who, answering=answering),
            _started,
        )


def _measuring(routes: APIRouter, commands: RolloutCommands, requests: Requests) -> None:
    @routes.post(
        "/measure/{name:path}",
        summary="A metric that the rollout is judged by, as it is now",
        response_model=RolloutDocument,
        responses=problems.described(404, 422, 503),
    )
    async def measure(name: str, measured: Measured, sent: Sent) -> Response:
        return await requests.answer(
            commands,
            sent,
            measured,
            lambda answering: commands.measured(name, measured.metric, measured.value, answering=answering),
            _answer,
        )


def _command(routes: APIRouter, commands: RolloutCommands, requests: Requests, said: Command) -> None:
    @routes.post(
        f"/{said.value}/{{name:path}}",
        summary=_SUMMARIES[said],
        name=f"{said.value}_rollout",
        response_model=RolloutDocument,
        responses=problems.described(404, 409, 422, 503),
    )
    async def command(name: str, who: Who, sent: Sent) -> Response:
        return await requests.answer(
            commands,
            sent,
            None,
            lambda answering: commands.command(name, said, who=who, answering=answering),
            _answer,
            urgent=said is Command.ABORT,
        )


def _started(rollout: Rollout) -> Response:
    response = _answer(rollout)
    response.status_code = 201
    response.headers["Location"] = f"/api/v1/rollouts/of/{quote(rollout.endpoint, safe='/')}"
    return response


def _answer(rollout: Rollout) -> Response:
    return listed(RolloutDocument.of(rollout))
