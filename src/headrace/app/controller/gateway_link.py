"""The controller's server for gateways: pushes route tables and keys, hears load reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.core.envelope import Splitter, wrap
from headrace.core.keys import KeySet
from headrace.core.load import LoadReport
from headrace.core.routes import RouteTable

_encode = msgspec.msgpack.Encoder().encode
_decode_load = msgspec.msgpack.Decoder(LoadReport).decode


class GatewayServer:
    """Gateways connect, get the current keys and table at once and every newer one when it is published."""

    def __init__(self, on_report: Callable[[LoadReport], None]) -> None:
        self.loads: dict[int, LoadReport] = {}
        self._keys: bytes | None = None
        self._table: bytes | None = None
        self._links: set[_Link] = set()
        self._on_report = on_report
        self._server: asyncio.Server | None = None

    async def listen(self, path: Path) -> None:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - a socket of our own, once
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: _Link(self), path)

    def publish(self, table: RouteTable) -> None:
        """Push a table to every gateway."""
        self._table = wrap(_encode(table))
        for link in self._links:
            link.push(self._table)

    def publish_keys(self, keys: KeySet) -> None:
        """Push the keys to every gateway."""
        self._keys = wrap(_encode(keys))
        for link in self._links:
            link.push(self._keys)

    @property
    def connected(self) -> frozenset[int]:
        """Numbers of the gateways that are connected and have reported."""
        return frozenset(link.gateway for link in self._links if link.gateway is not None)

    def joined(self, link: _Link) -> None:
        self._links.add(link)
        # Keys first: nobody is to be let in by the table alone.
        for message in (self._keys, self._table):
            if message is not None:
                link.push(message)

    def left(self, link: _Link) -> None:
        self._links.discard(link)
        if link.gateway is not None and link.gateway not in self.connected:
            self.loads.pop(link.gateway, None)

    def reported(self, report: LoadReport) -> None:
        self.loads[report.gateway] = report
        self._on_report(report)


class _Link(asyncio.Protocol):
    def __init__(self, server: GatewayServer) -> None:
        self.gateway: int | None = None
        self.since = time.monotonic()
        self._server = server
        self._splitter = Splitter()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._server.joined(self)

    def push(self, message: bytes) -> None:
        if self._transport is not None:
            self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        for message in self._splitter.feed(data):
            report = _decode_load(message)
            self.gateway = report.gateway
            self._server.reported(report)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.left(self)
