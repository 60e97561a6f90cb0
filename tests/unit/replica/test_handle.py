"""The gateway's side of a replica, against a worker played by the test: what is sent, what comes back, what is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.core import errors
from headrace.core.binding import Bound
from headrace.core.calls import Batch, Call
from headrace.core.replicas import ReplicaState
from headrace.core.routes import ReplicaRoute
from headrace.core.tensors import Tensor
from headrace.replica import messages, tensors_on_wire
from headrace.replica.handle import ReplicaHandle
from headrace.replica.messages import CallFailure, ResultHead, RunHead, TensorHead
from headrace.replica.status_page import StatusPageWriter

TOKEN = "secret"


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.deaths: list[tuple[list[Batch], list[Batch]]] = []
        self.streams_ended = 0
        self.died_event = asyncio.Event()

    def finished(self, handle: ReplicaHandle, batch: Batch, head: ResultHead) -> None:
        self.batches.append(batch)
        for call in batch.calls:
            if not call.waiter.done():
                call.waiter.set_result(None)

    def died(self, handle: ReplicaHandle, computing: list[Batch], waiting: list[Batch]) -> None:
        self.deaths.append((computing, waiting))
        self.died_event.set()

    def stream_ended(self, handle: ReplicaHandle) -> None:
        self.streams_ended += 1


class PlayedWorker:
    """Listens like a worker; the test reads the frames that come and writes bytes back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        self.greeted: asyncio.Queue[str] = asyncio.Queue()
        self.welcome: Callable[[str], bytes | None] = lambda role: messages.frame(
            messages.WELCOME, messages.Welcome(messages.PROTOCOL, 1)
        )
        self.hellos: list[messages.Hello] = []

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = messages.decode_hello((await self.read(reader)).head)
        self.hellos.append(hello)
        self.connections[hello.role] = reader, writer
        answer = self.welcome(hello.role)
        if answer is not None:
            writer.write(answer)
        self.greeted.put_nowait(hello.role)

    @staticmethod
    async def read(reader: asyncio.StreamReader) -> messages.Frame:
        start = await reader.readexactly(4)
        return messages.parse(memoryview(start + await reader.readexactly(messages.frame_length(start) - 4)))

    async def run_head(self) -> tuple[RunHead, messages.Frame]:
        frame = await self.read(self.connections["data"][0])
        assert frame.kind == messages.RUN
        return messages.decode_run(frame.head), frame

    async def control(self) -> messages.Frame:
        return await self.read(self.connections["control"][0])

    def write(self, data: bytes, role: str = "data") -> None:
        self.connections[role][1].write(data)

    def drop(self, role: str = "data") -> None:
        self.connections[role][1].transport.abort()

    async def stop(self) -> None:
        self._server.close()
        for _, writer in self.connections.values():
            writer.transport.abort()
        await self._server.wait_closed()


@contextlib.asynccontextmanager
async def connected(tmp_path: Path, **route: Any) -> AsyncIterator[tuple[PlayedWorker, ReplicaHandle, Heard]]:
    worker = PlayedWorker(tmp_path / "w.sock")
    await worker.start()
    heard = Heard()
    handle = ReplicaHandle(route_to(worker.path, **route), heard)
    try:
        await handle.connect(5.0)
        yield worker, handle, heard
    finally:
        handle.close()
        await worker.stop()


def route_to(path: Path, **fields: Any) -> ReplicaRoute:
    return ReplicaRoute("m@1#1", f"unix:{path}", 3, ReplicaState.READY, TOKEN, **fields)


def call(*rows: float, parameters: dict[str, Any] | None = None) -> Call:
    array = np.array(rows, np.float32)[:, None] * np.ones((1, 2), np.float32)
    bound = Bound(("x",), ("FP32",), [array], len(rows), array.nbytes, ("k",), parameters or {})
    return Call(bound, 1e12, 0.0, asyncio.get_running_loop().create_future())


def result(batch: int, arrays: dict[str, Any], failures: list[CallFailure] | None = None) -> bytes:
    heads, parts = [], []
    for name, array in arrays.items():
        head, blobs = tensors_on_wire.pack(name, "FP32", [np.asarray(array, np.float32)])
        heads.append(head)
        parts += blobs
    made = ResultHead(batch, heads, failures or [], 1_000_000, 2_000_000, 5, 3_000_000)
    return messages.frame(messages.RESULT, made, messages.total_bytes(heads)) + b"".join(parts)


async def ended(waiting: Call) -> None:
    await asyncio.wait_for(waiting.waiter, 5.0)  # type: ignore[arg-type]


# --- batches ---


