"""The child: loads runtimes, listens, computes batches. ``python -m headrace.replica.worker SPEC``.

Two threads and the streams' threads. The main thread owns data connections and runs batches (frameworks and user code
expect the main thread). The control thread accepts connections, reads CANCEL, CREDIT and PING beside a busy model,
and ends the process when the supervisor is gone. Imports stay lean: stdlib, msgspec, numpy and one runtime, so that
a worker can live in a user's own environment.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import LoadedModel, SlotKind
from headrace.core.tensors import Array
from headrace.replica import execution, messages, streams, tensors_on_wire
from headrace.replica.connection import Connection
from headrace.replica.messages import Frame, RunHead
from headrace.replica.spec import ReplicaSpec, WorkerSpec
from headrace.replica.status_page import StatusPageWriter
from headrace.runtimes import table
from headrace.runtimes.runtime import Runtime

_HELLO_TIMEOUT_S = 5.0
_HELLO_SIZE = 4096
"""Bytes of a frame from a peer that has not shown its token yet."""
_WARMUP_BUDGET_S = 2.0


class Waiting(msgspec.Struct, gc=False):
    """A RUN frame that waits for the model."""

    connection: Connection
    frame: Frame
    head: RunHead
    arrays: list[Array]
    withdrawn: frozenset[int] = frozenset()
    """Calls that nobody waits for any more."""


class Worker:
    """Owns the sockets and the replicas of this process."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._runtimes: list[Runtime | None] = [None] * len(spec.replicas)
        self._page = StatusPageWriter(Path(spec.status_path))
        self._waiting: deque[Waiting] = deque()
        self._data: dict[int, Connection] = {}
        self._epoll = select.epoll()
        self._accepted: dict[int, int] = {}
        """Connection → number of its latest RUN."""
        self._early: dict[tuple[int, int], frozenset[int]] = {}
        """Calls withdrawn before their RUN was read: WITHDRAW travels on a connection of its own."""
        self._adopted: deque[Connection] = deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._epoll.register(self._wake_read.fileno(), select.EPOLLIN)
        self._supervisor = socket.socket(fileno=spec.supervisor_fd) if spec.supervisor_fd >= 0 else None
        self._supervisor_lock = threading.Lock()
        self._streams = streams.StreamPool(self._page)
        self._control = ControlThread(spec, self._adopt, self._withdraw, self._streams, self._supervisor)

    # --- life ---

    def run(self) -> None:
        """Load everything, then compute until the process is told to stop."""
        self._control.start()
        for index in range(len(self._spec.replicas)):
            self._load(index)
        self._control.loading = False
        while not self._control.stopping.is_set():
            # One look at the sockets per batch: what arrived while the model ran can join the next one.
            self._gather(0.0 if self._waiting else None)
            if self._waiting:
                self._run_next()

    def _load(self, index: int) -> None:
        spec = self._spec.replicas[index]
        self._tell(messages.LOADING, messages.Empty(), index)
        started = time.monotonic()
        try:
            runtime = table.load(spec.artifact, spec.options)
        except execution.Raised as error:
            self._report_failure(index, error)
            return
        loaded = time.monotonic()
        self._tell(messages.WARMING, messages.Empty(), index)
        timings = warm_up(runtime, spec, self._page) if spec.warmup else []
        self._streams.prepare(runtime)
        self._runtimes[index] = runtime
        model = LoadedModel(
            platform=runtime.platform,
            signature=runtime.signature,
            slots=runtime.slots,
            metadata=runtime.metadata,
            load_seconds=loaded - started,
            warmup_seconds=time.monotonic() - loaded,
        )
        self._tell(messages.READY, messages.ReadyHead(model, timings), index)

    def _report_failure(self, index: int, error: BaseException) -> None:
        trace = traceback.format_exc()
        sys.stderr.write(trace)
        sys.stderr.flush()
        if isinstance(error, errors.HeadraceError):
            code, text = error.code, error.message
        else:
            code, text = errors.LoadFailed.code, f"{type(error).__name__}: {error}"
        self._tell(messages.LOAD_FAILED, messages.LoadFailedHead(code, text, trace[-4000:]), index)

    def _tell(self, kind: int, head: msgspec.Struct, replica: int) -> None:
        if self._supervisor is not None:
            with self._supervisor_lock:
                self._supervisor.sendall(messages.frame(kind, head, replica=replica))

    # --- data connections ---

    def _adopt(self, connection: Connection | None) -> None:
        """Called by the control thread with a new data connection, or None to make the main thread look up."""
        if connection is not None:
            self._adopted.append(connection)
        self._wake_write.send(b"\0")

    def _withdraw(self, connection: int, batch: int, calls: list[int]) -> None:
        """Called by the control thread: mark calls of a batch that still waits, or is yet to be read from its socket;
        one that has begun goes on."""
        key = connection, batch
        if batch > self._accepted.get(connection, 0):
            self._early[key] = frozenset(calls)
        # After that: the main thread looks for early ones when it has put a batch here.
        for waiting in list(self._waiting):
            if (waiting.connection.id, waiting.head.batch) == key:
                waiting.withdrawn = waiting.withdrawn.union(calls)
                self._early.pop(key, None)

    def _gather(self, timeout: float | None) -> None:
        for fd, _ in self._epoll.poll(timeout):
            connection = self._data.get(fd)
            if connection is None:
                self._wake()
                continue
            try:
                frames = connection.read_frames()
                for frame in frames or ():
                    self._accept(connection, frame)
            except (messages.BadFrame, msgspec.MsgspecError) as error:
                sys.stderr.write(f"closing a gateway connection: {error}\n")
                frames = None
            if frames is None:
                self._drop(connection)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(4096)
        while self._adopted:
            connection = self._adopted.popleft()
            self._data[connection.fd] = connection
            self._epoll.register(connection.fd, select.EPOLLIN)

    def _drop(self, connection: Connection) -> None:
        """The gateway is gone: nobody waits for its batches any more."""
        self._epoll.unregister(connection.fd)
        del self._data[connection.fd]
        self._waiting = deque(w for w in self._waiting if w.connection is not connection)
        self._accepted.pop(connection.id, None)
        for key in [key for key in list(self._early) if key[0] == connection.id]:
            self._early.pop(key, None)
        self._streams.cancel_connection(connection)
        connection.close()

    def _accept(self, connection: Connection, frame: Frame) -> None:
        if frame.kind != messages.RUN:
            sys.stderr.write(f"ignoring a frame of kind {frame.kind} on a data connection\n")
            return
        frame.received = time.monotonic_ns()
        head = messages.decode_run(frame.head)
        self._accepted[connection.id] = head.batch
        runtime = self._runtimes[frame.replica] if frame.replica < len(self._runtimes) else None
        if runtime is None:
            not_loaded = errors.NotReady("this replica has not loaded")
            self._fail(connection, head, not_loaded)
            return
        arrays = tensors_on_wire.unpack(head.tensors, frame.payload)
        if frame.flags & messages.STREAM or runtime.slots.kind is SlotKind.CONCURRENT:
            inputs = dict(zip((t.name for t in head.tensors), arrays, strict=True))
            self._streams.start(connection, runtime, head, inputs, stream=bool(frame.flags & messages.STREAM))
        else:
            waiting = Waiting(connection, frame, head, arrays)
            self._waiting.append(waiting)
            if self._early:
                waiting.withdrawn = self._early.pop((connection.id, head.batch), waiting.withdrawn)

    @staticmethod
    def _fail(connection: Connection, head: RunHead, error: errors.HeadraceError) -> None:
        failures = [execution.failure(i, error) for i in range(len(head.rows))]
        result = messages.ResultHead(head.batch, [], failures, 0, 0, 0, 0)
        connection.send([messages.frame(messages.RESULT, result)])

    # --- batches ---

    def _run_next(self) -> None:
        group = self._take_group()
        runtime = self._runtimes[group[0].frame.replica]
        if runtime is None:
            raise errors.Bug("a batch waits for a replica that never loaded")
        gone = _withdrawn(group)
        if gone and len(gone) == sum(len(waiting.head.rows) for waiting in group):
            for waiting in group:
                self._fail(waiting.connection, waiting.head, errors.Cancelled())
            return
        rows = sum(sum(waiting.head.rows) for waiting in group)
        started = time.monotonic_ns()
        for slot, waiting in enumerate(group):
            self._page.begin(slot, started, waiting.connection.id, waiting.head.batch, rows)
        try:
            self._compute(runtime, group, started, gone)
        finally:
            for slot in range(len(group)):
                self._page.end(slot)

    def _take_group(self) -> list[Waiting]:
        """The oldest waiting batch, joined with those of other gateways that fit it."""
        first = self._waiting.popleft()
        group = [first]
        if first.frame.flags & messages.SOLO or not self._waiting:
            return group
        runtime = self._runtimes[first.frame.replica]
        if runtime is None or not runtime.signature.batchable:
            return group
        rows = sum(first.head.rows)
        kept: deque[Waiting] = deque()
        for waiting in self._waiting:
            more = sum(waiting.head.rows)
            if rows + more <= min(first.head.limit, waiting.head.limit) and _compatible(first, waiting):
                group.append(waiting)
                rows += more
            else:
                kept.append(waiting)
        self._waiting = kept
        return group

    def _compute(self, runtime: Runtime, group: list[Waiting], started: int, gone: Collection[int]) -> None:
        inputs = _join(group)
        rows = [count for waiting in group for count in waiting.head.rows]
        head = group[0].head
        idempotent = all(w.head.idempotent for w in group)
        if gone:
            computed = execution.run_others(runtime, inputs, rows, gone, head.parameters, idempotent=idempotent)
        else:
            computed = execution.run_batch(runtime, inputs, rows, head.parameters, idempotent=idempotent)
        batch_rows = sum(rows) - sum(rows[index] for index in gone)
        # Before the answers leave: who reads them may look at the page next.
        self._page.completed()
        if len(group) == 1:
            self._answer(runtime, group[0], computed, batch_rows, started)
        else:
            for waiting, part in zip(group, _split(group, computed), strict=True):
                self._answer(runtime, waiting, part, batch_rows, started)

    def _answer(
        self, runtime: Runtime, waiting: Waiting, computed: execution.Computed, batch_rows: int, started: int
    ) -> None:
        try:
            heads, parts = streams.pack(runtime, computed.outputs, waiting.head.tensors)
        except errors.HeadraceError as error:
            self._fail(waiting.connection, waiting.head, error)
            return
        result = messages.ResultHead(
            waiting.head.batch,
            heads,
            computed.failures,
            started - waiting.frame.received,
            computed.compute,
            batch_rows,
            time.monotonic_ns() - started,
        )
        size = messages.total_bytes(heads)
        waiting.connection.send([messages.frame(messages.RESULT, result, size), *parts])


