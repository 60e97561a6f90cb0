"""ETags and what requests make of them (RFC 9110, section 13): nobody overwrites what they have not seen.

A tag is a digest of the document, so that it changes exactly when what people see does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import BaseModel
from starlette.responses import Response

from headrace.core import errors

_TAG = {"description": "Names this state of the resource, for If-Match.", "schema": {"type": "string"}}
TAGGED: dict[int | str, dict[str, Any]] = {200: {"headers": {"ETag": _TAG}}}
"""The ``responses`` of a route that answers with a single resource, for the OpenAPI document."""
MADE: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": {
            "ETag": _TAG,
            "Location": {"description": "Path of what was made.", "schema": {"type": "string"}},
            "Idempotency-Replayed": {
                "description": "`true`: this was answered before; nothing was done now.",
                "schema": {"type": "string"},
            },
        }
    }
}


def etag_of(document: BaseModel) -> str:
    return _etag(document.model_dump_json().encode())


def _etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def answer(document: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A single resource with its tag."""
    body = document.model_dump_json().encode()
    return Response(body, status, {"ETag": _etag(body), **(headers or {})}, media_type="application/json")


def seen(request: Request, document: BaseModel) -> Response:
    """The answer to GET: 304 when the caller has just this already."""
    found = answer(document)
    tags = request.headers.get("if-none-match")
    if tags is not None and _holds(tags, found.headers["etag"], weakly=True):
        return Response(status_code=304, headers={"ETag": found.headers["etag"]})
    return found


class Conditions:
    """What a change says about the thing that it replaces."""

    def __init__(self, if_match: str | None, if_none_match: str | None) -> None:
        self._match = if_match
        self._none_match = if_none_match

    @property
    def given(self) -> bool:
        """The request says something."""
        return self._match is not None or self._none_match is not None

    def require(self, what: str) -> None:
        """Raises PreconditionRequired when the request says nothing."""
        if not self.given:
            raise errors.PreconditionRequired(
                f"say which {what} this replaces: send its ETag in If-Match (* for any), or If-None-Match: * when there"
                " must be none yet"
            )

    def check(self, what: str, current: BaseModel | None) -> None:
        """Raises PreconditionFailed when ``current``, None for nothing, is not what the caller expects."""
        tag = None if current is None else etag_of(current)
        if self._match is not None and (tag is None or not _holds(self._match, tag)):
            is_now = "there is none" if tag is None else f"it is {tag} now"
            raise errors.PreconditionFailed(
                f"{what} is not what you have seen: {is_now}; read it again, and repeat the change if it still applies"
            )
        if self._none_match is not None and tag is not None and _holds(self._none_match, tag, weakly=True):
            raise errors.PreconditionFailed(f"{what} is there already: {tag}; to replace it, send that in If-Match")


def _holds(tags: str, tag: str, *, weakly: bool = False) -> bool:
    """Whether a list of tags holds this one. Ours have no commas in them, so the list can be split at commas."""
    given = [entry.strip() for entry in tags.split(",")]
    return "*" in given or tag in given or (weakly and f"W/{tag}" in given)


def conditions(
    if_match: Annotated[str | None, Header(description="ETag of what is replaced; `*`: whatever it is.")] = None,
    if_none_match: Annotated[str | None, Header(description="`*`: there must be none yet.")] = None,
) -> Conditions:
    """FastAPI dependency."""
    return Conditions(if_match, if_none_match)


Expected = Annotated[Conditions, Depends(conditions)]
