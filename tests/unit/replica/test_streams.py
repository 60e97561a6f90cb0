"""Calls beside each other: credit, cancellation at any moment, what a generator may do, and what the page shows."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.core import errors
from headrace.core.models import Signature, SlotKind, Slots
from headrace.replica import messages, status_page, streams, tensors_on_wire
from headrace.replica.connection import Connection
from headrace.replica.messages import Frame, RunHead
from headrace.replica.status_page import StatusPageWriter
from headrace.replica.streams import FIRST_SLOT, StreamPool

SIGNATURE = Signature(inputs=(), outputs=(), batchable=False, streaming=True, any_inputs=True)


class Model:
    """A streaming runtime; ``chunks`` makes the generator."""

    platform = "test"
    signature = SIGNATURE
    metadata: dict[str, str] = {}

    def __init__(self, chunks: Callable[[], Iterator[Any]], slots: int = 4) -> None:
        self._chunks = chunks
        self.slots = Slots(SlotKind.CONCURRENT, slots)

    def predict(self, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
        return next(self._chunks())

    def stream(self, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[Any]:
        return self._chunks()

    def samples(self) -> None:
        return None

    def close(self) -> None: ...


class Gateway:
    """The other end of a worker's data connection, and the pool beside it."""

    def __init__(self, tmp_path: Path) -> None:
        self.page_path = tmp_path / "status"
        self.page = StatusPageWriter(self.page_path)
        self.pool = StreamPool(self.page)
        ours, theirs = socket.socketpair()
        self.connection = Connection(theirs)
        self.connection.id = 7
        self._ours = Connection(ours)
        self._frames: list[Frame] = []

    def start(self, model: Model, number: int = 1, *, credit: int = 4, stream: bool = True) -> None:
        head = RunHead(number, [1], [], {}, 1, True, credit)
        self.pool.start(self.connection, model, head, {}, stream=stream)

    def next(self, timeout: float = 5.0) -> Frame:
        self._ours.sock.settimeout(timeout)
        while not self._frames:
            self._ours.sock.settimeout(timeout)
            peeked = self._ours.sock.recv(1, socket.MSG_PEEK)
            assert peeked, "the worker closed the connection"
            self._ours.sock.setblocking(False)
            self._frames += self._ours.read_frames() or []
        return self._frames.pop(0)

    def end(self) -> messages.EndHead:
        frame = self.next()
        assert frame.kind == messages.END
        return messages.decode_end(frame.head)

    def close(self) -> None:
        self._ours.close()
        self.connection.close()
        self.page.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    yield made
    made.close()


def endless() -> Iterator[Any]:
    number = 0
    while True:
        yield {"n": np.array([number])}
        number += 1


def three() -> Iterator[Any]:
    for number in range(3):
        yield {"n": np.array([number])}


def number_of(frame: Frame) -> int:
    assert frame.kind == messages.CHUNK
    head = messages.decode_chunk(frame.head)
    return int(tensors_on_wire.unpack(head.tensors, frame.payload)[0][0])


def prepared(gateway: Gateway, chunks: Callable[[], Iterator[Any]], slots: int = 4) -> Model:
    model = Model(chunks, slots)
    gateway.pool.prepare(model)
    return model


def idle(gateway: Gateway, model: Model) -> None:
    """Every thread of the model is free again: as many further streams as it has slots run to their end."""
    for number in range(1000, 1000 + 2 * model.slots.count):
        gateway.start(model, number, stream=False)
        assert gateway.next().kind == messages.RESULT


def test_chunks_in_order_then_the_end(gateway: Gateway) -> None:
    gateway.start(prepared(gateway, three))
    assert [number_of(gateway.next()) for _ in range(3)] == [0, 1, 2]
    end = gateway.end()
    assert (end.batch, end.code) == (1, "")
    assert end.compute > 0


def test_credit_bounds_what_is_sent_ahead(gateway: Gateway) -> None:
    gateway.start(prepared(gateway, endless), credit=2)
    assert [number_of(gateway.next()) for _ in range(2)] == [0, 1]
    with pytest.raises(TimeoutError):
        gateway.next(timeout=0.1)
    gateway.pool.grant(7, 1, 3)
    assert [number_of(gateway.next()) for _ in range(3)] == [2, 3, 4]
    gateway.pool.cancel(7, 1)
    assert gateway.end().code == errors.Cancelled.code


