"""Samples the resident memory of a server's processes, and judges whether it stayed flat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import msgspec
import numpy as np
import psutil

WARM_UP_SHARE = 0.2
FLAT_SHARE = 0.03
FLAT_BYTES = 4 << 20
MIN_SAMPLES = 10


class MemoryTrace(msgspec.Struct, frozen=True):
    """One process: seconds since the start of sampling and resident bytes, sample by sample."""

    pid: int
    name: str
    seconds: list[float]
    resident: list[int]


class MemorySampler:
    """``with MemorySampler(server.tree, 1.0) as sampler: …`` then ``sampler.traces()``."""

    def __init__(self, processes: Callable[[], list[psutil.Process]], interval: float) -> None:
        self._processes = processes
        self._interval = interval
        self._samples: dict[int, list[tuple[float, int]]] = {}
        self._names: dict[int, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample_on, name="memory", daemon=True)

    def __enter__(self) -> MemorySampler:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _sample_on(self) -> None:
        while not self._ended.wait(self._interval):
            now = time.monotonic() - self._began
            for process in self._processes():
                try:
                    self._samples.setdefault(process.pid, []).append((now, process.memory_info().rss))
                    self._names.setdefault(process.pid, short_command(process.cmdline()))
                except psutil.NoSuchProcess:
                    continue

    def traces(self) -> list[MemoryTrace]:
        return [
            MemoryTrace(pid, self._names.get(pid, ""), [t for t, _ in samples], [rss for _, rss in samples])
            for pid, samples in self._samples.items()
        ]


def short_command(words: Sequence[str]) -> str:
    """The telling end of a command line, without the paths of this machine: results are published."""
    return " ".join(word.rsplit("/", 1)[-1] for word in words)[-80:]


def growth(resident: Sequence[int]) -> float:
    """Bytes by which the last quarter lies above the first quarter after warm-up (medians)."""
    after = np.asarray(resident[int(len(resident) * WARM_UP_SHARE) :], dtype=np.float64)
    quarter = max(1, len(after) // 4)
    return float(np.median(after[-quarter:]) - np.median(after[:quarter]))


def is_flat(resident: Sequence[int]) -> bool:
    """Growth after warm-up is below 3 % or 4 MiB, whichever is more. A process that lived shortly says nothing."""
    if len(resident) < MIN_SAMPLES:
        return True
    return growth(resident) <= max(FLAT_BYTES, FLAT_SHARE * float(np.median(resident)))
