"""The ring of finished requests: bounded, emptied in bulk, and never the reason for a failure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import pytest

from headrace.core import errors
from headrace.core.requests import RequestRecord
from headrace.gateway import records as module
from headrace.gateway.records import Records
from headrace.pipeline import chain
from headrace.telemetry.metrics import Refusal
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import RequestRecorder


class Recorder(RequestRecorder):
    lost = 0

    def dropped(self, count: int) -> None:
        self.lost += count


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(SeriesPage(tmp_path, "gateway-0"))


def record() -> RequestRecord:
    return chain.record_unrouted("oip", errors.UnknownModel(), "id", monotonic())


def test_observers_get_everything_once_in_bulk(recorder: Recorder) -> None:
    seen: list[int] = []
    records = Records(recorder, [lambda batch: seen.append(len(batch))])
    for _ in range(2500):
        records.record(record())
    records.flush()
    records.flush()
    assert seen == [1024, 1024, 452]


def test_full_ring_drops_and_counts(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 10)
    seen: list[RequestRecord] = []

    def observe(batch: Sequence[RequestRecord]) -> None:
        seen.extend(batch)

    records = Records(recorder, [observe])
    for _ in range(15):
        records.record(record())
    records.flush()
    assert (len(seen), recorder.lost) == (10, 5)
    records.record(record())
    records.flush()
    assert len(seen) == 11


def test_records_made_while_flushing_wait_for_the_next_flush(recorder: Recorder) -> None:
    seen: list[RequestRecord] = []

    def observe(batch: Sequence[RequestRecord]) -> None:
        seen.extend(batch)
        if len(seen) == 1:
            records.record(record())

    records = Records(recorder, [observe])
    records.record(record())
    records.flush()
    assert len(seen) == 1
    records.flush()
    assert len(seen) == 2


def test_refusals_and_retries_go_straight_to_the_counters(recorder: Recorder) -> None:
    records = Records(recorder)
    records.refused("m", "1", Refusal.QUEUE_FULL)
    records.retried("m", "1", 3)
