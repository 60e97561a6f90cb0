"""Exposition: parsed by Prometheus's own parsers, over pages of real processes that live and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import headrace
from headrace.core.replicas import ReplicaState
from headrace.core.requests import RequestRecord
from headrace.core.shadows import ShadowLoad
from headrace.core.slo import Slo
from headrace.telemetry import exposition, metrics
from headrace.telemetry.metrics import Refusal, RestartReason
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import ControlRecorder, RequestRecorder

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(directory: Path) -> Samples:
    body, content_type = exposition.render(directory)
    assert content_type.startswith("text/plain; version=0.0.4")
    found: Samples = {}
    for family in parse_text(body.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"headrace_{name}", frozenset(labels.items())


FRAUD = {"model": "fraud", "version": "1"}

GATEWAY = """
import sys
from pathlib import Path
from headrace.core.requests import RequestRecord
from headrace.telemetry.metrics import Refusal
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import RequestRecorder

recorder = RequestRecorder(SeriesPage(Path(sys.argv[1]), f"gateway-{sys.argv[2]}"))
recorder.set_queue("fraud", "1", 3, 30)
recorder.set_batch_limit("fraud", "1", 8 * (1 + int(sys.argv[2])))
for line in sys.stdin:
    times = dict(decode=1e-5, queue=1e-4, batch_wait=1e-4, compute=1e-3, encode=1e-5, total=2e-3, finished_at=1.7e9)
    record = RequestRecord("fraud", "1", "oip_rest", 0, 1, 2, **times)
    recorder.observe([record] * int(line))
    recorder.refused("fraud", "1", Refusal.QUEUE_FULL)
    print("done", flush=True)
