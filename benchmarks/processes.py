"""Starts a server in a process group of its own, waits until it answers right, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

START_SECONDS = 120.0


class ServerFailed(RuntimeError):
    """A server ended or never answered; the message carries the tail of its log."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now. Held together while asking, so they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Running:
    """A started server and everything it started."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name.replace(' ', '-')}.log"
        self._output = self.log.open("wb")
        self.process = subprocess.Popen(
            command,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._seen: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        return self.process.pid

    def tree(self) -> list[psutil.Process]:
        """The server and its living descendants."""
        try:
            parent = psutil.Process(self.pid)
            found = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        self._seen.update({process.pid: process for process in found})
        return found

    def wait_until(self, answers: Callable[[], None], seconds: float = START_SECONDS) -> float:
        """Call ``answers`` until it raises no more; seconds that took. Raises ServerFailed with the last reason."""
        began = time.monotonic()
        while True:
            try:
                answers()
                return time.monotonic() - began
            except Exception as error:  # any client library, any of its errors: not ready yet
                if self.process.poll() is not None:
                    raise ServerFailed(f"{self.name} ended with {self.process.returncode}\n{self.tail()}") from error
                if time.monotonic() - began > seconds:
                    raise ServerFailed(f"{self.name} gives no right answer: {error!r}\n{self.tail()}") from error
            time.sleep(0.1)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """SIGTERM, ten seconds, then SIGKILL to the group and to every descendant that left it."""
        self.tree()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for process in self._seen.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self._output.close()


@contextlib.contextmanager
def running(name: str, command: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[Running]:
    folder.mkdir(parents=True, exist_ok=True)
    server = Running(name, command, environment, folder)
    try:
        yield server
    finally:
        server.stop()
