"""GET /metrics: Prometheus text or OpenMetrics, merged over all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.telemetry import exposition


def router(directory: Path, workers: Callable[[], Mapping[str, int]] | None) -> APIRouter:
    routes = APIRouter(tags=["metrics"])

    # Not a coroutine: reading and rendering many series takes milliseconds that the event loop must not spend.
    @routes.get(
        "/metrics",
        summary="Metrics of all processes",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
    )
    def metrics(request: Request) -> Response:
        """The Prometheus text format, or OpenMetrics when the `Accept` header asks for it."""
        body, content_type = exposition.render(directory, request.headers.get("accept"), workers=workers)
        return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return routes
