"""The open-loop generator: sends each request at its scheduled time, on an epoll loop in one thread.

Open loop: the schedule is fixed beforehand, so a slow server does not slow the load down, and latency counts from the
scheduled time, so waiting in the generator is not hidden (no coordinated omission). asyncio is not used because its
timers, like uvloop's, have a resolution of a millisecond; ``select`` on the epoll descriptor has one of microseconds.
"""

from __future__ import annotations

import errno
import gc
import select
import socket
import time
from collections import deque
from enum import Enum, auto

from benchmarks.load import timing
from benchmarks.load.http1 import NotHttp, ResponseReader
from benchmarks.load.plan import LoadPlan, LoadResult, Outcome
from benchmarks.load.tally import Tally

_READ = select.EPOLLIN | select.EPOLLRDHUP
_READ_WRITE = _READ | select.EPOLLOUT
_RECEIVE = 1 << 18
_SEND = 1 << 17
"""Bytes handed to the kernel at once: five megabytes in one call would hold the next small request up."""
_SWEEP_SECONDS = 0.1
_LINGER_SECONDS = 0.3
"""How long a reset may follow the end of a connection: a server may shut its side down first and close later."""
_TCP_STATE_CLOSED = 7
"""``tcpi_state`` after a reset; after the peer's orderly end it would be CLOSE_WAIT."""


class _Job:
    """A request that is due."""

    __slots__ = ("kind", "sample", "scheduled", "sent")

    def __init__(self, kind: int, sample: int, scheduled: float) -> None:
        self.kind = kind
        self.sample = sample
        self.scheduled = scheduled
        self.sent = 0.0


class _State(Enum):
    CONNECTING = auto()
    IDLE = auto()
    BUSY = auto()
    LINGERING = auto()
    """The server ended the connection while a request was on it; a reset may still come."""
    CLOSED = auto()


class _Connection:
    __slots__ = ("ended", "job", "reader", "socket", "state", "unsent")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = ResponseReader()
        self.state = _State.CONNECTING
        self.job: _Job | None = None
        self.ended = 0.0
        self.unsent: memoryview | None = None
        code = self.socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            self.socket.close()
            raise OSError(code, "cannot connect")