def test_cancel_closes_the_generator(gateway: Gateway) -> None:
    closed = threading.Event()

    def chunks() -> Iterator[Any]:
        try:
            yield from endless()
        finally:
            closed.set()

    gateway.start(prepared(gateway, chunks), credit=1)
    number_of(gateway.next())
    gateway.pool.cancel(7, 1)
    assert gateway.end().code == errors.Cancelled.code
    assert closed.is_set()


def test_cancel_that_overtakes_its_call_still_counts(gateway: Gateway) -> None:
    """CANCEL travels on the control connection, RUN on the data connection: either may come first."""
    model = prepared(gateway, endless)
    gateway.pool.cancel(7, 5)
    gateway.start(model, 5)
    assert gateway.end().code == errors.Cancelled.code
    gateway.start(model, 6, credit=1)
    assert number_of(gateway.next()) == 0
    gateway.pool.cancel(7, 6)
    gateway.end()
    gateway.pool.cancel(7, 6)
    gateway.pool.cancel(7, 3)
    assert not gateway.pool._early, "cancels of finished calls are not kept"


def test_gateway_that_leaves_cancels_its_calls_and_no_others(gateway: Gateway, tmp_path: Path) -> None:
    model = prepared(gateway, endless)
    here, there = socket.socketpair()
    other = Connection(there)
    other.id = 8
    gateway.pool.start(other, model, RunHead(1, [1], [], {}, 1, True, 1), {}, stream=True)
    gateway.start(model, credit=1)
    number_of(gateway.next())
    gateway.pool.cancel_connection(other)
    with pytest.raises(TimeoutError):
        gateway.next(timeout=0.05)
    gateway.pool.grant(7, 1, 1)
    assert number_of(gateway.next()) == 1
    gateway.pool.cancel_connection(gateway.connection)
    assert gateway.end().code == errors.Cancelled.code
    other.close()
    here.close()
    idle(gateway, prepared(gateway, three))


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ValueError("bad"), errors.ModelRaised.code),
        (SystemExit(1), errors.ModelRaised.code),
        (errors.InvalidInput("bad"), errors.InvalidInput.code),
    ],
)
def test_error_after_a_chunk_ends_the_stream(gateway: Gateway, raised: BaseException, code: str) -> None:
    def chunks() -> Iterator[Any]:
        yield {"n": np.array([0])}
        raise raised

    model = prepared(gateway, chunks, slots=1)
    gateway.start(model)
    assert number_of(gateway.next()) == 0
    assert gateway.end().code == code
    idle(gateway, model)


@pytest.mark.parametrize("bad", [None, {}, {"n": np.array([1j])}])
def test_chunk_that_cannot_travel_ends_the_stream(gateway: Gateway, bad: Any) -> None:
    def chunks() -> Iterator[Any]:
        yield bad

    gateway.start(prepared(gateway, chunks))
    assert gateway.end().code == errors.BadModelOutput.code


def test_scalar_chunks_travel(gateway: Gateway) -> None:
    def chunks() -> Iterator[Any]:
        yield {"big": np.zeros(100_000), "n": np.float32(1.5)}

    gateway.start(prepared(gateway, chunks))
    assert gateway.next().kind == messages.CHUNK
    assert gateway.end().code == ""


def test_single_calls_answer_with_a_result_whatever_the_model_does(gateway: Gateway) -> None:
    def chunks() -> Iterator[Any]:
        yield {"n": np.array([1j])}

    def exits() -> Iterator[Any]:
        sys.exit(3)
        yield

    for make in (chunks, exits):
        model = prepared(gateway, make, slots=1)
        gateway.start(model, stream=False)
        frame = gateway.next()
        assert frame.kind == messages.RESULT
        assert len(messages.decode_result(frame.head).failures) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_lack_of_memory_for_the_answer_is_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    model = prepared(gateway, three)
    monkeypatch.setattr(streams, "pack", no_memory)
    gateway.start(model, stream=stream)
    assert "ran out of memory" in ended_with(gateway.next())


