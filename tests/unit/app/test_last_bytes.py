"""Connections whose server closes them while their clients still send."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from headrace.app import last_bytes


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """(client, server) ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        client.settimeout(10)
        yield client, server


def close_unread(client: socket.socket, server: socket.socket) -> None:
    """The end of a server that answers one request, does not read the next one, and closes."""
    client.sendall(b"first")
    assert server.recv(5) == b"first"
    server.sendall(b"answer")
    client.sendall(b"second")
    server.recv(1, socket.MSG_PEEK)
    server.close()


def test_a_socket_that_is_closed_unread_breaks_its_client(connected: tuple[socket.socket, socket.socket]) -> None:
    """What this file is for: without a second descriptor the client cannot even finish its writing."""
    client, server = connected
    close_unread(client, server)

    def go_on() -> None:
        for _ in range(2):
            client.sendall(b"more")
        while client.recv(100):
            pass

    with pytest.raises(ConnectionError):
        go_on()


def test_a_held_connection_ends_in_order(connected: tuple[socket.socket, socket.socket]) -> None:
    client, server = connected

    async def scenario() -> None:
        held = last_bytes.hold({client.getsockname()[:2]})
        assert len(held) == 1
        close_unread(client, server)
        ending = asyncio.create_task(last_bytes.let_go(held))
        for _ in range(3):
            client.sendall(b"more")
            await asyncio.sleep(0)
        assert client.recv(100) == b"answer"
        assert client.recv(100) == b"", "an end in order, no reset"
        client.close()
        await asyncio.wait_for(ending, 5)
        assert held[0].fileno() == -1

    asyncio.run(scenario())


def test_a_client_that_does_not_close_is_not_waited_for_long(connected: tuple[socket.socket, socket.socket]) -> None:
    client, server = connected
    held = last_bytes.hold({("::ffff:127.0.0.1", client.getsockname()[1])})
    server.close()
    began = time.monotonic()
    asyncio.run(last_bytes.let_go(held))
    assert 0.5 < time.monotonic() - began < 10
    assert client.recv(100) == b""
    assert held[0].fileno() == -1


def test_only_the_named_clients_are_held(connected: tuple[socket.socket, socket.socket]) -> None:
    assert last_bytes.hold(set()) == []
    assert last_bytes.hold({("127.0.0.1", 1)}) == []
