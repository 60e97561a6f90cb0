"""GET /api/v1/deployments/ID/batching: what batching does for a deployment, and why."""

from __future__ import annotations

from fastapi import APIRouter

from headrace.api import problems
from headrace.api.ports import ControllerView
from headrace.api.schema import Batching
from headrace.core import errors


def router(view: ControllerView) -> APIRouter:
    routes = APIRouter(prefix="/deployments", tags=["deployments"])

    @routes.get("/{id:path}/batching", summary="What batching does, and why", responses=problems.described(404, 422))
    async def batching(id: str) -> Batching:
        """The learned latency model, the limit that follows from it and the reason in words, per gateway."""
        deployments = [deployment for endpoint in view.routes().endpoints for deployment in endpoint.deployments]
        for deployment in deployments:
            if deployment.id == id:
                return Batching.of(deployment, view.loads())
        known = ", ".join(deployment.id for deployment in deployments[:20]) or "none"
        raise errors.UnknownModel(f"there is no deployment {id!r}; there are: {known}")

    return routes
