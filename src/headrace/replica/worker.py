"""The child: loads runtimes, listens, computes batches. ``python -m headrace.replica.worker SPEC``.

Two threads and the streams' threads. The main thread owns data connections and runs batches (frameworks and user code
expect the main thread). The control thread accepts connections, reads CANCEL, CREDIT and PING beside a busy model,
and ends the process when the supervisor is gone. Imports stay lean: stdlib, msgspec, numpy and one runtime, so that
a worker can live in a user's own environment.
"""

from __future__ import annotations

import contextlib
import io
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
from collections.abc import Collection
from pathlib import Path

import msgspec

from headrace.core import errors
from headrace.core.models import LoadedModel, SlotKind
from headrace.replica import execution, messages, ragged, scheduling, streams, tensors_on_wire
from headrace.replica.connection import Connection
from headrace.replica.control_thread import ControlThread, last_words
from headrace.replica.messages import Frame, RunHead
from headrace.replica.spec import WorkerSpec
from headrace.replica.status_page import EVERY_BATCH, StatusPageWriter
from headrace.replica.waiting import Waiting, compatible, join, padded_to, split, withdrawn
from headrace.replica.warm_up import warm_up
from headrace.runtimes import digest, padding, table
from headrace.runtimes.runtime import Runtime


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
        while not self._control.stopping.is_set():
            # One look at the sockets per batch: what arrived while the model ran can join the next one.
            try:
                self._gather(0.0 if self._waiting else None)
            except BaseException:
                self._blame_all()
                raise
            if self._waiting:
                self._run_next()
        self._close()

    def _blame_all(self) -> None:
        """This process ends outside the model, and which request it is about is not known, perhaps one that was read by
        half: leave all of them on the page, so that none can do it again and again."""
        for slot, connection in enumerate(list(self._data.values())[: streams.FIRST_SLOT]):
            self._page.begin(slot, time.monotonic_ns(), connection.id, EVERY_BATCH)

    def _close(self) -> None:
        """Let every model release what it took. One that still computes in a thread is left as it is."""
        for spec, runtime in zip(self._spec.replicas, self._runtimes, strict=True):
            if runtime is None or self._streams.busy(runtime):
                continue
            try:
                runtime.close()
            except execution.Raised as error:
                sys.stderr.write(f"closing {spec.id} failed ({type(error).__name__}: {error})\n")

    def _load(self, index: int) -> None:
        if self._control.stopping.is_set():
            return
        self._control.loading = True
        try:
            ready = self._load_and_warm_up(index)
        finally:
            self._control.loading = False
        if ready is not None:
            # Whoever reads this may ask the worker to stop at once, and its models to be closed.
            self._tell(messages.READY, ready, index)

    def _load_and_warm_up(self, index: int) -> messages.ReadyHead | None:
        spec = self._spec.replicas[index]
        self._tell(messages.LOADING, messages.Empty(), index)
        started = time.monotonic()
        try:
            digest.require_unchanged(spec.artifact)
            runtime = table.load(spec.artifact, spec.options)
            rules = spec.padding.over(runtime.padding())
            plan = padding.resolve(runtime.signature, runtime.slots, runtime.dims(), rules)
        except execution.Raised as error:
            self._report_failure(index, error)
            return None
        loaded = time.monotonic()
        self._tell(messages.WARMING, messages.Empty(), index)
        timings = warm_up(runtime, spec, self._page) if spec.warmup else []
        self._streams.prepare(runtime)
        self._runtimes[index] = runtime
        model = LoadedModel(
            platform=runtime.platform,
            signature=msgspec.structs.replace(runtime.signature, padding=plan),
            slots=runtime.slots,
            metadata=runtime.metadata,
            load_seconds=loaded - started,
            warmup_seconds=time.monotonic() - loaded,
        )
        return messages.ReadyHead(model, timings)

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
        try:
            self._begin(connection, frame, head, runtime)
        except (MemoryError, errors.RuntimeFailed) as error:
            connection.send([streams.refusal(head, error, stream=bool(frame.flags & messages.STREAM))])

    def _begin(self, connection: Connection, frame: Frame, head: RunHead, runtime: Runtime) -> None:
        if frame.unread:
            raise errors.OutOfMemory(
                f"the replica ran out of memory: it has no room for a batch of {frame.unread >> 20} MiB; send smaller"
                " requests, or give the model more memory"
            )
        if head.ragged is not None:
            blocks = ragged.unpack(head, head.ragged, frame.payload)
            self._wait(Waiting(connection, frame, head, [], blocks=blocks))
            return
        arrays = tensors_on_wire.unpack(head.tensors, frame.payload)
        if frame.flags & messages.STREAM or runtime.slots.kind is SlotKind.CONCURRENT:
            inputs = dict(zip((t.name for t in head.tensors), arrays, strict=True))
            self._streams.start(connection, runtime, head, inputs, stream=bool(frame.flags & messages.STREAM))
        else:
            self._wait(Waiting(connection, frame, head, arrays))

    def _wait(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)
        if self._early:
            waiting.withdrawn = self._early.pop((waiting.connection.id, waiting.head.batch), waiting.withdrawn)

    @staticmethod
    def _fail(connection: Connection, head: RunHead, error: Exception) -> None:
        connection.send([streams.refusal(head, error, stream=False)])

    # --- batches ---

    def _run_next(self) -> None:
        group = self._take_group()
        runtime = self._runtimes[group[0].frame.replica]
        if runtime is None:
            raise errors.Bug("a batch waits for a replica that never loaded")
        gone = withdrawn(group)
        if gone and len(gone) == sum(len(waiting.head.rows) for waiting in group):
            for waiting in group:
                self._fail(waiting.connection, waiting.head, errors.Cancelled())
            return
        rows = sum(sum(waiting.head.rows) for waiting in group)
        started = time.monotonic_ns()
        for slot, waiting in enumerate(group):
            self._page.begin(slot, started, waiting.connection.id, waiting.head.batch, rows)
        self._compute(runtime, group, started, gone)
        # Not in a `finally`: what ends the process here must stay on the page, or the batch would be run for ever.
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
            if rows + more <= min(first.head.limit, waiting.head.limit) and compatible(first, waiting):
                group.append(waiting)
                rows += more
            else:
                kept.append(waiting)
        self._waiting = kept
        return group

    def _compute(self, runtime: Runtime, group: list[Waiting], started: int, gone: Collection[int]) -> None:
        head = group[0].head
        sizes = padded_to(group) if head.ragged is not None else ()
        try:
            inputs = join(group, sizes)
        except MemoryError as error:
            if len(group) == 1:
                self._fail(group[0].connection, head, error)
                return
            inputs = None
        if inputs is None:
            # There is no memory for a copy of all of them; one alone needs none, or a smaller one.
            for waiting in group:
                self._compute(runtime, [waiting], started, withdrawn([waiting]))
            return
        rows = [count for waiting in group for count in waiting.head.rows]
        idempotent = all(w.head.idempotent for w in group)
        if gone:
            computed = execution.run_others(runtime, inputs, rows, gone, head.parameters, idempotent=idempotent)
        else:
            computed = execution.run_batch(runtime, inputs, rows, head.parameters, idempotent=idempotent)
        if head.ragged is not None:
            computed = execution.of_sizes(computed, head.ragged.padding, sizes, len(rows))
        batch_rows = sum(rows) - sum(rows[index] for index in gone)
        # Before the answers leave: who reads them may look at the page next.
        self._page.completed()
        if len(group) == 1:
            self._answer(runtime, group[0], computed, batch_rows, started)
        else:
            for waiting, part in zip(group, split(group, computed), strict=True):
                self._answer(runtime, waiting, part, batch_rows, started)

    def _answer(
        self, runtime: Runtime, waiting: Waiting, computed: execution.Computed, batch_rows: int, started: int
    ) -> None:
        try:
            heads, parts = streams.pack(runtime, computed.outputs, waiting.head.tensors)
        except (errors.HeadraceError, MemoryError) as error:
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


def limit_memory(limit: int) -> None:
    """Let allocations beyond the limit fail inside the process (MemoryError) where the kernel can see them;
    the supervisor watches the resident size as well."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main(arguments: list[str]) -> int:
    spec = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=WorkerSpec)
    # Ctrl-C reaches the whole terminal group; only the supervisor decides when workers stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A pipe, which Python would fill first: what a model prints is read while it works, and after it died.
        sys.stdout.reconfigure(line_buffering=True)
    if spec.memory is not None:
        limit_memory(spec.memory)
    if spec.yields:
        # Before a framework starts its threads.
        scheduling.yield_to_all()
    code = 0
    try:
        Worker(spec).run()
    except BaseException as error:
        code = last_words(error)
    # Frameworks' own threads and atexit hooks have hung exits before; nothing is left to save.
    with contextlib.suppress(OSError, ValueError):  # the model may have closed them
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