def _withdrawn(group: list[Waiting]) -> Collection[int]:
    """Calls of a group that nobody waits for any more, counted over the whole group."""
    if not any(waiting.withdrawn for waiting in group):
        return ()
    gone: set[int] = set()
    at = 0
    for waiting in group:
        gone.update(at + index for index in waiting.withdrawn if index < len(waiting.head.rows))
        at += len(waiting.head.rows)
    return gone


def _compatible(one: Waiting, other: Waiting) -> bool:
    if other.frame.replica != one.frame.replica or other.frame.flags & messages.SOLO:
        return False
    a, b = one.head, other.head
    return (
        a.parameters == b.parameters
        # 1, 1.0 and True are equal, but not the same to a model.
        and (not a.parameters or [*map(type, a.parameters.values())] == [*map(type, b.parameters.values())])
        and len(a.tensors) == len(b.tensors)
        and all(
            x.name == y.name and x.dtype == y.dtype and x.shape[1:] == y.shape[1:]
            for x, y in zip(a.tensors, b.tensors, strict=True)
        )
    )


def _join(group: list[Waiting]) -> dict[str, Array]:
    names = [t.name for t in group[0].head.tensors]
    if len(group) == 1:
        return dict(zip(names, group[0].arrays, strict=True))
    return {name: np.concatenate([w.arrays[i] for w in group]) for i, name in enumerate(names)}


