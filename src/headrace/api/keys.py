"""/api/v1/keys: API keys, for callers with an admin key (``key_check.py``).

A secret is in one answer and nowhere else: what is kept for an idempotency key is the key without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel
from starlette.responses import Response

from headrace.api import problems
from headrace.api.caller import Who
from headrace.api.conditions import TAGGED, Conditions, Expected, answer, seen
from headrace.api.idempotency import Once, Requests, Sender, Sent
from headrace.api.key_schema import CreateKey, IssuedKey, Key, Keys, KeyStory, RevokedKeys, RevokeKey, RotateKey
from headrace.api.pages import Cursor, Limit, Page, listed, read_cursor
from headrace.api.ports import KeyAccess
from headrace.control.key_issuer import Issued, KeyIssuer
from headrace.core import errors
from headrace.core.key_views import KeyView

_CURSOR = "keys"
_MADE: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": {
            "Location": {"description": "Path of the new key.", "schema": {"type": "string"}},
            "Cache-Control": {"description": "`no-store`: there is a secret in it.", "schema": {"type": "string"}},
        }
    }
}

NameOrId = Annotated[str, Path(max_length=255, pattern=r"^[^\x00]+$", description="A name, or the id of a key.")]
Work = Callable[[KeyIssuer, Once], Response]


def router(access: KeyAccess, requests: Requests) -> APIRouter:
    routes = APIRouter(prefix="/keys", tags=["keys"])
    _reading(routes, access)
    _making(routes, access, requests)
    _ending(routes, access, requests)
    return routes


def _reading(routes: APIRouter, access: KeyAccess) -> None:
    @routes.get("", summary="Every key", response_model=Keys, responses=problems.described(400, 401, 403, 422))
    def every_key(who: Who, limit: Limit = 100, cursor: Cursor = None) -> Response:
        with access.issuing(who) as issuer, issuer.reading() as transaction:
            found = transaction.keys.page(limit + 1, read_cursor(_CURSOR, str, cursor))
        page, now = Page([(record.id, record) for record in found], limit, _CURSOR), time.time()
        shown = [Key.of(KeyView.of(record, now)) for record in page.entries]
        return listed(Keys(keys=shown, next_cursor=page.next_cursor))

    @routes.get(
        "/{name_or_id:path}",
        summary="The keys of a name, or one by its id, with their history",
        response_model=KeyStory,
        responses=TAGGED | problems.described(401, 403, 404, 422),
    )
    def one_key(request: Request, name_or_id: NameOrId, who: Who) -> Response:
        with access.issuing(who) as issuer:
            return seen(request, KeyStory.of(issuer.story(name_or_id)))


def _making(routes: APIRouter, access: KeyAccess, requests: Requests) -> None:
    @routes.post(
        "",
        status_code=201,
        summary="Make a key, and show it: once",
        response_model=IssuedKey,
        responses=_MADE | problems.described(400, 401, 403, 409, 422, 503),
    )
    async def create(wanted: CreateKey, sent: Sent) -> Response:
        """The same `Idempotency-Key` again is refused (409, `secret_shown_once`); the id of its key is named."""

        def make(issuer: KeyIssuer) -> Issued:
            return issuer.create(wanted.name, wanted.scopes, wanted.endpoints, _moment(wanted.expires_in_s))

        return await _changed(access, requests, sent, wanted, partial(_issued, make))

    @routes.post(
        "/{name_or_id:path}/rotate",
        status_code=201,
        summary="Make a second key of the same name and rights, and show it: once",
        response_model=IssuedKey,
        responses=_MADE | problems.described(400, 401, 403, 404, 409, 412, 422, 503),
    )
    async def rotate(name_or_id: NameOrId, wanted: RotateKey, sent: Sent, expected: Expected) -> Response:
        """Both are live until the grace is over. An `Idempotency-Key` is treated as by `POST /keys`; `If-Match` takes
        the ETag of `GET /keys/{name_or_id}`."""

        def make(issuer: KeyIssuer) -> Issued:
            _check(expected, issuer, name_or_id)
            return issuer.rotate(name_or_id, wanted.grace_s, _moment(wanted.expires_in_s), wanted.why)

        return await _changed(access, requests, sent, wanted, partial(_issued, make))


def _ending(routes: APIRouter, access: KeyAccess, requests: Requests) -> None:
    @routes.post(
        "/{name_or_id:path}/revoke",
        summary="End a key, or every live key of a name",
        response_model=RevokedKeys,
        responses=problems.described(401, 403, 404, 412, 422, 503),
    )
    async def revoke(name_or_id: NameOrId, wanted: RevokeKey, sent: Sent, expected: Expected) -> Response:
        """It cannot be undone. `If-Match` may be left out: whoever ends a key means it, whatever happened since."""

        def work(issuer: KeyIssuer, once: Once) -> Response:
            if once.earlier is not None:
                return once.earlier
            with issuer.together() as (joined, transaction):
                _check(expected, joined, name_or_id)
                ended, now = joined.revoke(name_or_id, wanted.why), time.time()
                response = answer(RevokedKeys(keys=[Key.of(KeyView.of(record, now)) for record in ended]))
                once.keep(transaction, response)
            return response

        return await _changed(access, requests, sent, wanted, work)


async def _changed(access: KeyAccess, requests: Requests, sent: Sender, wanted: BaseModel, work: Work) -> Response:
    """Do it once, in a thread; this server goes by it when the caller hears of it."""

    def done() -> Response:
        with access.issuing(sent.who) as issuer, requests.once(issuer.reading, sent, wanted) as once:
            return work(issuer, once)

    response = await run_sync(done)
    await access.followed()
    return response


def _issued(make: Callable[[KeyIssuer], Issued], issuer: KeyIssuer, once: Once) -> Response:
    if once.earlier is not None:
        made = Key.model_validate_json(bytes(once.earlier.body))
        raise errors.SecretShownOnce(
            f"this request has made key {made.name!r} ({made.id}) before; its secret was shown then and is kept"
            f" nowhere. If it never arrived, end it (POST /api/v1/keys/{made.id}/revoke, headrace keys revoke"
            f" {made.id}) and ask again under a new idempotency key"
        )
    with issuer.together() as (joined, transaction):
        issued = make(joined)
        shown = issued.view(time.time())
        location = {"Location": f"/api/v1/keys/{shown.id}"}
        once.keep(transaction, _response(Key.of(shown).model_dump_json(), location))  # without the secret
    return _response(IssuedKey.issued(shown).model_dump_json(), location | {"Cache-Control": "no-store"})


def _response(body: str, headers: dict[str, str]) -> Response:
    return Response(body, 201, headers, media_type="application/json")


def _check(expected: Conditions, issuer: KeyIssuer, name_or_id: str) -> None:
    if expected.given:
        expected.check(f"key {name_or_id!r}", KeyStory.of(issuer.story(name_or_id)))


def _moment(seconds: float | None) -> float | None:
    return None if seconds is None else time.time() + seconds
