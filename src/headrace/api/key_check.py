"""The key check of the management port: nothing but health is read without a key that may, once keys are asked for."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.api import problems
from headrace.api.hosts import OPEN_PATHS
from headrace.core import errors, keys
from headrace.pipeline.auth import Guard
from headrace.protocols import credentials

_NEEDED = {"/metrics": keys.Scope.METRICS}
"""What a path takes; every other one takes ``manage``."""


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
            principal.check(_NEEDED.get(scope["path"], keys.Scope.MANAGE))
        except errors.HeadraceError as error:
            await problems.error_response(error, scope["path"])(scope, receive, send)
            return
        await self._app({**scope, CALLER: principal}, receive, send)