"""


def gateway(directory: Path, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(directory), str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def drive(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_merges_living_and_dead_gateways(tmp_path: Path) -> None:
    with gateway(tmp_path, 0) as first, gateway(tmp_path, 1) as second:
        drive(first, 100)
        drive(second, 50)
        found = samples(tmp_path)
        assert found[key("requests_total", **FRAUD, protocol="oip_rest", outcome="ok")] == 150
        assert found[key("request_seconds_count", **FRAUD, stage="total")] == 150
        assert found[key("request_seconds_bucket", **FRAUD, stage="compute", le="0.001")] == 150
        assert found[key("request_seconds_bucket", **FRAUD, stage="compute", le="0.0005")] == 0
        assert found[key("request_seconds_sum", **FRAUD, stage="compute")] == pytest.approx(0.15)
        assert found[key("batches_total", **FRAUD)] == 75
        assert found[key("batch_rows_count", **FRAUD)] == 75
        assert found[key("queue_rows", **FRAUD)] == 60
        assert found[key("batch_limit_rows", **FRAUD)] == 16
        assert found[key("process_up", process="gateway-1")] == 1
        assert found[key("process_resident_memory_bytes", process="gateway-1")] > 1 << 20

        second.send_signal(signal.SIGKILL)
        second.wait()
        drive(first, 1)
        found = samples(tmp_path)
        assert found[key("requests_total", **FRAUD, protocol="oip_rest", outcome="ok")] == 151
        assert found[key("refused_total", **FRAUD, reason="queue_full")] == 3
        assert found[key("queue_rows", **FRAUD)] == 30
        assert found[key("batch_limit_rows", **FRAUD)] == 8
        assert found[key("process_up", process="gateway-1")] == 0
        assert key("process_resident_memory_bytes", process="gateway-1") not in found

        with gateway(tmp_path, 1) as successor:
            drive(successor, 9)
            found = samples(tmp_path)
            assert found[key("requests_total", **FRAUD, protocol="oip_rest", outcome="ok")] == 160
            assert found[key("queue_rows", **FRAUD)] == 60
            assert found[key("process_up", process="gateway-1")] == 1
            assert successor.stdin is not None
            successor.stdin.close()
        assert first.stdin is not None
        first.stdin.close()


@pytest.fixture
def full_directory(tmp_path: Path, record: Callable[..., RequestRecord]) -> Iterator[Path]:
    """A page of a gateway and one of the controller, both closed, with every metric in them."""
    gateway_page, control_page = SeriesPage(tmp_path, "gateway-0"), SeriesPage(tmp_path, "controller")
    gateway = RequestRecorder(gateway_page)
    gateway.observe([record(), record(model='we"ird\\na/me', batch_rows=3), record(outcome=5)])
    gateway.refused("fraud", "1", Refusal.BYTES)
    gateway.retried("fraud", "1")
    gateway.dropped(2)
    control = ControlRecorder(control_page)
    control.replica_state("fraud@1#1", ReplicaState.READY)
    control.restarted("fraud", "1", RestartReason.SIGNAL)
    yield tmp_path
    gateway_page.close()
    control_page.close()


def test_both_formats_parse_and_agree(full_directory: Path) -> None:
    openmetrics, content_type = exposition.render(full_directory, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(openmetrics.decode())}
    moving = ("headrace_process_cpu", "headrace_process_resident")
    ours = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
        if not sample.name.startswith(moving)
    }
    assert ours == {name: value for name, value in samples(full_directory).items() if not name[0].startswith(moving)}
    assert families["headrace_request_seconds"].type == "histogram"
    assert families["headrace_request_seconds"].unit == "seconds"
    assert families["headrace_requests"].type == "counter"
    assert families["headrace_requests"].documentation == metrics.REQUESTS.help
    assert families["headrace_draining"].type == "gauge"


def test_each_kind_of_series(full_directory: Path) -> None:
    found = samples(full_directory)
    assert found[key("requests_total", model='we"ird\\na/me', version="1", protocol="oip_rest", outcome="ok")] == 1
    assert found[key("requests_total", **FRAUD, protocol="oip_rest", outcome="deadline_exceeded")] == 1
    assert found[key("requests_total", **FRAUD, protocol="oip_rest", outcome="bug")] == 0
    assert found[key("replica_state", replica="fraud@1#1", state="ready")] == 1
    assert found[key("replica_state", replica="fraud@1#1", state="loading")] == 0
    assert found[key("replica_restarts_total", **FRAUD, reason="signal")] == 1
    assert found[key("records_dropped_total", process="gateway-0")] == 2
    assert found[key("body_bytes_total", **FRAUD, direction="in")] == 600
    assert found[key("build_info", version=headrace.__version__)] == 1
    assert found[key("metric_pages_unreadable")] == 0


def test_counts_stay_whole_numbers_that_grow(tmp_path: Path, record: Callable[..., RequestRecord]) -> None:
    page = SeriesPage(tmp_path, "gateway-0")
    recorder = RequestRecorder(page)
    counts = []
    for _ in range(14):  # two batches of seven, told one record at a time
        recorder.observe([record(batch_rows=7)])
        counts.append(samples(tmp_path).get(key("batch_rows_count", **FRAUD), 0.0))
    assert counts == sorted(counts)
    assert set(counts) == {0.0, 1.0, 2.0}
    assert counts[6] == 1.0
    page.close()


def test_what_is_no_count_keeps_its_fractions(tmp_path: Path) -> None:
    page = SeriesPage(tmp_path, "controller")
    ControlRecorder(page).set_objectives({"fraud": Slo(50.0, 0.001)})
    gateway = SeriesPage(tmp_path, "gateway-0")
    RequestRecorder(gateway).compared("fraud", "1", 0.5, 0.25, ShadowLoad(max_absolute=0.3, max_relative=0.04))
    found = samples(tmp_path)
    assert found[key("slo_latency_seconds", model="fraud")] == 0.05
    assert found[key("slo_error_rate", model="fraud")] == 0.001
    assert found[key("shadow_difference_max", **FRAUD, kind="absolute")] == 0.3
    assert found[key("shadow_compute_seconds_total", **FRAUD, side="live")] == 0.5
    page.close()
    gateway.close()


def test_unreadable_pages_are_counted_and_the_others_shown(full_directory: Path) -> None:
    (full_directory / "torn.page").write_bytes(b"HEADRACE")
    found = samples(full_directory)
    assert found[key("metric_pages_unreadable")] == 1
    assert found[key("retries_total", **FRAUD)] == 1
    assert key("process_up", process="torn") not in found


def test_lost_series_are_shown(tmp_path: Path) -> None:
    page = SeriesPage(tmp_path, "gateway-0", capacity=1024)
    recorder = RequestRecorder(page)
    for number in range(20):
        recorder.retried(f"m{number}", "1")
    assert samples(tmp_path)[key("metric_series_lost", process="gateway-0")] > 0
    page.close()


def test_blocks_of_another_release_are_left_out(tmp_path: Path) -> None:
    page = SeriesPage(tmp_path, "gateway-0")
    page.cells(("queue_rows", "fraud", "1", "extra"), 1)[0] = 1
    page.cells(("retries_total", "fraud", "1"), 3)[0] = 1
    page.cells(("from_the_future",), 1)[0] = 1
    names = {name for name, _ in samples(tmp_path)}
    assert not names & {"headrace_queue_rows", "headrace_retries_total", "headrace_from_the_future"}
    page.close()


def test_workers_memory_is_shown_beside_ours(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    body, _ = exposition.render(tmp_path, workers=lambda: {"worker-1": os.getpid(), "worker-2": gone.pid})
    found = [sample for family in parse_text(body.decode()) for sample in family.samples]
    shown = {sample.labels["process"] for sample in found if sample.name == "headrace_process_resident_memory_bytes"}
    assert shown == {"worker-1"}


def test_no_pages_at_all(tmp_path: Path) -> None:
    assert {name for name, _ in samples(tmp_path / "nothing")} == {
        "headrace_build_info",
        "headrace_metric_pages_unreadable",
    }
