"""Calls that run beside each other in threads: streams, and single calls of concurrent runtimes.

A stream stops producing when the gateway has not granted credit for more chunks, so memory stays bounded whatever
a reader does; CANCEL closes the model's generator at its next chunk.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from headrace.core import errors
from headrace.core.models import SlotKind
from headrace.core.requests import Parameter
from headrace.core.tensors import Array, DType
from headrace.replica import execution, messages, tensors_on_wire
from headrace.replica.connection import Connection
from headrace.replica.messages import RunHead
from headrace.replica.status_page import SLOTS, StatusPageWriter
from headrace.runtimes.runtime import Arrays, Runtime

FIRST_SLOT = 64
"""Status page slots below belong to the main thread's batches."""
_NO_MORE: Arrays = {}


class StreamPool:
    """All concurrent calls of a worker."""

    def __init__(self, page: StatusPageWriter) -> None:
        self._page = page
        self._executors: dict[int, ThreadPoolExecutor] = {}
        """By ``id`` of the runtime: each gets as many threads as it has slots, and no others."""
        self._threads = 0
        self._running: dict[tuple[int, int], ConcurrentCall] = {}
        self._started: dict[int, int] = {}
        """Connection → number of its latest call."""
        self._early: set[tuple[int, int]] = set()
        """Calls cancelled before they came: CANCEL travels on a connection of its own."""
        self._lock = threading.Lock()
        self._free_slots = list(range(SLOTS - 1, FIRST_SLOT - 1, -1))

    def prepare(self, runtime: Runtime) -> None:
        """Make room for the calls of a concurrent or streaming runtime."""
        if runtime.slots.kind is SlotKind.CONCURRENT or runtime.signature.streaming:
            # What runs must be seen in the status page; calls beyond its slots wait for a thread.
            threads = max(min(runtime.slots.count, SLOTS - FIRST_SLOT - self._threads), 1)
            self._threads += threads
            self._executors[id(runtime)] = ThreadPoolExecutor(threads, thread_name_prefix="headrace-call")

    def start(
        self, connection: Connection, runtime: Runtime, head: RunHead, inputs: dict[str, Array], *, stream: bool
    ) -> None:
        """Run one call beside others; its frames go out on ``connection``."""
        executor = self._executors.get(id(runtime))
        if executor is None:
            raise messages.BadFrame("a stream was asked of a model that does not stream")
        key = connection.id, head.batch
        with self._lock:
            call = ConcurrentCall(connection, runtime, head, inputs, stream, cancelled=key in self._early)
            self._early.discard(key)
            self._started[connection.id] = head.batch
            self._running[key] = call
        try:
            executor.submit(self._run, call)
        except RuntimeError as error:
            # The executor keeps what it could not start a thread for.
            call.cancel()
            with self._lock:
                self._running.pop(key, None)
            raise errors.RuntimeFailed(f"the replica has no thread for this request: {error}") from error

    def _run(self, call: ConcurrentCall) -> None:
        with self._lock:
            slot = self._free_slots.pop() if self._free_slots else SLOTS
        try:
            call.run(Activity(self._page, slot, call))
        except execution.Raised as error:
            # The boundary of a thread: the call's own errors were answered inside run().
            sys.stderr.write(f"a concurrent call ended with {type(error).__name__}: {error}\n")
            call.connection.send([refusal(call.head, error, stream=call.stream)])
        finally:
            self._page.end(slot)
            with self._lock:
                self._page.completed()
                if slot < SLOTS:
                    self._free_slots.append(slot)
                self._running.pop((call.connection.id, call.head.batch), None)

    def busy(self, runtime: Runtime) -> bool:
        """Whether a call of this runtime has not ended."""
        with self._lock:
            return any(call.runtime is runtime for call in self._running.values())

    def cancel(self, connection: int, batch: int) -> None:
        with self._lock:
            call = self._running.get((connection, batch))
            if call is None and batch > self._started.get(connection, 0):
                self._early.add((connection, batch))
        if call is not None:
            call.cancel()

    def cancel_connection(self, connection: Connection) -> None:
        """The gateway is gone: cancel everything it asked for."""
        with self._lock:
            calls = [call for call in self._running.values() if call.connection is connection]
            self._early = {key for key in self._early if key[0] != connection.id}
            self._started.pop(connection.id, None)
        for call in calls:
            call.cancel()

    def grant(self, connection: int, batch: int, chunks: int) -> None:
        with self._lock:
            call = self._running.get((connection, batch))
        if call is not None:
            call.grant(chunks)


class Activity:
    """Shows in the status page when a call makes the model work, and since when; waiting for a reader is not work."""

    def __init__(self, page: StatusPageWriter, slot: int, call: ConcurrentCall) -> None:
        self._page = page
        self._slot = slot
        self._connection = call.connection.id
        self._batch = call.head.batch

    def began(self) -> None:
        self._page.begin(self._slot, time.monotonic_ns(), self._connection, self._batch)

    def ended(self) -> None:
        self._page.end(self._slot)


