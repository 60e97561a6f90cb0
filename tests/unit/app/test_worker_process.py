"""A worker as the supervisor sees it: reports, last words, limits, and why it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.app import orders, worker_process
from headrace.app.worker_process import WorkerProcess
from headrace.backends.environments import building, specification
from headrace.backends.environments.folder import EnvironmentsFolder
from headrace.core.models import Artifact
from headrace.core.replicas import ReplicaState
from headrace.replica import messages
from headrace.replica.spec import OUT_OF_MEMORY_EXIT, ReplicaSpec
from headrace.runtimes import needs, trust
from headrace.runtimes.runtime import LoadOptions
from tests import workers
from tests.fakes import until
from tests.wheels import offline, wheel, worker_wheels
from tests.workers import Gateway, answer, call, echo, python_model


class Supervisor:
    """What the supervisor hears about one worker."""

    def __init__(self, directory: Path, artifacts: tuple[Artifact, ...], order: dict[str, Any]) -> None:
        self.lines: list[str] = []
        self.reports: list[orders.Report] = []
        self.exits: list[orders.WorkerExited] = []
        self.directory = directory
        replicas = tuple(
            ReplicaSpec(f"m@{i}#x", a, LoadOptions(options={trust.OPTION: "yes"} if a.code_bearing else {}))
            for i, a in enumerate(artifacts)
        )
        fields: dict[str, Any] = {
            "worker": "w1",
            "replicas": replicas,
            "digests": tuple(a.digest for a in artifacts),
            "load_keys": tuple("k" for _ in artifacts),
            "deployments": tuple(f"m@{i}" for i in range(len(artifacts))),
            "token": workers.TOKEN,
            "environment": {"FROM_ORDER": "yes"},
            "replica_timeout_s": 60.0,
        }
        self.worker = WorkerProcess(
            orders.StartWorker(**{**fields, **order}),
            directory,
            on_line=lambda name, line: self.lines.append(line),
            on_report=self.reports.append,
            on_exit=lambda worker: self.exits.append(worker.exit_report()),
        )

    async def state(self, state: ReplicaState) -> orders.ReplicaReport:
        def found() -> list[orders.ReplicaReport]:
            return [r for r in self.reports if isinstance(r, orders.ReplicaReport) and r.state is state]

        await until(found, pause=0.005)
        return found()[-1]

    async def exit(self) -> orders.WorkerExited:
        await until(lambda: self.exits, pause=0.005)
        assert len(self.exits) == 1
        return self.exits[0]

    async def connect(self) -> Any:
        running = workers.RunningWorker(self.directory, None, None)  # type: ignore[arg-type]
        running.socket_path = self.directory / "w1.sock"
        running.status_path = self.directory / "w1.status"
        return await running.connect(Gateway())


@contextlib.asynccontextmanager
async def supervised(directory: Path, *artifacts: Artifact, **order: Any) -> AsyncIterator[Supervisor]:
    made = Supervisor(directory, artifacts, order)
    try:
        yield made
    finally:
        made.worker.process.kill("the test is over")
        await asyncio.wait_for(asyncio.shield(made.worker.process.ended), 10.0)


def scenario(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60.0))  # type: ignore[arg-type]


def test_life_from_start_to_stop(tmp_path: Path) -> None:
    async def test() -> None:
        async with supervised(tmp_path, echo(tmp_path)) as seen:
            ready = await seen.state(ReplicaState.READY)
            assert ready.model is not None
            assert [r.state for r in seen.reports if isinstance(r, orders.ReplicaReport)] == [
                *(ReplicaState.LOADING, ReplicaState.WARMING, ReplicaState.READY)
            ]
            live = seen.worker.snapshot()
            assert (live.order.worker, live.reports) == ("w1", (ready,))
            assert live.address == f"unix:{tmp_path}/w1.sock"
            handle = await seen.connect()
            one = call(1)
            handle.submit([one], 0.0, 1, idempotent=True)
            await answer(one)
            handle.close()
            seen.worker.watch(time.monotonic_ns())
            seen.worker.stop(30.0)
            gone = await seen.exit()
            assert (gone.reason, gone.detail, gone.completed) == ("exit", "the process exited with code 0", 1)

    scenario(test)


def test_load_failure_comes_with_what_was_printed(tmp_path: Path) -> None:
    async def test() -> None:
        body = (
            "def load(self):\n    print('looking for it')\n    raise RuntimeError('not there')\n"
            "def predict(self, x): return x"
        )
        async with supervised(tmp_path, python_model(tmp_path, body)) as seen:
            failed = await seen.state(ReplicaState.FAILED)
            assert "not there" in failed.reason
            assert "looking for it" in failed.trace
            assert "RuntimeError" in failed.trace
            log = seen.worker.fresh_log()
            assert log is not None
            assert "looking for it" in log.tail
            assert seen.worker.fresh_log() is None

    scenario(test)


def test_environment_of_the_order_reaches_the_model(tmp_path: Path) -> None:
    async def test() -> None:
        body = "def load(self): print(os.environ['FROM_ORDER'])\ndef predict(self, x): return x"
        async with supervised(tmp_path, python_model(tmp_path, body)) as seen:
            await seen.state(ReplicaState.READY)
            await until(lambda: "yes" in seen.lines, pause=0.005)

    scenario(test)


def test_a_worker_in_an_environment_of_its_own_sees_that_one_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker_wheels(tmp_path / "wheels")
    wheel(tmp_path / "wheels", "tiny", "1.0")
    folder = EnvironmentsFolder(tmp_path / "environments")
    wanted = specification.specify(("tiny==1.0",), needs.WORKER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "stray"), os.environ.get("PYTHONPATH", "")]))

    class Deaf:
        def build_begins(self) -> None: ...
        def on_line(self, line: str) -> None: ...

    async def test() -> None:
        environ = offline(tmp_path / "wheels", tmp_path / "cache")
        provided = await building.provide(folder, wanted, environ, Deaf())
        body = (
            "def load(self):\n    import tiny\n"
            "    print(tiny.VERSION, sys.prefix, os.environ['FROM_ORDER'], os.environ.get('PYTHONPATH'))\n"
            "def predict(self, x): return x"
        )
        async with supervised(tmp_path, python_model(tmp_path, body), python=provided.python) as supervisor:
            await supervisor.state(ReplicaState.READY)
            await until(lambda: supervisor.lines)
            assert supervisor.lines[0] == f"1.0 {folder.path(wanted.key)} yes None"
            handle = await supervisor.connect()
            one = call(1, 2)
            handle.submit([one], 0.0, 1, idempotent=True)
            assert (await answer(one)).ravel().tolist() == [1, 2]
            handle.close()


def test_secrets_of_the_server_do_not_reach_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADRACE_KEY_SECRET", "HEADRACE_API_KEY", "OTHER"):
        monkeypatch.setenv(name, "a test")

    async def test() -> None:
        body = "def load(self): print('found', sorted(n for n in os.environ if os.environ[n] == 'a test'))\n"
        body += "def predict(self, x): return x"
        async with supervised(tmp_path, python_model(tmp_path, body)) as seen:
            await seen.state(ReplicaState.READY)
            await until(lambda: any(line.startswith("found") for line in seen.lines), pause=0.005)
            assert "found ['OTHER']" in seen.lines

    scenario(test)


def test_hang_is_a_batch_that_is_too_old(tmp_path: Path) -> None:
    async def test() -> None:
        async with supervised(tmp_path, echo(tmp_path, hang_on=13), replica_timeout_s=5.0) as seen:
            await seen.state(ReplicaState.READY)
            handle = await seen.connect()
            handle.submit([call(13)], 0.0, 1, idempotent=True)
            await until(handle.computing, pause=0.005)
            now = time.monotonic_ns()
            seen.worker.watch(now)
            assert seen.worker.process.kill_reason == ""
            seen.worker.watch(now + 6_000_000_000)
            gone = await seen.exit()
            assert gone.reason == "hang"
            assert "the limit is 5 s" in gone.detail
            seen.worker.watch(now + 60_000_000_000)
            handle.close()

    scenario(test)


def test_model_that_hangs_while_warming_up_is_seen(tmp_path: Path) -> None:
    async def test() -> None:
        body = (
            'def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:\n'
            '    time.sleep(600)\n    return {"y": x}'
        )
        async with supervised(tmp_path, python_model(tmp_path, body), replica_timeout_s=5.0) as seen:
            await seen.state(ReplicaState.WARMING)
            path = tmp_path / "w1.status"
            await until(lambda: worker_process.status_page.read(path), pause=0.005)
            seen.worker.watch(time.monotonic_ns() + 6_000_000_000)
            assert (await seen.exit()).reason == "hang"

    scenario(test)


def test_worker_whose_own_allocation_failed(tmp_path: Path) -> None:
    async def test() -> None:
        model = python_model(
            tmp_path, f"def load(self): os._exit({OUT_OF_MEMORY_EXIT})\ndef predict(self, x): return x"
        )
        async with supervised(tmp_path, model, memory=1 << 30) as seen:
            gone = await seen.exit()
            assert gone.reason == "out_of_memory"
            assert gone.detail == "out of memory: the worker could not allocate, the limit is 1024 MiB"

    scenario(test)


def test_memory_beyond_the_limit(tmp_path: Path) -> None:
    async def test() -> None:
        async with supervised(tmp_path, echo(tmp_path), memory=8 << 30) as seen:
            await seen.state(ReplicaState.READY)
            seen.worker.watch(time.monotonic_ns())
            assert seen.worker.process.kill_reason == ""
            seen.worker.order = orders.StartWorker(
                **{f: getattr(seen.worker.order, f) for f in seen.worker.order.__struct_fields__ if f != "memory"},
                memory=1 << 20,
            )
            seen.worker.watch(time.monotonic_ns())
            gone = await seen.exit()
            assert gone.reason == "out_of_memory"
            assert "the limit is 1 MiB" in gone.detail

    scenario(test)


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGSEGV, "died of SIGSEGV"), (signal.SIGKILL, "died of SIGKILL"), (40, "died of signal 40")],
)
def test_signals_are_named(tmp_path: Path, number: int, words: str) -> None:
    async def test() -> None:
        async with supervised(tmp_path, echo(tmp_path)) as seen:
            await seen.state(ReplicaState.READY)
            os.kill(seen.worker.process.pid, number)
            gone = await seen.exit()
            assert (gone.reason, words in gone.detail) == ("signal", True), gone

    scenario(test)


def test_last_reports_of_a_worker_that_dies_at_once_are_heard(tmp_path: Path) -> None:
    async def test() -> None:
        body = "def load(self): print('the end', flush=True); os._exit(9)\ndef predict(self, x): return x"
        async with supervised(tmp_path, python_model(tmp_path, body)) as seen:
            gone = await seen.exit()
            assert (gone.reason, gone.detail) == ("exit", "the process exited with code 9")
            assert gone.log_tail == "the end"
            assert [r.state for r in seen.reports if isinstance(r, orders.ReplicaReport)] == [ReplicaState.LOADING]

    scenario(test)


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 100,
        messages.frame(messages.PONG, messages.Empty()),
        messages.frame(messages.LOADING, messages.Empty(), replica=7),
        messages.frame(messages.READY, messages.Empty()),
    ],
)
def test_worker_whose_reports_cannot_be_read_is_ended(tmp_path: Path, said: bytes) -> None:
    """A model may write into any descriptor of its process; the controller must not hear of replica 7 of one."""

    async def test() -> None:
        body = (
            "def load(self):\n"
            "    import json, glob\n"
            "    fd = json.load(open(sys.argv[1]))['supervisor_fd']\n"
            f"    os.write(fd, {said!r})\n"
            "    time.sleep(60)\n"
            "def predict(self, x): return x"
        )
        async with supervised(tmp_path, python_model(tmp_path, body)) as seen:
            gone = await seen.exit()
            assert gone.reason == "signal"
            assert "what it reports cannot be read" in gone.detail
            assert all(r.index == 0 for r in seen.reports if isinstance(r, orders.ReplicaReport))

    scenario(test)


def test_files_of_a_dead_worker_are_removed_after_gateways_had_their_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "_KEEP_FILES_S", 0.2)

    def files() -> set[str]:
        return {p.name for p in tmp_path.glob("w1.*")}

    async def test() -> None:
        async with supervised(tmp_path, echo(tmp_path)) as seen:
            await seen.state(ReplicaState.READY)
            seen.worker.process.kill("test")
            await seen.exit()
            assert files() == {"w1.json", "w1.sock", "w1.status"}
            await until(lambda: not files(), pause=0.01)

    scenario(test)


def test_worker_that_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    async def test() -> None:
        async with supervised(tmp_path, echo(tmp_path, hang_on=13)) as seen:
            await seen.state(ReplicaState.READY)
            handle = await seen.connect()
            handle.submit([call(13)], 0.0, 1, idempotent=True)
            await until(handle.computing, pause=0.005)
            seen.worker.stop(0.05)
            gone = await seen.exit()
            assert (gone.reason, gone.detail) == ("signal", "it did not stop in time")
            handle.close()

    scenario(test)
