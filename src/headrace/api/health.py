"""GET /healthz, /readyz: for load balancers and orchestrators. Open to any host name, HEAD works too."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.api import problems
from headrace.api.ports import ControllerView
from headrace.api.schema import Liveness, Readiness


def router(view: ControllerView) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.head("/healthz", include_in_schema=False, response_model=None)
    @routes.get("/healthz", summary="Is the controller alive?")
    async def live() -> Liveness:
        return Liveness(live=True)

    @routes.head("/readyz", include_in_schema=False, response_model=None)
    @routes.get(
        "/readyz",
        summary="Can every endpoint answer?",
        response_model=Readiness,
        responses=problems.described(503),
    )
    async def ready(request: Request) -> Readiness | Response:
        """503 names the deployments that are not ready, and why, or says that the server is shutting down."""
        draining = any(load.draining for load in view.loads())
        if view.ready() and not draining:
            return Readiness(ready=True)
        waiting = {
            deployment.id: deployment.reason or "not ready"
            for endpoint in view.routes().endpoints
            for deployment in endpoint.deployments
            if not deployment.ready
        }
        detail = "; ".join(f"{name}: {reason}" for name, reason in waiting.items()) or "nothing is served yet"
        if draining:
            detail = "the server is shutting down; it still answers, send new requests elsewhere"
        return problems.response(
            503,
            detail,
            path=request.url.path,
            code="not_ready",
            headers={"Retry-After": "1"},
            ready=False,
            waiting=waiting,
        )

    return routes
