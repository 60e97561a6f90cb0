"""Metrics of the user: what a Prometheus server may answer, and what it may not."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from headrace.app.rollouts import measuring
from headrace.control import rollout_state, strategies
from headrace.control.analysis.settings import MetricSettings
from headrace.control.rollout_state import RolloutSpec
from headrace.control.rollout_story import Rollout
from headrace.core import errors

ROLLOUT = Rollout(
    "r1", "fraud", "main", RolloutSpec("fraud", "fraud@7", "fraud@8", strategies.blue_green()), rollout_state.start(0.0)
)


class Prometheus:
    """Answers every query with ``answer``."""

    def __init__(self) -> None:
        self.answer: Any = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                outer.asked.append(f"{parts.path} {parse_qs(parts.query)['query'][0]}")
                body = outer.answer if isinstance(outer.answer, bytes) else json.dumps(outer.answer).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    made = Prometheus()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def success(kind: str, result: object) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}}


def sample(value: str) -> dict[str, Any]:
    return {"metric": {"job": "x"}, "value": [1700000000.0, value]}


@pytest.mark.parametrize(
    ("answer", "value", "error"),
    [
        (success("scalar", [1.0, "0.25"]), 0.25, ""),
        (success("vector", [sample("1e3")]), 1000.0, ""),
        (success("vector", [sample("+Inf")]), float("inf"), ""),
        (success("vector", [sample("NaN")]), None, "the result is not a number"),
        (success("vector", []), None, "the query has no result"),
        (success("vector", [sample("1"), sample("2")]), None, "the query has 2 results; aggregate them"),
        (success("matrix", []), None, "the query gives a matrix"),
        (success("scalar", ["x"]), None, "no number"),
        (success("vector", [{"metric": {}}]), None, "no number"),
        ({"status": "error", "error": "parse error: unexpected end"}, None, "parse error: unexpected end"),
        (b"<html>", None, "answered 200, and not as Prometheus does"),
    ],
)
def test_what_is_measured(prometheus: Prometheus, answer: object, value: float | None, error: str) -> None:
    prometheus.answer = answer
    metric = MetricSettings(
        "chargebacks", "<= 0.2", query='rate(x{v="$new",e="$endpoint"}[1m]) / $old', prometheus=prometheus.url
    )
    found = asyncio.run(measuring.measure(metric, ROLLOUT))
    assert (found.metric, found.value) == ("chargebacks", value)
    assert error in found.error
    assert bool(found.error) is bool(error)
    assert prometheus.asked == ['/api/v1/query rate(x{v="8",e="fraud"}[1m]) / 7']


def test_a_server_that_is_not_there_is_no_fault_of_the_version() -> None:
    metric = MetricSettings("x", "> 0", query="up", prometheus="http://127.0.0.1:1")
    assert "http://127.0.0.1:1/api/v1/query: " in asyncio.run(measuring.measure(metric, ROLLOUT)).error


def test_a_query_needs_a_server() -> None:
    with pytest.raises(errors.BadSettings, match="query and prometheus"):
        MetricSettings("x", "> 0", query="up")
