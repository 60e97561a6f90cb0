"""/api/v1/models: the models of the registry."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.api import problems
from headrace.api.caller import Who
from headrace.api.conditions import TAGGED, Expected, answer, seen
from headrace.api.pages import Cursor, Limit, Page, listed, read_cursor
from headrace.api.ports import RegistryAccess
from headrace.api.registry import ModelName, Why, owned, version_of
from headrace.api.registry_schema import Deleted, Model, Models
from headrace.control.registry import Registry
from headrace.core.versions import Summary

_CURSOR = "models"


def router(access: RegistryAccess | None) -> APIRouter:
    routes = APIRouter(prefix="/models", tags=["models"])

    @routes.get(
        "",
        summary="Models of the registry, by name",
        response_model=Models,
        responses=problems.described(400, 404, 422),
    )
    def every_model(limit: Limit = 100, cursor: Cursor = None) -> Response:
        with owned(access).registry.reading() as transaction:
            found = transaction.models.listing(limit + 1, read_cursor(_CURSOR, str, cursor) or "")
        page = Page([(summary.model, summary) for summary in found], limit, _CURSOR)
        return listed(Models(models=[Model.of(summary) for summary in page.entries], next_cursor=page.next_cursor))

    @routes.get(
        "/{model:path}",
        summary="One model",
        response_model=Model,
        responses=TAGGED | problems.described(400, 404, 422),
    )
    def one_model(request: Request, model: ModelName) -> Response:
        return seen(request, _document(owned(access).registry, model))

    @routes.delete(
        "/{model:path}",
        summary="Delete a model with all its versions",
        response_model=Deleted,
        responses=problems.described(400, 404, 409, 412, 422, 428, 503),
    )
    def delete_model(model: ModelName, who: Who, expected: Expected, why: Why = "") -> Response:
        """Refused while an alias points to one of them. Their numbers are not given again; `gc` removes the files."""
        expected.require("model")
        with owned(access).changing(who) as registry, registry.together() as (joined, transaction):
            transaction.models.lock(model)
            expected.check(f"model {model!r}", _document(joined, model))
            doomed = [version_of(transaction, version) for version in joined.model(model).versions]
            joined.delete(model, None, why)
            return answer(Deleted(deleted=doomed))

    return routes


def _document(registry: Registry, name: str) -> Model:
    found = registry.model(name)
    return Model.of(Summary(name, len(found.versions), found.versions[-1], found.aliases))
