"""Lets the last answers of HTTP/2 connections arrive.

A server that closes a socket while the client still sends makes the kernel reset the connection, and a reset throws
away what the client has not read yet: GOAWAY, and the answers before it (RFC 9112 §9.6 has the same for HTTP/1.1, whose
clients are told by ``Connection: close`` to send no more). h2corn closes at once. A second descriptor of the socket
keeps it open until the client has read to the end and closed its side.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path

_PATIENCE_S = 1.0
"""A client that has gone silent does not hold up the end longer than this."""
_READ_SIZE = 64 * 1024


def hold(peers: Collection[tuple[str, int]]) -> list[socket.socket]:
    """Second descriptors of this process's connections to these clients (host, port)."""
    wanted = {(_plain(host), port) for host, port in peers}
    held: dict[tuple[str, int], socket.socket] = {}
    for entry in list(Path("/proc/self/fd").iterdir()) if wanted else []:
        sock = _duplicate(int(entry.name))
        if sock is None:
            continue
        peer = _peer(sock)
        # The list names the descriptor that read it; one of ours may have its number by now.
        if peer in wanted and peer not in held:
            held[peer] = sock
        else:
            sock.close()
    return list(held.values())


async def let_go(held: list[socket.socket]) -> None:
    """End our side of each connection, read what the client still sends, and close when it has closed."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await asyncio.gather(*map(_read_to_end, held))
    except TimeoutError:
        # These clients do not close; whatever was sent to them has been in their hands for a second.
        return
    finally:
        for sock in held:
            sock.close()


async def _read_to_end(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    try:
        sock.shutdown(socket.SHUT_WR)
        while await loop.sock_recv(sock, _READ_SIZE):
            pass
    except OSError:
        # The client has closed or reset it: nothing is left to be read by it.
        return


def _duplicate(fd: int) -> socket.socket | None:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return None
        return socket.socket(fileno=os.dup(fd))
    except OSError:  # it was closed meanwhile
        return None


def _peer(sock: socket.socket) -> tuple[str, int] | None:
    try:
        name = sock.getpeername()
    except OSError:  # it listens, or its client has gone
        return None
    return (_plain(name[0]), name[1]) if isinstance(name, tuple) else None


def _plain(host: str) -> str:
    """An IPv4 address that came over an IPv6 socket, as IPv4."""
    return host.removeprefix("::ffff:")