class Generator:
    """Runs one plan, once: ``Generator(plan).run()``."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._times = timing.arrival_times(plan.arrivals).tolist()
        shares = [kind.share for kind in plan.kinds]
        self._kinds = timing.choose_kinds(shares, len(self._times), plan.arrivals.seed).tolist()
        self._tally = Tally(plan)
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: deque[_Connection] = deque()
        self._due: deque[_Job] = deque()
        self._next = 0
        self._unfinished = 0
        self._start = 0.0

    def run(self) -> LoadResult:
        # A full collection walks every request in flight: tens of milliseconds in the middle of a measurement.
        gc.disable()
        try:
            self._start = time.perf_counter()
            self._connect_ahead()
            self._start = time.perf_counter() + 0.01
            started_at = time.time() + 0.01
            self._loop()
        finally:
            gc.enable()
            for connection in list(self._connections.values()):
                self._close(connection)
            self._epoll.close()
        return self._tally.result(len(self._times), started_at)

    def _now(self) -> float:
        return time.perf_counter() - self._start

    def _connect_ahead(self) -> None:
        """The first connections come up before the clock starts; they carry no job yet."""
        for _ in range(self._plan.connections):
            self._open()
        deadline = time.perf_counter() + 5
        while time.perf_counter() < deadline and any(
            connection.state is _State.CONNECTING for connection in self._connections.values()
        ):
            self._handle(self._epoll.poll(0.05))
        if not self._idle:
            raise ConnectionError(f"cannot connect to {self._plan.host}:{self._plan.port}")

    def _loop(self) -> None:
        times, sweep_at = self._times, 0.0
        while self._next < len(times) or self._unfinished:
            now = self._now()
            self._take_due(now)
            self._dispatch()
            if now >= sweep_at:
                self._expire(now)
                sweep_at = now + _SWEEP_SECONDS
            wait = _SWEEP_SECONDS
            if self._next < len(times):
                wait = min(wait, times[self._next] - self._now())
            if wait > 0:
                select.select([self._epoll.fileno()], [], [], wait)
            self._handle(self._epoll.poll(0))

    def _take_due(self, now: float) -> None:
        times = self._times
        while self._next < len(times) and times[self._next] <= now:
            kind = self._kinds[self._next]
            sample = self._next % len(self._plan.kinds[kind].requests)
            self._due.append(_Job(kind, sample, times[self._next]))
            self._next += 1
            self._unfinished += 1

    def _dispatch(self) -> None:
        while self._due:
            # First in, first out: the load spreads over all connections, and so over all gateways.
            connection = self._idle.popleft() if self._idle else None
            if connection is None:
                if len(self._connections) >= self._plan.max_connections:
                    return
                connection = self._open()
                if connection is None:
                    self._end(self._due.popleft(), Outcome.REFUSED, "connect failed")
                    continue
            if connection.state is _State.CLOSED:
                continue
            job = self._due.popleft()
            connection.job = job
            if connection.state is not _State.CONNECTING:
                self._send(connection, job)

    def _open(self) -> _Connection | None:
        try:
            connection = _Connection((self._plan.host, self._plan.port))
        except OSError:
            return None
        self._tally.connections_opened += 1
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket.fileno(), _READ_WRITE)
        return connection

    def _send(self, connection: _Connection, job: _Job) -> None:
        connection.state = _State.BUSY
        job.sent = self._now()
        self._tally.sent(job.sent - job.scheduled)
        request = self._plan.kinds[job.kind].requests[job.sample]
        try:
            count = connection.socket.send(request if len(request) <= _SEND else memoryview(request)[:_SEND])
        except BlockingIOError:
            count = 0
        except OSError:
            self._lost(connection)
            return
        if count < len(request):
            connection.unsent = memoryview(request)[count:]
            self._epoll.modify(connection.socket.fileno(), _READ_WRITE)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        for descriptor, event in events:
            connection = self._connections.get(descriptor)
            if connection is None:
                continue
            if connection.state is _State.LINGERING:
                self._decide_lost(connection)
                continue
            if event & select.EPOLLOUT and not self._writable(connection):
                continue
            if event & ~select.EPOLLOUT:
                self._readable(connection)

    def _writable(self, connection: _Connection) -> bool:
        """Connected, or room for more of a large request. False when the connection is gone."""
        if connection.state is _State.CONNECTING:
            return self._connected(connection)
        if connection.unsent is not None:
            try:
                connection.unsent = connection.unsent[connection.socket.send(connection.unsent[:_SEND]) :]
            except BlockingIOError:
                return True
            except OSError:
                self._lost(connection)
                return False
            if len(connection.unsent):
                return True
            connection.unsent = None
        self._epoll.modify(connection.socket.fileno(), _READ)
        return True

    def _connected(self, connection: _Connection) -> bool:
        code = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            job = connection.job
            self._close(connection)
            if job is not None:
                self._end(job, Outcome.REFUSED, errno.errorcode.get(code, str(code)))
            return False
        self._epoll.modify(connection.socket.fileno(), _READ)
        connection.state = _State.IDLE
        if connection.job is not None:
            self._send(connection, connection.job)
            return connection.state is not _State.CLOSED
        self._idle.append(connection)
        return True

    def _readable(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(_RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or connection.job is None:
            self._lost(connection)
            return
        try:
            whole = connection.reader.feed(data)
        except NotHttp as error:
            job = connection.job
            self._close(connection)
            self._end(job, Outcome.GARBLED, str(error))
            return
        if whole:
            self._answered(connection, connection.job)

    def _answered(self, connection: _Connection, job: _Job) -> None:
        reader = connection.reader
        now = self._now()
        self._unfinished -= 1
        connection.job = None
        # An early refusal may come while the body is still being sent; such a connection cannot be used again.
        if reader.close or connection.unsent is not None:
            self._close(connection)
        else:
            connection.state = _State.IDLE
            self._idle.append(connection)
        self._tally.answer(job.kind, job.sample, job.scheduled, now, reader.status, reader.body)
        reader.reset()

    def _lost(self, connection: _Connection) -> None:
        """The server ended the connection. Whether it had read the request that was on it may show a little later."""
        if connection.job is None:
            self._close(connection)
        elif connection.reader.started or _was_reset(connection.socket):
            self._decide_lost(connection)
        else:
            connection.state = _State.LINGERING
            connection.ended = self._now()
            self._epoll.modify(connection.socket.fileno(), 0)  # errors and hang-ups are reported all the same

    def _decide_lost(self, connection: _Connection) -> None:
        job, started = connection.job, connection.reader.started
        reset = _was_reset(connection.socket)
        self._close(connection)
        if job is None:
            return
        if started:
            self._end(job, Outcome.CUT)
        elif not reset:
            self._end(job, Outcome.UNANSWERED, "the server read the request and closed")
        elif self._plan.resend_unread:
            self._tally.resent += 1
            self._due.appendleft(job)
        else:
            self._end(job, Outcome.UNREAD, "reset before the request was read")

    def _end(self, job: _Job, outcome: Outcome, detail: str = "") -> None:
        self._unfinished -= 1
        self._tally.end(job.kind, job.scheduled, self._now(), outcome, detail)

    def _expire(self, now: float) -> None:
        limit = self._plan.timeout_s
        while self._due and now - self._due[0].scheduled > limit:
            self._end(self._due.popleft(), Outcome.TIMEOUT, "no free connection in the generator")
        for connection in list(self._connections.values()):
            job = connection.job
            if connection.state is _State.LINGERING:
                if now - connection.ended > _LINGER_SECONDS:
                    self._decide_lost(connection)
            elif job is not None and now - job.scheduled > limit:
                self._close(connection)
                self._end(job, Outcome.TIMEOUT)

    def _close(self, connection: _Connection) -> None:
        if connection.state is _State.CLOSED:
            return
        connection.state = _State.CLOSED
        connection.job = None
        descriptor = connection.socket.fileno()
        self._epoll.unregister(descriptor)
        del self._connections[descriptor]
        connection.socket.close()


def _was_reset(connection: socket.socket) -> bool:
    """True when the peer answered with RST, which Linux does when it closes a socket that holds unread bytes or when
    bytes reach a socket that is closed already: either way no program there has read the request."""
    state: int = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == _TCP_STATE_CLOSED
