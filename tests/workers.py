"""Real worker processes for tests, with the echo runtime or a Python file, and gateways' handles on them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.binding import Bound
from headrace.core.calls import Batch, Call
from headrace.core.models import Artifact, Format
from headrace.core.replicas import ReplicaState
from headrace.core.requests import Parameter
from headrace.core.routes import ReplicaRoute
from headrace.core.tensors import Tensor
from headrace.replica import messages
from headrace.replica.connection import Connection
from headrace.replica.handle import ReplicaHandle
from headrace.replica.messages import ResultHead
from headrace.replica.spec import ReplicaSpec, WorkerSpec
from headrace.runtimes import digest, trust
from headrace.runtimes.runtime import LoadOptions

TOKEN = "a token"
PATIENCE_S = 20.0


def echo(directory: Path, **options: object) -> Artifact:
    """An echo model with these options."""
    path = directory / f"echo-{len(list(directory.iterdir()))}.echo"
    path.write_text("headrace-echo 1\n" + "".join(f"{k}={v}\n" for k, v in options.items()))
    return Artifact(str(path), Format.ECHO, "echo", digest.of_file(path))


def python_model(directory: Path, body: str) -> Artifact:
    """A class ``Model`` with this body, in a file."""
    path = directory / "model.py"
    lines = "\n".join("    " + line for line in body.strip().splitlines())
    path.write_text(f"import os, sys, time\nimport numpy as np\nimport headrace\n\nclass M(headrace.Model):\n{lines}\n")
    return Artifact(str(path), Format.PYTHON, "python", "sha256:python", code_bearing=True, attribute="M")


class Gateway:
    """A listener that resolves calls, and remembers deaths."""

    def __init__(self) -> None:
        self.deaths: asyncio.Queue[tuple[list[Batch], list[Batch]]] = asyncio.Queue()
        self.streams_ended = 0

    def finished(self, handle: ReplicaHandle, batch: Batch, head: ResultHead) -> None:
        for call in batch.calls:
            if not call.waiter.done():
                call.waiter.set_result(None)

    def died(self, handle: ReplicaHandle, computing: list[Batch], waiting: list[Batch]) -> None:
        self.deaths.put_nowait((computing, waiting))

    def stream_ended(self, handle: ReplicaHandle) -> None:
        self.streams_ended += 1


class RunningWorker:
    """A worker process and the supervisor's end of its socket."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], supervisor: Connection) -> None:
        self.directory = directory
        self.process = process
        self.supervisor = supervisor
        self.socket_path = directory / "w.sock"
        self.status_path = directory / "w.status"
        self._frames: list[messages.Frame] = []

    def report(self) -> messages.Frame:
        """The worker's next report; blocks."""
        while not self._frames:
            self.supervisor.sock.settimeout(PATIENCE_S)
            assert self.supervisor.sock.recv(1, socket.MSG_PEEK), "the worker ended: " + self.log()
            self.supervisor.sock.setblocking(False)
            self._frames += self.supervisor.read_frames() or []
        return self._frames.pop(0)

    async def ready(self, replicas: int = 1) -> list[messages.ReadyHead]:
        """Wait until so many replicas are ready."""
        found: list[messages.ReadyHead] = []
        while len(found) < replicas:
            frame = await asyncio.to_thread(self.report)
            assert frame.kind != messages.LOAD_FAILED, messages.decode_load_failed(frame.head)
            if frame.kind == messages.READY:
                found.append(messages.decode_ready(frame.head))
        return found

    async def connect(self, gateway: Gateway, index: int = 0, token: str = TOKEN) -> ReplicaHandle:
        route = ReplicaRoute("r", f"unix:{self.socket_path}", index, ReplicaState.READY, token, str(self.status_path))
        handle = ReplicaHandle(route, gateway)
        for _ in range(200):
            try:
                await handle.connect(PATIENCE_S)
            except errors.NotReady as error:
                # Between the start of the process and its listening.
                if "No such file" not in error.message and "refused" not in error.message:
                    raise
                await asyncio.sleep(0.02)
            else:
                return handle
        raise AssertionError("the worker does not listen: " + self.log())

    async def raw(self, hello: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that says what the test wants."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket_path))
        writer.write(hello)
        return reader, writer

    async def exit_code(self) -> int:
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")


@contextlib.asynccontextmanager
async def running(
    directory: Path, *artifacts: Artifact, warmup: bool = False, memory: int | None = None
) -> AsyncIterator[RunningWorker]:
    """A worker with one replica per artifact, ended afterwards."""
    mine, theirs = socket.socketpair()
    spec = WorkerSpec(
        replicas=tuple(
            ReplicaSpec(
                f"m@1#{i}",
                artifact,
                LoadOptions(options={trust.OPTION: "yes"} if artifact.code_bearing else {}),
                warmup,
            )
            for i, artifact in enumerate(artifacts)
        ),
        socket_path=str(directory / "w.sock"),
        status_path=str(directory / "w.status"),
        token=TOKEN,
        supervisor_fd=theirs.fileno(),
        memory=memory,
    )
    path = directory / "w.json"
    path.write_bytes(msgspec.json.encode(spec))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - a test's own, it takes milliseconds
            [sys.executable, "-m", "headrace.replica.worker", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    theirs.close()
    worker = RunningWorker(directory, process, Connection(mine))
    try:
        yield worker
    finally:
        process.kill()
        process.wait()
        worker.supervisor.close()


_numbers = itertools.count()


def call(*values: float, mode: dict[str, Parameter] | None = None, width: int = 1) -> Call:
    """A call with one row per value."""
    array = np.repeat(np.array(values, np.float32)[:, None], width, axis=1)
    bound = Bound(("x",), ("FP32",), [array], len(values), array.nbytes, (next(_numbers),), mode or {})
    return Call(bound, 1e12, 0.0, asyncio.get_running_loop().create_future())


async def answer(waiting: Call) -> Any:
    """The first output of a call; raises its error."""
    await asyncio.wait_for(waiting.waiter, PATIENCE_S)  # type: ignore[arg-type]
    if waiting.error is not None:
        raise waiting.error
    assert waiting.outputs is not None
    return waiting.outputs[0].array


class Reader:
    """The sink of a stream."""

    taken = 0

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[list[Tensor]] = asyncio.Queue()
        self.over: asyncio.Future[errors.HeadraceError | None] = asyncio.get_running_loop().create_future()

    def chunk(self, outputs: list[Tensor]) -> None:
        self.chunks.put_nowait(outputs)

    def ended(self, error: errors.HeadraceError | None, compute: float) -> None:
        self.over.set_result(error)

    async def end(self) -> errors.HeadraceError | None:
        return await asyncio.wait_for(self.over, PATIENCE_S)
