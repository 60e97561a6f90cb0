"""GET /api/v1/schema: what a headrace.yaml may say, for editors."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from starlette.responses import Response

MEDIA_TYPE = "application/schema+json"


def router(schema: Callable[[], str]) -> APIRouter:
    """``schema``: the JSON Schema, as text."""
    routes = APIRouter(tags=["endpoints"])

    @routes.get(
        "/schema",
        summary="JSON Schema (2020-12) of headrace.yaml",
        response_class=Response,
        responses={200: {"content": {MEDIA_TYPE: {}}}},
    )
    async def settings_schema() -> Response:
        """Editors check a file against it that begins with `# yaml-language-server: $schema=` and this address."""
        return Response(schema(), media_type=MEDIA_TYPE)

    return routes