def test_batch_out_and_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, heard):
            assert {h.role for h in worker.hellos} == {"data", "control"}
            assert {(h.token, h.connection) for h in worker.hellos} == {(TOKEN, handle.connection_id)}
            calls = [call(1, 2), call(3)]
            batch = handle.submit(calls, 10.0, 64, idempotent=True)
            assert (handle.outstanding, handle.rows_in_flight, batch.rows) == (1, 3, 3)
            head, frame = await worker.run_head()
            assert (head.rows, head.limit, head.idempotent, frame.replica, frame.flags) == ([2, 1], 64, True, 3, 0)
            (sent,) = tensors_on_wire.unpack(head.tensors, frame.payload)
            assert sent[:, 0].tolist() == [1, 2, 3]
            worker.write(result(head.batch, {"y": sent * 2}))
            await ended(calls[0])
            assert [c.outputs[0].array[:, 0].tolist() for c in calls if c.outputs] == [[2, 4], [6]]
            assert (calls[0].wait, calls[0].compute, calls[0].batch_rows) == (0.001, 0.002, 5)
            assert (calls[0].sent, calls[0].replica) == (10.0, "m@1#1")
            assert (handle.outstanding, handle.rows_in_flight, heard.batches) == (0, 0, [batch])

    asyncio.run(scenario())


def test_failed_calls_get_their_error_and_the_others_their_rows(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, _):
            calls = [call(1, 1), call(2), call(3, 3, 3)]
            handle.submit(calls, 0.0, 64, idempotent=True)
            head, _ = await worker.run_head()
            worker.write(result(head.batch, {"y": [[1], [1], [3], [3], [3]]}, [CallFailure(1, "model_raised", "no")]))
            await ended(calls[2])
            assert isinstance(calls[1].error, errors.ModelRaised)
            assert calls[1].outputs is None
            assert [len(c.outputs[0].array) for c in calls if c.outputs] == [2, 3]

    asyncio.run(scenario())


def test_solo_flag(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, _):
            handle.submit([call(1)], 0.0, 1, idempotent=False, solo=True)
            head, frame = await worker.run_head()
            assert (frame.flags, head.idempotent) == (messages.SOLO, False)

    asyncio.run(scenario())


@pytest.mark.parametrize("cut", [1, 3, 5, 17, 1000])
def test_answers_cut_anywhere_and_out_of_order(tmp_path: Path, cut: int) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, _):
            calls = [call(*[float(i)] * (i * 50 + 1)) for i in range(6)]
            for one in calls:
                handle.submit([one], 0.0, 1, idempotent=True)
            answers = []
            for _ in calls:
                head, frame = await worker.run_head()
                answers.append(result(head.batch, {"y": tensors_on_wire.unpack(head.tensors, frame.payload)[0]}))
            stream = b"".join(reversed(answers))
            for at in range(0, len(stream), cut):
                worker.write(stream[at : at + cut])
                if cut < 20:
                    await asyncio.sleep(0)
            for i, one in enumerate(calls):
                await ended(one)
                assert one.outputs is not None
                assert (one.outputs[0].array == i).all()
                assert len(one.outputs[0].array) == i * 50 + 1
            assert handle.outstanding == 0

    asyncio.run(scenario())


def test_large_batches_travel(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, _):
            big = np.random.default_rng(0).random((1, 2_000_000)).astype(np.float32)
            one = call(1)
            one.bound.arrays[0] = big
            handle.submit([one], 0.0, 1, idempotent=True)
            head, frame = await worker.run_head()
            worker.write(result(head.batch, {"y": tensors_on_wire.unpack(head.tensors, frame.payload)[0]}))
            await ended(one)
            assert one.outputs is not None
            assert (one.outputs[0].array == big).all()

    asyncio.run(scenario())


def test_batch_that_cannot_be_packed_takes_no_slot(tmp_path: Path) -> None:
    """A caller's parameter of more than 64 bits must not leave a phantom batch that blocks the replica for ever."""

    async def scenario() -> None:
        async with connected(tmp_path) as (_, handle, _):
            with pytest.raises(OverflowError):
                handle.submit([call(1, parameters={"seed": 2**70})], 0.0, 1, idempotent=True)
            assert (handle.outstanding, handle.rows_in_flight) == (0, 0)

    asyncio.run(scenario())


def test_answers_to_unknown_batches_are_ignored(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, heard):
            one = call(1)
            handle.submit([one], 0.0, 1, idempotent=True)
            head, _ = await worker.run_head()
            worker.write(
                result(999, {"y": [[1]]}) + result(head.batch, {"y": [[1]]}) + result(head.batch, {"y": [[2]]})
            )
            await ended(one)
            await asyncio.sleep(0)
            assert len(heard.batches) == 1
            assert handle.alive

    asyncio.run(scenario())


