"""AsyncClient against a server in memory: conversion, retries, deadlines, errors, streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from headrace.client import AsyncClient
from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import DType

ROWS = {"amount": [1, 2.5], "country": ["US", "FR"]}


class Pauses:
    """A sleep that does not wait and remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def run(server: Any, call: Callable[[AsyncClient], Any], **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient("http://test", transport=server.transport, **options) as client:
            return await call(client)

    return asyncio.run(main())


def test_predict_converts_by_the_signature(fake_server: Any) -> None:
    server = fake_server()
    outputs = run(server, lambda client: client.predict("fraud", ROWS))
    assert outputs["amount"].tolist() == [2.0, 5.0]
    assert outputs["country"].tolist() == ["US", "FR"]
    assert server.paths() == ["/v2/models/fraud", "/v2/models/fraud/infer"]


def test_metadata_is_read_once_per_model_and_version(fake_server: Any) -> None:
    server = fake_server()

    async def calls(client: AsyncClient) -> None:
        for version in (None, None, "2", "2"):
            await client.predict("a/b c", ROWS, version)

    run(server, calls)
    assert server.paths() == [
        "/v2/models/a/b%20c",
        "/v2/models/a/b%20c/infer",
        "/v2/models/a/b%20c/infer",
        "/v2/models/a/b%20c/versions/2",
        "/v2/models/a/b%20c/versions/2/infer",
        "/v2/models/a/b%20c/versions/2/infer",
    ]


def test_infer_says_which_version_answered(fake_server: Any) -> None:
    prediction = run(fake_server(), lambda client: client.infer("m", ROWS, "7"))
    assert (prediction.model, prediction.version) == ("m", "7")


def test_headers_of_the_caller_and_the_time_left_are_sent(fake_server: Any) -> None:
    server = fake_server()
    run(server, lambda client: client.predict("m", ROWS, timeout=2.0), headers={"authorization": "Bearer k"})
    last = server.requests[-1]
    assert last.headers["authorization"] == "Bearer k"
    assert last.headers["user-agent"].startswith("headrace-client/")
    assert 0 < int(last.headers["x-request-timeout-ms"]) <= 2000


def test_a_changed_signature_is_read_again_and_the_request_repeated(fake_server: Any) -> None:
    server = fake_server()

    async def calls(client: AsyncClient) -> Any:
        await client.predict("m", ROWS)
        specs = (TensorSpec("amount", DType.INT64, (-1,)),)
        server.signature = Signature(specs, specs)
        return await client.predict("m", {"amount": [3]})

    assert run(server, calls)["amount"].tolist() == [6]


def test_wrong_input_is_not_sent_twice(fake_server: Any) -> None:
    server = fake_server()

    async def calls(client: AsyncClient) -> None:
        await client.predict("m", ROWS)
        with pytest.raises(errors.InvalidInput, match="missing input 'country'"):
            await client.predict("m", {"amount": [1]})

    run(server, calls)
    assert [path for path in server.paths() if path.endswith("infer")] == ["/v2/models/m/infer"] * 2


@pytest.mark.parametrize("status", [429, 503])
def test_refusals_are_retried_no_sooner_than_asked(fake_server: Any, refusing: Any, status: int) -> None:
    pauses = Pauses()
    server = fake_server(refusing(status, 2, retry_after="2"))
    outputs = run(server, lambda client: client.predict("m", ROWS), sleep=pauses)
    assert outputs["amount"].tolist() == [2.0, 5.0]
    assert len(pauses.seconds) == 2
    assert all(2.0 <= seconds < 3.0 for seconds in pauses.seconds)


def test_retries_end(fake_server: Any, refusing: Any) -> None:
    pauses = Pauses()
    server = fake_server(refusing(503, 99, "full"))
    with pytest.raises(errors.Overloaded, match="full"):
        run(server, lambda client: client.predict("m", ROWS), sleep=pauses, retries=2)
    assert len(pauses.seconds) == 2


def test_a_refusal_that_would_outlast_the_call_is_raised_at_once(fake_server: Any, refusing: Any) -> None:
    pauses = Pauses()
    server = fake_server(refusing(503, 1, retry_after="30"))
    with pytest.raises(errors.Overloaded):
        run(server, lambda client: client.predict("m", ROWS, timeout=5), sleep=pauses)
    assert pauses.seconds == []


@pytest.mark.parametrize("status", [400, 404, 500, 504])
def test_what_may_have_run_or_cannot_help_is_not_retried(fake_server: Any, refusing: Any, status: int) -> None:
    pauses = Pauses()
    server = fake_server(refusing(status, 1))
    with pytest.raises(errors.HeadraceError):
        run(server, lambda client: client.predict("m", ROWS), sleep=pauses)
    assert pauses.seconds == []


def test_unknown_models_are_named(fake_server: Any) -> None:
    with pytest.raises(errors.UnknownModel, match="no model 'absent'"):
        run(fake_server(), lambda client: client.predict("absent", ROWS))


def raising(error: httpx.HTTPError, times: int) -> Callable[[httpx.Request], httpx.Response | None]:
    left = times

    def rule(request: httpx.Request) -> httpx.Response | None:
        nonlocal left
        if left == 0:
            return None
        left -= 1
        raise error

    return rule


def test_connections_that_fail_are_retried(fake_server: Any) -> None:
    pauses = Pauses()
    server = fake_server(raising(httpx.ConnectError("refused"), 2))
    assert run(server, lambda client: client.predict("m", ROWS), sleep=pauses)["amount"].tolist() == [2.0, 5.0]
    assert len(pauses.seconds) == 2
    assert max(pauses.seconds) < 0.2


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (httpx.ConnectError("refused"), errors.NotReady, "cannot connect to http://test: refused"),
        (httpx.ReadTimeout(""), errors.DeadlineExceeded, "did not answer in time"),
        (httpx.ReadError(""), errors.ReplicaDied, "the connection broke while waiting for"),
        (httpx.RemoteProtocolError("early end"), errors.ReplicaDied, "early end"),
    ],
)
def test_transport_failures_are_typed(
    fake_server: Any, failure: httpx.HTTPError, kind: type[errors.HeadraceError], message: str
) -> None:
    server = fake_server(raising(failure, 99))
    with pytest.raises(kind) as caught:
        run(server, lambda client: client.predict("m", ROWS), sleep=Pauses())
    assert message in caught.value.message


