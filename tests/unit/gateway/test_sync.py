"""A gateway that follows a controller played by the test: tables in, load reports out, links to real workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from headrace.core import errors
from headrace.core.calls import Call
from headrace.core.envelope import Splitter, wrap
from headrace.core.keys import KeySet, Scope
from headrace.core.load import LoadReport
from headrace.core.models import Signature
from headrace.core.replicas import ReplicaState
from headrace.core.routes import ReplicaRoute, RouteTable
from headrace.gateway.sync import RouteFollower
from headrace.pipeline.auth import Guard
from headrace.pipeline.deployment import Deployment
from headrace.replica import status_page
from tests import workers
from tests.fakes import deployment_route, route_table, until
from tests.gateways import Gateway
from tests.issued import key, key_set
from tests.workers import answer, echo, running

ANY = Signature(inputs=(), outputs=(), any_inputs=True)


class Controller:
    """Accepts gateways, remembers reports, sends what the test says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reports: list[LoadReport] = []
        self.reported = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []
        self.connections = 0

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        splitter = Splitter()
        while data := await reader.read(1 << 16):
            for message in splitter.feed(data):
                self.reports.append(msgspec.msgpack.decode(message, type=LoadReport))
                self.reported.set()

    def publish(self, table: RouteTable | KeySet) -> None:
        for writer in self.writers:
            writer.write(wrap(msgspec.msgpack.encode(table)))

    async def report(self, condition: Callable[[LoadReport], bool]) -> LoadReport:
        async with asyncio.timeout(10.0):
            while not (self.reports and condition(self.reports[-1])):
                self.reported.clear()
                await self.reported.wait()
        return self.reports[-1]

    async def stop(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()
        self._server.close()
        await self._server.wait_closed()


@contextlib.asynccontextmanager
async def following(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Controller, RouteFollower]]:
    gateway = Gateway(tmp_path)
    controller = Controller(tmp_path / "control.sock")
    await controller.start()
    follower = RouteFollower(gateway.services, 3, controller.path)
    task = asyncio.create_task(follower.run())
    try:
        await controller.report(lambda r: True)
        yield gateway, controller, follower
        assert not task.done()
    finally:
        task.cancel()
        follower.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await controller.stop()


def replica(worker: workers.RunningWorker, id: str = "m@1#1", state: ReplicaState = ReplicaState.READY) -> ReplicaRoute:
    return ReplicaRoute(id, f"unix:{worker.socket_path}", 0, state, workers.TOKEN, str(worker.status_path))


def table(version: int, *replicas: ReplicaRoute, **fields: Any) -> RouteTable:
    return route_table(version, m=[deployment_route(signature=ANY, replicas=replicas, **fields)])


def ask(deployment: Deployment, *values: float) -> Call:
    call = workers.call(*values)
    deployment.enqueue(call)
    return call


def tasks_named(part: str) -> list[asyncio.Task[Any]]:
    return [t for t in asyncio.all_tasks() if part in str(t.get_coro())]


def scenario(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60.0))


def test_takes_tables_and_reports_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with following(tmp_path) as (gateway, controller, _):
            assert controller.reports[0].route_version == 0
            controller.publish(table(7, warmup=((1, 0.001), (1, 0.001), (1, 0.001), (64, 0.002))))
            report = await controller.report(lambda r: r.route_version == 7)
            assert (report.gateway, report.draining, report.unreachable) == (3, False, ())
            (load,) = report.deployments
            assert (load.deployment, load.queued_requests, load.batch_limit) == ("m@1", 0, 64)
            assert load.latency_a_ms == pytest.approx(1.0, abs=0.3)
            gateway.services.draining = True
            await controller.report(lambda r: r.draining)

    scenario(test)


