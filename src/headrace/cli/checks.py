"""The checks of ``headrace doctor``: each looks at one thing and says what was found and how to mend it.

They read; none changes anything. Frameworks are imported in child processes only, because one that crashes must not
take the report with it.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

import msgspec

from headrace import __version__
from headrace.app.settings.quantities import format_size
from headrace.backends.environments import installer
from headrace.core import errors
from headrace.runtimes import table

_ENOUGH_FILES = 4096
_ENOUGH_MEMORY = 512 << 20
_ENOUGH_SPACE = 256 << 20
_CGROUP = Path("/sys/fs/cgroup")
_TESTED_PYTHONS = ((3, 11), (3, 13))


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, but not well or not for everything."""
    FAILED = "failed"
    """Serving, or this runtime, does not work."""


class Check(msgspec.Struct, frozen=True):
    """One finding. ``fix`` is what to do, empty when all is well."""

    name: str
    status: Status
    found: str
    fix: str = ""


def run_checks(*, port: int, management_port: int, import_timeout: float) -> Iterator[Check]:
    """All checks, the quick ones first."""
    yield check_python()
    yield check_platform()
    yield check_cpu()
    yield check_memory()
    yield check_open_files()
    yield check_space("temporary folder", Path(tempfile.gettempdir()))
    yield check_space("shared memory", Path("/dev/shm"))
    yield check_clock()
    yield check_environments()
    yield check_port("inference port", port, "--port")
    yield check_port("management port", management_port, "--management-port")
    # Two at a time: imports are mostly reading files, and more would crowd a small machine.
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield from pool.map(lambda name: check_runtime(name, import_timeout), table.names())


def check_python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}; headrace {__version__}"
    low, high = _TESTED_PYTHONS
    if sys.version_info[:2] > high:
        return Check(
            "Python", Status.WARNING, found, f"tested with {low[0]}.{low[1]} to {high[0]}.{high[1]}; newer may work"
        )
    return Check("Python", Status.OK, found)


def check_platform() -> Check:
    found = f"{platform.system()} {platform.release()}, {platform.machine()}"
    if platform.system() != "Linux":
        return Check("platform", Status.FAILED, found, "headrace serves on Linux; use a container or WSL")
    return Check("platform", Status.OK, found)


def check_environments() -> Check:
    """Can environments of versions with requirements.txt be built?"""
    try:
        return Check("environments", Status.OK, f"built with {installer.find_uv()}")
    except errors.LoadFailed:
        fix = "pip install 'headrace[environments]', when versions bring requirements.txt"
        return Check("environments", Status.WARNING, "uv is not installed", fix)


def check_cpu(cgroup: Path = _CGROUP) -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(cgroup)
    if quota is None:
        return Check("CPU", Status.OK, f"{cores} cores, no quota")
    found = f"{cores} cores, quota {quota:g}"
    if quota < 1:
        return Check(
            "CPU", Status.WARNING, found, "less than one core: expect slow starts; raise the container's limit"
        )
    return Check("CPU", Status.OK, found)


