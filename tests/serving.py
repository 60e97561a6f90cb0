"""A real ``headrace serve`` for acceptance tests: own ports, own folder, ended by its own process id."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

Event = dict[str, Any]
T = TypeVar("T")

START_S = 60.0


class Served:
    """A running server. ``url`` and ``management_url`` are known once it serves."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log_path = log
        self.events: list[Event] = []
        self.url = ""
        self.management_url = ""
        self._queue: queue.Queue[Event | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    @property
    def address(self) -> str:
        """``host:port`` of the inference port."""
        return self.url.partition("//")[2]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def log(self) -> str:
        """Everything the server's processes wrote to stderr."""
        return self.log_path.read_text()

    def wait_event(self, kind: str, *, timeout: float = START_S, where: Callable[[Event], bool] | None = None) -> Event:
        """The next event of this type that fits; events that came before the last call are not looked at again."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self._queue.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                raise AssertionError(f"no {kind} within {timeout} s; got {self.events}\n{self.log()}") from None
            if event is None:
                raise AssertionError(f"the server ended before {kind}; got {self.events}\n{self.log()}")
            self.events.append(event)
            if event["type"] == kind and (where is None or where(event)):
                return event

    def children(self, module: str) -> list[psutil.Process]:
        """Child processes that run ``python -m headrace.<module>``."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                line = child.cmdline()
                parent = child.parent()
                # Between fork and exec a child still shows its parent's command line.
                if f"headrace.{module}" in line and (parent is None or parent.cmdline() != line):
                    found.append(child)
        return found

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60.0) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextlib.contextmanager
def served(
    *arguments: str | Path,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    wait: bool = True,
) -> Iterator[Served]:
    """``headrace serve ARGUMENTS`` on free ports, with its log in ``directory``. Waits until it serves."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "serve.log"
    command = [sys.executable, "-m", "headrace.cli.main", "serve", *map(str, arguments), "--json"]
    given = {str(a).partition("=")[0] for a in arguments}
    for flag in ("--port", "--management-port"):
        if flag not in given:
            command += [flag, "0"]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=directory,
            # A home of its own: keys in that of whoever runs the tests must not lock them out.
            env={**os.environ, "HOME": str(directory), **(environment or {})},
        )
    server = Served(process, log)
    try:
        if wait:
            serving = server.wait_event("Serving")
            server.url, server.management_url = serving["url"], serving["management_url"]
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()
        assert process.stdout is not None
        server._reader.join(10)
        process.stdout.close()


def eventually(check: Callable[[], T], *, timeout: float = 30.0, pause: float = 0.02) -> T:
    """The first truthy value of ``check``; AssertionError when there is none in time. Polls, so it never waits longer
    than needed."""
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still {value!r} after {timeout} s")
        time.sleep(pause)
