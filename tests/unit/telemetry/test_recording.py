"""Recorders: every call ends in the right cell of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.core import errors
from headrace.core.fallbacks import FallbackKind
from headrace.core.replicas import ReplicaState
from headrace.core.requests import Outcome, RequestRecord
from headrace.core.shadows import Mirrored, ShadowLoad
from headrace.core.slo import Slo
from headrace.telemetry import metrics, pages, recording, statistics
from headrace.telemetry.metrics import Refusal, RestartReason
from headrace.telemetry.pages import Key, SeriesPage
from headrace.telemetry.recording import ControlRecorder, RequestRecorder


@pytest.fixture
def page(tmp_path: Path) -> Iterator[SeriesPage]:
    page = SeriesPage(tmp_path, "gateway-0")
    yield page
    page.close()


def read(page: SeriesPage) -> dict[Key, list[float]]:
    return {key: values for _, key, values in pages.read_pages(page.path.parent)}


def test_observes_requests(page: SeriesPage, record: Callable[..., RequestRecord]) -> None:
    recorder = RequestRecorder(page)
    recorder.observe([])
    for _ in range(2):
        recorder.observe([record(), record(), record(rows=2), record(outcome=Outcome.MODEL_ERROR, protocol="oip_grpc")])
    found = read(page)
    assert found["requests_total", "fraud", "1", "oip_rest"] == [6, 0, 0, 0, 0, 0, 0, 0]
    assert found["requests_total", "fraud", "1", "oip_grpc"][Outcome.MODEL_ERROR] == 2
    assert found["rows_total", "fraud", "1"] == [8]
    assert found["batches_total", "fraud", "1"] == [2.5]
    assert found["body_bytes_total", "fraud", "1"] == [2400, 720]
    seconds = found["request_seconds", "fraud", "1"]
    compute = metrics.REQUEST_SECONDS.position["compute"]
    assert seconds[compute + metrics.SECONDS.index(0.002)] == 8
    assert seconds[compute + metrics.REQUEST_SECONDS.width - 1] == pytest.approx(8 * 1.5e-3)
    assert found["statistics", "fraud", "1"][statistics.SUCCESS] == 6


def test_the_last_inference_is_the_latest_and_never_steps_back(
    page: SeriesPage, record: Callable[..., RequestRecord]
) -> None:
    recorder = RequestRecorder(page)
    for finished_at in (1_700_000_100.0, 1_700_000_300.0, 1_700_000_200.0):
        recorder.observe([record(finished_at=finished_at)])
    assert read(page)["statistics", "fraud", "1"][statistics.LAST_S] == 1_700_000_300


def test_a_model_that_never_computes_has_no_batch_blocks(
    page: SeriesPage, record: Callable[..., RequestRecord]
) -> None:
    RequestRecorder(page).observe([record(outcome=Outcome.OVERLOADED, compute=0.0, batch_rows=0)])
    found = read(page)
    assert ("batch_rows", "fraud", "1") not in found
    assert (statistics.BATCH_SIZES, "fraud", "1") not in found


def test_counters_and_gauges_of_a_gateway(page: SeriesPage) -> None:
    recorder = RequestRecorder(page)
    recorder.refused("fraud", "1", Refusal.QUEUE_FULL)
    recorder.refused("fraud", "1", Refusal.QUEUE_FULL)
    recorder.refused("", "", Refusal.BODY_TOO_LARGE, count=3)
    recorder.retried("fraud", "1", 4)
    recorder.dropped(5)
    recorder.set_queue("fraud", "1", 6, 7)
    recorder.set_in_flight("fraud", "1", 8)
    recorder.set_open_streams("fraud", "1", 9)
    recorder.set_batch_limit("fraud", "1", 10)
    recorder.set_draining(True)
    recorder.set_route_version(11)
    found = read(page)
    assert found["refused_total", "fraud", "1"][metrics.REFUSED.position["queue_full"]] == 2
    assert found["refused_total", "", ""][metrics.REFUSED.position["body_too_large"]] == 3
    assert sum(found["refused_total", "fraud", "1"]) == 2
    assert {key: values for key, values in found.items() if key[0] != "refused_total"} == {
        ("retries_total", "fraud", "1"): [4],
        ("records_dropped_total",): [5],
        ("queue_requests", "fraud", "1"): [6],
        ("queue_rows", "fraud", "1"): [7],
        ("in_flight_requests", "fraud", "1"): [8],
        ("open_streams", "fraud", "1"): [9],
        ("batch_limit_rows", "fraud", "1"): [10],
        ("draining",): [1],
        ("route_table_version",): [11],
    }


def test_a_forgotten_deployment_keeps_its_counters_only(page: SeriesPage) -> None:
    recorder = RequestRecorder(page)
    recorder.retried("fraud", "1")
    recorder.set_queue("fraud", "1", 6, 7)
    recorder.set_queue("fraud", "2", 8, 9)
    recorder.forget("fraud", "1")
    recorder.forget("never", "seen")
    found = read(page)
    assert ("queue_requests", "fraud", "1") not in found
    assert found["queue_rows", "fraud", "2"] == [9]
    assert found["retries_total", "fraud", "1"] == [1]
    recorder.set_queue("fraud", "1", 1, 2)
    assert read(page)["queue_rows", "fraud", "1"] == [2]


def test_models_beyond_the_limit_share_their_series(
    page: SeriesPage, record: Callable[..., RequestRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MODEL_LIMIT", 3)
    recorder = RequestRecorder(page)
    for _ in range(2):
        recorder.observe([record(model=f"m{number}") for number in range(10)])
    found = read(page)
    assert found["requests_total", recording.OTHER, "", ""][Outcome.OK] == 14
    assert found["rows_total", recording.OTHER, ""] == [14]
    assert sum(values[0] for key, values in found.items() if key[0] == "rows_total") == 20
    assert sum(key[0] == "rows_total" for key in found) == 4


def test_a_restarted_gateway_counts_on(tmp_path: Path, record: Callable[..., RequestRecord]) -> None:
    for _ in range(3):
        page = SeriesPage(tmp_path, "gateway-0")
        RequestRecorder(page).observe([record(), record(), record(), record()])
        page.close()
    found = {key: values for _, key, values in pages.read_pages(tmp_path)}
    assert found["batches_total", "fraud", "1"] == [3]
    assert found[statistics.BATCH_SIZES, "fraud", "1"][3 * statistics.BATCH_COLUMNS] == 3


def test_replica_states_and_restarts(page: SeriesPage) -> None:
    recorder = ControlRecorder(page)
    recorder.replica_state("fraud@1#1", ReplicaState.LOADING)
    recorder.replica_state("fraud@1#1", ReplicaState.READY)
    recorder.replica_state("fraud@1#2", ReplicaState.STARTING)
    recorder.restarted("fraud", "1", RestartReason.SIGNAL)
    recorder.set_route_version(4)
    recorder.set_draining(True)
    found = read(page)
    position = metrics.REPLICA_STATE.position
    assert found["replica_state", "fraud@1#1"][position["ready"]] == 1
    assert sum(found["replica_state", "fraud@1#1"]) == 1
    assert found["replica_restarts_total", "fraud", "1"][metrics.REPLICA_RESTARTS.position["signal"]] == 1
    assert found["route_table_version",] == [4]
    assert found["draining",] == [1]

    recorder.replica_state("fraud@1#1", ReplicaState.STOPPED)
    recorder.forget_replica("fraud@1#2")
    assert not [key for key in read(page) if key[0] == "replica_state"]


def test_wrong_labels_are_a_bug(page: SeriesPage) -> None:
    with pytest.raises(errors.Bug, match="queue_rows has the labels"):
        recording.cells_of(page, metrics.QUEUE_ROWS, "fraud")


def test_objectives_are_shown_while_they_hold(page: SeriesPage) -> None:
    control = ControlRecorder(page)
    control.set_objectives({"fraud": Slo(50.0, 0.001), "churn": Slo(p99_ms=1000.0), "none": Slo()})
    found = read(page)
    assert found["slo_latency_seconds", "fraud"] == [0.05]
    assert found["slo_latency_seconds", "churn"] == [1.0]
    assert found["slo_error_rate", "fraud"] == [0.001]
    control.set_objectives({"fraud": Slo(p99_ms=80.0)})
    assert read(page) == {("slo_latency_seconds", "fraud"): [0.08]}


def test_every_stored_metric_has_someone_who_writes_it(page: SeriesPage, record: Callable[..., RequestRecord]) -> None:
    gateway, control = RequestRecorder(page), ControlRecorder(page)
    gateway.observe([record()])
    gateway.refused("fraud", "1", Refusal.QUOTA)
    gateway.retried("fraud", "1")
    gateway.fell_back("fraud", "1", FallbackKind.CONSTANT)
    gateway.set_circuit_open("fraud", "1", True)
    gateway.mirrored("fraud", "1", Mirrored.AGREED)
    gateway.compared("fraud", "1", 0.5, 0.25, ShadowLoad(max_absolute=3.0, max_relative=0.5))
    assert read(page)["shadow_compute_seconds_total", "fraud", "1"] == [0.5, 0.25]
    assert read(page)["shadow_difference_max", "fraud", "1"] == [3.0, 0.5]
    gateway.set_queue("fraud", "1", 0, 0)
    gateway.set_in_flight("fraud", "1", 0)
    gateway.set_open_streams("fraud", "1", 0)
    gateway.set_batch_limit("fraud", "1", 0)
    gateway.log_failed()
    gateway.log_lost()
    gateway.set_log_waiting(0)
    control.replica_state("fraud@1#1", ReplicaState.READY)
    control.restarted("fraud", "1", RestartReason.HANG)
    control.set_state_reachable(True)
    control.set_objectives({"fraud": Slo(50.0, 0.001)})
    assert {metric.name for metric in metrics.STORED} <= {key[0] for key in read(page)}
