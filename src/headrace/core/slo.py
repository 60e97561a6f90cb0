"""Service-level objectives of an endpoint: what its callers are promised."""

from __future__ import annotations

import math

import msgspec

from headrace.core import errors

SLOW_ONE_IN = 100
"""One in so many requests may be slower than ``p99_ms``."""


class Slo(msgspec.Struct, frozen=True):
    """None: nothing is promised of it. Raises BadSettings for what can be no objective."""

    p99_ms: float | None = None
    """99 % of the requests take at most so many milliseconds in the gateway, from head to answer; of streams to the
    first response."""
    error_rate: float | None = None
    """At most this share of the requests fails by the deployment's fault, 0..1."""

    def __post_init__(self) -> None:
        if self.p99_ms is not None and not 0 < self.p99_ms < math.inf:
            raise errors.BadSettings(f"p99_ms is a number of milliseconds above 0, e.g. 50; got {self.p99_ms:g}")
        if self.error_rate is not None and not 0 < self.error_rate < 1:
            raise errors.BadSettings(f"error_rate is a share between 0 and 1, e.g. 0.001; got {self.error_rate:g}")
