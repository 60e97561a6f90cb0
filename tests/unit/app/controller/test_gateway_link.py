"""The controller's server for gateways: tables pushed, reports heard, gateways that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from headrace.app.controller.gateway_link import GatewayServer
from headrace.core.envelope import Splitter, wrap
from headrace.core.keys import KeySet
from headrace.core.load import LoadReport
from headrace.core.routes import RouteTable
from tests.fakes import deployment_route, route_table, until
from tests.issued import key_set


def report(gateway: int, version: int = 0) -> bytes:
    return wrap(msgspec.msgpack.encode(LoadReport(gateway, version, False, ())))


class Gateway:
    """A connected gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._splitter = Splitter()
        self._heard: list[RouteTable | KeySet] = []

    async def message(self) -> RouteTable | KeySet:
        while not self._heard:
            data = await asyncio.wait_for(self.reader.read(1 << 16), 5.0)
            assert data
            self._heard += [msgspec.msgpack.decode(m, type=RouteTable | KeySet) for m in self._splitter.feed(data)]
        return self._heard.pop(0)

    async def table(self) -> RouteTable:
        found = await self.message()
        assert isinstance(found, RouteTable)
        return found


def run(tmp_path: Path, test: Callable[[GatewayServer, list[LoadReport], Path], Awaitable[None]]) -> None:
    async def scenario() -> None:
        heard: list[LoadReport] = []
        server = GatewayServer(heard.append)
        path = tmp_path / "control.sock"
        path.touch()  # a dead controller's socket lies there
        await server.listen(path)
        await test(server, heard, path)
        assert server._server is not None
        server._server.close()
        await server._server.wait_closed()

    asyncio.run(scenario())


async def connect(path: Path) -> Gateway:
    return Gateway(*await asyncio.open_unix_connection(str(path)))


def test_tables_come_at_once_and_when_they_change(tmp_path: Path) -> None:
    async def test(server: GatewayServer, heard: list[LoadReport], path: Path) -> None:
        early = await connect(path)
        await until(lambda: server._links)
        server.publish(route_table(1, m=[deployment_route()]))
        assert (await early.table()).version == 1
        late = await connect(path)
        assert await late.table() == route_table(1, m=[deployment_route()])
        server.publish(route_table(2))
        assert [(await g.table()).version for g in (early, late)] == [2, 2]
        for gateway in (early, late):
            gateway.writer.close()
        await until(lambda: not server._links)

    run(tmp_path, test)


def test_keys_come_before_the_table_and_when_they_change(tmp_path: Path) -> None:
    async def test(server: GatewayServer, heard: list[LoadReport], path: Path) -> None:
        server.publish(route_table(1))
        server.publish_keys(key_set(version=7))
        gateway = await connect(path)
        assert await gateway.message() == key_set(version=7)
        assert await gateway.message() == route_table(1)
        server.publish_keys(key_set(version=8))
        assert await gateway.message() == key_set(version=8)
        gateway.writer.close()
        await until(lambda: not server._links)

    run(tmp_path, test)


def test_reports_are_kept_as_long_as_their_gateway_is_connected(tmp_path: Path) -> None:
    async def test(server: GatewayServer, heard: list[LoadReport], path: Path) -> None:
        one, two = await connect(path), await connect(path)
        one.writer.write(report(0, 3)[:5])
        two.writer.write(report(1, 4))
        await until(lambda: heard)
        one.writer.write(report(0, 3)[5:])
        await until(lambda: len(heard) == 2)
        assert {g: r.route_version for g, r in server.loads.items()} == {0: 3, 1: 4}
        assert server.connected == {0, 1}
        one.writer.close()
        await until(lambda: 0 not in server.loads)
        assert server.connected == {1}
        two.writer.close()
        await until(lambda: not server._links)

    run(tmp_path, test)


def test_restarted_gateway_that_comes_before_its_predecessor_is_seen_to_leave(tmp_path: Path) -> None:
    async def test(server: GatewayServer, heard: list[LoadReport], path: Path) -> None:
        old, new = await connect(path), await connect(path)
        old.writer.write(report(0, 3))
        await until(lambda: heard)
        new.writer.write(report(0, 9))
        await until(lambda: len(heard) == 2)
        old.writer.close()
        await until(lambda: len(server._links) == 1)
        assert server.loads[0].route_version == 9
        new.writer.close()
        await until(lambda: not server._links)

    run(tmp_path, test)


def test_gateway_that_talks_garbage_is_dropped_and_the_others_stay(tmp_path: Path) -> None:
    async def test(server: GatewayServer, heard: list[LoadReport], path: Path) -> None:
        loop = asyncio.get_running_loop()
        logged: list[object] = []
        loop.set_exception_handler(lambda _, context: logged.append(context["message"]))
        good = await connect(path)
        for garbage in (b"\xff" * 8, wrap(b"\xc1"), wrap(msgspec.msgpack.encode({"gateway": "x"}))):
            bad = await connect(path)
            bad.writer.write(garbage)
            assert await asyncio.wait_for(bad.reader.read(), 5.0) == b""
            bad.writer.close()
        good.writer.write(report(2))
        await until(lambda: heard)
        assert server.connected == {2}
        good.writer.close()
        await until(lambda: not server._links)

    run(tmp_path, test)
