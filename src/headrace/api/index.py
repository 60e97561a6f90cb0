"""GET /: where things are, as JSON, or as a page for browsers."""

from __future__ import annotations

import html

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from headrace.api.ports import ControllerView
from headrace.api.schema import Index
from headrace.core import release

LINKS = {
    "metrics": "/metrics",
    "health": "/healthz",
    "readiness": "/readyz",
    "endpoints": "/api/v1/endpoints",
    "replicas": "/api/v1/replicas",
    "events": "/api/v1/events",
    "openapi": "/api/v1/openapi.json",
}
REGISTRY_LINKS = {
    "models": "/api/v1/models",
    "changes": "/api/v1/changes",
}
ROLLOUT_LINKS = {"rollouts": "/api/v1/rollouts"}
KEY_LINKS = {"keys": "/api/v1/keys"}


def router(view: ControllerView, *, registry: bool, rollouts: bool = False, keys: bool = False) -> APIRouter:
    """``registry``: this server has one; ``rollouts``: it drives them; ``keys``: it goes by those of a state."""
    links = LINKS | (REGISTRY_LINKS if registry else {}) | (ROLLOUT_LINKS if rollouts else {})
    links |= KEY_LINKS if keys else {}
    routes = APIRouter(tags=["index"])

    @routes.get("/", summary="Where things are", response_model=Index)
    async def index(request: Request) -> Index | Response:
        """JSON, or a page when the `Accept` header names `text/html`."""
        ready = view.ready()
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(_page(ready, links, [endpoint.name for endpoint in view.routes().endpoints]))
        return Index(name="headrace", version=release.VERSION, ready=ready, links=links)

    return routes


def _page(ready: bool, known: dict[str, str], endpoints: list[str]) -> str:
    links = "".join(f'<li><a href="{path}">{name}</a></li>' for name, path in known.items())
    served = "".join(
        f'<li><a href="/api/v1/endpoints/{html.escape(name, quote=True)}">{html.escape(name)}</a></li>'
        for name in endpoints
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Headrace</title>"
        f"<h1>Headrace {release.VERSION}</h1><p>{'ready' if ready else 'not ready'}</p>"
        f"<h2>Endpoints</h2><ul>{served}</ul><h2>This port</h2><ul>{links}</ul></html>"
    )
