"""/api/v1/gc: removes stored files that no version refers to."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from headrace.api import problems
from headrace.api.conditions import answer
from headrace.api.idempotency import Requests, Sender, Sent
from headrace.api.long_work import LongWork
from headrace.api.ports import RegistryAccess
from headrace.api.registry import owned
from headrace.api.registry_schema import Collect, Collected


def router(access: RegistryAccess | None, requests: Requests, long_work: LongWork) -> APIRouter:
    routes = APIRouter(prefix="/gc", tags=["artifacts"])

    @routes.post(
        "",
        summary="Remove stored files that no version refers to",
        response_model=Collected,
        responses=problems.described(400, 404, 413, 415, 422, 503),
    )
    async def collect(wanted: Collect, sent: Sent) -> Response:
        own = owned(access)
        return await long_work.run(lambda: _collected(own, requests, sent, wanted))

    return routes


def _collected(own: RegistryAccess, requests: Requests, sent: Sender, wanted: Collect) -> Response:
    with requests.once(own.registry.reading, sent, wanted) as once:
        if once.earlier is not None:
            return once.earlier
        files, size = own.collect(wanted.grace_s, sent.who, dry_run=wanted.dry_run)
        done = answer(Collected(files=files, bytes=size, dry_run=wanted.dry_run))
        if sent.key is not None:
            with own.changing(sent.who) as registry, registry.together() as (_, transaction):
                once.keep(transaction, done)
        return done
