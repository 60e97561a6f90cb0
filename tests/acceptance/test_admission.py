"""Overload, deadlines and callers who leave: refused fast, never computed in vain, accepted work is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from tests.acceptance import grpc_calls, saboteurs
from tests.acceptance.load import Answer, Load, ask, infer_body, output, post
from tests.serving import Served, eventually, served

pytestmark = pytest.mark.xdist_group("admission")

INFER = "/v2/models/slow/infer"


class Traced:
    """A server and the list of what its models have begun to compute."""

    def __init__(self, server: Served, trace: Path) -> None:
        self.server = server
        self._trace = trace

    def ran(self) -> list[float]:
        return saboteurs.ran(self._trace)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """``one`` takes one request at a time and lets few wait; ``slow`` takes as long as a request says."""
    folder = tmp_path_factory.mktemp("admission")
    one = saboteurs.write(folder, saboteurs.ONE_AT_A_TIME, "one")
    slow = saboteurs.write(folder, saboteurs.SABOTEUR, "slow")
    run = folder / "run"
    run.mkdir()
    settings = {"model": str(one), "admission": {"min_queue_rows": 8, "max_queue_time": "200ms"}}
    document = {"endpoints": {"one": settings, "slow": {"model": str(slow)}}}
    (run / "headrace.yaml").write_text(json.dumps(document))
    with served(directory=run, environment={"RAN": str(folder / "ran")}) as server:
        yield Traced(server, folder / "ran")


@contextlib.contextmanager
def busy(traced: Traced, milliseconds: float, mark: float) -> Iterator[None]:
    """``slow`` computes the request ``mark`` for this long; at the end it has answered."""
    answers: list[Answer] = []
    body = json.loads(infer_body(mark)) | {"parameters": {"sleep_ms": milliseconds}}
    caller = threading.Thread(
        target=lambda: answers.append(post(traced.server.address, INFER, json.dumps(body).encode()))
    )
    caller.start()
    eventually(lambda: mark in traced.ran())
    yield
    caller.join(30)
    assert [answer.status for answer in answers] == [200]


def test_overload_is_refused_fast_and_what_is_accepted_is_answered(traced: Traced) -> None:
    """48 clients that never pause meet a model that answers fifty requests a second."""
    server = traced.server
    with Load(server.address, "one", clients=48, value=lambda n: n + 1.0) as load:
        load.wait_for(400)
        with grpc_calls.stub(server.address) as stub:
            refused = None
            for _ in range(50):
                try:
                    stub.ModelInfer(grpc_calls.request("one", 1.0), timeout=30)
                except grpc.RpcError as error:
                    refused = error
                    break
    assert {answer.status for answer in load.answers} == {200, 503}
    answered = [answer for answer in load.answers if answer.status == 200]
    turned_away = [answer for answer in load.answers if answer.status == 503]
    assert all(output(answer.document) == [2 * (answer.number + 1)] for answer in answered)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in turned_away)
    assert all("queue full" in answer.message or "predicted" in answer.message for answer in turned_away)
    assert statistics.median(answer.seconds for answer in turned_away) < 0.1
    # Nobody who was let in waited much longer than the bound says.
    assert max(answer.seconds for answer in answered) < 3
    assert refused is not None
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(refused.trailing_metadata())["grpc-retry-pushback-ms"].isdigit()
    metrics = httpx.get(f"{server.management_url}/metrics").text
    assert 'headrace_refused_total{model="one"' in metrics
    # And it ends with the overload.
    assert eventually(lambda: ask(server.address, "one", 1.0).status == 200)


def test_what_the_caller_no_longer_waits_for_is_not_computed(traced: Traced) -> None:
    """REST and gRPC deadlines that pass in the queue: answered when they pass, dropped before the model."""
    server = traced.server
    answers: list[Answer] = []
    codes: list[grpc.StatusCode] = []

    def over_rest(value: float) -> None:
        answers.append(ask(server.address, "slow", value, x_request_timeout_ms="150"))

    def over_grpc(value: float) -> None:
        with grpc_calls.stub(server.address) as stub:
            stub_call = stub.ModelInfer.future(grpc_calls.request("slow", value), timeout=0.5)
            codes.append(stub_call.code())

    values = [100_000.0 + n for n in range(8)]
    with busy(traced, 1500, 99_999.0):
        callers = [
            threading.Thread(target=over_rest if index % 2 else over_grpc, args=[value])
            for index, value in enumerate(values)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(30)
    assert {answer.status for answer in answers} <= {503, 504}
    assert max(answer.seconds for answer in answers) < 1.2
    assert set(codes) <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
    assert len(answers) + len(codes) == len(values)
    # Everything that came before this one has been computed or dropped.
    assert ask(server.address, "slow", 99_998.0).status == 200
    assert not [value for value in traced.ran() if value in values]


def test_a_deadline_that_passes_while_the_model_computes(traced: Traced) -> None:
    """The caller is told in time; the replica finishes in peace and serves on."""
    body = json.loads(infer_body(50.0)) | {"parameters": {"sleep_ms": 700}}
    answer = post(traced.server.address, INFER, json.dumps(body).encode(), {"x-request-timeout-ms": "200"})
    assert answer.status == 504
    assert 0.15 < answer.seconds < 0.6
    assert ask(traced.server.address, "slow", 51.0).status == 200
    events = httpx.get(f"{traced.server.management_url}/api/v1/events").json()["events"]
    assert not any(event["type"] == "ReplicaRestarted" for event in events)


@pytest.mark.parametrize("given", ["0", "-5", "soon", "1e12", "nan"])
def test_a_timeout_that_is_none(traced: Traced, given: str) -> None:
    answer = ask(traced.server.address, "slow", 1.0, x_request_timeout_ms=given)
    assert answer.status == 400
    assert "X-Request-Timeout-Ms must be a positive number of milliseconds" in answer.message


def test_callers_who_hang_up_while_they_wait(traced: Traced) -> None:
    """gRPC calls that are cancelled, channels that are closed, HTTP/2 clients that leave: none is computed, and they
    take nobody's place in the queue. (An HTTP/1.1 client that closes its side may still read: it is answered.)"""
    server = traced.server
    values = [200_000.0 + n for n in range(6)]
    with busy(traced, 5000, 199_999.0):
        began = time.monotonic()
        with grpc_calls.stub(server.address) as stub, grpc_calls.stub(server.address) as other:
            calls = [stub.ModelInfer.future(grpc_calls.request("slow", value)) for value in values[:2]]
            left_open = other.ModelInfer.future(grpc_calls.request("slow", values[2]))
            asyncio.run(_ask_and_leave(server, values[3:]))
            assert not left_open.done()
            for call in calls:
                assert call.cancel()
        eventually(lambda: queued(server) == 0, timeout=4)
        assert time.monotonic() - began < 4.9
    assert ask(server.address, "slow", 199_998.0).status == 200
    assert not [value for value in traced.ran() if value in values]


