"""``headrace serve`` as the fleet row starts it: timed to the moment of "Serving", asked, and weighed."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from benchmarks import dialects
from benchmarks.assets import Sample
from benchmarks.dialects import Dialect
from benchmarks.processes import START_SECONDS, Running, ServerFailed, free_ports, running

_POLL_S = 0.005


@dataclass
class Fleet:
    """A server that has said "Serving"."""

    server: Running
    port: int
    management_port: int
    start_seconds: float
    """From the start of the process to the line that says so."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What every request carries: the API key."""

    def __post_init__(self) -> None:
        self.client = httpx.Client(timeout=60, headers=dict(self.headers))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def management_url(self) -> str:
        return f"http://127.0.0.1:{self.management_port}"

    def ask(self, question: Dialect, sample: Sample, index: int = 0) -> float:
        """One request; seconds it took. Raises WrongAnswer when it is not answered with the model's values."""
        rows, right = sample.rows[index : index + 1], sample.outputs[index : index + 1]
        headers = dict(line.split(": ", 1) for line in question.headers)
        sent = time.perf_counter()
        answer = self.client.post(self.url + question.path, content=question.encode(rows), headers=headers)
        taken = time.perf_counter() - sent
        if answer.status_code != 200:
            raise dialects.WrongAnswer(f"{question.path}: {answer.status_code} {answer.text[:300]}")
        dialects.check(question.decode(answer.content), right, question.path)
        return taken

    def manage(self, method: str, path: str, document: Any = None) -> Any:
        """One request to the management port; the JSON of its answer."""
        answer = self.client.request(method, self.management_url + path, json=document)
        if answer.is_error:
            raise ServerFailed(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    def timed_get(self, path: str) -> float:
        """Seconds of one GET at the management port."""
        sent = time.perf_counter()
        self.manage("GET", path)
        return time.perf_counter() - sent


@contextlib.contextmanager
def serving(folder: Path, arguments: Sequence[str], headers: Mapping[str, str] | None = None) -> Iterator[Fleet]:
    """Start ``headrace serve ARGUMENTS`` on free ports and stop it at the end."""
    port, management_port = free_ports(2)
    command = [sys.executable, "-m", "headrace.cli.main", "serve", *arguments, "--json"]
    command += ["--port", str(port), "--management-port", str(management_port)]
    with running("headrace", command, {}, folder) as server:
        fleet = Fleet(server, port, management_port, _until_serving(server), headers or {})
        with fleet.client:
            yield fleet


def _until_serving(server: Running) -> float:
    """Seconds until the server says that all it serves is ready. Raises ServerFailed when it says otherwise."""
    began = time.perf_counter()
    while time.perf_counter() - began < START_SECONDS:
        said = events_in(server.log.read_bytes())
        if failed := [event for event in said if event["type"] == "ModelFailed"]:
            raise ServerFailed(f"{failed[0]}\n{server.tail()}")
        if any(event["type"] == "Serving" for event in said):
            return time.perf_counter() - began
        if server.process.poll() is not None:
            raise ServerFailed(f"{server.name} ended with {server.process.returncode}\n{server.tail()}")
        time.sleep(_POLL_S)
    raise ServerFailed(f"{server.name} serves nothing after {START_SECONDS:g} s\n{server.tail()}")


def events_in(output: bytes) -> list[dict[str, Any]]:
    """The events in what ``--json`` has printed so far; a last line that is not finished is left out, and so is what
    other than events stands there."""
    found = []
    for line in output.split(b"\n")[:-1]:
        if line.startswith(b"{"):
            document = msgspec.json.decode(line)
            if "type" in document:
                found.append(document)
    return found


def proportional_bytes(processes: Sequence[psutil.Process]) -> int:
    """Memory of these processes together: pages that several share count once (PSS)."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total


def busy_seconds(processes: Sequence[psutil.Process]) -> float:
    """Processor time that these processes have taken so far."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total
