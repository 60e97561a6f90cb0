"""Records for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headrace.core.requests import Outcome, RequestRecord


@pytest.fixture(scope="session")
def record() -> Callable[..., RequestRecord]:
    """Makes an answered request of one row in a batch of four; keywords change it."""

    def make(**changes: Any) -> RequestRecord:
        values: dict[str, Any] = {
            "model": "fraud",
            "version": "1",
            "protocol": "oip_rest",
            "outcome": Outcome.OK,
            "rows": 1,
            "batch_rows": 4,
            "decode": 20e-6,
            "queue": 100e-6,
            "batch_wait": 200e-6,
            "compute": 1.5e-3,
            "encode": 30e-6,
            "total": 2e-3,
            "finished_at": 1_700_000_000.25,
            "bytes_in": 300,
            "bytes_out": 90,
            "request_id": "r-1",
        }
        return RequestRecord(**(values | changes))

    return make
