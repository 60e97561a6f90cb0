"""GET /api/v1/changes: who changed what in the registry, when and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from headrace.api import problems
from headrace.api.pages import Cursor, Limit, Page, listed, read_cursor
from headrace.api.ports import RegistryAccess
from headrace.api.registry import owned
from headrace.api.registry_schema import Change, Changes
from headrace.core import names

_CURSOR = "changes"


def router(access: RegistryAccess | None) -> APIRouter:
    routes = APIRouter(prefix="/changes", tags=["events"])

    @routes.get(
        "",
        summary="Changes of the registry, newest first",
        response_model=Changes,
        responses=problems.described(400, 404, 422),
    )
    def changes(
        model: Annotated[str | None, Query(max_length=255, description="Only what happened to this one.")] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """Kept for good, unlike `/api/v1/events`, which tells what happened to the running server lately."""
        if model is not None:
            names.check_model(model)
        with owned(access).registry.reading() as transaction:
            found = transaction.events.page(limit + 1, read_cursor(_CURSOR, int, cursor), model)
        page = Page(found, limit, _CURSOR)
        return listed(Changes(changes=[Change.of(event) for event in page.entries], next_cursor=page.next_cursor))

    return routes
