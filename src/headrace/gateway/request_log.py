"""Writes every answered request of endpoints with an experiment down, before its answer leaves.

An entry is a store into a file that is mapped into memory: no system call, and the kernel keeps it when this process is
killed the next moment. Room on the disk is made beforehand, by the coarse timer. Where there is none, entries wait in
memory, counted, and live requests go on.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

from headrace.core import request_log
from headrace.core.request_log import SegmentHeader
from headrace.core.routes import DeploymentRoute, EndpointRoute, RequestLogRoute, RouteTable
from headrace.pipeline.router import Router
from headrace.telemetry.logging import Log
from headrace.telemetry.recording import RequestRecorder

SEGMENT_BYTES = 4 << 20
WAITING_BYTES = 64 << 20
"""Entries of one endpoint that may wait in memory for room on the disk: about a million requests."""
_TRY_AGAIN_S = 1.0
_MAX_ID = 512
"""Bytes of a request id; longer ones, which only gRPC streams may have, are cut."""

MakeSegment = Callable[[RequestLogRoute, SegmentHeader], "Segment"]


class Segment:
    """A file of the log. Its lock is held for as long as it is written; a reader that gets it knows that nobody will
    write any more, however the writer ended."""

    def __init__(self, route: RequestLogRoute, head: SegmentHeader, size: int = SEGMENT_BYTES) -> None:
        """Raises OSError when there is no room for all of it."""
        name = f"{time.time_ns()}-{head.gateway}-{os.getpid()}"
        Path(route.directory).mkdir(parents=True, exist_ok=True)
        partial = Path(route.directory) / f"{name}.partial"
        self._fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            # A file with holes would end this process when the disk is full: a store cannot fail otherwise.
            os.posix_fallocate(self._fd, 0, size)
            self._map = mmap.mmap(self._fd, size)
            self._memory = memoryview(self._map)
            begin = request_log.header(head)
            self._memory[: len(begin)] = begin
            self._at = len(begin)
            partial.rename(partial.with_suffix(request_log.SUFFIX))
        except BaseException:
            partial.unlink(missing_ok=True)
            os.close(self._fd)
            raise

    def append(self, entry: bytes) -> bool:
        """False: it is full."""
        at = request_log.append(self._memory, self._at, entry)
        if not at:
            return False
        self._at = at
        return True

    @property
    def half_full(self) -> bool:
        return self._at * 2 > len(self._memory)

    def close(self) -> None:
        self._memory.release()
        self._map.close()
        os.close(self._fd)


class EndpointLog:
    """The log of one endpoint at this gateway, for one experiment."""

    def __init__(
        self,
        route: RequestLogRoute,
        head: SegmentHeader,
        recorder: RequestRecorder,
        log: Log,
        *,
        make_segment: MakeSegment = Segment,
        waiting_bytes: int = WAITING_BYTES,
    ) -> None:
        self.route = route
        self.waiting_bytes = 0
        self._head = head
        self._recorder = recorder
        self._log = log
        self._make_segment = make_segment
        self._most_waiting = waiting_bytes
        self._segment: Segment | None = None
        self._next: Segment | None = None
        self._waiting: list[bytes] = []
        self._lost = 0
        """Not written down yet that they are."""
        self._shares = b""
        self._closed = False
        self._troubled = False
        self._not_before = 0.0
        self._names: dict[tuple[str, str], bytes] = {}

    def note(self, request_id: str, deployment: DeploymentRoute, pinned: bool, fallback: bool) -> None:
        """One answered request; see ``pipeline/ports.py``."""
        if self._closed:
            return  # the experiment has ended
        if len(request_id) > _MAX_ID // 4:
            request_id = request_id.encode("utf-8", "replace")[:_MAX_ID].decode("utf-8", "ignore")
        self._write(request_log.answered(request_id, self._arm(deployment), time.time(), pinned, fallback))

    def _arm(self, deployment: DeploymentRoute) -> bytes:
        key = deployment.name, deployment.version
        name = self._names.get(key)
        if name is None:
            shown = deployment.name or f"version {deployment.version}"
            name = self._names[key] = shown.encode()[:255]
        return name

    def follow(self, route: EndpointRoute) -> None:
        """Take over what each deployment gets from now on."""
        named = {d.id: d.name or f"version {d.version}" for d in route.deployments}
        total = sum(route.traffic.values())
        found = request_log.shares({named[d]: w / total for d, w in sorted(route.traffic.items()) if d in named})
        if found != self._shares:
            self._shares = found
            if self._segment is None:
                self.tend(time.monotonic())
            else:
                self._write(found)

    def tend(self, now: float) -> None:
        """Coarse timer: make room before it is needed, and write what waits for it."""
        if self._closed or now < self._not_before:
            return
        wants = self._next is None and (self._segment is None or self._segment.half_full)
        if wants and not self._made(now):
            return
        while self._waiting:
            waiting, self._waiting, self.waiting_bytes = self._waiting, [], 0
            for entry in waiting:
                self._write(entry)
            if self._waiting and not self._made(now):
                break
        if self._segment is None:
            self._turn_over()

    def _made(self, now: float) -> bool:
        try:
            self._next = self._make_segment(self.route, self._head)
        except OSError as error:
            self._not_before = now + _TRY_AGAIN_S
            self._recorder.log_failed()
            if not self._troubled:
                self._log.warning(
                    "there is no room for the log of an experiment's requests; they wait in memory: free some space",
                    action="request_log_failed",
                    endpoint=self._head.endpoint,
                    reason=f"{self.route.directory}: {error.strerror}",
                )
            self._troubled = True
            return False
        self._troubled = False
        return True

    def _write(self, entry: bytes) -> None:
        segment = self._segment
        if segment is not None and segment.append(entry):
            return
        if self._turn_over() and self._segment is not None and self._segment.append(entry):
            return
        if self.waiting_bytes + len(entry) <= self._most_waiting:
            self._waiting.append(entry)
            self.waiting_bytes += len(entry)
            return
        self._lost += 1
        self._recorder.log_lost()

    def _turn_over(self) -> bool:
        """Go over to the segment that was made; False when there is none."""
        if self._next is None:
            return False
        if self._segment is not None:
            self._segment.close()
        self._segment, self._next = self._next, None
        self._segment.append(self._shares)
        if self._lost:
            self._segment.append(request_log.lost(self._lost))
            self._lost = 0
        return True

    def close(self) -> None:
        """The experiment or the gateway ends."""
        self.tend(float("inf"))  # what still waits gets its last chance
        self._closed = True
        for segment in (self._segment, self._next):
            if segment is not None:
                segment.close()
        self._segment = self._next = None


class RequestLogs:
    """The logs of all endpoints with an experiment at this gateway."""

    def __init__(self, router: Router, index: int, recorder: RequestRecorder, log: Log) -> None:
        self._router = router
        self._index = index
        self._recorder = recorder
        self._log = log
        self._logs: dict[str, EndpointLog] = {}

    def follow(self, table: RouteTable) -> None:
        """Right after the router has taken this table over, before any request goes by it."""
        wanted = {endpoint.name: endpoint for endpoint in table.endpoints if endpoint.log is not None}
        for name in [n for n in self._logs if n not in wanted or self._logs[n].route != wanted[n].log]:
            self._logs.pop(name).close()
            if name in self._router.endpoints:
                self._tell(name, None)
        for name, endpoint in wanted.items():
            assert endpoint.log is not None
            log = self._logs.get(name)
            if log is None:
                head = SegmentHeader(name, endpoint.log.experiment, self._index)
                log = self._logs[name] = EndpointLog(endpoint.log, head, self._recorder, self._log)
            log.follow(endpoint)
            self._tell(name, log)

    def _tell(self, name: str, log: EndpointLog | None) -> None:
        for deployment in self._router.endpoints[name].deployments.values():
            deployment.note = None if log is None else log.note

    def tend(self, now: float) -> None:
        """Coarse timer; costs nothing where there is no experiment."""
        if self._logs:
            for log in self._logs.values():
                log.tend(now)
            self._recorder.set_log_waiting(sum(log.waiting_bytes for log in self._logs.values()))

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
