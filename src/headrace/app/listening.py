"""Binds the listening sockets that the supervisor hands down, with errors that say what to do."""

from __future__ import annotations

import errno
import socket

from headrace.core import errors

BACKLOG = 4096


def bind(host: str, port: int, flag: str) -> socket.socket:
    """A listening, inheritable socket. ``flag`` is the option that chooses another port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise errors.BadSettings(f"host {host!r} cannot be resolved: {error.strerror}") from None
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            hint = f"another process listens there; choose another with {flag} PORT ({flag} 0 takes a free one)"
        elif error.errno == errno.EACCES:
            hint = f"ports below 1024 need rights this user lacks; choose another with {flag} PORT"
        else:
            hint = error.strerror or str(error)
        raise errors.BadSettings(f"cannot listen on {host} port {port}: {hint}") from None
    sock.set_inheritable(True)
    return sock


def url(sock: socket.socket, host: str, tls: bool) -> str:
    """The URL under which clients on this machine reach the socket."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{shown}:{sock.getsockname()[1]}"