async def _ask_and_leave(server: Served, values: list[float]) -> None:
    """Over HTTP/2; returns when all that the test sent has waited in the queue for a while, and leaves."""
    async with httpx.AsyncClient(http2=True, http1=False, timeout=60) as client:
        url = f"{server.url}{INFER}"
        asked = [asyncio.create_task(client.post(url, content=infer_body(value))) for value in values]
        await asyncio.to_thread(eventually, lambda: held(server) == 7)
        for one in asked:
            one.cancel()
        assert all(isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*asked, return_exceptions=True))


def held(server: Served) -> int:
    """Requests for ``slow`` that the gateway holds, in its queue or with the replica."""
    text = httpx.get(f"{server.management_url}/metrics").text
    found = re.findall(r'^headrace_(?:queue_requests|in_flight_requests)\{model="slow".*\} (\S+)$', text, re.M)
    assert len(found) == 2
    return int(sum(map(float, found)))


def queued(server: Served) -> int:
    load = httpx.get(f"{server.management_url}/api/v1/endpoints/slow").json()["deployments"][0]["load"]
    return int(load["queued_requests"])


def test_the_deadline_of_an_endpoint(tmp_path: Path) -> None:
    """--timeout holds for requests that bring none of their own; those that do are not bound by it."""
    model = saboteurs.write(tmp_path, saboteurs.SABOTEUR)
    with served(model, "--timeout", "200ms", directory=tmp_path / "run") as server:
        body = json.dumps(json.loads(infer_body(1.0)) | {"parameters": {"sleep_ms": 600}}).encode()
        late = post(server.address, "/v2/models/m/infer", body)
        assert late.status == 504
        assert late.seconds < 0.55
        patient = post(server.address, "/v2/models/m/infer", body, {"x-request-timeout-ms": "10000"})
        assert (patient.status, output(patient.document)) == (200, [2.0])
