"""/api/v1/plan, /api/v1/apply, /api/v1/config, /api/v1/deploy and what is done to one endpoint by hand.

An endpoint's ETag is its generation: a request with If-Match changes what the caller has seen, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import PlainTextResponse, Response

from headrace.api import problems
from headrace.api.caller import caller, key_of
from headrace.api.endpoint_schema import Applied, Change, Changes, Deploy, Drain, Pause, Restart, Scale, Wanted, Weights
from headrace.api.idempotency import Requests, Sent
from headrace.api.pages import listed
from headrace.api.ports import EndpointCommands
from headrace.control.endpoint_changes import EndpointChange
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord


def _who(
    request: Request,
    claimed: Annotated[str, Header(alias="X-Headrace-User", description="For the history: who asks.")] = "",
) -> str:
    """The key that the request came with; without one a claim, like the user name of a command; else the address."""
    return key_of(request) or claimed[:200] or caller(request)


Who = Annotated[str, Depends(_who)]


def _generation(
    if_match: Annotated[str | None, Header(description="ETag of the endpoint as the caller has seen it.")] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    tag = if_match.strip().strip('"')
    if not tag.isdigit():
        raise errors.PreconditionFailed(f'If-Match: {if_match!r} is no ETag of an endpoint; it reads like "7"')
    return int(tag)


Seen = Annotated[int | None, Depends(_generation)]

_REFUSALS = problems.described(400, 404, 409, 412, 422, 503)


def router(commands: EndpointCommands, requests: Requests) -> APIRouter:
    routes = APIRouter(tags=["endpoints"])
    _files(routes, commands, requests)
    _by_hand(routes, commands)
    _once(routes, commands, requests)
    return routes


def _files(routes: APIRouter, commands: EndpointCommands, requests: Requests) -> None:
    refusals = problems.described(400, 404, 409, 422, 503)

    @routes.post("/plan", summary="What applying a file would change", responses=refusals)
    async def plan(wanted: Applied) -> Changes:
        return _changes(await commands.plan(wanted.config, wanted.path))

    @routes.post(
        "/apply",
        summary="Make what runs what a file says: all of it, or nothing",
        response_model=Changes,
        responses=refusals,
    )
    async def apply(wanted: Applied, who: Who, sent: Sent) -> Response:
        return await requests.answer(
            commands,
            sent,
            wanted,
            lambda answering: commands.apply(
                wanted.config, wanted.path, who=who, take_over=wanted.take_over, answering=answering
            ),
            lambda done: listed(_changes(done)),
        )

    @routes.get("/config", summary="What runs, as a headrace.yaml", response_class=PlainTextResponse)
    async def config() -> Response:
        return PlainTextResponse(commands.export(), media_type="application/yaml")


def _by_hand(routes: APIRouter, commands: EndpointCommands) -> None:
    """Verbs stand before the endpoint's name, which may have slashes in it."""
    refusals = _REFUSALS

    @routes.get("/wanted/{name:path}", summary="An endpoint as it shall be", response_model=Wanted, responses=refusals)
    async def wanted(name: str) -> Response:
        return _answer(commands.wanted(name))

    @routes.put(
        "/deploy/{name:path}",
        summary="A version of the registry under an endpoint, which is made when it is not there",
        responses=refusals,
    )
    async def deploy(name: str, body: Deploy, seen: Seen, who: Who) -> Change:
        return Change.of(await commands.deploy(body.wanted(name), who=who, generation=seen))

    @routes.put("/traffic/{name:path}", summary="Weights by hand", response_model=Wanted, responses=refusals)
    async def traffic(name: str, body: Weights, seen: Seen, who: Who) -> Response:
        return _answer(
            await commands.set_traffic(name, body.weights, who=who, take_over=body.take_over, generation=seen)
        )

    @routes.put("/scale/{name:path}", summary="Number of replicas", response_model=Wanted, responses=refusals)
    async def scale(name: str, body: Scale, seen: Seen, who: Who) -> Response:
        return _answer(await commands.scale(name, body.deployment, body.replicas, who=who, generation=seen))

    @routes.put("/pause/{name:path}", summary="Refuse requests", response_model=Wanted, responses=refusals)
    async def pause(name: str, body: Pause, seen: Seen, who: Who) -> Response:
        return _answer(await commands.pause(name, body.why, who=who, generation=seen))

    @routes.delete("/pause/{name:path}", summary="Take requests again", response_model=Wanted, responses=refusals)
    async def resume(name: str, seen: Seen, who: Who) -> Response:
        return _answer(await commands.resume(name, who=who, generation=seen))

    @routes.delete("/endpoints/{name:path}", summary="Serve it no longer", status_code=204, responses=refusals)
    async def delete(name: str, seen: Seen, who: Who, take_over: bool = False) -> Response:
        await commands.delete(name, who=who, take_over=take_over, generation=seen)
        return Response(status_code=204)


def _once(routes: APIRouter, commands: EndpointCommands, requests: Requests) -> None:
    """What is done by hand and is not the same when it is done twice."""

    @routes.post(
        "/restart/{name:path}", summary="Fresh replicas, one by one", response_model=Wanted, responses=_REFUSALS
    )
    async def restart(name: str, body: Restart, seen: Seen, who: Who, sent: Sent) -> Response:
        return await requests.answer(
            commands,
            sent,
            body,
            lambda answering: commands.restart(name, body.deployment, who=who, generation=seen, answering=answering),
            _answer,
        )

    @routes.post(
        "/drain/{name:path}", summary="No traffic for a deployment", response_model=Wanted, responses=_REFUSALS
    )
    async def drain(name: str, body: Drain, seen: Seen, who: Who, sent: Sent) -> Response:
        return await requests.answer(
            commands,
            sent,
            body,
            lambda answering: commands.drain(
                name, body.deployment, who=who, take_over=body.take_over, generation=seen, answering=answering
            ),
            _answer,
        )


def _changes(changes: Sequence[EndpointChange]) -> Changes:
    return Changes(changes=[Change.of(change) for change in changes])


def _answer(record: EndpointRecord) -> Response:
    body = Wanted.of(record).model_dump_json()
    return Response(body, headers={"ETag": f'"{record.generation}"'}, media_type="application/json")
