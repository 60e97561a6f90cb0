"""The declarations themselves: complete, well-formed, and in the order that records and pages rely on."""

from __future__ import annotations

import itertools
import re

import pytest

from headrace.core.requests import RequestRecord
from headrace.telemetry import metrics
from headrace.telemetry.metrics import Kind, Metric

ALL = list(metrics.BY_NAME.values())


def test_names_are_unique_and_every_metric_is_in_the_table() -> None:
    declared = [value for value in vars(metrics).values() if isinstance(value, Metric)]
    assert len({metric.name for metric in declared}) == len(declared) == len(ALL)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_declaration_is_well_formed(metric: Metric) -> None:
    assert re.fullmatch(r"headrace_[a-z][a-z_]*", metric.full_name)
    assert all(re.fullmatch(r"[a-z]+", label) and label not in ("le", "quantile") for label in metric.labels)
    assert metric.help.endswith(".")
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.name.removesuffix("_total").endswith(metric.unit)
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert len(metric.outer_labels) == len(metric.labels) - bool(metric.inner) - metric.per_process


def test_latency_buckets_run_from_50_us_to_60_s_in_even_steps() -> None:
    assert metrics.SECONDS[0] == 50e-6
    assert metrics.SECONDS[-1] == 60
    assert all(1.4 < high / low < 2.6 for low, high in itertools.pairwise(metrics.SECONDS))


def test_stages_are_the_times_of_a_record_in_its_order() -> None:
    fields = RequestRecord.__struct_fields__
    first = fields.index("decode")
    assert fields[first : first + len(metrics.STAGES)] == metrics.STAGES


def test_layout_of_a_histogram_with_an_inner_label() -> None:
    metric = metrics.REQUEST_SECONDS
    assert metric.width == len(metrics.SECONDS) + 2
    assert metric.cells == 6 * metric.width
    assert metric.position["queue"] == metric.width