def _split(group: list[Waiting], computed: execution.Computed) -> list[execution.Computed]:
    """Give each waiting batch its own rows and failures back."""
    failed = {f.index: f for f in computed.failures}
    parts: list[execution.Computed] = []
    call = row = 0
    for waiting in group:
        failures = []
        start = row
        for index, count in enumerate(waiting.head.rows):
            bad = failed.get(call)
            if bad is None:
                row += count
            else:
                failures.append(messages.CallFailure(index, bad.code, bad.message))
            call += 1
        answered = len(failures) < len(waiting.head.rows)
        outputs = {name: array[start:row] for name, array in computed.outputs.items()} if answered else {}
        parts.append(execution.Computed(outputs, failures, computed.compute))
    return parts


def warm_up(runtime: Runtime, spec: ReplicaSpec, page: StatusPageWriter) -> list[messages.WarmupTiming]:
    """Run sample inputs so that the first request does not pay for lazy initialisation; sizes 1 and the batch
    limit seed the latency model. A model that refuses the samples is served all the same, and says so in its log;
    one that hangs on them is seen in the status page."""
    signature = runtime.signature
    if signature.streaming or (signature.any_inputs and runtime.samples() is None):
        return []
    timings: list[messages.WarmupTiming] = []
    began = time.monotonic()
    sizes = [1, 1, 1, spec.options.batch_limit, spec.options.batch_limit] if signature.batchable else [1, 1, 1]
    try:
        for rows in sizes:
            inputs = _samples(runtime, rows)
            started = time.monotonic()
            page.begin(0, int(started * 1e9), 0, 0, rows)
            runtime.predict(inputs, {})
            took = time.monotonic() - started
            timings.append(messages.WarmupTiming(rows, took))
            # A slow model must not spend its start on warming up.
            if time.monotonic() - began + took * (rows if rows == 1 else 1) > _WARMUP_BUDGET_S:
                break
    except execution.Raised as error:
        sys.stderr.write(f"warm-up of {spec.id} failed ({type(error).__name__}: {error}); serving without it\n")
        return []
    finally:
        page.end(0)
    return timings[1:]


