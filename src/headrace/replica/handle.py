"""The gateway's side of one replica: a data connection that carries batches, a control connection for streams.

A handle sends what it is given and reports what comes back; whether and when to send is the pipeline's choice. All
methods run on the event loop of the gateway.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from typing import Protocol, cast

import msgspec

from headrace.core import errors
from headrace.core.calls import Batch, Call, ChunkSink
from headrace.core.routes import ReplicaRoute
from headrace.core.tensors import Tensor
from headrace.replica import messages, ragged, status_page, tensors_on_wire
from headrace.replica.messages import Frame

_JOIN_BELOW = 64 * 1024
"""Payloads below this are copied into one write; larger ones go out as views."""


class Listener(Protocol):
    """Hears what happens on a handle. Called on the event loop."""

    def finished(self, handle: ReplicaHandle, batch: Batch, head: messages.ResultHead) -> None:
        """Outputs or errors are in the calls; waiters are not yet resolved."""
        ...

    def died(self, handle: ReplicaHandle, computing: list[Batch], waiting: list[Batch]) -> None:
        """The connection is gone; ``computing`` may have killed the replica, ``waiting`` had not begun."""
        ...

    def stream_ended(self, handle: ReplicaHandle) -> None:
        """A stream has given its slot back."""
        ...


class ReplicaHandle:
    """Connect with ``connect``; afterwards ``alive`` until the connection is lost."""

    def __init__(self, route: ReplicaRoute, listener: Listener) -> None:
        self.route = route
        self.id = route.id
        self.alive = False
        self.draining = False
        self.connection_id = int.from_bytes(os.urandom(4), "little") or 1
        self.batches: dict[int, Batch] = {}
        self.streams: dict[int, ChunkSink] = {}
        self._listener = listener
        self._numbers = itertools.count(1)
        self._data: asyncio.WriteTransport | None = None
        self._control: asyncio.WriteTransport | None = None
        self._page: status_page.StatusPageReader | None = None

    @property
    def outstanding(self) -> int:
        """Batches and streams that this gateway waits for."""
        return len(self.batches) + len(self.streams)

    @property
    def rows_in_flight(self) -> int:
        """Rows of the batches that this gateway waits for."""
        return sum(batch.rows for batch in self.batches.values())

    async def connect(self, timeout: float) -> None:  # noqa: ASYNC109 - it is the caller's to choose
        """Open both connections and shake hands. Raises NotReady when the worker cannot be reached."""
        try:
            # Not wait_for: until Python 3.12 it swallows a cancellation that comes together with a refusal.
            async with asyncio.timeout(timeout):
                self._data = await self._open("data")
                self._control = await self._open("control")
            if self.route.status_path is not None:
                self._page = status_page.StatusPageReader(self.route.status_path)
            if self._data.is_closing() or self._control.is_closing():
                raise ConnectionError("the worker closed the connection")
        except BaseException as error:
            self.close()
            if not isinstance(error, OSError | ValueError | TimeoutError):
                raise
            raise errors.NotReady(f"replica {self.id} cannot be reached: {error or 'timeout'}") from error
        self.alive = True

    async def _open(self, role: str) -> asyncio.WriteTransport:
        loop = asyncio.get_running_loop()
        link = _Link(self, role)
        kind, _, where = self.route.address.partition(":")
        if kind == "unix":
            await loop.create_unix_connection(lambda: link, where)
        else:
            host, _, port = where.rpartition(":")
            await loop.create_connection(lambda: link, host, int(port))
        assert link.transport is not None
        hello = messages.Hello(messages.PROTOCOL, role, self.connection_id, self.route.token)
        link.transport.write(messages.frame(messages.HELLO, hello))
        try:
            await link.welcomed
        except BaseException:
            # Nobody knows this connection yet: left open, its late welcome would meet the next attempt.
            link.transport.abort()
            raise
        return link.transport

    def computing(self) -> tuple[float, int] | None:
        """Since when (monotonic seconds) the replica computes a batch, whoever sent it, and its rows. None: it is idle,
        or that is not known (a worker on another machine)."""
        return None if self._page is None else self._page.computing()

    # --- out ---

    def submit(self, calls: Sequence[Call], now: float, limit: int, *, idempotent: bool, solo: bool = False) -> Batch:
        """Send calls of one key as a batch."""
        number = next(self._numbers) & 0xFFFFFFFF
        first = calls[0].bound
        rows = [calls[0].rows] if len(calls) == 1 else [call.rows for call in calls]
        if first.padded is not None:
            heads, parts, sizes = ragged.pack([call.bound for call in calls], first.padded.padding)
            run = messages.RunHead(number, rows, heads, first.parameters, limit, idempotent, 0, sizes)
        else:
            if len(calls) == 1:
                columns = [[array] for array in first.arrays]
            else:
                columns = [[call.bound.arrays[i] for call in calls] for i in range(len(first.arrays))]
            heads, parts = tensors_on_wire.pack_all(zip(first.names, first.dtypes, columns, strict=True))
            run = messages.RunHead(number, rows, heads, first.parameters, limit, idempotent)
        batch = Batch(number, calls, sum(rows), now)
        # What cannot be packed raises here, before the batch counts as sent.
        self._write(run, parts, messages.SOLO if solo else 0)
        self.batches[number] = batch
        for call in calls:
            call.sent = now
            call.replica = self.id
        return batch

    def start_stream(self, call: Call, sink: ChunkSink, credit: int, *, idempotent: bool) -> int:
        """Send one call whose answer is a stream; returns its number for ``grant`` and ``cancel``."""
        number = next(self._numbers) & 0xFFFFFFFF
        bound = call.bound
        columns = [[array] for array in bound.arrays]
        heads, parts = tensors_on_wire.pack_all(zip(bound.names, bound.dtypes, columns, strict=True))
        run = messages.RunHead(number, [call.rows], heads, bound.parameters, 1, idempotent, credit)
        self._write(run, parts, messages.STREAM)
        self.streams[number] = sink
        call.replica = self.id
        return number

    def grant(self, number: int, chunks: int) -> None:
        """Allow the worker to send more chunks."""
        if self._control is not None and number in self.streams:
            head = messages.CreditHead(number, chunks)
            self._control.write(messages.frame(messages.CREDIT, head, replica=self.route.index))

    def cancel(self, number: int) -> None:
        """Nobody reads the stream any more. Its END still comes and gives the slot back."""
        if self._control is not None and number in self.streams:
            self._control.write(messages.frame(messages.CANCEL, messages.CancelHead(number), replica=self.route.index))

    def withdraw(self, number: int, calls: list[int]) -> None:
        """Nobody waits for these calls of a batch any more: they are dropped, unless the batch has begun."""
        if self._control is not None and number in self.batches:
            head = messages.WithdrawHead(number, calls)
            self._control.write(messages.frame(messages.WITHDRAW, head, replica=self.route.index))

    def _write(self, run: messages.RunHead, parts: list[tensors_on_wire.Part], flags: int) -> None:
        assert self._data is not None
        size = messages.total_bytes(run.tensors)
        head = messages.frame(messages.RUN, run, size, flags=flags, replica=self.route.index)
        if size < _JOIN_BELOW:
            self._data.write(b"".join((head, *parts)))
        else:
            self._data.writelines([head, *(memoryview(p).cast("B") for p in parts)])

    # --- in ---

    def received(self, frame: Frame) -> None:
        """A frame of the data connection."""
        if frame.kind == messages.RESULT:
            self._result(frame)
        elif frame.kind == messages.CHUNK:
            chunk = messages.decode_chunk(frame.head)
            sink = self.streams.get(chunk.batch)
            if sink is not None:
                sink.chunk(tensors_on_wire.unpack_tensors(chunk.tensors, frame.payload))
        elif frame.kind == messages.END:
            end = messages.decode_end(frame.head)
            sink = self.streams.pop(end.batch, None)
            if sink is not None:
                sink.ended(errors.from_code(end.code, end.message) if end.code else None, end.compute / 1e9)
                self._listener.stream_ended(self)
        else:
            raise messages.BadFrame(f"unexpected frame of kind {frame.kind} from a worker")

    def _result(self, frame: Frame) -> None:
        head = messages.decode_result(frame.head)
        batch = self.batches.get(head.batch)
        if batch is None:
            return
        # An answer that cannot be read ends the connection; the batch must be among the lost ones then.
        tensors = tensors_on_wire.unpack_tensors(head.tensors, frame.payload)
        wait, compute, batch_rows = head.wait / 1e9, head.compute / 1e9, head.batch_rows
        calls = batch.calls
        if len(calls) == 1 and not head.failures:
            calls[0].outputs = tensors
        else:
            _share_out(calls, tensors, head.failures)
        if calls[0].bound.padded is not None:
            _cut_back(calls)
        del self.batches[head.batch]
        for call in calls:
            call.wait = wait
            call.compute = compute
            call.batch_rows = batch_rows
        self._listener.finished(self, batch, head)

    def ended(self, transport: asyncio.WriteTransport | None) -> None:
        """A connection ended; those of attempts that were given up do not count."""
        if transport is not None and transport in (self._data, self._control):
            self.lost()

    def lost(self) -> None:
        """Everything in flight is lost. Idempotent."""
        if not self.alive:
            return
        self.close()
        running = status_page.read(self.route.status_path) if self.route.status_path else None
        batches, self.batches = list(self.batches.values()), {}
        if running is None:
            computing, waiting = batches, []
        else:
            mine = {r.batch for r in running if r.connection == self.connection_id}
            every = status_page.EVERY_BATCH in mine
            computing = [b for b in batches if every or b.id in mine]
            waiting = [b for b in batches if not every and b.id not in mine]
        sinks, self.streams = list(self.streams.values()), {}
        for sink in sinks:
            sink.ended(errors.ReplicaDied(f"replica {self.id} died while it streamed"), 0.0)
        self._listener.died(self, computing, waiting)

    def fail_all(self, error: errors.HeadraceError) -> None:
        """End every call and stream in flight with ``error``; what the worker still answers to them is dropped."""
        batches, self.batches = list(self.batches.values()), {}
        sinks, self.streams = list(self.streams.values()), {}
        for batch in batches:
            for call in batch.calls:
                call.fail(error)
        for sink in sinks:
            sink.ended(error, 0.0)

    def close(self) -> None:
        """Close both connections without reporting a loss."""
        self.alive = False
        for transport in (self._data, self._control):
            if transport is not None:
                transport.abort()
        self._data = self._control = None
        if self._page is not None:
            self._page.close()
            self._page = None


def _share_out(calls: Sequence[Call], tensors: list[Tensor], failures: list[messages.CallFailure]) -> None:
    """Give every call its rows of the outputs, or its error."""
    failed = {f.index: f for f in failures}
    at = 0
    for index, call in enumerate(calls):
        bad = failed.get(index) if failed else None
        if bad is not None:
            call.error = errors.from_code(bad.code, bad.message)
            continue
        end = at + call.rows
        call.outputs = [Tensor(t.name, t.dtype, t.array[at:end]) for t in tensors]
        at = end


def _cut_back(calls: Sequence[Call]) -> None:
    """Outputs of a padded batch have the sizes of its longest call."""
    for call in calls:
        padded = call.bound.padded
        if call.outputs is not None and padded is not None:
            call.outputs = padded.padding.cut(call.outputs, padded.sizes)


class _Link(asyncio.Protocol):
    """Cuts a connection's bytes into frames."""

    def __init__(self, handle: ReplicaHandle, role: str) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handle = handle
        self._role = role
        self._buffer = bytearray()
        self._need = 4

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return
            buffer = self._buffer
        at, end = 0, len(buffer)
        try:
            while end - at >= 4:
                length = messages.frame_length(buffer, at)
                if end - at < length:
                    self._need = length
                    break
                view = memoryview(buffer)[at : at + length]
                # A bytes object is kept alive by views on it; a bytearray is reused and must be copied from.
                self._frame(messages.parse(view if buffer is data else memoryview(bytes(view))))
                at += length
        except (messages.BadFrame, msgspec.MsgspecError) as error:
            self._fail(error)
            return
        if at < end or self._buffer:
            self._buffer = bytearray(buffer[at:])
            if end - at < 4:
                self._need = 4

    def _frame(self, frame: Frame) -> None:
        if not self.welcomed.done():
            self._welcome(frame)
        elif self._role == "data":
            self._handle.received(frame)

    def _welcome(self, frame: Frame) -> None:
        if frame.kind != messages.WELCOME:
            raise messages.BadFrame(f"expected WELCOME, got kind {frame.kind}")
        welcome = messages.decode_welcome(frame.head)
        if welcome.error:
            raise messages.BadFrame(welcome.error)
        self.welcomed.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError(str(error)))
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionError("the worker closed the connection"))
        self._handle.ended(self.transport)
