"""Waits for a deployment that starts on its first request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from headrace.core import errors
from headrace.gateway.services import Services

T = TypeVar("T")

_PATIENCE_S = 60.0
"""Of a request that says no time of its own; when the model is there, the time of its deployment holds."""


async def begun(services: Services, dormant: errors.Dormant, deadline: float | None, begin: Callable[[], T]) -> T:
    """What ``begin`` gives once the deployment has loaded. ``deadline`` in monotonic seconds; None: none was given.

    Raises what ``begin`` raises, such as why it cannot be loaded, and DeadlineExceeded."""
    if dormant.loaded is None:
        raise dormant
    ends = deadline if deadline is not None else monotonic() + _PATIENCE_S
    loaded = asyncio.ensure_future(dormant.loaded())
    services.report_now()
    try:
        async with asyncio.timeout(max(ends - monotonic(), 0.0)):
            await loaded
    except TimeoutError:
        raise errors.DeadlineExceeded(
            "the deadline passed while the model started for its first request; it goes on starting"
        ) from None
    finally:
        loaded.cancel()
    return begin()
