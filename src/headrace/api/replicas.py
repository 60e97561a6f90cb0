"""GET /api/v1/replicas: the copies that do the work, and what their workers wrote."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from headrace.api import problems
from headrace.api.ports import ControllerView
from headrace.api.schema import Replica, Replicas


def router(view: ControllerView) -> APIRouter:
    routes = APIRouter(prefix="/replicas", tags=["replicas"])

    @routes.get("", summary="All replicas")
    async def every_replica() -> Replicas:
        reports = view.loads()
        return Replicas(
            replicas=[
                Replica.of(endpoint, deployment, replica, reports)
                for endpoint in view.routes().endpoints
                for deployment in endpoint.deployments
                for replica in deployment.replicas
            ]
        )

    @routes.get(
        "/{id:path}/log",
        summary="Last lines that a replica's worker wrote",
        response_class=PlainTextResponse,
        responses=problems.described(404, 422),
    )
    async def log(id: str) -> PlainTextResponse:
        """The `#` of an id is written `%23` in the path. Dead replicas are known for a while."""
        return PlainTextResponse(view.log_tail(id), headers={"X-Content-Type-Options": "nosniff"})

    return routes