class ConcurrentCall:
    """One call in its own thread."""

    def __init__(
        self,
        connection: Connection,
        runtime: Runtime,
        head: RunHead,
        inputs: dict[str, Array],
        stream: bool,
        *,
        cancelled: bool = False,
    ) -> None:
        self.connection = connection
        self.head = head
        self.runtime = runtime
        self._inputs = inputs
        self.stream = stream
        self._credit = head.credit
        self._cancelled = cancelled
        self._changed = threading.Condition()

    def cancel(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify()

    def grant(self, chunks: int) -> None:
        with self._changed:
            self._credit += chunks
            self._changed.notify()

    def run(self, activity: Activity) -> None:
        if self.stream:
            self._run_stream(activity)
        else:
            self._run_single(activity)

    def _run_single(self, activity: Activity) -> None:
        started = time.monotonic_ns()
        if self._cancelled:
            return
        activity.began()
        computed = execution.run_batch(
            self.runtime, self._inputs, self.head.rows, self.head.parameters, idempotent=self.head.idempotent
        )
        try:
            heads, parts = pack(self.runtime, computed.outputs, self.head.tensors)
        except (errors.HeadraceError, MemoryError) as error:
            heads, parts = [], []
            computed.failures = [execution.failure(index, error) for index in range(len(self.head.rows))]
        took = time.monotonic_ns() - started
        result = messages.ResultHead(
            self.head.batch, heads, computed.failures, 0, computed.compute, sum(self.head.rows), took
        )
        self.connection.send([messages.frame(messages.RESULT, result, messages.total_bytes(heads)), *parts])

    def _run_stream(self, activity: Activity) -> None:
        started = time.monotonic_ns()
        code = message = ""
        try:
            self._produce(self._inputs, self.head.parameters, activity)
        except execution.Raised as error:
            bad = execution.failure(0, error)
            code, message = bad.code, bad.message
        end = messages.EndHead(self.head.batch, code, message, time.monotonic_ns() - started)
        self.connection.send([messages.frame(messages.END, end)])

    def _produce(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter], activity: Activity) -> None:
        if self._cancelled:
            raise errors.Cancelled("cancelled before it began")
        activity.began()
        chunks = iter(self.runtime.stream(inputs, parameters))
        try:
            while True:
                # A stream may last: what can hang is the making of one chunk.
                activity.began()
                outputs = next(chunks, _NO_MORE)
                activity.ended()
                if outputs is _NO_MORE:
                    return
                self._wait_for_credit()
                self._send_chunk(execution.checked(self.runtime.signature, outputs, 1))
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def _wait_for_credit(self) -> None:
        with self._changed:
            while self._credit <= 0 and not self._cancelled:
                self._changed.wait()
            if self._cancelled:
                raise errors.Cancelled("the caller went away")
            self._credit -= 1

    def _send_chunk(self, outputs: Arrays) -> None:
        heads, parts = pack(self.runtime, outputs, self.head.tensors)
        head = messages.ChunkHead(self.head.batch, heads)
        if not self.connection.send([messages.frame(messages.CHUNK, head, messages.total_bytes(heads)), *parts]):
            raise errors.Cancelled("the gateway went away")


def refusal(head: RunHead, error: BaseException, *, stream: bool) -> bytes:
    """The frame that ends a RUN, all of whose calls failed."""
    failures = [execution.failure(index, error) for index in range(len(head.rows))]
    if stream:
        return messages.frame(messages.END, messages.EndHead(head.batch, failures[0].code, failures[0].message, 0))
    return messages.frame(messages.RESULT, messages.ResultHead(head.batch, [], failures, 0, 0, 0, 0))


def pack(
    runtime: Runtime, outputs: Arrays, inputs: Sequence[messages.TensorHead]
) -> tuple[list[messages.TensorHead], list[tensors_on_wire.Part]]:
    """Outputs as frame tensors, in the order the model gave them. Raises BadModelOutput when they are too large."""
    declared = {spec.name: spec.dtype for spec in runtime.signature.outputs}
    if runtime.signature.any_inputs and not declared:
        # numpy has no BF16, so only its input's name tells that what an untyped model passes on is BF16.
        declared = {item.name: DType.BF16 for item in inputs if item.dtype == "BF16"}
    heads, parts = tensors_on_wire.pack_all(
        (name, execution.wire_dtype(array, declared.get(name)), [array]) for name, array in outputs.items()
    )
    if messages.total_bytes(heads) > messages.MAX_PAYLOAD:
        raise errors.BadModelOutput(f"the outputs have {messages.total_bytes(heads)} bytes, too many for one answer")
    return heads, parts
