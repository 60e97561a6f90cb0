"""/api/v1/models/MODEL/versions: immutable versions, registered from stored files."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from headrace.api import problems
from headrace.api.caller import Who
from headrace.api.conditions import MADE, TAGGED, Expected, answer, seen
from headrace.api.idempotency import Requests, Sender, Sent
from headrace.api.long_work import LongWork
from headrace.api.pages import Cursor, Limit, Page, listed, read_cursor
from headrace.api.ports import RegistryAccess
from headrace.api.registry import Choice, ModelName, Why, described, owned, version_of
from headrace.api.registry_schema import Deleted, RegisterVersion, Verdict, Version, Versions
from headrace.core import names

_CURSOR = "versions"


def router(access: RegistryAccess | None, requests: Requests, long_work: LongWork) -> APIRouter:
    routes = APIRouter(prefix="/models/{model:path}/versions", tags=["versions"])

    @routes.get(
        "",
        summary="Versions of a model, newest first",
        response_model=Versions,
        responses=problems.described(400, 404, 422),
    )
    def every_version(model: ModelName, limit: Limit = 100, cursor: Cursor = None) -> Response:
        before = read_cursor(_CURSOR, int, cursor)
        with owned(access).registry.reading() as transaction:
            found = transaction.models.page(model, limit + 1, before)
            page = Page([(version.number, version) for version in found], limit, _CURSOR)
            aliases = transaction.models.aliases(model)
            documents = [described(transaction, version, aliases) for version in page.entries]
        if not found and before is None:
            owned(access).registry.model(model)  # says that there is none, and which names are near
        return listed(Versions(versions=documents, next_cursor=page.next_cursor))

    @routes.post(
        "",
        status_code=201,
        summary="Register a version",
        response_model=Version,
        responses=MADE | problems.described(400, 404, 409, 413, 415, 422, 501, 503),
    )
    async def register(model: ModelName, wanted: RegisterVersion, sent: Sent) -> Response:
        """The files must be stored already (`PUT /api/v1/artifacts/{digest}`). The server reads and inspects them in a
        process of its own: format, digest and whether they bear code are its findings, not the client's."""
        own = owned(access)
        if wanted.alias:
            names.check_alias(wanted.alias)
        return await long_work.run(lambda: _registered(own, requests, sent, model, wanted))

    @routes.get(
        "/{choice}", summary="One version", response_model=Version, responses=TAGGED | problems.described(400, 404, 422)
    )
    def one_version(request: Request, model: ModelName, choice: Choice) -> Response:
        version = owned(access).registry.resolve(f"{model}@{choice}")
        with owned(access).registry.reading() as transaction:
            return seen(request, version_of(transaction, version))

    @routes.delete(
        "/{choice}",
        summary="Delete a version",
        response_model=Deleted,
        responses=problems.described(400, 404, 409, 412, 422, 428, 503),
    )
    def delete_version(model: ModelName, choice: Choice, who: Who, expected: Expected, why: Why = "") -> Response:
        """Refused while an alias points to it. Its number is not given again; `gc` removes its files."""
        expected.require("version")
        with owned(access).changing(who) as registry, registry.together() as (joined, transaction):
            transaction.models.lock(model)
            version = joined.resolve(f"{model}@{choice}")
            document = version_of(transaction, version)
            expected.check(version.ref, document)
            joined.delete(model, choice, why)
            return answer(Deleted(deleted=[document]))

    @routes.post(
        "/{choice}/verify",
        summary="Read every stored file of a version and compare it with its digest",
        response_model=Verdict,
        responses=problems.described(400, 404, 422, 503),
    )
    async def verify(model: ModelName, choice: Choice, sent: Sent) -> Response:
        """Takes as long as reading the files does."""
        own = owned(access)
        return await long_work.run(lambda: _verified(own, requests, sent, f"{model}@{choice}"))

    return routes


def _registered(own: RegistryAccess, requests: Requests, sent: Sender, model: str, wanted: RegisterVersion) -> Response:
    with requests.once(own.registry.reading, sent, wanted) as once:
        if once.earlier is not None:
            return once.earlier
        asked = wanted.registration()
        draft = own.inspected(model, asked, sent.who)
        with own.changing(sent.who) as registry, registry.together() as (joined, transaction):
            version = joined.register(draft, number=asked.number, trusted=asked.trusted, alias=asked.alias)
            location = f"/api/v1/models/{quote(model)}/versions/{version.number}"
            made = answer(version_of(transaction, version), 201, {"Location": location})
            once.keep(transaction, made)
        return made


def _verified(own: RegistryAccess, requests: Requests, sent: Sender, reference: str) -> Response:
    with requests.once(own.registry.reading, sent, None) as once:
        if once.earlier is not None:
            return once.earlier
        version = own.registry.resolve(reference)
        wrong = own.verified(version)
        found = answer(Verdict(version=version.ref, ok=not wrong, problems=list(wrong)))
        if sent.key is not None:
            with own.changing(sent.who) as registry, registry.together() as (_, transaction):
                once.keep(transaction, found)
        return found
