"""The Host check: a web page must not reach the management port through a name it made point here (DNS rebinding).
The Origin check: nor may a page that was loaded from elsewhere send requests here in its reader's name (CSRF).

A browser sends the name that the page was loaded from, so only names that an attacker cannot own are let in:
``localhost``, IP addresses, and what the operator allows. Where a browser says which page asks (``Origin``), it must be
one of this very port. Health paths say nothing and are open to any name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.api import problems

_DEFAULT_PORTS = {"http": "80", "https": "443"}

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
        hosts = _values(scope, b"host")
        host = hosts[0] if hosts else ""
        if not self.allows(host):
            refusal = problems.response(
                421,
                f"host {host!r} is not one of this server's names; use localhost or an IP address, or allow the name",
                path=scope["path"],
                code="host_not_allowed",
            )
            await refusal(scope, receive, send)
            return
        stranger = next((origin for origin in _values(scope, b"origin") if not is_own_origin(origin, host)), None)
        if stranger is not None:
            refusal = problems.response(
                403,
                f"a page of {stranger!r} may not ask {host!r}: open this server's own pages, or ask without a browser",
                path=scope["path"],
                code="cross_origin",
            )
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def allows(self, host: str) -> bool:
        """Whether a Host header's value (``name``, ``name:port``, ``[::1]:port``) is let in."""
        name = host_name(host)
        return name in self._names or name.endswith(self._suffixes) or _is_address(name)


def is_own_origin(origin: str, host: str) -> bool:
    """Whether an Origin header's value (``http://name:port``) is the server that the Host header names. ``null``, which
    a browser sends for pages without an origin of their own, never is."""
    scheme, separator, authority = origin.partition("://")
    default = _DEFAULT_PORTS.get(scheme.lower())
    if not separator or default is None:
        return False
    return _authority(authority, default) == _authority(host, default) != ("", "")


def _authority(text: str, default_port: str) -> tuple[str, str]:
    """Name and port; empty ones when the text is malformed."""
    name = host_name(text)
    port = text.rpartition("]")[2].rpartition(":")[2] if ":" in text.rpartition("]")[2] else default_port
    return (name, port) if name and port.isdigit() else ("", "")


def _values(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


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
