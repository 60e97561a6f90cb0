"""GET /api/v1/endpoints: what is served."""

from __future__ import annotations

from fastapi import APIRouter

from headrace.api import problems
from headrace.api.ports import ControllerView
from headrace.api.schema import Endpoint, Endpoints
from headrace.core import errors


def router(view: ControllerView) -> APIRouter:
    routes = APIRouter(prefix="/endpoints", tags=["endpoints"])

    @routes.get("", summary="All endpoints with their deployments and replicas")
    async def every_endpoint() -> Endpoints:
        table, reports = view.routes(), view.loads()
        return Endpoints(
            route_version=table.version, endpoints=[Endpoint.of(endpoint, reports) for endpoint in table.endpoints]
        )

    @routes.get("/{name:path}", summary="One endpoint", responses=problems.described(404, 422))
    async def one_endpoint(name: str) -> Endpoint:
        table = view.routes()
        for endpoint in table.endpoints:
            if endpoint.name == name:
                return Endpoint.of(endpoint, view.loads())
        known = ", ".join(endpoint.name for endpoint in table.endpoints[:20]) or "none"
        raise errors.UnknownModel(f"there is no endpoint {name!r}; served are: {known}")

    return routes