# --- streams ---


class Sink:
    taken = 0

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.over: asyncio.Future[errors.HeadraceError | None] = asyncio.get_running_loop().create_future()

    def chunk(self, outputs: list[Tensor]) -> None:
        self.chunks.append(outputs[0].array.tolist())

    def ended(self, error: errors.HeadraceError | None, compute: float) -> None:
        self.over.set_result(error)


def chunk(number: int, value: float) -> bytes:
    head, parts = tensors_on_wire.pack("y", "FP32", [np.array([value], np.float32)])
    return messages.frame(messages.CHUNK, messages.ChunkHead(number, [head]), head.nbytes) + b"".join(parts)


def test_stream_with_grants_and_cancel(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, heard):
            sink = Sink()
            number = handle.start_stream(call(1), sink, 16, idempotent=True)
            head, frame = await worker.run_head()
            assert (head.batch, head.credit, frame.flags) == (number, 16, messages.STREAM)
            assert handle.outstanding == 1
            worker.write(chunk(number, 1) + chunk(number, 2))
            handle.grant(number, 8)
            granted = await worker.control()
            assert messages.decode_credit(granted.head) == messages.CreditHead(number, 8)
            handle.cancel(number)
            cancelled = await worker.control()
            assert (cancelled.kind, cancelled.replica) == (messages.CANCEL, 3)
            assert handle.outstanding == 1, "the slot is taken until the worker says END"
            worker.write(messages.frame(messages.END, messages.EndHead(number, "cancelled", "gone", 5)))
            assert isinstance(await asyncio.wait_for(sink.over, 5.0), errors.Cancelled)
            assert sink.chunks == [[1.0], [2.0]]
            assert (handle.outstanding, heard.streams_ended) == (0, 1)
            handle.grant(number, 8)
            handle.cancel(number)

    asyncio.run(scenario())


# --- death ---


@pytest.mark.parametrize("role", ["data", "control"])
def test_either_connection_ending_is_the_death_of_the_replica(tmp_path: Path, role: str) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, heard):
            sink = Sink()
            handle.start_stream(call(1), sink, 16, idempotent=True)
            batches = [handle.submit([call(1)], 0.0, 1, idempotent=True) for _ in range(2)]
            worker.drop(role)
            await asyncio.wait_for(heard.died_event.wait(), 5.0)
            assert heard.deaths == [(batches, [])], "without a status page all are suspect"
            assert isinstance(await sink.over, errors.ReplicaDied)
            assert (handle.alive, handle.outstanding, handle.rows_in_flight) == (False, 0, 0)
            handle.lost()
            await asyncio.sleep(0.01)
            assert len(heard.deaths) == 1

    asyncio.run(scenario())


def test_status_page_tells_computing_from_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "w.status"
        page = StatusPageWriter(path)
        async with connected(tmp_path, status_path=str(path)) as (worker, handle, heard):
            batches = [handle.submit([call(1)], 0.0, 1, idempotent=True) for _ in range(3)]
            page.begin(0, 2_000_000_000, handle.connection_id, batches[1].id, 4)
            page.begin(1, 1, handle.connection_id + 1, batches[0].id)
            assert handle.computing() == (2.0, 4)
            worker.drop()
            await asyncio.wait_for(heard.died_event.wait(), 5.0)
            assert heard.deaths == [([batches[1]], [batches[0], batches[2]])]
            assert handle.computing() is None
        page.close()

    asyncio.run(scenario())


def test_answers_before_the_end_are_not_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, heard):
            answered, lost = call(1), call(2)
            handle.submit([answered], 0.0, 1, idempotent=True)
            second = handle.submit([lost], 0.0, 1, idempotent=True)
            head, _ = await worker.run_head()
            worker.write(result(head.batch, {"y": [[1]]}))
            worker.connections["data"][1].close()
            await asyncio.wait_for(heard.died_event.wait(), 5.0)
            assert answered.outputs is not None
            assert heard.deaths == [([second], [])]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "broken",
    [
        b"\xff" * 64,
        bytes(64),
        messages.frame(messages.PONG, messages.Empty()),
        messages.frame(messages.RESULT, messages.Empty()),
        messages.frame(messages.RESULT, ResultHead(1, [TensorHead("y", "FP32", (1, 2), 8)], [], 0, 0, 0, 0)),
        messages.frame(messages.RESULT, ResultHead(1, [TensorHead("y", "FP99", (1, 2), 0)], [], 0, 0, 0, 0)),
        messages.frame(messages.RESULT, ResultHead(1, [TensorHead("y", "FP32", (1, 2), 4)], [], 0, 0, 0, 0), 16)
        + bytes(16),
    ],
)
def test_answer_that_cannot_be_read_loses_no_call(tmp_path: Path, broken: bytes) -> None:
    """User code shares the worker's process and may write into its sockets: the calls must be among the lost ones."""

    async def scenario() -> None:
        async with connected(tmp_path) as (worker, handle, heard):
            batch = handle.submit([call(1), call(2)], 0.0, 64, idempotent=True)
            assert batch.id == 1
            worker.write(broken)
            await asyncio.wait_for(heard.died_event.wait(), 5.0)
            assert heard.deaths == [([batch], [])]

    asyncio.run(scenario())