def test_a_server_that_never_answers_meets_the_deadline() -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        async with AsyncClient("http://test", transport=httpx.MockTransport(never)) as client:
            with pytest.raises(errors.DeadlineExceeded, match="did not answer within"):
                await client.predict("m", ROWS, timeout=0.02)

    asyncio.run(main())


def test_ready(fake_server: Any) -> None:
    server = fake_server()
    assert run(server, lambda client: client.ready()) is True
    assert run(server, lambda client: client.ready("m")) is True
    with pytest.raises(errors.UnknownModel):
        run(server, lambda client: client.ready("absent"))


@pytest.mark.parametrize("answer", [400, 503, 404, None])
def test_not_ready_is_false_and_not_retried(fake_server: Any, answer: int | None) -> None:
    def rule(request: httpx.Request) -> httpx.Response:
        if answer is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(answer, content=b"")

    server = fake_server(rule)
    assert run(server, lambda client: client.ready()) is False
    assert len(server.requests) == 1


def test_wait_ready(fake_server: Any) -> None:
    answers = iter([503, 503])

    def rule(request: httpx.Request) -> httpx.Response | None:
        status = next(answers, None)
        return None if status is None else httpx.Response(status)

    pauses = Pauses()
    run(fake_server(rule), lambda client: client.wait_ready(), sleep=pauses)
    assert len(pauses.seconds) == 2
    with pytest.raises(errors.NotReady, match="was not ready within 0 s"):
        run(
            fake_server(lambda request: httpx.Response(503)),
            lambda client: client.wait_ready("m", timeout=0),
            sleep=pauses,
        )


