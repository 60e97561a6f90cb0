"""/api/v1/models/MODEL/aliases: names that point at versions, and where they pointed before."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from headrace.api import problems
from headrace.api.caller import Who
from headrace.api.conditions import TAGGED, Expected, answer, seen
from headrace.api.pages import Cursor, Limit, Page, listed, read_cursor
from headrace.api.ports import RegistryAccess
from headrace.api.registry import AliasName, ModelName, Why, alias_of, owned
from headrace.api.registry_schema import Alias, Aliases, AliasHistory, AliasStep, MoveAlias
from headrace.core import errors, names

_CURSOR = "history"


def router(access: RegistryAccess | None) -> APIRouter:
    routes = APIRouter(prefix="/models/{model:path}", tags=["aliases"])

    @routes.get("/aliases", summary="Every alias of a model", responses=problems.described(400, 404, 422))
    def every_alias(model: ModelName) -> Aliases:
        found = owned(access).registry.model(model)
        with owned(access).registry.reading() as transaction:
            documents = [alias_of(transaction, model, alias) for alias in found.aliases]
        return Aliases(aliases=[document for document in documents if document is not None])

    @routes.get(
        "/aliases/{alias}",
        summary="Where an alias points to",
        response_model=Alias,
        responses=TAGGED | problems.described(400, 404, 422),
    )
    def one_alias(request: Request, model: ModelName, alias: AliasName) -> Response:
        with owned(access).registry.reading() as transaction:
            document = alias_of(transaction, model, alias)
        if document is None:
            owned(access).registry.resolve(f"{model}@{alias}")  # says which models and aliases there are
            raise errors.UnknownModel(f"{model!r} has no alias {alias!r}")
        return seen(request, document)

    @routes.put(
        "/aliases/{alias}",
        summary="Point an alias at a version",
        response_model=Alias,
        responses=TAGGED | problems.described(400, 404, 412, 413, 422, 428, 503),
    )
    def move_alias(model: ModelName, alias: AliasName, wanted: MoveAlias, who: Who, expected: Expected) -> Response:
        """Send the alias's ETag in `If-Match`, or `If-None-Match: *` for a new one: of two who move it at the same
        time, the second is told."""
        expected.require("alias")
        names.check_version(wanted.version)
        with owned(access).changing(who) as registry, registry.together() as (joined, transaction):
            transaction.models.lock(model)
            expected.check(f"alias {alias!r} of {model!r}", alias_of(transaction, model, alias))
            joined.move_alias(model, alias, wanted.version, wanted.why)
            document = alias_of(transaction, model, alias)
        if document is None:
            raise errors.Bug(f"alias {alias!r} of {model!r} was moved and is not there")
        return answer(document)

    @routes.delete(
        "/aliases/{alias}",
        status_code=204,
        summary="Remove an alias",
        response_class=Response,
        responses=problems.described(400, 404, 412, 422, 428, 503),
    )
    def remove_alias(model: ModelName, alias: AliasName, who: Who, expected: Expected, why: Why = "") -> Response:
        expected.require("alias")
        with owned(access).changing(who) as registry, registry.together() as (joined, transaction):
            transaction.models.lock(model)
            document = alias_of(transaction, model, alias)
            if document is not None:
                expected.check(f"alias {alias!r} of {model!r}", document)
            joined.remove_alias(model, alias, why)
        return Response(status_code=204)

    @routes.get(
        "/history",
        summary="Where the aliases of a model pointed, newest first",
        response_model=AliasHistory,
        responses=problems.described(400, 404, 422),
    )
    def history(
        model: ModelName,
        alias: Annotated[str | None, Query(description="Only this one.", max_length=128)] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """Also of models whose versions are all deleted."""
        if alias is not None:
            names.check_alias(alias)
        with owned(access).registry.reading() as transaction:
            found = transaction.models.moves(model, limit + 1, read_cursor(_CURSOR, int, cursor), alias)
        page = Page(found, limit, _CURSOR)
        return listed(AliasHistory(steps=[AliasStep.of(move) for move in page.entries], next_cursor=page.next_cursor))

    return routes
