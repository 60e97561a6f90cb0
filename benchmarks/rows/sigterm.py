"""SIGTERM under load: readiness turns false, the drain delay passes, connections close, nothing accepted is lost.

REST: the open-loop generator tells a request that the server had read from one that it had not (``load/engine.py``).
gRPC: real clients; a call that fails because nobody listens any more is no loss, any other failure is.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import httpx
import msgspec
from tritonclient.utils import InferenceServerException

from benchmarks import contenders, payloads
from benchmarks.bench import Bench
from benchmarks.contenders import Served
from benchmarks.load.plan import Arrivals, Outcome

RATE = 1000.0
BEFORE_SECONDS = 2.0
DRAIN_DELAY_SECONDS = 1.0
AFTER_SECONDS = 3.0
GRPC_CLIENTS = 8
GATEWAYS = (1, 4)


def run(bench: Bench) -> dict[str, Any]:
    """``{"1 gateway": […], "4 gateways": […]}``."""
    results: dict[str, list[Any]] = {}
    for round_number in range(bench.rounds):
        for gateways in GATEWAYS:
            name = f"{gateways} gateway{'s' if gateways > 1 else ''}"
            found = _one(bench, gateways, round_number)
            results.setdefault(name, []).append(found)
            bench.say(f"round {round_number + 1} {name}: {_describe(found)}")
    return results


def _describe(found: dict[str, Any]) -> str:
    rest = f"lost {found['rest_lost']} of {found['rest_accepted']} REST"
    grpc = f"{len(found['grpc_lost'])} of {found['grpc_ok']} gRPC"
    times = f"not ready after {found['not_ready_after_s']} s, closed after {found['closed_after_s']} s"
    return f"{rest}, {grpc}; {times}, exit {found['exit_code']} after {found['exit_after_s']:.2f} s"


def _one(bench: Bench, gateways: int, seed: int) -> dict[str, Any]:
    flags = ("--gateways", str(gateways), "--drain-delay", f"{DRAIN_DELAY_SECONDS:.0f}s")
    contender = contenders.headrace(bench.assets, flags)
    with contenders.serve(contender, bench.folder("sigterm", str(gateways))) as served:
        bench.warm_up(served)
        seconds = BEFORE_SECONDS + DRAIN_DELAY_SECONDS + AFTER_SECONDS
        load = bench.start_open_loop(
            served, [payloads.single_rows(served)], Arrivals(RATE, seconds, seed=seed), {"timeout_s": 20}
        )
        readiness, calls = _Readiness(served), [_GrpcCalls(served) for _ in range(GRPC_CLIENTS)]
        watchers = [readiness, *calls]
        for watcher in watchers:
            watcher.start()
        time.sleep(BEFORE_SECONDS)
        signalled = time.time()
        os.kill(served.server.pid, signal.SIGTERM)
        exit_code = served.server.process.wait(60)
        exit_after = time.time() - signalled
        found = load.result()
        for watcher in watchers:
            watcher.stop()
    outcomes = found.kinds["small"].outcomes
    lost = {k: v for k, v in outcomes.items() if k not in (Outcome.OK, Outcome.REFUSED, Outcome.UNREAD)}
    return {
        "rest_lost": sum(lost.values()),
        "rest_accepted": outcomes.get(Outcome.OK, 0) + sum(lost.values()),
        "rest_outcomes": outcomes,
        "resent": found.resent,
        "troubles": [msgspec.to_builtins(t) for t in found.troubles if t.outcome in lost],
        "grpc_ok": sum(call.ok for call in calls),
        "grpc_lost": [failure for call in calls for failure in call.lost],
        "not_ready_after_s": readiness.first_after(signalled, "not ready"),
        "closed_after_s": readiness.first_after(signalled, "closed"),
        "exit_code": exit_code,
        "exit_after_s": exit_after,
    }


class _Watcher(threading.Thread):
    """A thread that repeats ``step`` until it is stopped."""

    def __init__(self, served: Served) -> None:
        super().__init__(daemon=True)
        self._served = served
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            self.step()

    def stop(self) -> None:
        self._ended.set()
        self.join(30)

    def step(self) -> None:
        raise NotImplementedError


class _Readiness(_Watcher):
    """Asks for readiness as a load balancer does: a new connection each time, every ten milliseconds."""

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self.seen: list[tuple[float, str]] = []

    def step(self) -> None:
        now = time.time()
        try:
            ready = httpx.get(f"{self._served.url}/v2/health/ready", timeout=5).status_code == 200
            self.seen.append((now, "ready" if ready else "not ready"))
        except httpx.HTTPError:
            self.seen.append((now, "closed"))
        self._ended.wait(0.01)

    def first_after(self, moment: float, state: str) -> float | None:
        """Seconds after ``moment`` at which ``state`` was seen first; None when it never was."""
        return next((round(t - moment, 3) for t, seen in self.seen if t >= moment and seen == state), None)


class _GrpcCalls(_Watcher):
    """One client that calls again and again over one channel until nobody listens."""

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self.ok = 0
        self.lost: list[str] = []

    def run(self) -> None:
        with self._served.grpc_client() as client:
            while not self._ended.is_set():
                try:
                    self._served.check_grpc(client, self.ok)
                    self.ok += 1
                except InferenceServerException as error:
                    if not _nobody_listens(error):
                        self.lost.append(str(error))
                    return
                except AssertionError as error:
                    self.lost.append(str(error))
                    return


def _nobody_listens(error: InferenceServerException) -> bool:
    """The call never left: no new connection could be made after the old one had been closed in order."""
    return "UNAVAILABLE" in str(error.status()) and "failed to connect to all addresses" in str(error)
