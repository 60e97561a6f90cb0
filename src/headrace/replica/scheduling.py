"""How a process shares the processors with others."""

from __future__ import annotations

import contextlib
import os


def yield_to_all() -> None:
    """Compute only when nobody else wants a processor, and leave it at once when somebody does. Niceness alone does not
    do that: the kernel lets a nice process finish its slice of milliseconds first.

    For this process and the threads it starts from now on; without rights there is no way back. Linux only: elsewhere
    nothing happens."""
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(PermissionError):  # sandboxes may forbid it; then it shares as everybody does
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
