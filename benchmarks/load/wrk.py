"""Closed-loop REST load with wrk."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

SCRIPT = Path(__file__).with_name("rotate.lua")
MARK = "RESULT "


class WrkResult(msgspec.Struct, frozen=True):
    requests: int
    microseconds: int
    not_2xx: int
    """wrk counts every status above 399 here."""
    socket_errors: int
    timeouts: int
    p50_us: int
    p90_us: int
    p99_us: int
    max_us: int

    @property
    def per_second(self) -> float:
        """Answers with status 2xx a second."""
        return (self.requests - self.not_2xx) / (self.microseconds / 1e6)

    @property
    def failed(self) -> int:
        return self.not_2xx + self.socket_errors + self.timeouts


class LoadFailed(RuntimeError):
    """The load tool itself did not work."""


def write_bodies(path: Path, bodies: Sequence[bytes]) -> Path:
    """The file that ``rotate.lua`` reads."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(body), body) for body in bodies))
    return path


def parse(output: str) -> WrkResult:
    for line in output.splitlines():
        if line.startswith(MARK):
            return msgspec.json.decode(line[len(MARK) :], type=WrkResult)
    raise LoadFailed(f"wrk printed no result:\n{output}")


def run(
    url: str, bodies: Path, headers: Sequence[str], connections: int, seconds: float, think_ms: int = 0
) -> WrkResult:
    """``headers`` as ``Name: value``. One thread: on the same cores as the server, more would only take from it.
    ``think_ms``: how long each connection waits after an answer."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    command += ["-s", str(SCRIPT), url, "--", str(bodies), str(think_ms), *headers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode:
        raise LoadFailed(f"wrk ended with {done.returncode}: {done.stderr or done.stdout}")
    return parse(done.stdout)
