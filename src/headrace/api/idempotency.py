"""``Idempotency-Key``: a POST that is sent again is answered again and does not happen again.

The answer is kept in the transaction of the change, so that neither is there without the other, whenever the server or
the connection dies (draft-ietf-httpapi-idempotency-key-header). Where the change lives as long as the process does, so
does the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, TypeVar

import msgspec
from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.responses import Response

from headrace.api.caller import caller
from headrace.api.ports import KeepsAnswers
from headrace.control.registry_ports import Transaction
from headrace.core import errors
from headrace.core.answers import Answer, Answering

REPLAYED = "Idempotency-Replayed"
_KEPT_HEADERS = ("etag", "location")
_AGAIN_S = 1.0
"""Who comes back while the first request is still being worked on is asked to wait this long."""
_URGENT_S = 0.05
"""What is urgent waits this long for an earlier answer."""

T = TypeVar("T")

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Chosen by the caller, for instance a UUID. Within a day the same request under the same key gets"
        " the same answer and is not done again; another request under it is refused.",
    ),
]


class Sender(msgspec.Struct, frozen=True):
    """Who sent a request, where to, under which key, and what it is to replace (``If-Match``)."""

    who: str
    path: str
    key: str | None
    seen: str = ""

    @property
    def own_key(self) -> str:
        """Keys belong to their callers."""
        return f"{self.who}\n{self.key}"

    def fingerprint(self, body: BaseModel | None) -> str:
        """Tells the request from others that are sent under its key by mistake."""
        content = b"" if body is None else body.model_dump_json().encode()
        condition = f"\n{self.seen}" if self.seen else ""
        return hashlib.sha256(f"{self.path}{condition}\n".encode() + content).hexdigest()


def _sender(request: Request, who: Annotated[str, Depends(caller)], key: Key = None) -> Sender:
    return Sender(who, request.url.path, key, request.headers.get("if-match", ""))


Sent = Annotated[Sender, Depends(_sender)]


class Once:
    """One request with a key, or without one. ``earlier``: the answer that it got before."""

    def __init__(self, key: str | None, fingerprint: str, earlier: Answer | None) -> None:
        self._key = key
        self._fingerprint = fingerprint
        self.earlier = None if earlier is None else _replay(earlier)

    def keep(self, transaction: Transaction, response: Response) -> None:
        """Keep the answer together with the change that it tells of."""
        if self._key is not None:
            transaction.answers.keep(_kept(self._key, self._fingerprint, response))


class Requests:
    """The requests with keys that are under way: a second one must not start beside the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: set[str] = set()

    @contextmanager
    def once(
        self, reading: Callable[[], AbstractContextManager[Transaction]], sent: Sender, body: BaseModel | None
    ) -> Iterator[Once]:
        """For work in a thread, on the state that is read with ``reading``. Raises KeyReused when another request had
        this key, StateInUse while the first one is under way."""
        fingerprint = sent.fingerprint(body)
        if sent.key is None:
            yield Once(None, fingerprint, None)
            return
        with self._claimed(sent):
            with reading() as transaction:
                earlier = transaction.answers.of(sent.own_key, time.time())
            _check_same(earlier, fingerprint, sent)
            yield Once(sent.own_key, fingerprint, earlier)

    async def answer(
        self,
        keeper: KeepsAnswers,
        sent: Sender,
        body: BaseModel | None,
        do: Callable[[Answering[T] | None], Awaitable[T]],
        respond: Callable[[T], Response],
        *,
        urgent: bool = False,
    ) -> Response:
        """For work on the event loop: ``do`` it and ``respond``, or answer as before.

        ``urgent`` is what waits for no database: an answer that cannot be looked up at once counts as none. Raises as
        ``once`` does, and StoreFailed."""
        if sent.key is None:
            return respond(await do(None))
        fingerprint = sent.fingerprint(body)
        with self._claimed(sent):
            earlier = await _looked_up(keeper, sent.own_key, urgent=urgent)
            _check_same(earlier, fingerprint, sent)
            if earlier is not None:
                return _replay(earlier)
            made: list[Response] = []

            def answering(result: T) -> Answer:
                made.append(respond(result))
                return _kept(sent.own_key, fingerprint, made[-1])

            result = await do(answering)
            # What was kept is what is answered, now as later.
            return made[-1] if made else respond(result)

    @contextmanager
    def _claimed(self, sent: Sender) -> Iterator[None]:
        own = sent.own_key
        with self._lock:
            if own in self._under_way:
                raise errors.StateInUse(
                    f"the first request with the idempotency key {sent.key!r} is still being worked on",
                    retry_after=_AGAIN_S,
                )
            self._under_way.add(own)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.discard(own)


async def _looked_up(keeper: KeepsAnswers, key: str, *, urgent: bool) -> Answer | None:
    if not urgent:
        return await keeper.earlier(key)
    try:
        async with asyncio.timeout(_URGENT_S):
            return await keeper.earlier(key)
    except (errors.StoreFailed, TimeoutError):
        return None  # the way back from harm is taken once too often rather than too late


def _check_same(earlier: Answer | None, fingerprint: str, sent: Sender) -> None:
    if earlier is not None and earlier.fingerprint != fingerprint:
        raise errors.KeyReused(
            f"idempotency key {sent.key!r} was used for another request; a new request needs a new key"
        )


def _kept(key: str, fingerprint: str, response: Response) -> Answer:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return Answer(key, fingerprint, response.status_code, headers, bytes(response.body).decode(), time.time())


def _replay(earlier: Answer) -> Response:
    headers = {**earlier.headers, REPLAYED: "true"}
    return Response(earlier.body, earlier.status, headers, media_type="application/json")
