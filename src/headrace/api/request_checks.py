"""What is looked at before a request that may change something is read: where it comes from, its kind, its length.

A page from elsewhere must not make a browser on this machine change the registry. Browsers say where a request comes
from (``Sec-Fetch-Site``; ``hosts.py`` looks at ``Origin``), and ask first before they send JSON elsewhere; so JSON is
required.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.api import problems

MAX_BODY = 8 << 20
"""Bytes of a JSON body: room for the files of the largest folder that is one model."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_STREAMED = "/api/v1/artifacts/"


class RequestChecks:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _SAFE:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = _refusal(scope["method"], scope["path"], headers)
        if refused is not None:
            status, code, detail = refused
            await problems.response(status, detail, path=scope["path"], code=code)(scope, receive, send)
            return
        bounded = receive if scope["path"].startswith(_STREAMED) else _bounded(receive)
        await self._app(scope, bounded, send)


def _refusal(method: str, path: str, headers: dict[str, str]) -> tuple[int, str, str] | None:
    """Status, code and reason."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return 403, "cross_origin", "a page of another site may not change anything here"
    length = headers.get("content-length", "0")
    if path.startswith(_STREAMED):
        return None
    if length.isdecimal() and int(length[:19]) > MAX_BODY:
        return 413, "payload_too_large", f"the body has {length} bytes; at most {MAX_BODY} are read"
    has_body = length != "0" or "transfer-encoding" in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method == "POST" and (has_body or kind) and kind != "application/json":
        return 415, "unsupported_media_type", f"the body must be application/json, not {kind or 'without a type'}"
    return None


def _bounded(receive: Receive) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY:
            raise HTTPException(413, f"the body has more than {MAX_BODY} bytes")
        return message

    return bounded
