"""Calls that run beside each other in threads: streams, and single calls of concurrent runtimes.

A stream stops producing when the gateway has not granted credit for more chunks, so memory stays bounded whatever
a reader does; CANCEL closes the model's generator at its next chunk.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from headrace.core import errors
from headrace.core.models import SlotKind
from headrace.core.requests import Parameter
from headrace.core.tensors import Array
from headrace.replica import execution, messages, tensors_on_wire
from headrace.replica.connection import Connection
from headrace.replica.messages import RunHead
from headrace.replica.status_page import SLOTS, StatusPageWriter
from headrace.runtimes.runtime import Arrays, Runtime

_FIRST_SLOT = 64
"""Status page slots below belong to the main thread's batches."""


class StreamPool:
    """All concurrent calls of a worker."""

    def __init__(self, page: StatusPageWriter) -> None:
        self._page = page
        self._executor: ThreadPoolExecutor | None = None
        self._threads = 0
        self._running: dict[tuple[int, int], ConcurrentCall] = {}
        self._lock = threading.Lock()
        self._free_slots = list(range(SLOTS - 1, _FIRST_SLOT - 1, -1))

    def prepare(self, runtime: Runtime) -> None:
        """Make room for a concurrent runtime's calls."""
        if runtime.slots.kind is SlotKind.CONCURRENT:
            self._threads += runtime.slots.count
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="headrace-call")

    def start(
        self, connection: Connection, runtime: Runtime, head: RunHead, inputs: dict[str, Array], *, stream: bool
    ) -> None:
        """Run one call beside others; its frames go out on ``connection``."""
        if self._executor is None:
            raise errors.Bug("a concurrent call for a worker without concurrent runtimes")
        call = ConcurrentCall(connection, runtime, head, inputs, stream)
        with self._lock:
            self._running[connection.id, head.batch] = call
        self._executor.submit(self._run, call)

    def _run(self, call: ConcurrentCall) -> None:
        with self._lock:
            slot = self._free_slots.pop() if self._free_slots else SLOTS
        self._page.begin(slot, time.monotonic_ns(), call.connection.id, call.head.batch)
        try:
            call.run()
        except Exception as error:
            # The boundary of a thread: the call's own errors were answered inside run().
            sys.stderr.write(f"a concurrent call ended with {type(error).__name__}: {error}\n")
        finally:
            self._page.end(slot)
            with self._lock:
                if slot < SLOTS:
                    self._free_slots.append(slot)
                self._running.pop((call.connection.id, call.head.batch), None)

    def cancel(self, connection: int, batch: int) -> None:
        with self._lock:
            call = self._running.get((connection, batch))
        if call is not None:
            call.cancel()

    def cancel_connection(self, connection: Connection) -> None:
        """The gateway is gone: cancel everything it asked for."""
        with self._lock:
            calls = [call for call in self._running.values() if call.connection is connection]
        for call in calls:
            call.cancel()

    def grant(self, connection: int, batch: int, chunks: int) -> None:
        with self._lock:
            call = self._running.get((connection, batch))
        if call is not None:
            call.grant(chunks)


class ConcurrentCall:
    """One call in its own thread."""

    def __init__(
        self, connection: Connection, runtime: Runtime, head: RunHead, inputs: dict[str, Array], stream: bool
    ) -> None:
        self.connection = connection
        self.head = head
        self._runtime = runtime
        self._inputs = inputs
        self._stream = stream
        self._credit = head.credit
        self._cancelled = False
        self._changed = threading.Condition()

    def cancel(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify()

    def grant(self, chunks: int) -> None:
        with self._changed:
            self._credit += chunks
            self._changed.notify()

    def run(self) -> None:
        if self._stream:
            self._run_stream()
        else:
            self._run_single()

    def _run_single(self) -> None:
        started = time.monotonic_ns()
        if self._cancelled:
            return
        computed = execution.run_batch(
            self._runtime, self._inputs, self.head.rows, self.head.parameters, idempotent=self.head.idempotent
        )
        heads, parts = pack(self._runtime, computed.outputs)
        took = time.monotonic_ns() - started
        result = messages.ResultHead(
            self.head.batch, heads, computed.failures, 0, computed.compute, sum(self.head.rows), took
        )
        self.connection.send([messages.frame(messages.RESULT, result, messages.total_bytes(heads)), *parts])

    def _run_stream(self) -> None:
        started = time.monotonic_ns()
        code = message = ""
        try:
            self._produce(self._inputs, self.head.parameters)
        except Exception as error:
            bad = execution.failure(0, error)
            code, message = bad.code, bad.message
        end = messages.EndHead(self.head.batch, code, message, time.monotonic_ns() - started)
        self.connection.send([messages.frame(messages.END, end)])

    def _produce(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> None:
        if self._cancelled:
            raise errors.Cancelled("cancelled before it began")
        chunks = iter(self._runtime.stream(inputs, parameters))
        try:
            for outputs in chunks:
                self._wait_for_credit()
                self._send_chunk(execution.checked(self._runtime.signature, outputs, 1))
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
        heads, parts = pack(self._runtime, outputs)
        head = messages.ChunkHead(self.head.batch, heads)
        if not self.connection.send([messages.frame(messages.CHUNK, head, messages.total_bytes(heads)), *parts]):
            raise errors.Cancelled("the gateway went away")


def pack(runtime: Runtime, outputs: Arrays) -> tuple[list[messages.TensorHead], list[tensors_on_wire.Part]]:
    """Outputs as frame tensors, in the order the model gave them."""
    declared = {spec.name: spec.dtype for spec in runtime.signature.outputs}
    heads: list[messages.TensorHead] = []
    parts: list[tensors_on_wire.Part] = []
    for name, array in outputs.items():
        head, blobs = tensors_on_wire.pack(name, execution.wire_dtype(array, declared.get(name)), [array])
        heads.append(head)
        parts += blobs
    return heads, parts
