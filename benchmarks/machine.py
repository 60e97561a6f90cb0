"""What ran where: recorded with every row, because a figure without its machine says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import psutil

PACKAGES = ("headrace", "h2corn", "uvloop", "msgspec", "numpy", "onnxruntime", "protobuf")


class Machine(msgspec.Struct, frozen=True):
    at: str
    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load_before: float
    """Load average of the last minute when the row began: other work on the machine makes the row noisy."""
    versions: dict[str, str]


def describe(extra_versions: dict[str, str]) -> Machine:
    return Machine(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load_before=round(os.getloadavg()[0], 2),
        versions={name: version(name) for name in PACKAGES} | tools() | extra_versions,
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def tools() -> dict[str, str]:
    wrk = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False).stdout.split()
    h2load = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=False).stdout.split()
    return {"wrk": wrk[1] if len(wrk) > 1 else "", "h2load": h2load[-1].removeprefix("nghttp2/") if h2load else ""}


def installed(python: Path) -> dict[str, str]:
    """Versions in another virtual environment."""
    if python == Path(sys.executable):
        return {}
    code = "from importlib.metadata import distributions as d; print(*{f'{x.name}=={x.version}' for x in d()})"
    listed = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return dict(pair.split("==", 1) for pair in listed)
