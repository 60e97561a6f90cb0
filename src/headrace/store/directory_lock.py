"""A state directory has one owner: a lock on a file that says who it is.

The kernel drops the lock when its process dies, however it dies, so there is no stale lock to clean up.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.core import errors

FILE = "owner.lock"


@contextmanager
def owning(directory: Path, what: str) -> Iterator[None]:
    """Own ``directory`` while the block runs; ``what`` tells others who it is (``headrace models push``).

    Raises StateInUse that names the owner, at once: whoever wants to wait asks again."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.StateInUse(_in_use(directory, descriptor)) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {what}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def last_owner(directory: Path) -> tuple[int, str] | None:
    """Process and name of the last owner, which may be gone; None when there never was one."""
    try:
        pid, _, what = (directory / FILE).read_text(errors="replace").strip().partition(" ")
    except OSError:
        return None
    return (int(pid), what) if pid.isdecimal() else None


def _in_use(directory: Path, descriptor: int) -> str:
    pid, _, what = os.pread(descriptor, 4096, 0).decode(errors="replace").strip().partition(" ")
    owner = f"process {pid} ({what})" if pid else "a process that is just starting"
    return f"{directory} is in use by {owner}; wait until it ends, or use another --state"
