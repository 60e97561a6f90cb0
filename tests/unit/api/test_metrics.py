"""/metrics: the pages of all processes, in the format that is asked for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from headrace.api.app import create_app
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import RequestRecorder


@pytest.fixture(autouse=True)
def gateways(tmp_path: Path) -> None:
    for number in range(2):
        page = SeriesPage(tmp_path, f"gateway-{number}")
        RequestRecorder(page).retried("fraud", "1", 2)
        page.close()


def test_text_by_default(get: Any) -> None:
    answer = get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {sample.name: sample.value for family in parse_text(answer.text) for sample in family.samples}
    assert found["headrace_retries_total"] == 4


def test_openmetrics_when_asked(get: Any) -> None:
    answer = get("/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    found = {sample.name: sample.value for family in parse_openmetrics(answer.text) for sample in family.samples}
    assert found["headrace_retries_total"] == 4


def test_workers_are_shown(controller: Any, tmp_path: Path) -> None:
    app = create_app(controller, metrics_directory=tmp_path, workers=lambda: {"worker-1": os.getpid()})

    async def send() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return (await client.get("/metrics")).text

    assert 'headrace_process_resident_memory_bytes{process="worker-1"}' in asyncio.run(send())