def test_models_and_metadata(fake_server: Any) -> None:
    assert run(fake_server(), lambda client: client.models()) == ["m", "team/n"]
    found = run(fake_server(), lambda client: client.metadata("m"))
    assert (found.name, found.versions, found.platform) == ("m", ("1",), "fake")
    assert [(s.name, s.dtype, s.shape) for s in found.inputs] == [
        ("amount", "FP64", (-1,)),
        ("country", "BYTES", (-1,)),
    ]
    assert found.columns
    assert found.batchable


def test_streams_give_every_event(fake_server: Any) -> None:
    async def call(client: AsyncClient) -> list[dict[str, Any]]:
        inputs = {"amount": np.array([1.5]), "country": "US"}
        return [chunk async for chunk in client.stream("m", inputs, parameters={"top": 3})]

    server = fake_server()
    chunks = run(server, call)
    assert [(c["amount"], c["country"]) for c in chunks] == [(1.5, "US")] * 3
    assert msgspec.json.decode(server.requests[-1].content) == {
        "amount": 1.5,
        "country": "US",
        "parameters": {"top": 3},
    }


def test_an_error_in_a_stream_is_raised_after_the_chunks_before_it(fake_server: Any) -> None:
    def rule(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("generate_stream"):
            return None
        return httpx.Response(200, content=b'data: {"a": 1}\n\ndata: {"error": "model broke"}\n\n')

    async def call(client: AsyncClient) -> list[Any]:
        chunks = client.stream("m", ROWS)
        seen = [await anext(chunks)]
        with pytest.raises(errors.RuntimeFailed, match="model broke"):
            await anext(chunks)
        return seen

    assert run(fake_server(rule), call) == [{"a": 1}]


def test_a_stream_is_retried_only_before_it_began(fake_server: Any, refusing: Any) -> None:
    async def call(client: AsyncClient) -> list[Any]:
        return [chunk async for chunk in client.stream("m", {"amount": [1.0], "country": ["a"]})]

    pauses = Pauses()
    server = fake_server(refusing(503, 1))
    assert len(run(server, call, sleep=pauses)) == 3
    assert len(pauses.seconds) == 1


def test_leaving_a_stream_closes_the_response(fake_server: Any) -> None:
    closed = asyncio.Event()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                yield b'data: {"a": 1}\n\n'

        async def aclose(self) -> None:
            closed.set()

    def rule(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(200, stream=Endless()) if "stream" in request.url.path else None

    async def call(client: AsyncClient) -> bool:
        async with aclosing(client.stream("m", ROWS)) as chunks:
            async for _ in chunks:
                break
        return closed.is_set()

    assert run(fake_server(rule), call) is True


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("http://h:1/", "http://h:1"),
        ("https://h/prefix/", "https://h/prefix"),
    ],
)
def test_addresses(url: str, normal: str) -> None:
    assert AsyncClient(url).url == normal


@pytest.mark.parametrize("url", ["grpc://h:1", "http://", "ftp://x"])
def test_wrong_addresses(url: str) -> None:
    with pytest.raises(errors.BadSettings, match="is not a server's address"):
        AsyncClient(url)


def test_a_prefix_of_the_address_is_kept(fake_server: Any) -> None:
    seen = []

    def rule(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200, content=b"{}")

    async def main() -> None:
        transport = fake_server(rule).transport
        async with AsyncClient("http://h/team", transport=transport) as client:
            await client.ready()

    asyncio.run(main())
    assert seen == ["/team/v2/health/ready"]


def test_the_environments_proxy_is_not_used_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:9")
    client = AsyncClient()
    direct = [client._http._transport_for_url(httpx.URL(f"http://{host}:1/")) for host in ("127.0.0.1", "localhost")]
    assert all(transport is client._http._transport for transport in direct)
    assert client._http._transport_for_url(httpx.URL("http://example.org/")) is not client._http._transport
