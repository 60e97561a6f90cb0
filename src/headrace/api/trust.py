"""/api/v1/models/MODEL/versions/VERSION/trust: who vouches for the code that a version brings along."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.api import problems
from headrace.api.caller import Who
from headrace.api.conditions import TAGGED, Expected, answer, seen
from headrace.api.ports import RegistryAccess
from headrace.api.registry import Choice, ModelName, Why, owned
from headrace.api.registry_schema import Trust
from headrace.control.registry import Registry
from headrace.core import errors
from headrace.core.versions import Version


def router(access: RegistryAccess | None) -> APIRouter:
    routes = APIRouter(prefix="/models/{model:path}/versions/{choice}/trust", tags=["trust"])

    @routes.get(
        "", summary="Who trusts a version", response_model=Trust, responses=TAGGED | problems.described(400, 404, 422)
    )
    def trust(request: Request, model: ModelName, choice: Choice) -> Response:
        registry = owned(access).registry
        version = registry.resolve(f"{model}@{choice}")
        return seen(request, _required(registry, version))

    @routes.put(
        "",
        summary="Trust a version",
        response_model=Trust,
        responses=TAGGED | problems.described(400, 404, 412, 422, 503),
    )
    def grant(model: ModelName, choice: Choice, who: Who, expected: Expected) -> Response:
        """Its code may be loaded from now on, here and wherever the same content is registered. The first who vouched
        stays, so that repeating it changes nothing and no condition is needed."""
        with owned(access).changing(who) as registry, registry.together() as (joined, transaction):
            transaction.models.lock(model)
            version = joined.resolve(f"{model}@{choice}")
            expected.check(f"trust in {version.ref}", _document(joined, version))
            joined.trust(version.ref)
            return answer(_required(joined, version))

    @routes.delete(
        "",
        status_code=204,
        summary="Take trust back",
        response_class=Response,
        responses=problems.described(400, 404, 412, 422, 428, 503),
    )
    def revoke(model: ModelName, choice: Choice, who: Who, expected: Expected, why: Why = "") -> Response:
        """For every version with the same content. What runs already goes on running."""
        expected.require("trust")
        with owned(access).changing(who) as registry, registry.together() as (joined, transaction):
            transaction.models.lock(model)
            version = joined.resolve(f"{model}@{choice}")
            expected.check(f"trust in {version.ref}", _required(joined, version))
            joined.distrust(version.ref, why)
        return Response(status_code=204)

    return routes


def _document(registry: Registry, version: Version) -> Trust | None:
    grant = registry.trust_in(version)
    return None if grant is None else Trust.of(grant)


def _required(registry: Registry, version: Version) -> Trust:
    document = _document(registry, version)
    if document is None:
        raise errors.UnknownModel(f"nobody has vouched for {version.ref}; to do so, PUT this resource")
    return document
