"""Child processes on this machine: start them, read their output, see their death at once, end them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

_READ = 64 * 1024
_TAIL_LINES = 200
_LINE_LIMIT = 4000


class ChildProcess:
    """A child in its own process group. Its stdout and stderr are read line by line; ``tail`` keeps the last ones.

    ``on_line`` gets the lines, of a child that writes more than ``lines_per_s`` not all; ``on_exit`` is called once,
    after the output was read to its end. What is left of the group dies with the child."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        on_line: Callable[[str, str], None],
        on_exit: Callable[[ChildProcess], None],
        lines_per_s: float = math.inf,
    ) -> None:
        self.name = name
        self.written = 0
        """Lines so far."""
        self.tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
        self.kill_reason = ""
        self._on_line = on_line
        self._on_exit = on_exit
        self._partial = b""
        self._lines_per_s = lines_per_s
        self._second = 0.0
        self._passed = 0
        self._dropped = 0
        self._loop = asyncio.get_running_loop()
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=pass_fds,
                env=dict(environment),
                # Ctrl-C in a terminal reaches the supervisor only; it decides how the others end.
                process_group=0,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self.pid = self._process.pid
        self._output = read_end
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(read_end, self._read)
        self._loop.add_reader(self._pidfd, self._exited)
        self.ended: asyncio.Future[int] = self._loop.create_future()

    @property
    def alive(self) -> bool:
        return not self.ended.done()

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.alive:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self, reason: str) -> None:
        """SIGKILL; ``reason`` is remembered for whoever asks why it died."""
        if self.alive:
            self.kill_reason = self.kill_reason or reason
            self.signal(signal.SIGKILL)

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(list(self.tail)[-lines:])

    def read_output(self) -> None:
        """Take what the child has written so far into ``tail``, without waiting."""
        if self.alive:
            self._read()

    def _read(self) -> None:
        try:
            data = os.read(self._output, _READ)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
            return
        lines = (self._partial + data).split(b"\n")
        self._partial = lines.pop()[-_LINE_LIMIT:]
        self._lines(lines)

    def _lines(self, lines: list[bytes]) -> None:
        now = self._loop.time()
        if now - self._second >= 1.0:
            self._tell_dropped()
            self._second, self._passed = now, 0
        self.written += len(lines)
        room = int(min(self._lines_per_s - self._passed, len(lines)))
        self._passed += room
        self._dropped += len(lines) - room
        for line in lines[:room]:
            self._on_line(self.name, self._keep(line))
        for line in lines[room:][-_TAIL_LINES:]:
            self._keep(line)

    def _keep(self, line: bytes) -> str:
        text = line[:_LINE_LIMIT].decode(errors="replace").rstrip("\r")
        self.tail.append(text)
        return text

    def _tell_dropped(self) -> None:
        if self._dropped:
            limit = f"more than {self._lines_per_s:g} a second"
            self._on_line(self.name, f"({self._dropped} lines are not shown: {limit})")
            self._dropped = 0

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        # Before it is reaped: until then its number cannot belong to another group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        # What the dying process wrote last is what people need most. A grandchild may hold the pipe open: no waiting.
        for _ in range(64):
            before = self.written, self._partial
            self._read()
            if before == (self.written, self._partial):
                break
        if self._partial:
            self._lines([self._partial])
            self._partial = b""
        self._tell_dropped()
        self._loop.remove_reader(self._output)
        os.close(self._output)
        os.close(self._pidfd)
        self.ended.set_result(self._process.returncode)
        self._on_exit(self)
