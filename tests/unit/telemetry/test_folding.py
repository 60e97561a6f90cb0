"""Folding against the plain definition of each sum, and against prometheus_client's own histogram."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import prometheus_client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.requests import Outcome, RequestRecord
from headrace.telemetry import folding, metrics, statistics
from headrace.telemetry.folding import Folded

Make = Callable[..., RequestRecord]

times = st.one_of(st.just(0.0), st.sampled_from(metrics.SECONDS), st.floats(1e-6, 100), st.floats(-1e-6, 0))
# rows ≤ batch_rows except for a request that was split into several batches
record_changes = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["fraud", "churn", "org/img"]),
        "version": st.sampled_from(["1", "2"]),
        "protocol": st.sampled_from(["oip_rest", "oip_grpc"]),
        "outcome": st.integers(0, 7),
        "rows": st.integers(0, 70),
        "batch_rows": st.integers(0, 200),
        **dict.fromkeys(metrics.STAGES, times),
        "finished_at": st.floats(1.6e9, 1.8e9),
        "bytes_in": st.integers(0, 1 << 40),
        "bytes_out": st.integers(0, 1 << 40),
    }
)


def prometheus_cells(values: list[float], buckets: tuple[float, ...]) -> list[float]:
    """The cells of our layout (counts per bucket, +Inf, sum) as prometheus_client counts them."""
    histogram = prometheus_client.Histogram("h", "h", buckets=buckets, registry=None)
    for value in values:
        histogram.observe(value)
    samples = [sample for family in histogram.collect() for sample in family.samples]
    cumulative = [sample.value for sample in samples if sample.name == "h_bucket"]
    total = next(sample.value for sample in samples if sample.name == "h_sum")
    return [*np.diff([0.0, *cumulative]).tolist(), total]


def test_histograms_equal_prometheus_clients_also_on_the_edges(record: Make) -> None:
    values = [1e-7, *metrics.SECONDS, *(edge * 1.0000001 for edge in metrics.SECONDS), 61.0, 1e4]
    records = [record(queue=value, batch_rows=row + 1, rows=row + 1) for row, value in enumerate(values)]
    folded = folding.fold(records)
    stages = folded.seconds.reshape(len(metrics.STAGES), -1)
    assert stages[1].tolist() == pytest.approx(prometheus_cells(values, metrics.SECONDS))
    expected = prometheus_cells([float(row + 1) for row in range(len(values))], metrics.ROWS)
    assert folded.batch_rows[0].tolist() == pytest.approx(expected)


@settings(deadline=None)
@given(changes=st.lists(record_changes, min_size=1, max_size=40))
def test_every_sum_follows_its_definition(changes: list[dict[str, Any]], record: Make) -> None:
    records = [record(**change) for change in changes]
    folded = folding.fold(records)
    assert Counter(dict(folded.requests)) == Counter((r.model, r.version, r.protocol, r.outcome) for r in records)
    assert set(folded.models) == {(r.model, r.version) for r in records}
    for index, model in enumerate(folded.models):
        own = [r for r in records if (r.model, r.version) == model]
        assert folded.body_bytes[index].tolist() == [sum(r.bytes_in for r in own), sum(r.bytes_out for r in own)]
        check_seconds(folded, index, own)
        check_totals(folded, index, own)
        check_batches(folded, index, own)


def check_seconds(folded: Folded, index: int, own: list[RequestRecord]) -> None:
    cells = folded.seconds[index].reshape(len(metrics.STAGES), -1)
    refused = (Outcome.CALLER_ERROR, Outcome.NOT_READY, Outcome.OVERLOADED)
    for stage, name in enumerate(metrics.STAGES):
        observed = [getattr(r, name) for r in own if getattr(r, name) > 0]
        if name == "total":
            observed = [r.total for r in own if r.total > 0 and r.outcome not in refused]
        assert cells[stage].tolist() == pytest.approx(prometheus_cells(observed, metrics.SECONDS))


def check_totals(folded: Folded, index: int, own: list[RequestRecord]) -> None:
    good = [r for r in own if r.outcome == Outcome.OK]
    bad = [r for r in own if r.outcome != Outcome.OK]
    computed = [r for r in own if r.compute > 0 and r.batch_rows > 0]
    cells = folded.totals[index]
    expected = {
        statistics.SUCCESS: len(good),
        statistics.SUCCESS_S: sum(max(0, r.total) for r in good),
        statistics.FAIL: len(bad),
        statistics.FAIL_S: sum(max(0, r.total) for r in bad),
        statistics.QUEUE_S: sum(max(0, r.queue) for r in good),
        statistics.INPUT_S: sum(max(0, r.batch_wait) for r in good),
        statistics.INFER_S: sum(max(0, r.compute) for r in good),
        statistics.OUTPUT_S: sum(max(0, r.encode) for r in good),
        statistics.ROWS: sum(r.rows for r in good),
        statistics.BATCHES: sum(r.rows / r.batch_rows for r in computed),
        statistics.LAST_S: max((r.finished_at for r in computed if r.rows > 0), default=0),
    }
    assert cells.tolist() == pytest.approx([expected[cell] for cell in range(statistics.TOTALS_CELLS)])


def check_batches(folded: Folded, index: int, own: list[RequestRecord]) -> None:
    sizes = folded.batch_sizes[index].reshape(len(statistics.SIZES), statistics.BATCH_COLUMNS)
    histogram = folded.batch_rows[index]
    assert sizes[:, 0].sum() == pytest.approx(folded.totals[index, statistics.BATCHES])
    assert histogram[:-1].sum() == pytest.approx(folded.totals[index, statistics.BATCHES])
    computed = [r for r in own if r.compute > 0 and r.batch_rows > 0]
    assert histogram[-1] == pytest.approx(sum(r.rows for r in computed))
    assert sizes[:, 2].sum() == pytest.approx(sum(r.compute * r.rows / r.batch_rows for r in computed))


@settings(deadline=None)
@given(changes=st.lists(record_changes, min_size=2, max_size=30), data=st.data())
def test_folding_in_parts_gives_the_same_sums(changes: list[dict[str, Any]], data: st.DataObject, record: Make) -> None:
    records = [record(**change) for change in changes]
    cut = data.draw(st.integers(1, len(records) - 1))
    whole, parts = folding.fold(records), [folding.fold(records[:cut]), folding.fold(records[cut:])]
    for name in ("seconds", "body_bytes", "batch_rows", "batch_sizes"):
        for index, model in enumerate(whole.models):
            summed = sum(getattr(part, name)[part.models.index(model)] for part in parts if model in part.models)
            assert getattr(whole, name)[index].tolist() == pytest.approx(summed.tolist())


@pytest.mark.parametrize("rows", [[1, 1, 1, 1], [3, 5], [64], [7, 1, 56]])
def test_the_members_of_a_batch_make_one_batch(record: Make, rows: list[int]) -> None:
    records = [record(rows=count, batch_rows=sum(rows), compute=0.004) for count in rows]
    folded = folding.fold(records)
    assert folded.totals[0, statistics.BATCHES] == pytest.approx(1)
    row = folded.batch_sizes[0].reshape(-1, statistics.BATCH_COLUMNS)[sum(rows) - 1]
    assert row.tolist() == pytest.approx([1, 200e-6, 0.004, 30e-6 * len(rows)])


def test_a_request_split_into_batches_counts_each(record: Make) -> None:
    folded = folding.fold([record(rows=128, batch_rows=64)])
    assert math.isclose(folded.totals[0, statistics.BATCHES], 2)
