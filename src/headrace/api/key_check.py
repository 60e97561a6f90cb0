"""The key check of the management port: nothing but health is read without a key that may, once keys are asked for."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.api import problems
from headrace.api.hosts import OPEN_PATHS
from headrace.core import errors, keys
from headrace.pipeline.auth import Guard
from headrace.protocols import credentials

_NEEDED = {"/metrics": keys.Scope.METRICS}
"""What a path takes; every other one takes ``manage``."""
_FEEDBACK = re.compile(r"/api/v1/experiments/(?P<endpoint>.+)/feedback\Z")
"""Sending outcomes takes ``predict`` of the endpoint, or ``manage``: whoever asks a model knows what came of it."""
_KEYS = "/api/v1/keys"
"""Whatever begins like this is for holders of an admin key. Nobody gets a key without one: a first key made by whoever
reaches a port that asks for none would be good wherever and as long as the state is used, and lock out its owner."""

CALLER = "headrace.caller"
"""Key of the ASGI scope under which routes find the ``Principal``."""


class KeyCheck:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        pairs = scope["headers"]
        headers = dict(pairs)
        if len(headers) != len(pairs):
            credentials.join_repeated(headers, pairs)
        try:
            principal = self._guard.identify(headers)
            _check(principal, scope["method"], scope["path"])
        except errors.HeadraceError as error:
            await problems.error_response(error, scope["path"])(scope, receive, send)
            return
        await self._app({**scope, CALLER: principal}, receive, send)


def _check(principal: keys.Principal, method: str, path: str) -> None:
    """Raises Forbidden."""
    feedback = _FEEDBACK.match(path) if method == "POST" else None
    if feedback is not None and keys.Scope.MANAGE not in principal.scopes:
        principal.check_predict(feedback["endpoint"])
        return
    if path.startswith(_KEYS):
        if principal is keys.ANYBODY:
            raise errors.Forbidden(
                "this server asks nobody for a key, and only the holder of an admin key may see or change keys; on the"
                " machine of the state: headrace keys bootstrap makes the first one, and headrace keys works without"
                " the server when HEADRACE_API_KEY is not set"
            )
        principal.check(keys.Scope.ADMIN)
        return
    principal.check(_NEEDED.get(path, keys.Scope.MANAGE))
