"""``Idempotency-Key``: a POST that is sent again is answered again and does not happen again.

The answer is kept in the transaction of the change, so that neither is there without the other, whenever the server or
the connection dies (draft-ietf-httpapi-idempotency-key-header).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel
from starlette.responses import Response

from headrace.api.ports import RegistryAccess
from headrace.control.registry_ports import Transaction
from headrace.core import errors
from headrace.core.answers import Answer

REPLAYED = "Idempotency-Replayed"
_KEPT_HEADERS = ("etag", "location")

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


class Once:
    """One request with a key, or without one. ``earlier``: the answer that it got before."""

    def __init__(self, key: str | None, fingerprint: str, earlier: Answer | None) -> None:
        self._key = key
        self._fingerprint = fingerprint
        self.earlier = None if earlier is None else _replay(earlier)

    def keep(self, transaction: Transaction, response: Response) -> None:
        """Keep the answer together with the change that it tells of."""
        if self._key is None:
            return
        headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        body = bytes(response.body).decode()
        transaction.answers.keep(Answer(self._key, self._fingerprint, response.status_code, headers, body, time.time()))


class Requests:
    """The requests with keys that are under way: a second one must not start beside the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: set[str] = set()

    @contextmanager
    def once(
        self, access: RegistryAccess, key: str | None, who: str, path: str, body: BaseModel | None
    ) -> Iterator[Once]:
        """Raises KeyReused when another request had this key, StateInUse while the first one is under way."""
        content = b"" if body is None else body.model_dump_json().encode()
        fingerprint = hashlib.sha256(path.encode() + b"\n" + content).hexdigest()
        if key is None:
            yield Once(None, fingerprint, None)
            return
        own = f"{who}\n{key}"
        with self._lock:
            if own in self._under_way:
                raise errors.StateInUse(f"the first request with the idempotency key {key!r} is still being worked on")
            self._under_way.add(own)
        try:
            with access.registry.reading() as transaction:
                earlier = transaction.answers.of(own, time.time())
            if earlier is not None and earlier.fingerprint != fingerprint:
                raise errors.KeyReused(
                    f"idempotency key {key!r} was used for another request; a new request needs a new key"
                )
            yield Once(own, fingerprint, earlier)
        finally:
            with self._lock:
                self._under_way.discard(own)


def _replay(earlier: Answer) -> Response:
    headers = {**earlier.headers, REPLAYED: "true"}
    return Response(earlier.body, earlier.status, headers, media_type="application/json")
