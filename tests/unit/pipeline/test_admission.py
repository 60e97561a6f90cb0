"""Refusals as tables: bounds from settings and capacity, and who may wait."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from headrace.core import errors
from headrace.core.endpoints import AdmissionSettings
from headrace.core.models import SlotKind, Slots
from headrace.pipeline import admission
from headrace.pipeline.admission import Bounds, RetryBudget
from headrace.pipeline.latency import LatencyModel
from headrace.telemetry.metrics import Refusal


def latency(a: float, b: float) -> LatencyModel:
    model = LatencyModel()
    for rows in (1, 64) * 20:
        model.observe(rows, a + b * rows)
    return model


@pytest.mark.parametrize(
    ("settings", "slots", "model", "limit", "replicas", "gateways", "rows", "per_second"),
    [
        # nothing known: only the settings bound
        ({}, Slots(), LatencyModel(), 64, 1, 1, 20_000, 0.0),
        ({}, Slots(), LatencyModel(), 64, 1, 4, 5_000, 0.0),
        # slow: what one second works off, but never less than min_queue_rows
        ({}, Slots(), latency(0.1, 0.0), 1, 1, 1, 128, 10.0),
        ({}, Slots(), latency(0.1, 0.0), 1, 4, 2, 256, 20.0),
        ({"min_queue_rows": 1}, Slots(), latency(0.1, 0.0), 1, 1, 1, 10, 10.0),
        # fast: capped by max_queue_rows
        ({}, Slots(), latency(0.001, 0.0), 64, 1, 1, 20_000, 64_000.0),
        # side by side
        ({"min_queue_rows": 1}, Slots(SlotKind.CONCURRENT, 8), latency(0.1, 0.0), 1, 2, 1, 160, 160.0),
        # no replica: nothing is known about capacity
        ({}, Slots(), latency(0.1, 0.0), 1, 0, 1, 20_000, 0.0),
        ({"max_queue_rows": 1}, Slots(), LatencyModel(), 64, 1, 8, 1, 0.0),
    ],
)
def test_bounds(
    settings: dict[str, int],
    slots: Slots,
    model: LatencyModel,
    limit: int,
    replicas: int,
    gateways: int,
    rows: int,
    per_second: float,
) -> None:
    bounds = admission.derive(AdmissionSettings(**settings), slots, model, limit, replicas, gateways)  # type: ignore[arg-type]
    assert bounds.rows == pytest.approx(rows, rel=0.02, abs=1)
    assert bounds.rows_per_second == pytest.approx(per_second, rel=0.02)
    assert bounds.bytes == (512 << 20) // gateways


@pytest.mark.parametrize(
    ("queued_rows", "queued_bytes", "rows", "nbytes", "remaining", "service", "refusal", "error"),
    [
        (0, 0, 1, 8, 1.0, 0.0, None, None),
        (99, 0, 1, 8, 60.0, 0.0, None, None),
        (100, 0, 1, 8, 60.0, 0.0, Refusal.QUEUE_FULL, errors.Overloaded),
        (0, 0, 5000, 8, 60.0, 0.0, None, None),  # alone it may be larger than the bound
        (1, 0, 5000, 8, 60.0, 0.0, Refusal.QUEUE_FULL, errors.Overloaded),
        (1, 900, 1, 100, 60.0, 0.0, None, None),
        (1, 900, 1, 101, 60.0, 0.0, Refusal.BYTES, errors.Overloaded),
        (0, 0, 1, 5000, 60.0, 0.0, None, None),
        (50, 0, 1, 8, 4.9, 0.0, Refusal.PREDICTED_LATE, errors.Overloaded),  # 50 rows at 10 rows/s
        (50, 0, 1, 8, 5.1, 0.0, None, None),
        (0, 0, 1, 8, 0.1, 0.2, Refusal.PREDICTED_LATE, errors.Overloaded),
        (0, 0, 1, 8, 0.0, 0.0, Refusal.PREDICTED_LATE, errors.DeadlineExceeded),
        (0, 0, 1, 8, -1.0, 0.0, Refusal.PREDICTED_LATE, errors.DeadlineExceeded),
    ],
)
def test_check(
    queued_rows: int,
    queued_bytes: int,
    rows: int,
    nbytes: int,
    remaining: float,
    service: float,
    refusal: Refusal | None,
    error: type[errors.HeadraceError] | None,
) -> None:
    found = admission.check(Bounds(100, 1000, 10.0), queued_rows, queued_bytes, rows, nbytes, remaining, service)
    assert (found and found[0]) == refusal
    assert (None if found is None else type(found[1])) == error
    if isinstance(found and found[1], errors.Overloaded):
        assert found is not None
        assert found[1].retry_after is not None
        assert found[1].retry_after >= 0.1


@given(st.integers(0, 10_000), st.integers(1, 100), st.floats(0.001, 100))
def test_an_empty_queue_refuses_only_what_is_late(rows: int, bound: int, remaining: float) -> None:
    assert admission.check(Bounds(bound, bound, 1.0), 0, 0, rows, rows * 100, remaining, 0.0) is None


def test_retry_budget_starts_with_its_floor_and_earns_a_tenth() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(1000)) == 256
    budget.earn(99)
    assert sum(budget.spend() for _ in range(100)) == 9
    budget.earn(1_000_000)
    assert sum(budget.spend() for _ in range(10_000)) == 1024
