"""One worker as the supervisor sees it: the child, its report socket, its status page, its limits."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.app import orders, resources
from headrace.backends.environments import isolation
from headrace.backends.local import ChildProcess
from headrace.core.replicas import ReplicaState
from headrace.replica import messages, status_page
from headrace.replica.connection import Connection
from headrace.replica.spec import OUT_OF_MEMORY_EXIT, WorkerSpec

_STATES = {
    messages.LOADING: ReplicaState.LOADING,
    messages.WARMING: ReplicaState.WARMING,
    messages.READY: ReplicaState.READY,
    messages.LOAD_FAILED: ReplicaState.FAILED,
}


_KEEP_FILES_S = 30.0
"""Gateways look into the status page of a worker that has died."""
_LINES_PER_S = 500
"""A model that prints without end must not fill the disk with the server's log."""

_SECRETS = frozenset({"HEADRACE_KEY_SECRET", "HEADRACE_API_KEY"})


class WorkerProcess:
    """Starts the process at construction. ``on_exit`` is called once."""

    def __init__(
        self,
        order: orders.StartWorker,
        directory: Path,
        *,
        on_line: Callable[[str, str], None],
        on_report: Callable[[orders.Report], None],
        on_exit: Callable[[WorkerProcess], None],
    ) -> None:
        self.order = order
        self._on_report = on_report
        self._on_exit = on_exit
        self._reports: dict[int, orders.ReplicaReport] = {}
        self._oom_kills = resources.oom_kills()
        self._told_lines = 0
        self._socket_path = directory / f"{order.worker}.sock"
        self._status_path = directory / f"{order.worker}.status"
        mine, theirs = socket.socketpair()
        self._link = Connection(mine)
        spec = WorkerSpec(
            replicas=order.replicas,
            socket_path=str(self._socket_path),
            status_path=str(self._status_path),
            token=order.token,
            supervisor_fd=theirs.fileno(),
            memory=order.memory,
            yields=order.yields,
        )
        self._spec_path = directory / f"{order.worker}.json"
        self._spec_path.write_bytes(msgspec.json.encode(spec))
        name = "+".join(r.id for r in order.replicas[:3])
        self.process = ChildProcess(
            name,
            [order.python or sys.executable, "-m", "headrace.replica.worker", str(self._spec_path)],
            environment=_environment(order),
            pass_fds=(theirs.fileno(),),
            on_line=on_line,
            on_exit=self._exited,
            lines_per_s=_LINES_PER_S,
        )
        theirs.close()
        asyncio.get_running_loop().add_reader(self._link.fd, self._hear)

    def snapshot(self) -> orders.LiveWorker:
        """For a controller that has just started."""
        return orders.LiveWorker(
            self.order, f"unix:{self._socket_path}", str(self._status_path), tuple(self._reports.values())
        )

    def watch(self, now: int) -> None:
        """Kill the worker when a batch is too old or its memory too large. ``now``: monotonic nanoseconds."""
        if not self.process.alive:
            return
        running = status_page.read(self._status_path) or []
        age = max((now - r.since for r in running), default=0) / 1e9
        if age > self.order.replica_timeout_s:
            self.process.kill(f"hang: a batch ran for {age:.1f} s, the limit is {self.order.replica_timeout_s:g} s")
        if self.order.memory is not None:
            used = resources.resident_bytes(self.process.pid)
            if used > self.order.memory:
                self.process.kill(
                    f"out of memory: it used {used >> 20} MiB, the limit is {self.order.memory >> 20} MiB"
                )

    def fresh_log(self) -> orders.WorkerLog | None:
        """The last lines, when there are new ones since the last call."""
        if self.process.written == self._told_lines:
            return None
        self._told_lines = self.process.written
        return orders.WorkerLog(self.order.worker, self.process.log_tail())

    def ask_to_stop(self) -> None:
        """The worker ends its batch and exits."""
        self._link.send([b"\0"])

    def stop(self, grace_s: float) -> None:
        self.ask_to_stop()
        asyncio.get_running_loop().call_later(grace_s, self.process.kill, "it did not stop in time")

    def _hear(self) -> None:
        try:
            frames = self._link.read_frames()
            reports = [self._report(frame) for frame in frames or ()]
        except (messages.BadFrame, msgspec.MsgspecError) as error:
            # Code of the model shares the worker's process, and with it this socket.
            self.process.kill(f"what it reports cannot be read: {error}")
            frames, reports = None, []
        if frames is None:
            asyncio.get_running_loop().remove_reader(self._link.fd)
        for report in reports:
            self._reports[report.index] = report
            self._on_report(report)

    def _report(self, frame: messages.Frame) -> orders.ReplicaReport:
        worker, index, state = self.order.worker, frame.replica, _STATES.get(frame.kind)
        if state is None or index >= len(self.order.replicas):
            raise messages.BadFrame(f"a report of kind {frame.kind} about replica {index}")
        if frame.kind == messages.READY:
            ready = messages.decode_ready(frame.head)
            timings = tuple((t.rows, t.seconds) for t in ready.timings)
            return orders.ReplicaReport(worker, index, state, ready.model, timings)
        if frame.kind == messages.LOAD_FAILED:
            failed = messages.decode_load_failed(frame.head)
            # The worker wrote the trace before it sent this; what the model printed before stands there too.
            self.process.read_output()
            return orders.ReplicaReport(
                worker, index, state, reason=failed.message, trace=self.process.log_tail() or failed.trace
            )
        return orders.ReplicaReport(worker, index, state)

    def _exited(self, _: ChildProcess) -> None:
        self._hear_last_words()
        self._on_exit(self)
        asyncio.get_running_loop().call_later(_KEEP_FILES_S, self._remove_files)

    def _remove_files(self) -> None:
        for path in (self._socket_path, self._status_path, self._spec_path):
            path.unlink(missing_ok=True)

    def _hear_last_words(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._link.closed:
            self._hear()
        loop.remove_reader(self._link.fd)
        self._link.close()

    def exit_report(self) -> orders.WorkerExited:
        reason, detail = self._why()
        return orders.WorkerExited(
            self.order.worker, reason, detail, status_page.completed(self._status_path), self.process.log_tail()
        )

    def _why(self) -> tuple[str, str]:
        code = self.process.returncode or 0
        if self.process.kill_reason:
            kind = self.process.kill_reason.partition(":")[0].replace(" ", "_")
            return (kind if kind in ("hang", "out_of_memory") else "signal"), self.process.kill_reason
        if code == OUT_OF_MEMORY_EXIT:
            limit = "" if self.order.memory is None else f", the limit is {self.order.memory >> 20} MiB"
            return "out_of_memory", f"out of memory: the worker could not allocate{limit}"
        if code >= 0:
            return "exit", f"the process exited with code {code}"
        if code == -9 and resources.oom_kills() > self._oom_kills:
            return "out_of_memory", "the kernel killed it: out of memory"
        return "signal", f"the process died of {_signal_name(-code)}"


def _environment(order: orders.StartWorker) -> dict[str, str]:
    """Our own variables, without secrets that are none of a model's business, and the order's; a worker in an
    environment of its own sees no modules of ours."""
    ours = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    if order.python is None:
        return {**ours, **order.environment}
    return isolation.variables(ours, Path(order.python).parents[1]) | order.environment


def _signal_name(number: int) -> str:
    # Real-time signals have no names.
    return signal.Signals(number).name if number in signal.Signals.__members__.values() else f"signal {number}"
