"""The supervisor's own decisions: restarts with pauses, orders obeyed, a controller that hangs, the folder it leaves.

That everything together starts, survives and ends is tested on real servers in ``tests/acceptance``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.app import events, orders, supervisor
from headrace.app.settings.serve_settings import ServeSettings
from headrace.app.supervisor import Supervisor
from headrace.backends.local import ChildProcess
from headrace.core import errors
from headrace.core.envelope import wrap
from headrace.core.replicas import ReplicaState
from headrace.gateway.settings import GatewaySettings
from headrace.replica.spec import ReplicaSpec
from headrace.runtimes.runtime import LoadOptions
from tests import workers
from tests.fakes import until
from tests.workers import echo


def scenario(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60.0))  # type: ignore[arg-type]


def make(tmp_path: Path, told: list[Any] | None = None, **settings: Any) -> Supervisor:
    fields: dict[str, Any] = {"models": (), "runtime_dir": str(tmp_path / "run"), **settings}
    made = Supervisor(ServeSettings(**fields), (told if told is not None else []).append)
    made._directory = made._make_directory()
    return made


class Dead:
    """A child that has just ended."""

    def __init__(self, name: str) -> None:
        self.name, self.returncode = name, 1


def test_restarts_are_immediate_first_and_slower_when_they_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        made = make(tmp_path)
        pauses: list[float] = []
        now = 1000.0
        monkeypatch.setattr(supervisor.time, "monotonic", lambda: now)
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda pause, *arguments: pauses.append(pause))
        for _ in range(7):
            made._restart(Dead("gateway-0"), lambda: None)  # type: ignore[arg-type]
        made._restart(Dead("gateway-1"), lambda: None)  # type: ignore[arg-type]
        now += 61.0
        made._restart(Dead("gateway-0"), lambda: None)  # type: ignore[arg-type]
        assert pauses == [0.0, 0.1, 0.5, 2.0, 5.0, 5.0, 5.0, 0.0, 0.0]
        made._stopping.set()
        made._restart(Dead("gateway-0"), lambda: None)  # type: ignore[arg-type]
        assert len(pauses) == 9, "nothing is started while everything ends"
        made._start_unless_stopping(lambda: pytest.fail("started"))

    scenario(test)


def test_orders_of_the_controller_cut_anywhere(tmp_path: Path) -> None:
    async def test() -> None:
        told: list[Any] = []
        made = make(tmp_path, told)
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        made._controller_link = mine
        serving = events.Serving("u", "m", (), 1, 0.1)
        stream = b"".join(
            wrap(msgspec.msgpack.encode(o))
            for o in (orders.Notify(events.Draining(1.0)), orders.StopWorker("nobody", 1.0), orders.Notify(serving))
        )
        for at in range(0, len(stream), 7):
            theirs.send(stream[at : at + 7])
            made._hear_controller()
        made._hear_controller()
        assert told == [events.Draining(1.0), serving]
        assert made._announced
        theirs.close()
        made._hear_controller()
        mine.close()
        made._controller_link = None
        made._hear_controller()

    scenario(test)


def test_controller_that_does_not_read_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_CONTROLLER_READS_S", 0.05)

    async def test() -> None:
        made = make(tmp_path)
        mine, theirs = socket.socketpair()
        made._controller_link = mine
        made._controller = ChildProcess(
            "controller",
            [sys.executable, "-c", "import time; time.sleep(60)"],
            environment=os.environ,
            on_line=lambda name, line: None,
            on_exit=lambda child: None,
        )
        report = orders.WorkerLog("w", "x" * 500_000)
        made._tell(report)
        assert await asyncio.wait_for(asyncio.shield(made._controller.ended), 10.0) == -signal.SIGKILL
        assert "does not read" in made._controller.kill_reason
        made._controller_link = None
        made._tell(report)
        mine.close()
        theirs.close()

    scenario(test)


def test_worker_is_started_watched_and_its_end_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        made = make(tmp_path)
        reports: list[orders.Report] = []
        made._tell = reports.append  # type: ignore[method-assign]
        replica = ReplicaSpec("m@1#1", echo(tmp_path), LoadOptions())
        order = orders.StartWorker("w1", (replica,), ("d",), ("k",), ("m@1",), workers.TOKEN, {}, 60.0)
        made._obey(order)
        await until(
            lambda: any(isinstance(r, orders.ReplicaReport) and r.state is ReplicaState.READY for r in reports),
            pause=0.005,
        )
        assert [w.snapshot().order for w in made._workers.values()] == [order]
        made._obey(orders.StopWorker("w1", 10.0))
        await until(lambda: isinstance(reports[-1], orders.WorkerExited), pause=0.005)
        assert made._workers == {}
        made._stopping.set()
        made._obey(order)
        assert made._workers == {}, "nothing is started while everything ends"

    scenario(test)


def test_folder_is_private(tmp_path: Path) -> None:
    async def test() -> None:
        made = make(tmp_path)
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
        assert (made._directory / "metrics").is_dir()

    scenario(test)


def test_port_that_is_taken_ends_the_start_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor.tempfile, "tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.BadSettings, match="choose another with --port PORT"):
            supervisor.run(ServeSettings(models=(), gateway=GatewaySettings(port=port)), lambda event: None)
    assert list(tmp_path.iterdir()) == []


def test_output_that_nobody_reads_any_more_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    async def test() -> None:
        made = make(tmp_path)
        monkeypatch.setattr(sys, "stderr", Closed())
        made._forward("m@1#1", "a line")
        monkeypatch.undo()

    scenario(test)
