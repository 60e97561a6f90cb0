"""How long after the command "back" the last gateway answers by the old version again.

A rollout has given 99 % of the requests to the new version. Clients ask both gateways all the time, each over its own
connections; a gateway has followed when its clients send a request from which on every answer is the old version's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from typing import Any, NamedTuple

import msgspec
import psutil

from benchmarks.bench import Bench
from benchmarks.dialects import oip
from benchmarks.fleet import stock
from benchmarks.fleet.server import Fleet, serving
from benchmarks.processes import ServerFailed
from headrace.app.registry.pushing import PushRequest, push
from headrace.app.state.location import Location
from headrace.app.state.registry_state import open_registry

GATEWAYS = 2
ROLLBACKS = 30
PER_GATEWAY = 2
"""Clients that ask each gateway."""
SEEN_S = 0.3
"""The clients go on this long after the command was answered."""
_OLD, _NEW = "1", "2"
_STEP_S = 30.0


class Answered(NamedTuple):
    """When a request was sent, on the clock of ``perf_counter``, and the version that answered it."""

    sent: float
    version: str


def run(bench: Bench) -> dict[str, Any]:
    """``{"gateways", "visible_ms": […], "command_ms": […], "failed"}``, one entry a rollback."""
    folder = bench.folder("fleet", "rollback")
    state = folder / "state"
    with open_registry(Location(state, None, str(state / "artifacts"))) as registry:
        for file in stock.copies(bench.assets.fraud_onnx, folder / "files", 2):
            push(registry, PushRequest(str(file), model="fraud"), lambda what, done, total: None)
    settings = folder / "headrace.yaml"
    settings.write_text(f"endpoints:\n  fraud: {{model: fraud@{_OLD}}}\n")
    arguments = ["--config", str(settings), "--state", str(state), "--no-auth", "--gateways", str(GATEWAYS)]
    visible, commands, failed = [], [], 0
    with serving(folder, arguments) as fleet:
        for _ in range(ROLLBACKS if bench.rounds > 1 else 3):
            _begin(fleet)
            commanded, answered, seen = _roll_back(bench, fleet)
            visible.append(1e3 * max(followed(client, commanded, new=_NEW) for client in seen))
            commands.append(1e3 * (answered - commanded))
            bench.say(f"rollback visible after {visible[-1]:.1f} ms, command answered after {commands[-1]:.1f} ms")
            failed += sum(one.version not in (_OLD, _NEW) for client in seen for one in client)
    return {"gateways": GATEWAYS, "visible_ms": visible, "command_ms": commands, "failed": failed}


def followed(answers: Sequence[Answered], commanded: float, *, new: str) -> float:
    """Seconds from the command to the sending of the first request from which on no answer is by ``new``; 0 when that
    was before. Raises ServerFailed when it never came, or when nothing was by ``new`` before the command."""
    last = max((index for index, one in enumerate(answers) if one.version == new), default=None)
    if last is None:
        raise ServerFailed("the new version has answered no request before the rollback: nothing was rolled back")
    if last + 1 == len(answers):
        raise ServerFailed("the new version answers on after the rollback")
    return max(answers[last + 1].sent - commanded, 0.0)


def _begin(fleet: Fleet) -> None:
    """Start a rollout and wait until its first step takes requests."""
    wanted = {"endpoint": "fraud", "to": _NEW, "canary": "99", "bake_s": 3600, "take_over": True}
    fleet.manage("POST", "/api/v1/rollouts", wanted)
    until = time.monotonic() + _STEP_S
    while fleet.manage("GET", "/api/v1/rollouts/of/fraud")["phase"] != "step":
        if time.monotonic() > until:
            raise ServerFailed(f"the rollout takes no first step: {fleet.manage('GET', '/api/v1/rollouts/of/fraud')}")
        time.sleep(0.05)


def _roll_back(bench: Bench, fleet: Fleet) -> tuple[float, float, list[list[Answered]]]:
    """Moments of the command and of its answer, and what every client saw."""
    body = oip("fraud").encode(bench.assets.fraud.rows[:1])
    with ExitStack() as stack:
        clients = [stack.enter_context(_Client(line, body)) for line in _connections(fleet)]
        time.sleep(SEEN_S)
        commanded = time.perf_counter()
        fleet.manage("POST", "/api/v1/rollouts/abort/fraud")
        answered = time.perf_counter()
        time.sleep(SEEN_S)
    return commanded, answered, [client.seen() for client in clients]


def _connections(fleet: Fleet) -> list[HTTPConnection]:
    """Open connections until each gateway has accepted enough of them."""
    gateways = [process for process in fleet.server.tree() if _is_gateway(process)]
    if len(gateways) != GATEWAYS:
        raise ServerFailed(f"{len(gateways)} gateways run, {GATEWAYS} were asked for")
    chosen: dict[int, list[HTTPConnection]] = {gateway.pid: [] for gateway in gateways}
    for _ in range(200):
        line = HTTPConnection("127.0.0.1", fleet.port)
        line.request("GET", "/v2/health/live")
        line.getresponse().read()
        taken = chosen[_accepted_by(fleet.port, line)]
        if len(taken) < PER_GATEWAY:
            taken.append(line)
        else:
            line.close()
        if all(len(lines) == PER_GATEWAY for lines in chosen.values()):
            return [line for lines in chosen.values() for line in lines]
    raise ServerFailed("one gateway takes every connection")


def _is_gateway(process: psutil.Process) -> bool:
    return "headrace.app.gateway" in process.cmdline()


def _accepted_by(port: int, line: HTTPConnection) -> int:
    """Pid of the process that holds the other end of a connection to ``port``."""
    mine = line.sock.getsockname()[1]
    for found in psutil.net_connections("tcp"):
        if found.laddr.port == port and found.raddr and found.raddr.port == mine and found.pid is not None:
            return int(found.pid)
    raise ServerFailed(f"nobody holds the connection from port {mine}")


class _Client:
    """Asks again and again over one connection, in a thread, until the block ends."""

    def __init__(self, line: HTTPConnection, body: bytes) -> None:
        self._line = line
        self._body = body
        self._answers: list[Answered] = []
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, name="client", daemon=True)

    def __enter__(self) -> _Client:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._line.close()

    def seen(self) -> list[Answered]:
        """What it saw. Raises what ended it early."""
        if self._failure is not None:
            raise self._failure
        return self._answers

    def _ask_on(self) -> None:
        try:
            while not self._ended.is_set():
                sent = time.perf_counter()
                self._line.request("POST", "/v2/models/fraud/infer", self._body, {"content-type": "application/json"})
                answer = self._line.getresponse()
                document = msgspec.json.decode(answer.read())
                version = document["model_version"] if answer.status == 200 else f"{answer.status} {document}"
                self._answers.append(Answered(sent, version))
        except Exception as error:  # a thread is a boundary: whoever reads what it saw gets it
            self._failure = error
