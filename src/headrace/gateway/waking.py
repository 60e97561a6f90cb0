"""Waits for a deployment that starts on its first request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from headrace.core import errors
from headrace.gateway.services import Services
from headrace.pipeline.deployment import Dormant

T = TypeVar("T")


async def begun(services: Services, dormant: Dormant, deadline: float | None, begin: Callable[[], T]) -> T:
    """What ``begin`` gives once the deployment has loaded. ``deadline`` in monotonic seconds; None: the route's own.

    Raises what ``begin`` raises, such as why it cannot be loaded, and DeadlineExceeded."""
    deployment = dormant.deployment
    ends = deadline if deadline is not None else monotonic() + deployment.route.timeout_s
    loaded = deployment.loaded()
    services.report_now()
    try:
        async with asyncio.timeout(max(ends - monotonic(), 0.0)):
            await loaded
    except TimeoutError:
        raise errors.DeadlineExceeded(
            f"the deadline passed while model {deployment.endpoint!r} started for this request; it goes on starting"
        ) from None
    finally:
        loaded.cancel()
    return begin()