def test_connects_serves_and_reconnects_after_the_connection_alone_was_lost(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(tmp_path, echo(tmp_path)) as worker, following(tmp_path) as (gateway, controller, _):
            await worker.ready()
            controller.publish(table(1, replica(worker)))
            await controller.report(lambda r: r.route_version == 1 and not r.unreachable)
            deployment = gateway.services.router.find("m", "")
            assert (await answer(ask(deployment, 1))).tolist() == [[1]]
            first = deployment.replicas[0]
            first._data.abort()  # type: ignore[attr-defined]
            await until(lambda: deployment.replicas and deployment.replicas[0] is not first, pause=0.002)
            assert (await answer(ask(deployment, 2))).tolist() == [[2]]

    scenario(test)


def test_worker_that_listens_later_is_reached_then(tmp_path: Path) -> None:
    async def test() -> None:
        async with following(tmp_path) as (gateway, controller, _):
            path = tmp_path / "w.sock"
            early = ReplicaRoute("m@1#1", f"unix:{path}", 0, ReplicaState.READY, workers.TOKEN)
            controller.publish(table(1, early))
            report = await controller.report(lambda r: r.route_version == 1)
            assert report.unreachable == ("m@1#1",)
            waiting = ask(gateway.services.router.find("m", ""), 5)
            async with running(tmp_path, echo(tmp_path)) as worker:
                await worker.ready()
                assert (await answer(waiting)).tolist() == [[5]]
                await controller.report(lambda r: not r.unreachable)

    scenario(test)


@pytest.mark.parametrize("death_first", [True, False])
def test_replica_that_left_the_table_is_not_looked_for_any_more(tmp_path: Path, death_first: bool) -> None:
    """Every restart would leave a task behind that tries to reach the dead worker for ever, and might find it."""

    async def test() -> None:
        async with (
            running(tmp_path, echo(tmp_path, hang_on=13)) as worker,
            following(tmp_path) as (gateway, controller, _),
        ):
            await worker.ready()
            controller.publish(table(1, replica(worker)))
            await controller.report(lambda r: r.route_version == 1 and not r.unreachable)
            deployment = gateway.services.router.find("m", "")
            hanging = ask(deployment, 13)
            # Computing, and not only sent: a batch that waits in the worker is no suspect.
            await until(lambda: len(status_page.read(worker.status_path) or []) == 1, pause=0.002)
            if death_first:
                worker.kill()
                await until(lambda: not deployment.replicas, pause=0.002)
            controller.publish(table(2))
            await controller.report(lambda r: r.route_version == 2)
            await until(lambda: not deployment.replicas, pause=0.002)
            await asyncio.sleep(0.05)
            assert tasks_named("ReplicaLink._connect") == []
            assert not hanging.waiter.done(), "it waits for the next replica"
            assert hanging.deaths == 1

    scenario(test)


def test_draining_replica_finishes_and_gets_nothing_new(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            running(tmp_path, echo(tmp_path, delay_ms=50)) as worker,
            following(tmp_path) as (gateway, controller, _),
        ):
            await worker.ready()
            controller.publish(table(1, replica(worker)))
            await controller.report(lambda r: not r.unreachable and r.route_version == 1)
            deployment = gateway.services.router.find("m", "")
            running_call = ask(deployment, 1)
            await until(lambda: deployment.replicas[0].outstanding, pause=0.002)
            controller.publish(table(2, replica(worker, state=ReplicaState.DRAINING)))
            await controller.report(lambda r: r.route_version == 2)
            later = ask(deployment, 2)
            assert (await answer(running_call)).tolist() == [[1]]
            await asyncio.sleep(0.02)
            assert not later.waiter.done()
            first = deployment.replicas[0]
            first._data.abort()  # type: ignore[attr-defined]
            await until(lambda: deployment.replicas and deployment.replicas[0] is not first, pause=0.002)
            assert deployment.replicas[0].draining, "also after its connection was made anew"
            controller.publish(table(3, replica(worker)))
            await controller.report(lambda r: r.route_version == 3)
            deployment.flush()
            assert (await answer(later)).tolist() == [[2]]

    scenario(test)


def test_deployment_that_left_finishes_on_its_replica(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            running(tmp_path, echo(tmp_path, delay_ms=50)) as worker,
            following(tmp_path) as (gateway, controller, _),
        ):
            await worker.ready()
            controller.publish(table(1, replica(worker)))
            await controller.report(lambda r: not r.unreachable and r.route_version == 1)
            deployment = gateway.services.router.find("m", "")
            calls = [ask(deployment, n, n) for n in range(3)]
            controller.publish(route_table(2))
            await controller.report(lambda r: r.route_version == 2)
            assert [(await answer(c)).tolist() for c in calls] == [[[n], [n]] for n in range(3)]
            gateway.services.router.sweep(monotonic())
            assert gateway.services.router.deployments() == []
            await controller.report(lambda r: r.deployments == ())
            assert tasks_named("ReplicaLink._connect") == []

    scenario(test)


def test_controller_that_dies_leaves_the_table_in_force_and_its_successor_is_found(tmp_path: Path) -> None:
    async def test() -> None:
        async with following(tmp_path) as (gateway, controller, _):
            controller.publish(table(9))
            await controller.report(lambda r: r.route_version == 9)
            await controller.stop()
            await asyncio.sleep(0.05)
            assert gateway.services.router.table_version == 9
            gateway.services.router.find("m", "")
            await controller.start()
            await until(lambda: controller.connections == 2, pause=0.002)
            controller.publish(msgspec.structs.replace(table(1), epoch=2))
            await controller.report(lambda r: r.route_version == 1)

    scenario(test)


@pytest.mark.parametrize(
    "garbage", [b"\xff\xff\xff\xff", wrap(b"not a table"), wrap(msgspec.msgpack.encode({"version": "x"}))]
)
def test_table_that_cannot_be_read_is_logged_and_the_next_one_is_taken(tmp_path: Path, garbage: bytes) -> None:
    async def test() -> None:
        async with following(tmp_path) as (gateway, controller, _):
            controller.writers[0].write(garbage)
            await until(lambda: controller.connections == 2, pause=0.002)
            assert "bad_route_table" in gateway.logged[0]
            # Named, because a writer that nobody holds complains before it can be aborted (Python 3.13).
            refused = controller.writers.pop(0)
            refused.transport.abort()
            controller.publish(table(1))
            await controller.report(lambda r: r.route_version == 1)

    scenario(test)


def test_keys_are_followed_and_outlive_the_controller(tmp_path: Path) -> None:
    async def test() -> None:
        admin = key("admin", Scope.ADMIN)
        headers = {b"x-api-key": admin.token.encode()}
        async with following(tmp_path) as (gateway, controller, _):
            guard = gateway.services.guard
            assert guard.identify({}).name == ""
            controller.publish(key_set(admin))
            await until(lambda: refuses(guard, {}))
            assert guard.identify(headers).name == "admin"
            await controller.stop()
            assert refuses(guard, {})
            await controller.start()
            await until(lambda: controller.writers)
            controller.publish(key_set(key("admin", Scope.ADMIN, revoked=1.0), version=2))
            await until(lambda: refuses(guard, headers))

    asyncio.run(test())


def refuses(guard: Guard, headers: dict[bytes, bytes]) -> bool:
    try:
        guard.identify(headers)
    except errors.Unauthorized:
        return True
    return False
