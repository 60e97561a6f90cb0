"""What the kernel tells about a process: whether it is the same one still, its memory and its CPU time."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")

# Fields of /proc/PID/stat after the command, see proc(5).
_STATE, _USER_TICKS, _SYSTEM_TICKS, _STARTED = 0, 11, 12, 19


def started(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot: with the pid it names an incarnation for good.

    None when there is no such process; a zombie (killed, not yet reaped) counts as gone."""
    fields = _stat(pid)
    if fields is None or fields[_STATE] in (b"Z", b"X"):
        return None
    return int(fields[_STARTED])


def usage(pid: int) -> tuple[int, float] | None:
    """Resident bytes and CPU seconds of a process; None when it is gone."""
    fields = _stat(pid)
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except OSError:
        return None
    return None if fields is None else (resident, (int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])) / _TICKS)


def _stat(pid: int) -> list[bytes] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return stat[stat.rindex(b")") + 2 :].split()  # the command before it may hold spaces and parentheses