def _samples(runtime: Runtime, rows: int) -> dict[str, Array]:
    given = runtime.samples()
    if given is None:
        return execution.zeros(runtime.signature, rows)
    if not runtime.signature.batchable:
        return given
    return {name: np.repeat(array[:1], rows, axis=0) for name, array in given.items()}


class ControlThread(threading.Thread):
    """Accepts connections and reads control frames while the main thread computes."""

    def __init__(
        self,
        spec: WorkerSpec,
        adopt: Callable[[Connection | None], None],
        withdraw: Callable[[int, int, list[int]], None],
        pool: streams.StreamPool,
        supervisor: socket.socket | None,
    ) -> None:
        super().__init__(name="headrace-control", daemon=True)
        self._spec = spec
        self._adopt = adopt
        self._withdraw = withdraw
        self._streams = pool
        self._supervisor = supervisor
        self._epoll = select.epoll()
        self._fresh: dict[int, tuple[Connection, float]] = {}
        self._connections: dict[int, Connection] = {}
        self.stopping = threading.Event()
        self.loading = True
        """The main thread loads models, so nothing is being computed."""
        self._listener = socket.socket(socket.AF_UNIX)
        Path(spec.socket_path).unlink(missing_ok=True)
        self._listener.bind(spec.socket_path)
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        if supervisor is not None:
            self._epoll.register(supervisor.fileno(), select.EPOLLIN)

    def run(self) -> None:
        try:
            self._serve()
        except BaseException:
            # Without this thread nobody would see the supervisor end, nor a gateway come: better a new worker.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def _serve(self) -> None:
        while True:
            for fd, _ in self._epoll.poll(_HELLO_TIMEOUT_S):
                if fd == self._listener.fileno():
                    self._take_connection()
                elif self._supervisor is not None and fd == self._supervisor.fileno():
                    self._hear_supervisor()
                else:
                    self._read(fd)
            self._drop_silent()

    def _take_connection(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # out of descriptors: the model may leak them; existing connections go on
            sys.stderr.write(f"cannot accept a gateway: {error}\n")
            time.sleep(0.05)
            return
        connection = Connection(sock, _HELLO_SIZE)
        self._fresh[connection.fd] = (connection, time.monotonic())
        self._epoll.register(connection.fd, select.EPOLLIN)

    def _hear_supervisor(self) -> None:
        """EOF: the supervisor died, and nobody would end this process later. A byte: stop after the batch."""
        assert self._supervisor is not None
        try:
            told = self._supervisor.recv(4096)
        except OSError:  # it died with reports unread
            told = b""
        if not told:
            if os.getpgrp() == os.getpid():
                # The group is this worker's own: what the model forked goes too.
                os.killpg(0, signal.SIGKILL)
            os._exit(0)
        self.stopping.set()
        if self.loading:
            os._exit(0)
        self._adopt(None)

    def _read(self, fd: int) -> None:
        fresh = self._fresh.get(fd)
        connection = fresh[0] if fresh is not None else self._connections[fd]
        try:
            frames = connection.read_frames()
            if frames is None:
                self._forget(fd, connection)
                return
            if fd in self._fresh and len(frames) > 1:
                # Once greeted, a data connection belongs to the main thread.
                raise messages.BadFrame("frames came before the WELCOME")
            for frame in frames:
                if fd in self._fresh:
                    self._greet(connection, frame)
                else:
                    self._obey(connection, frame)
        except (messages.BadFrame, msgspec.MsgspecError) as error:
            sys.stderr.write(f"closing a connection: {error}\n")
            self._forget(fd, connection)

    def _greet(self, connection: Connection, frame: Frame) -> None:
        if frame.kind != messages.HELLO:
            raise messages.BadFrame(f"expected HELLO, got kind {frame.kind}")
        hello = messages.decode_hello(frame.head)
        problem = ""
        if hello.protocol != messages.PROTOCOL:
            problem = f"this worker speaks protocol {messages.PROTOCOL}, not {hello.protocol}"
        elif hello.token != self._spec.token:
            problem = "wrong token"
        connection.send([messages.frame(messages.WELCOME, messages.Welcome(messages.PROTOCOL, os.getpid(), problem))])
        if problem:
            raise messages.BadFrame(problem)
        connection.max_frame = messages.MAX_FRAME
        connection.id = hello.connection
        connection.role = hello.role
        del self._fresh[connection.fd]
        if hello.role == "control":
            self._connections[connection.fd] = connection
        else:
            self._epoll.unregister(connection.fd)
            self._adopt(connection)

    def _obey(self, connection: Connection, frame: Frame) -> None:
        if frame.kind == messages.CANCEL:
            self._streams.cancel(connection.id, messages.decode_cancel(frame.head).batch)
        elif frame.kind == messages.CREDIT:
            credit = messages.decode_credit(frame.head)
            self._streams.grant(connection.id, credit.batch, credit.chunks)
        elif frame.kind == messages.WITHDRAW:
            withdrawn = messages.decode_withdraw(frame.head)
            self._withdraw(connection.id, withdrawn.batch, withdrawn.calls)
        elif frame.kind == messages.PING:
            connection.send([messages.frame(messages.PONG, messages.Empty())])
        else:
            raise messages.BadFrame(f"unexpected control frame of kind {frame.kind}")

    def _forget(self, fd: int, connection: Connection) -> None:
        self._epoll.unregister(fd)
        self._fresh.pop(fd, None)
        self._connections.pop(fd, None)
        connection.close()

    def _drop_silent(self) -> None:
        now = time.monotonic()
        for fd, (connection, since) in list(self._fresh.items()):
            if now - since > _HELLO_TIMEOUT_S:
                self._forget(fd, connection)


def limit_memory(limit: int) -> None:
    """Let allocations beyond the limit fail inside the process (MemoryError) where the kernel can see them;
    the supervisor watches the resident size as well."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main(arguments: list[str]) -> int:
    spec = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=WorkerSpec)
    # Ctrl-C reaches the whole terminal group; only the supervisor decides when workers stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if spec.memory is not None:
        limit_memory(spec.memory)
    code = 0
    try:
        Worker(spec).run()
    except BaseException:
        traceback.print_exc()
        code = 1
    # Frameworks' own threads and atexit hooks have hung exits before; nothing is left to save.
    with contextlib.suppress(OSError, ValueError):  # the model may have closed them
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
