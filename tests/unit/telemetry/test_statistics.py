"""Triton's statistics: the exact shape, and the right numbers in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from headrace.core.requests import Outcome, RequestRecord
from headrace.telemetry import statistics
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import RequestRecorder


def serve(directory: Path, process: str, records: list[RequestRecord]) -> None:
    page = SeriesPage(directory, process)
    RequestRecorder(page).observe(records)
    page.close()


def test_sums_processes_and_splits_by_batch_size(tmp_path: Path, record: Callable[..., RequestRecord]) -> None:
    serve(tmp_path, "gateway-0", [record() for _ in range(8)])  # two batches of four
    serve(
        tmp_path,
        "gateway-1",
        [
            record(batch_rows=1, finished_at=1_700_000_001.5),
            record(outcome=Outcome.OVERLOADED, rows=1, batch_rows=0, compute=0.0, total=1e-4),
            record(model="other"),
        ],
    )
    answer = statistics.render(tmp_path, [("fraud", "1")])
    none = {"count": 0, "ns": 0}
    assert answer == {
        "model_stats": [
            {
                "name": "fraud",
                "version": "1",
                "last_inference": 1_700_000_001_500,
                "inference_count": 9,
                "execution_count": 3,
                "inference_stats": {
                    "success": {"count": 9, "ns": 18_000_000},
                    "fail": {"count": 1, "ns": 100_000},
                    "queue": {"count": 9, "ns": 900_000},
                    "compute_input": {"count": 9, "ns": 1_800_000},
                    "compute_infer": {"count": 9, "ns": 13_500_000},
                    "compute_output": {"count": 9, "ns": 270_000},
                    "cache_hit": none,
                    "cache_miss": none,
                },
                "response_stats": {},
                "batch_stats": [
                    {
                        "batch_size": 1,
                        "compute_input": {"count": 1, "ns": 200_000},
                        "compute_infer": {"count": 1, "ns": 1_500_000},
                        "compute_output": {"count": 1, "ns": 30_000},
                    },
                    {
                        "batch_size": 4,
                        "compute_input": {"count": 2, "ns": 400_000},
                        "compute_infer": {"count": 2, "ns": 3_000_000},
                        "compute_output": {"count": 2, "ns": 240_000},
                    },
                ],
                "memory_usage": [],
            }
        ]
    }
    assert msgspec.json.decode(msgspec.json.encode(answer)) == answer


def test_fits_the_message_of_tritons_grpc_service(tmp_path: Path, record: Callable[..., RequestRecord]) -> None:
    serve(tmp_path, "gateway-0", [record()] * 4)
    message = service_pb2.ModelStatisticsResponse()
    json_format.ParseDict(statistics.render(tmp_path, [("fraud", "1"), ("idle", "2")]), message)
    assert message.model_stats[0].batch_stats[0].batch_size == 4
    assert message.model_stats[0].inference_stats.success.ns == 8_000_000
    assert message.model_stats[1].inference_count == 0


def test_models_without_traffic_have_zeros_and_keep_their_place(tmp_path: Path) -> None:
    answer = statistics.render(tmp_path / "nothing", [("b", "2"), ("a", "1")])
    assert [(model["name"], model["version"]) for model in answer["model_stats"]] == [("b", "2"), ("a", "1")]
    assert answer["model_stats"][0]["last_inference"] == 0
    assert answer["model_stats"][0]["batch_stats"] == []


@pytest.mark.parametrize(
    ("rows", "shown"), [(1, 1), (63, 63), (64, 64), (65, 128), (128, 128), (129, 256), (65536, 65536), (10**6, 65536)]
)
def test_batch_sizes_are_exact_up_to_64_then_powers_of_two(rows: int, shown: int) -> None:
    assert statistics.SIZES[statistics.size_rows(np.array([rows]))[0]] == shown
