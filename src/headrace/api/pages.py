"""Lists in pages: a cursor is opaque to clients; here it is the key of the last entry of the page before."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar

import msgspec
from fastapi import Query
from pydantic import BaseModel
from starlette.responses import Response

from headrace.core import errors

K = TypeVar("K", str, int)
T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Cursor = Annotated[
    str | None, Query(max_length=1024, description="`next_cursor` of the page before; without it: the first page.")
]


class Page(Generic[T, K]):
    """The first ``limit`` of ``found``, of which one more than that were asked for; ``key`` is that of the last."""

    def __init__(self, found: Sequence[tuple[K, T]], limit: int, kind: str) -> None:
        self.entries = [entry for _, entry in found[:limit]]
        self.next_cursor = write_cursor(kind, found[limit - 1][0]) if len(found) > limit else None


def listed(document: BaseModel) -> Response:
    """A page as it is: FastAPI would check every entry of it a second time."""
    return Response(document.model_dump_json(), media_type="application/json")


def write_cursor(kind: str, key: str | int) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([kind, key])).decode().rstrip("=")


def read_cursor(kind: str, key: type[K], cursor: str | None) -> K | None:
    """The key in a cursor. Raises InvalidInput when it is from another list, or from nowhere."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        found_kind, found = msgspec.json.decode(text, type=tuple[str, key])  # type: ignore[valid-type]
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise _unusable(cursor) from error
    if found_kind != kind or (isinstance(found, int) and not 0 <= found < 1 << 62) or "\0" in str(found):
        raise _unusable(cursor)
    return found


def _unusable(cursor: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"cursor {cursor[:40]!r} is not one of this list; take it from next_cursor, or leave it out to begin anew"
    )
