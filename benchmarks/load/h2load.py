"""Closed-loop gRPC load with h2load: unary calls are POSTs of a five-byte prefix and the message."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import msgspec

from benchmarks.load.wrk import LoadFailed

_REQUESTS = re.compile(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored")
_RATE = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")
_TIME = re.compile(r"time for request:\s+([\d.]+)(us|ms|s)\s+([\d.]+)(us|ms|s)\s+([\d.]+)(us|ms|s)")
_UNIT = {"us": 1.0, "ms": 1e3, "s": 1e6}


class H2loadResult(msgspec.Struct, frozen=True):
    requests: int
    succeeded: int
    """HTTP status 2xx. gRPC errors are 200 too: what the answers hold is checked by a real client beside the load."""
    failed: int
    per_second: float
    mean_us: float
    max_us: float


def frame(message: bytes) -> bytes:
    """A gRPC message, not compressed, with its prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def parse(output: str) -> H2loadResult:
    requests, rate, times = _REQUESTS.search(output), _RATE.search(output), _TIME.search(output)
    if requests is None or rate is None or times is None:
        raise LoadFailed(f"h2load printed no result:\n{output}")
    total, _, succeeded, failed, errored = map(int, requests.groups())
    return H2loadResult(
        requests=total,
        succeeded=succeeded,
        failed=failed + errored,
        per_second=float(rate[1]),
        mean_us=float(times[5]) * _UNIT[times[6]],
        max_us=float(times[3]) * _UNIT[times[4]],
    )


def run(port: int, method: str, body: Path, connections: int, streams: int, seconds: float) -> H2loadResult:
    """``streams`` calls in flight on each connection. Half a second of warm-up is not counted."""
    command = ["h2load", f"-c{connections}", f"-m{streams}", f"-D{max(1, round(seconds))}", "--warm-up-time=500ms"]
    command += ["-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"]
    command.append(f"http://127.0.0.1:{port}{method}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode:
        raise LoadFailed(f"h2load ended with {done.returncode}: {done.stderr or done.stdout}")
    return parse(done.stdout)