@pytest.mark.parametrize("stream", [False, True])
def test_whatever_goes_wrong_in_its_thread_a_call_is_answered(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    def broken(self: object, activity: object) -> None:
        raise RuntimeError("a defect")

    model = prepared(gateway, three)
    monkeypatch.setattr(streams.ConcurrentCall, "run", broken)
    gateway.start(model, stream=stream)
    assert "RuntimeError: a defect" in ended_with(gateway.next())


def test_call_that_there_is_no_thread_for_is_refused_and_not_run_later(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: object) -> None:
        raise RuntimeError("can't start new thread")

    model = prepared(gateway, three)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(errors.RuntimeFailed, match="no thread for this request: can't start"):
            gateway.start(model, 1, stream=False)
    assert not gateway.pool.busy(model)
    gateway.start(model, 2, stream=False)
    assert messages.decode_result(gateway.next().head).batch == 2


def ended_with(frame: Frame) -> str:
    """What the last frame of a failed call says."""
    if frame.kind == messages.END:
        return messages.decode_end(frame.head).message
    (failure,) = messages.decode_result(frame.head).failures
    return failure.message


def test_outputs_beyond_a_frame_are_refused(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_PAYLOAD", 100)

    def chunks() -> Iterator[Any]:
        yield {"n": np.zeros(100)}

    model = prepared(gateway, chunks)
    gateway.start(model)
    assert "800 bytes" in gateway.end().message
    gateway.start(model, 2, stream=False)
    (failure,) = messages.decode_result(gateway.next().head).failures
    assert failure.code == errors.BadModelOutput.code


def test_each_model_of_a_packed_worker_gets_its_own_threads(gateway: Gateway) -> None:
    """A runtime with two slots must never see three calls at once, whatever its neighbours have."""
    inside, most, release = 0, 0, threading.Event()
    lock = threading.Lock()

    def chunks() -> Iterator[Any]:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        release.wait(5)
        with lock:
            inside -= 1
        yield {"n": np.array([0])}

    model = prepared(gateway, chunks, slots=2)
    prepared(gateway, three, slots=50)
    for number in range(1, 9):
        gateway.start(model, number, stream=False)
    release.set()
    for _ in range(8):
        gateway.next()
    assert most <= 2


def test_page_shows_the_making_of_a_chunk_and_not_the_waiting_for_a_reader(gateway: Gateway) -> None:
    """Else a long stream, or one with a slow reader, would look like a hang and cost everybody the worker."""
    go = threading.Semaphore(0)

    def chunks() -> Iterator[Any]:
        for number in range(3):
            go.acquire()
            yield {"n": np.array([number])}

    gateway.start(prepared(gateway, chunks), credit=1)
    (first,) = wait_for(lambda: status_page.read(gateway.page_path))
    assert (first.connection, first.batch) == (7, 1)
    go.release()
    number_of(gateway.next())
    (second,) = wait_for(lambda: [r for r in status_page.read(gateway.page_path) or [] if r.since > first.since])
    go.release()
    wait_for(lambda: not status_page.read(gateway.page_path))
    assert second.since > first.since
    gateway.pool.cancel(7, 1)
    gateway.end()
    wait_for(lambda: status_page.completed(gateway.page_path) == 1)


def wait_for(condition: Callable[[], Any]) -> Any:
    """Poll without sleeping: the thread under test runs whenever this one gives way."""
    waiting = threading.Event()
    for _ in range(5000):
        found = condition()
        if found:
            return found
        waiting.wait(0.001)
    raise AssertionError("it did not happen")


def test_more_calls_than_the_page_has_slots_are_still_all_answered(gateway: Gateway) -> None:
    model = prepared(gateway, three, slots=10_000)
    assert gateway.pool._threads == status_page.SLOTS - FIRST_SLOT
    for number in range(1, 101):
        gateway.start(model, number, stream=False)
    assert sum(gateway.next().kind == messages.RESULT for _ in range(100)) == 100


def test_stream_for_a_model_that_does_not_stream_is_a_broken_gateway(gateway: Gateway) -> None:
    model = Model(three)
    model.signature = msgspec.structs.replace(SIGNATURE, streaming=False)
    model.slots = Slots()
    gateway.pool.prepare(model)
    with pytest.raises(messages.BadFrame):
        gateway.start(model)
