"""CPU and memory of this machine or container, and each replica's share of them."""

from __future__ import annotations

import os
from pathlib import Path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)
"""What frameworks read at import to size their thread pools."""


def cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """CPU cores this process may use: the affinity mask, bounded by the cgroup v2 quota."""
    available = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return available if quota == "max" else min(available, int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return available


def threads_per_replica(total_cpus: float, gateways: int, replicas: int, asked_cpu: float | None) -> int:
    """Framework threads of one replica: what was asked, else an equal share of the cores that gateways leave; at
    least 1. A gateway under load fills a core: threads on that core would only take turns with it."""
    share = asked_cpu if asked_cpu is not None else (total_cpus - gateways) / max(replicas, 1)
    return max(int(share), 1)


def thread_environment(threads: int) -> dict[str, str]:
    return {name: str(threads) for name in THREAD_VARIABLES}


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def oom_kills(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processes the kernel has killed in this cgroup for lack of memory."""
    try:
        lines = (cgroup / "memory.events").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
