"""The Host check: a web page must not reach the management port through a name it made point here (DNS rebinding).

A browser sends the name that the page was loaded from, so only names that an attacker cannot own are let in:
``localhost``, IP addresses, and what the operator allows. Health paths say nothing and are open to any name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.api import problems

OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class HostCheck:
    """ASGI middleware. ``allowed`` holds host names; ``*.example.org`` allows names below it, ``*`` any name."""

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._any = "*" in allowed
        self._names = {"localhost", *(host_name(name) for name in allowed)} - {""}
        self._suffixes = tuple(name[1:].lower() for name in allowed if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._any or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
        if self.allows(host):
            await self._app(scope, receive, send)
            return
        refusal = problems.response(
            421,
            f"host {host!r} is not one of this server's names; use localhost or an IP address, or allow the name",
            path=scope["path"],
            code="host_not_allowed",
        )
        await refusal(scope, receive, send)

    def allows(self, host: str) -> bool:
        """Whether a Host header's value (``name``, ``name:port``, ``[::1]:port``) is let in."""
        name = host_name(host)
        return name in self._names or name.endswith(self._suffixes) or _is_address(name)


def host_name(host: str) -> str:
    """The name or address in a Host header's value, in lower case, without port; empty when malformed."""
    if host.startswith("["):
        address, bracket, port = host[1:].partition("]")
        return address if bracket and (not port or port.startswith(":")) else ""
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
