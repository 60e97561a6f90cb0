"""Binds the listening sockets that the supervisor hands down, with errors that say what to do."""

from __future__ import annotations

import ctypes
import errno
import socket
import ssl
import struct
from pathlib import Path

from headrace.core import errors

BACKLOG = 4096
_MAX_PORT = 65_535
LINGER_S = 0.2
"""At the end of a drain: seconds between no new connections and the closing of idle ones."""
_SO_ATTACH_FILTER = 26
_BPF_RETURN = 0x06


def bind(host: str, port: int, flag: str) -> socket.socket:
    """A listening, inheritable socket. ``flag`` is the option that chooses another port."""
    if not 0 <= port <= _MAX_PORT:
        # Else 70000 would quietly become 4464.
        raise errors.BadSettings(f"{flag} {port}: a port is a number from 0 to {_MAX_PORT}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else error
        raise errors.BadSettings(f"host {host!r} cannot be resolved: {reason}") from None
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


def check_certificate(certificate: str, key: str) -> None:
    """Raise BadSettings for files that TLS cannot use, before gateways fail on them one after the other."""
    for path, flag in ((certificate, "--tls-cert"), (key, "--tls-key")):
        try:
            Path(path).open("rb").close()
        except OSError as error:
            raise errors.BadSettings(f"{flag} {path}: {error.strerror}") from None
    try:
        # Without a password an encrypted key would be asked for on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        reason = "they do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else str(error)
        raise errors.BadSettings(
            f"TLS cannot use --tls-cert {certificate} with --tls-key {key} (PEM files, the key without a password):"
            f" {reason}"
        ) from None


def refuse_new_connections(sock: socket.socket) -> None:
    """Make the kernel drop what arrives for the listening socket itself, in every process that shares it. Connections
    that were made before are served on: nobody's first request crosses the closing of its connection.

    A client that connects now repeats that a second later and is refused, because nobody listens any more."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        # A sandbox may forbid filters: then clients that connect at the last moment are cut off, as with any server.
        return


def url(sock: socket.socket, host: str, tls: bool) -> str:
    """The URL under which clients on this machine reach the socket."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{shown}:{sock.getsockname()[1]}"
