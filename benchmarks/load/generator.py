"""Starts the open-loop generator in a process of its own and reads what it found."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.load.plan import LoadPlan, LoadResult
from benchmarks.load.wrk import LoadFailed

ROOT = Path(__file__).parents[2]


class RunningLoad:
    def __init__(self, process: subprocess.Popen[bytes], result: Path, seconds: float) -> None:
        self._process = process
        self._result = result
        self._seconds = seconds

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def result(self) -> LoadResult:
        """Wait for the end of the load."""
        try:
            _, errors = self._process.communicate(timeout=self._seconds + 60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise LoadFailed("the generator did not end") from None
        if self._process.returncode:
            raise LoadFailed(f"the generator ended with {self._process.returncode}:\n{errors.decode()[-2000:]}")
        return msgspec.msgpack.decode(self._result.read_bytes(), type=LoadResult)


def start(plan: LoadPlan, folder: Path) -> RunningLoad:
    place = Path(tempfile.mkdtemp(prefix="load-", dir=folder))
    plan_path, result_path = place / "plan.msgpack", place / "result.msgpack"
    plan_path.write_bytes(msgspec.msgpack.encode(plan))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", str(plan_path), str(result_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    return RunningLoad(process, result_path, plan.arrivals.seconds + plan.timeout_s)
