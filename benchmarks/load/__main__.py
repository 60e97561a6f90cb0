"""``python -m benchmarks.load PLAN RESULT``: the generator as a process of its own (both files are MessagePack)."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import msgspec

from benchmarks.load.engine import Generator
from benchmarks.load.plan import LoadPlan

_PR_SET_TIMERSLACK = 29


def main(plan_path: Path, result_path: Path) -> None:
    plan = msgspec.msgpack.decode(plan_path.read_bytes(), type=LoadPlan)
    # The kernel may wake a sleeper 50 µs late to save power; a load generator wants one nanosecond.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    result_path.write_bytes(msgspec.msgpack.encode(Generator(plan).run()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
