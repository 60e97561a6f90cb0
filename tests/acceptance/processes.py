"""The processes of a server as the operating system sees them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from tests.serving import Served, eventually


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def all_end(processes: list[psutil.Process], within: float = 5.0) -> bool:
    """Zombies have ended: an orphan is reaped by the init process, if and when that one pleases."""
    return eventually(lambda: not any(lives(process) for process in processes), timeout=within)


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def child(pid: int, module: str) -> psutil.Process | None:
    """A living descendant that runs ``python -m headrace.<module>``."""
    for process in descendants(pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if f"headrace.{module}" in process.cmdline():
                return process
    return None


def pids(server: Served, module: str) -> set[int]:
    """Process ids of the living children that run this module."""
    return {process.pid for process in server.children(module)}


def runtime_directory(server: Served) -> Path:
    """Where the server keeps sockets and pages."""
    serving = next(event for event in server.events if event["type"] == "Serving")
    deployments = [deployment for endpoint in serving["endpoints"] for deployment in endpoint["deployments"]]
    return next(Path(replica["status_path"]).parent for deployment in deployments for replica in deployment["replicas"])
