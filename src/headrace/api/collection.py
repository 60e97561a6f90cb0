"""/api/v1/gc: removes stored files that no version refers to."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.api import problems
from headrace.api.conditions import answer
from headrace.api.idempotency import Key, Requests
from headrace.api.ports import RegistryAccess
from headrace.api.registry import Who, owned
from headrace.api.registry_schema import Collect, Collected


def router(access: RegistryAccess | None, requests: Requests) -> APIRouter:
    routes = APIRouter(prefix="/gc", tags=["artifacts"])

    @routes.post(
        "",
        summary="Remove stored files that no version refers to",
        response_model=Collected,
        responses=problems.described(400, 404, 413, 415, 422, 503),
    )
    def collect(request: Request, wanted: Collect, who: Who, key: Key = None) -> Response:
        own = owned(access)
        with requests.once(own, key, who, request.url.path, wanted) as once:
            if once.earlier is not None:
                return once.earlier
            files, size = own.collect(wanted.grace_s, who, dry_run=wanted.dry_run)
            done = answer(Collected(files=files, bytes=size, dry_run=wanted.dry_run))
            if key is not None:
                with own.changing(who) as registry, registry.together() as (_, transaction):
                    once.keep(transaction, done)
            return done

    return routes