# --- connecting ---


def test_nobody_listens(tmp_path: Path) -> None:
    async def scenario() -> None:
        for address in (f"unix:{tmp_path}/nothing", "tcp:127.0.0.1:1"):
            handle = ReplicaHandle(ReplicaRoute("r", address, 0, ReplicaState.READY, TOKEN), Heard())
            with pytest.raises(errors.NotReady, match="replica r cannot be reached"):
                await handle.connect(1.0)
            assert not handle.alive

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        messages.frame(messages.WELCOME, messages.Welcome(messages.PROTOCOL, 1, "wrong token")),
        messages.frame(messages.PONG, messages.Empty()),
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"\xff" * 64,
    ],
)
def test_unwelcome(tmp_path: Path, answer: bytes) -> None:
    async def scenario() -> None:
        worker = PlayedWorker(tmp_path / "w.sock")
        await worker.start()
        worker.welcome = lambda role: answer
        handle = ReplicaHandle(route_to(worker.path), Heard())
        with pytest.raises(errors.NotReady):
            await handle.connect(0.3)
        await worker.stop()

    asyncio.run(scenario())


def test_missing_status_page_is_not_ready_yet(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(errors.NotReady):
            async with connected(tmp_path, status_path=str(tmp_path / "missing")):
                pass

    asyncio.run(scenario())


def test_late_welcome_of_an_earlier_attempt_does_not_harm_the_next(tmp_path: Path) -> None:
    """A worker whose model holds the interpreter answers both attempts when it wakes up."""

    async def scenario() -> None:
        worker = PlayedWorker(tmp_path / "w.sock")
        await worker.start()
        heard = Heard()
        handle = ReplicaHandle(route_to(worker.path), heard)
        answer = worker.welcome
        worker.welcome = lambda role: None
        with pytest.raises(errors.NotReady):
            await handle.connect(0.05)
        _, late = worker.connections["data"]
        worker.welcome = answer
        await handle.connect(5.0)
        one = call(1)
        handle.submit([one], 0.0, 1, idempotent=True)
        late.write(messages.frame(messages.WELCOME, messages.Welcome(messages.PROTOCOL, 1)))
        late.close()
        head, _ = await worker.run_head()
        worker.write(result(head.batch, {"y": [[1]]}))
        await ended(one)
        assert handle.alive
        assert heard.deaths == []
        handle.close()
        await worker.stop()

    asyncio.run(scenario())


def test_data_connection_that_ends_while_control_opens_is_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        worker = PlayedWorker(tmp_path / "w.sock")
        await worker.start()
        answer = worker.welcome

        def welcome(role: str) -> bytes | None:
            if role == "control":
                worker.drop("data")
            return answer(role)

        worker.welcome = welcome
        handle = ReplicaHandle(route_to(worker.path), Heard())
        with contextlib.suppress(errors.NotReady):
            await handle.connect(5.0)
            # The end may come a moment after the welcome: then it is a death like any other.
            await asyncio.sleep(0.05)
        assert not handle.alive
        handle.close()
        await worker.stop()

    asyncio.run(scenario())


def test_connecting_can_be_given_up_without_leaving_sockets(tmp_path: Path) -> None:
    async def scenario() -> None:
        worker = PlayedWorker(tmp_path / "w.sock")
        await worker.start()
        answer = worker.welcome
        worker.welcome = lambda role: answer(role) if role == "data" else None
        handle = ReplicaHandle(route_to(worker.path), Heard())
        task = asyncio.create_task(handle.connect(60.0))
        assert [await worker.greeted.get() for _ in range(2)] == ["data", "control"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for role in ("data", "control"):
            assert await asyncio.wait_for(worker.connections[role][0].read(), 5.0) == b""
        await worker.stop()

    asyncio.run(scenario())
