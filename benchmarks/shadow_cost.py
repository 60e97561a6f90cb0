"""What shadow traffic costs live requests: their latency with 0 and with 100 % mirrored, in alternating rounds.

``python -m benchmarks.shadow_cost [ROUNDS]``. A real ``headrace serve`` per side, both up all the time, two deployments
of one model each; one client asks at a fixed rate, so that both sides have the same load. Prints each side's median
and 99th percentile per round, and the median over the rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from typing import Any

RATE = 200
"""Requests a second."""
SECONDS = 5
_MODEL = """\
import time

import headrace


class Model(headrace.Model):
    def predict(self, x: headrace.Float32) -> {"y": headrace.Float32}:
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass
        return {"y": x * 2}
"""
_SETTINGS = """\
endpoints:
  m:
    traffic: {live: 1}
    SHADOW
    deployments: {live: {model: model.py}, dark: {model: model.py}}
"""
_BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]})


class Side:
    """A server and a connection to it."""

    def __init__(self, directory: Path, shadow: str) -> None:
        directory.mkdir()
        (directory / "model.py").write_text(_MODEL)
        (directory / "headrace.yaml").write_text(_SETTINGS.replace("SHADOW", shadow))
        command = [
            sys.executable,
            "-m",
            "headrace.cli.main",
            "serve",
            "--json",
            "--no-auth",
            "--port",
            "0",
            "--management-port",
            "0",
        ]
        self.process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True)
        self.serving = self._until_serving()
        self.connection = HTTPConnection(self.serving["url"].partition("//")[2])

    def _until_serving(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            if event["type"] == "Serving":
                return event
        raise SystemExit("the server did not start")

    def measure(self) -> list[float]:
        """Milliseconds of each request of one round."""
        found = []
        begun = time.perf_counter()
        for number in range(RATE * SECONDS):
            time.sleep(max(begun + number / RATE - time.perf_counter(), 0.0))
            sent = time.perf_counter()
            self.connection.request("POST", "/v2/models/m/infer", _BODY, {"content-type": "application/json"})
            answer = self.connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"status {answer.status}")
            found.append((time.perf_counter() - sent) * 1e3)
        return found

    def shadow(self) -> Any:
        """What the shadow has compared, as the management API tells."""
        connection = HTTPConnection(self.serving["management_url"].partition("//")[2])
        connection.request("GET", "/api/v1/endpoints/m")
        deployments = json.loads(connection.getresponse().read())["deployments"]
        return next(d["shadow"] for d in deployments if d["name"] == "dark")

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.wait()


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        sides = {
            "no shadow": Side(Path(directory) / "without", ""),
            "all mirrored": Side(Path(directory) / "with", "shadow: {dark: 100}"),
        }
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        try:
            for _ in range(rounds):
                for name, side in sides.items():
                    taken = side.measure()
                    seen[name].append((median(taken), quantiles(taken, n=100)[98]))
                    print(f"{name:<13} p50 {seen[name][-1][0]:6.2f} ms   p99 {seen[name][-1][1]:6.2f} ms", flush=True)
            for name, found in seen.items():
                p50, p99 = median(p for p, _ in found), median(p for _, p in found)
                print(f"median of {rounds} rounds, {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
            mirrored = sides["all mirrored"].shadow()
            print(f"mirrored: { ({k: mirrored[k] for k in ('agreed', 'disagreed', 'failed', 'dropped')}) }")
        finally:
            for side in sides.values():
                side.stop()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
