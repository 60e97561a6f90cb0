"""Work that takes as long as files are large: a few at once, and the rest wait without holding a thread.

Short requests share the threads that are left, so that somebody who registers or verifies many versions does not
keep metrics and lists from being read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

AT_ONCE = 4
"""Each registration is an inspecting process beside the models that are served."""

T = TypeVar("T")


class LongWork:
    """Shared by the routes of one application."""

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """The result of ``work``, run in a thread when it is its turn."""
        if self._limiter is None:  # it belongs to the event loop that serves
            self._limiter = CapacityLimiter(AT_ONCE)
        return await run_sync(work, limiter=self._limiter)