def cpu_quota(cgroup: Path) -> float | None:
    """Cores that the cgroup (version 2 or 1) allows; None: no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)


def check_memory(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> Check:
    available = _available_memory(meminfo)
    limit = _memory_limit(cgroup)
    if available is None:
        return Check("memory", Status.WARNING, "cannot be read", f"{meminfo} is not readable")
    free = available if limit is None else min(available, limit[0] - limit[1])
    found = f"{format_size(free)} free" + (f", limit {format_size(limit[0])}" if limit else "")
    if free < _ENOUGH_MEMORY:
        return Check(
            "memory", Status.WARNING, found, "each replica takes 100 MiB and its model: stop others or raise the limit"
        )
    return Check("memory", Status.OK, found)


def _available_memory(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def _memory_limit(cgroup: Path) -> tuple[int, int] | None:
    """Limit and use of the cgroup, bytes; None: no limit."""
    for limit_file, use_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit = (cgroup / limit_file).read_text().strip()
            if limit == "max" or int(limit) >= 1 << 60:
                return None
            return int(limit), int((cgroup / use_file).read_text())
        except (OSError, ValueError):
            continue
    return None


def check_open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} (at most {'unlimited' if hard == resource.RLIM_INFINITY else hard})"
    if soft < _ENOUGH_FILES:
        return Check(
            "open files",
            Status.WARNING,
            found,
            f"each connection takes one: ulimit -n {_ENOUGH_FILES} before serving, or LimitNOFILE= in a systemd unit",
        )
    return Check("open files", Status.OK, found)


def check_space(name: str, folder: Path) -> Check:
    try:
        free = shutil.disk_usage(folder).free
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        # Only sockets and metric pages of the temporary folder are indispensable.
        status = Status.FAILED if name == "temporary folder" else Status.WARNING
        return Check(name, status, f"{folder}: {error.strerror}", "make the folder, or set TMPDIR to another")
    found = f"{folder}: {format_size(free)} free"
    if not writable:
        return Check(name, Status.FAILED, f"{found}, not writable", f"make {folder} writable, or set TMPDIR to another")
    if free < _ENOUGH_SPACE:
        return Check(name, Status.WARNING, found, f"less than {format_size(_ENOUGH_SPACE)}: free some space")
    return Check(name, Status.OK, found)


def check_clock(now: float | None = None) -> Check:
    """A clock before this release was made breaks TLS and the order of versions."""
    seconds = time.time() if now is None else now
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    if seconds < 1_735_689_600:  # 2025-01-01
        return Check("clock", Status.WARNING, found, "the clock is wrong; set it, e.g. timedatectl set-ntp true")
    return Check("clock", Status.OK, found)


def check_port(name: str, port: int, flag: str, host: str = "127.0.0.1") -> Check:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                owner = port_owner(port)
                who = f" by {owner}" if owner else ""
                return Check(name, Status.WARNING, f"{port} is taken{who}", f"stop it, or serve with {flag} PORT")
            return Check(name, Status.WARNING, f"{port}: {error.strerror}", f"serve with {flag} and a port above 1023")
    return Check(name, Status.OK, f"{port} is free")


def port_owner(port: int, proc: Path = Path("/proc")) -> str:
    """Command and process id of who listens on a TCP port; empty when that is not ours to see."""
    inodes = _listening_inodes(port, proc)
    if not inodes:
        return ""
    for process in proc.glob("[0-9]*"):
        if inodes.isdisjoint(_open_links(process)):
            continue
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        except OSError:
            command = ""
        return f"{command[:80] or '?'} (process {process.name})"
    return ""


def _open_links(process: Path) -> Iterator[str]:
    """What the descriptors of a process point to; of another user's process nothing."""
    try:
        entries = list((process / "fd").iterdir())
    except OSError:
        return
    for entry in entries:
        try:
            yield str(entry.readlink())
        except OSError:
            continue  # closed meanwhile


def _listening_inodes(port: int, proc: Path) -> set[str]:
    """``socket:[inode]`` of listeners, from the kernel's tables (local address in hex, state 0A is LISTEN)."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def check_runtime(name: str, import_timeout: float) -> Check:
    """Import a runtime in a child process. One that is not installed is a warning: its models are not served."""
    shown = f"runtime {name}"
    missing = table.missing(name)
    if missing:
        command = f"pip install {' '.join(missing)}"
        return Check(shown, Status.WARNING, f"{', '.join(missing)} not installed: its models cannot be served", command)
    began = time.monotonic()
    # The frameworks too: a runtime's module may put off importing them until a model is loaded.
    frameworks = [*table.BUILT_IN[name].needs] if name in table.BUILT_IN else []
    imports = "".join(f"import {framework}\n" for framework in frameworks)
    code = f"{imports}from headrace.runtimes import table\ntable.find({name!r})"
    try:
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=import_timeout,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Check(shown, Status.FAILED, f"importing it took longer than {import_timeout:g} s", _reinstall(name))
    if result.returncode != 0:
        return Check(shown, Status.FAILED, _why(result), _reinstall(name))
    versions = ", ".join(f"{package} {_version(package)}" for package in _distributions(name))
    seconds = time.monotonic() - began
    return Check(shown, Status.OK, f"imported in {seconds:.1f} s{versions and f' ({versions})'}")


def _why(result: subprocess.CompletedProcess[str]) -> str:
    if result.returncode < 0:
        return f"importing it ended the process by signal {-result.returncode}"
    lines = result.stderr.strip().splitlines()
    return lines[-1] if lines else f"importing it ended with code {result.returncode}"


def _reinstall(name: str) -> str:
    packages = _distributions(name)
    return (
        f"pip install --force-reinstall {' '.join(packages)}" if packages else "pip install --force-reinstall headrace"
    )


def _distributions(name: str) -> list[str]:
    entry = table.BUILT_IN.get(name)
    return list(dict.fromkeys(entry.needs.values())) if entry is not None else []


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "?"
