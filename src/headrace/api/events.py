"""GET /api/v1/events: what happened lately."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from headrace.api import problems
from headrace.api.ports import ControllerView
from headrace.api.schema import Event, Events


def router(view: ControllerView) -> APIRouter:
    routes = APIRouter(prefix="/events", tags=["events"])

    @routes.get("", summary="Latest events, newest first", responses=problems.described(422))
    async def latest(limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100) -> Events:
        return Events(events=[Event.model_validate(event) for event in view.events(limit)])

    return routes
