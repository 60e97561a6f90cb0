"""The inference port's REST side: every path, every refusal in shape, limits before bodies, one record per request."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import numpy as np
import pytest

from headrace.core import errors
from headrace.core.models import Signature
from headrace.core.replicas import ReplicaState
from headrace.core.requests import Outcome
from headrace.core.routes import RouteTable
from headrace.core.tensors import DType, Tensor
from headrace.gateway.settings import GatewaySettings
from tests import fakes
from tests.fakes import deployment_route, until
from tests.gateways import Exchange, Gateway, doubled

INFER = "/v2/models/m/infer"


def request(*rows: float) -> dict[str, Any]:
    data = [[float(r), float(r)] for r in rows]
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(rows), 2], "data": data}]}


def run(
    tmp_path: Path,
    test: Callable[[Gateway, httpx.AsyncClient], Awaitable[None]],
    settings: GatewaySettings | None = None,
) -> None:
    async def scenario() -> None:
        gateway = Gateway(tmp_path, settings)
        try:
            async with gateway.client() as client:
                await asyncio.wait_for(test(gateway, client), 30.0)
            gateway.assert_nothing_held()
            assert gateway.logged == []
        finally:
            gateway.close()

    asyncio.run(scenario())


# --- paths ---


def test_every_path_of_a_ready_server(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        gateway.serve(endpoint="team/m")
        for path in (
            *("/", "/ping", "/health", "/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models"),
            *("/v2/models/stats", "/v2/models/m", "/v2/models/m/ready", "/v2/models/m/config", "/v2/models/m/stats"),
            *("/v2/models/m/versions/1", "/v2/models/m/versions/1/ready", "/v2/models/team/m", "/v2/models/team%2Fm"),
            *("/v1/models", "/v1/models/m", "/v1/models/m/versions/1"),
        ):
            answer = await client.get(path)
            assert answer.status_code == 200, (path, answer.text)
            answer.json()
            assert answer.headers["x-request-id"].startswith("test-")
        assert (await client.post("/v2/repository/index")).json()[0]["state"] == "READY"
        metadata = (await client.get("/v2/models/m")).json()
        assert (metadata["name"], metadata["versions"], metadata["inputs"][0]["name"]) == ("m", ["1"], "x")
        for path in ("/", "/ping", "/health", "/v2/health/live", "/v2/health/ready", "/v2/models/m/ready"):
            head = await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
        for path in (INFER, "/v2/models/m/versions/1/infer", "/v2/models/team/m/infer"):
            answer = await client.post(path, json=request(1, 2))
            assert answer.json()["outputs"][0]["data"] == [2, 2, 4, 4], path
        answer = await client.post("/v1/models/m:predict", json={"instances": [[1, 1], [3, 3]]})
        assert answer.json()["predictions"] == [[2, 2], [6, 6]]
        gateway.records.flush()
        assert [r.outcome for r in gateway.seen] == [Outcome.OK] * 4, "only inference is recorded"
        assert {r.model for r in gateway.seen} == {"m", "team/m"}

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nowhere", 404, "nothing at GET /nowhere"),
        ("POST", "/v2/models/n/infer", 404, "model 'n' not found; this server has: m"),
        ("POST", "/v2/models/m/versions/9/infer", 404, "no version '9'"),
        ("GET", "/v2/models/n", 404, "model 'n' not found"),
        ("GET", "/v2/models/n/ready", 404, "model 'n' not found"),
        ("GET", "/v1/models/n", 404, "model 'n' not found"),
        ("POST", "/v1/models/n:predict", 404, "model 'n' not found"),
        ("GET", "/v2/models/m/versions", 404, ""),
        ("GET", INFER, 405, "accepts POST, not GET"),
        ("POST", "/v2", 405, "accepts GET, not POST"),
        ("PUT", "/v2/models/m", 405, "not PUT"),
        ("DELETE", "/v1/models/m:predict", 405, "accepts POST, not DELETE"),
    ],
)
def test_refusals_are_json_in_the_protocols_shape(
    tmp_path: Path, method: str, path: str, status: int, words: str
) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        answer = await client.request(method, path, content=b"{}" if method in ("POST", "PUT") else None)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert list(answer.json()) == ["error"]
        assert words in answer.json()["error"]
        if status == 405:
            assert answer.headers["allow"]

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ""),
        (b"{", ""),
        (b"[]", ""),
        (b"\xff\xfe", ""),
        (b'{"inputs": 3}', ""),
        (b'{"inputs": []}', "missing input 'x'"),
        (json.dumps(request()).encode().replace(b"FP32", b"FP99"), "FP99"),
        (json.dumps(request(1)).encode().replace(b'"x"', b'"z"'), "unexpected input 'z'"),
        (json.dumps(request(1)).encode().replace(b"[1, 2]", b"[1, 3]"), ""),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2], "data": []}]}', ""),
    ],
)
def test_bad_bodies_are_400_and_recorded(tmp_path: Path, body: bytes, words: str) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        answer = await client.post(INFER, content=body)
        assert answer.status_code == 400, answer.text
        assert words in answer.json()["error"]
        ((protocol, outcome, code),) = gateway.outcomes()
        assert (protocol, outcome, code) == ("oip-rest", Outcome.CALLER_ERROR, "invalid_input")

    run(tmp_path, test)


def test_model_errors_bugs_and_overload_have_their_own_status(tmp_path: Path) -> None:
    def compute(arrays: list[Any]) -> list[Tensor]:
        match int(arrays[0][0, 0]):
            case 1:
                raise errors.ModelRaised("the model raised ValueError: no")
            case 2:
                raise errors.PoisonRequest()
            case 3:
                raise errors.ReplicaDied()
            case _:
                return doubled(arrays)

    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve(compute)
        for value, status in ((0, 200), (1, 500), (2, 500), (3, 500)):
            answer = await client.post(INFER, json=request(value))
            assert answer.status_code == status
        gateway.deploy(deployment_route(id="e@1", replicas=(), failed=True, reason="no file"), endpoint="e")
        failed = await client.post("/v2/models/e/infer", json=request(1))
        assert (failed.status_code, failed.headers["retry-after"]) == (503, "1")
        assert "no file" in failed.json()["error"]
        gateway.deploy(deployment_route(id="l@1", signature=None), endpoint="l")
        loading = await client.post("/v2/models/l/infer", json=request(1))
        assert loading.status_code == 503
        assert "it is loading" in loading.json()["error"]
        gateway.deploy(deployment_route(id="t@1"), endpoint="t", traffic={})
        assert (await client.post("/v2/models/t/infer", json=request(1))).status_code == 503
        assert [o for _, o, _ in gateway.outcomes()] == [
            *[Outcome.OK, Outcome.MODEL_ERROR, Outcome.MODEL_ERROR, Outcome.MODEL_ERROR],
            *[Outcome.NOT_READY] * 3,
        ]

    run(tmp_path, test)


def test_bug_is_500_logged_with_its_request_id_and_recorded(tmp_path: Path) -> None:
    def compute(arrays: list[Any]) -> list[Tensor]:
        return [Tensor("y", DType.FP32, "no array")]  # type: ignore[arg-type]

    async def scenario() -> None:
        gateway = Gateway(tmp_path)
        gateway.serve(compute)
        async with gateway.client() as client:
            answer = await client.post(INFER, json=request(1), headers={"x-request-id": "mine"})
        assert answer.status_code == 500
        assert "request id mine" in answer.json()["error"]
        assert len(gateway.logged) == 1
        assert gateway.outcomes() == [("oip-rest", Outcome.BUG, "bug")]

    asyncio.run(scenario())


def test_before_the_first_route_table_nothing_is_known(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        assert (await client.get("/v2/health/ready")).status_code == 503
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.post(INFER, json=request(1))).status_code == 503
        assert gateway.services.router.apply(RouteTable(0, 0, ())) is False

    run(tmp_path, test)


def test_readiness_tells_the_truth(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        async def ready(path: str = "/v2/health/ready") -> int:
            return (await client.get(path)).status_code

        replica = gateway.serve()
        assert await ready() == 200
        gateway.deploy(deployment_route(id="n@1"), endpoint="n")
        assert (await ready(), await ready("/ping"), await ready("/health")) == (503, 503, 503)
        assert (await ready("/v2/models/m/ready"), await ready("/v2/models/n/ready")) == (200, 503)
        assert (await client.get("/v1/models/n")).status_code == 503
        gateway.deploy(deployment_route(id="n@1", replicas=(), failed=True, reason="broken"), endpoint="n")
        assert await ready() == 200, "what failed for good must not take the others out of a load balancer"
        index = {e["name"]: e for e in (await client.post("/v2/repository/index", json={})).json()}
        assert (index["n"]["state"], index["n"]["reason"], index["m"]["state"]) == ("UNAVAILABLE", "broken", "READY")
        replica.die()
        assert await ready() == 503
        gateway.serve()
        gateway.services.draining = True
        assert (await ready(), await ready("/v2/models/m/ready"), await ready("/v2/health/live")) == (503, 503, 200)

    run(tmp_path, test)


# --- identity, headers ---


def test_request_ids_come_back(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        for headers, expected in (
            ({"x-request-id": "mine"}, "mine"),
            ({"traceparent": trace}, "0af7651916cd43dd8448eb211c80319c"),
            ({"x-request-id": "\u00e4"}, "test-"),
            ({"x-request-id": "a" * 129}, "test-"),
        ):
            for method, path in (("POST", INFER), ("GET", "/v2"), ("GET", "/nowhere")):
                answer = await client.request(
                    method, path, headers=httpx.Headers(headers, encoding="latin-1"), json=request(1)
                )
                assert answer.headers["x-request-id"].startswith(expected)
        gateway.records.flush()
        assert [r.request_id for r in gateway.seen][:2] == ["mine", "0af7651916cd43dd8448eb211c80319c"]

    run(tmp_path, test)


def test_headers_do_not_pile_up_between_requests(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        for method, path, body in (
            ("POST", INFER, request(1)),
            ("POST", INFER, {}),
            ("POST", "/v1/models/m:predict", {"instances": [[1, 1]]}),
            ("GET", "/v2", None),
            ("GET", "/nowhere", None),
        ):
            answers = [await client.request(method, path, json=body) for _ in range(3)]
            counts = [len(a.headers.raw) for a in answers]
            assert counts[0] == counts[2], (path, answers[2].headers.raw)
            assert all(len(a.headers.get_list("x-request-id")) == 1 for a in answers)
            assert all(int(a.headers["content-length"]) == len(a.content) for a in answers)

    run(tmp_path, test)


def test_draining_asks_clients_to_leave_and_serves_on(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        assert "connection" not in (await client.post(INFER, json=request(1))).headers
        gateway.services.draining = True
        for method, path in (
            ("POST", INFER),
            ("GET", "/v2"),
            ("GET", "/nowhere"),
            ("POST", "/v2/models/m/generate_stream"),
        ):
            body = {"x": [[1, 1]]} if "generate" in path else request(1)
            answer = await client.request(method, path, json=body)
            assert answer.headers["connection"] == "close", path
        answer = await client.post(INFER, json=request(1))
        assert answer.status_code == 200

    run(tmp_path, test)


def test_answers_are_compressed_for_those_who_ask(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        many = request(*range(200))
        for accepted, expected in (("gzip", "gzip"), ("deflate", "deflate"), ("identity", None), ("gzip;q=0", None)):
            answer = await client.post(INFER, json=many, headers={"accept-encoding": accepted})
            assert answer.headers.get("content-encoding") == expected
            assert answer.json()["outputs"][0]["data"][2] == 2
        small = await client.post(INFER, json=request(1), headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in small.headers

    run(tmp_path, test)


# --- deadlines ---


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf", "1e400", ""])
def test_malformed_timeouts_are_refused(tmp_path: Path, value: str) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        answer = await client.post(INFER, json=request(1), headers={"x-request-timeout-ms": value})
        assert answer.status_code == 400
        assert "X-Request-Timeout-Ms" in answer.json()["error"]
        assert len(gateway.outcomes()) == 1
        assert [(record.model, record.version) for record in gateway.seen] == [("m", "1")]

    run(tmp_path, test)


def test_timeout_ends_a_waiting_request_with_504(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        replica = gateway.serve()
        replica.paused = True
        waiting = asyncio.create_task(client.post(INFER, json=request(1), headers={"x-request-timeout-ms": "20"}))
        while not waiting.done():
            await asyncio.sleep(0.005)
            gateway.services.router.sweep(monotonic())
        answer = waiting.result()
        assert answer.status_code == 504
        assert "deadline" in answer.json()["error"]
        assert gateway.outcomes() == [("oip-rest", Outcome.DEADLINE, "deadline_exceeded")]
        replica.resume()

    run(tmp_path, test)


# --- bodies ---

SMALL = GatewaySettings(max_body_bytes=1000, max_bodies_bytes=2500)


def test_announced_size_is_refused_before_the_body_is_read(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        for path in (INFER, "/v1/models/m:predict", "/v2/repository/index"):
            going = await Exchange(gateway, path, headers={"content-length": "1001"}).end()
            assert (going.status, going.read) == (413, 0)
            assert "1001 bytes, this server accepts 1000 (--max-body)" in json.loads(going.content)["error"]

    run(tmp_path, test, SMALL)


@pytest.mark.parametrize("value", ["-1", "1e3", "ten", "9" * 19, "9" * 5000, "1" + "0" * 17])
def test_absurd_content_lengths(tmp_path: Path, value: str) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        going = await Exchange(gateway, INFER, headers={"content-length": value}).end()
        assert going.status in (400, 413)
        assert going.read == 0
        assert len(going.content) < 1000

    run(tmp_path, test, SMALL)


def test_chunked_bodies_are_counted_as_they_come(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        going = Exchange(gateway, INFER)
        for _ in range(5):
            going.body(b" " * 300, more=True)
        await going.end()
        assert going.status == 413
        assert going.read == 4, "it stops at the limit"
        at_once = await Exchange(gateway, INFER).body(b" " * 1001, more=True).body(b"").end()
        assert (at_once.status, at_once.read) == (413, 1), "the first piece counts too"
        assert "more than 1000 bytes, this server accepts 1000 (--max-body)" in json.loads(going.content)["error"]
        whole = json.dumps(request(1)).encode()
        pieces = Exchange(gateway, INFER)
        for byte in whole:
            pieces.body(bytes([byte]), more=True)
        await pieces.body(b"").end()
        assert json.loads(pieces.content)["outputs"][0]["data"] == [2, 2]

    run(tmp_path, test, SMALL)


def test_one_budget_bounds_all_bodies_being_read(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        reading = [Exchange(gateway, INFER, headers={"content-length": "900"}).body(b" ", more=True) for _ in range(2)]
        chunked = Exchange(gateway, INFER).body(b" " * 100, more=True).body(b" " * 500, more=True)
        await until(lambda: chunked.read == 3)
        assert gateway.services.held_bytes == 900 + 900 + 600
        refused = await Exchange(gateway, INFER, headers={"content-length": "900"}).end()
        assert refused.status == 503
        assert refused.headers["retry-after"]
        chunked.body(b" " * 101)
        assert (await chunked.end()).status == 503
        assert gateway.services.held_bytes == 1800
        reading[0].leave()
        await reading[0].end()
        reading[1].task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading[1].task
        assert gateway.services.held_bytes == 0
        assert [o for _, o, _ in gateway.outcomes()].count(Outcome.CANCELLED) == 2
        assert len(gateway.seen) == 4

    run(tmp_path, test, SMALL)


def test_growing_body_is_not_counted_twice(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        going = Exchange(gateway, INFER)
        for _ in range(8):
            going.body(b" " * 100, more=True)
        going.body(json.dumps(request(1)).encode())
        assert (await going.end()).status == 200

    run(tmp_path, test, GatewaySettings(max_body_bytes=1000, max_bodies_bytes=1000))


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_compressed_bodies(tmp_path: Path, encoding: str) -> None:
    import zlib

    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        plain = json.dumps(request(1)).encode()
        body = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[encoding](plain)  # type: ignore[operator]
        answer = await client.post(INFER, content=body, headers={"content-encoding": encoding})
        assert answer.json()["outputs"][0]["data"] == [2, 2]

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(bytes(100_000), mtime=0), "gzip", 413),
        (gzip.compress(bytes(50_000_000), mtime=0), "gzip", 413),
        (b"not gzip", "gzip", 400),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip", 400),
        (b"{}", "br", 501),
    ],
)
def test_bombs_and_other_codings_are_refused(tmp_path: Path, body: bytes, encoding: str, status: int) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        answer = await client.post(INFER, content=body, headers={"content-encoding": encoding})
        assert answer.status_code == status, answer.text
        assert ("60000 bytes (--max-body)" in answer.json()["error"]) == (status == 413)

    run(tmp_path, test, GatewaySettings(max_body_bytes=60_000))


@pytest.mark.parametrize("value", ["-1", "x", "9" * 30, "5000"])
def test_malformed_binary_header_lengths(tmp_path: Path, value: str) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        headers = {"inference-header-content-length": value}
        answer = await client.post(INFER, json=request(1), headers=headers)
        assert answer.status_code == 400, answer.text

    run(tmp_path, test)


def test_large_json_is_decoded_and_encoded_elsewhere_with_the_same_result(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        values = np.random.default_rng(0).random(400).round(3).tolist()
        large, small = request(*values), [request(v) for v in values[:3]]
        answer = (await client.post(INFER, json={**large, "id": "7"})).json()
        assert answer["id"] == "7"
        got = np.array(answer["outputs"][0]["data"], np.float32).reshape(400, 2)
        singles = [(await client.post(INFER, json=s)).json()["outputs"][0]["data"] for s in small]
        assert got[:3].tolist() == np.array(singles, np.float32).tolist()
        broken = await client.post(INFER, content=b"[" * 5000)
        assert broken.status_code == 400
        huge = json.dumps({**large, "parameters": {"seed": 0}}).replace('"seed": 0', f'"seed": {10**30}')
        refused = await client.post(INFER, content=huge.encode(), headers={"content-type": "application/json"})
        assert (refused.status_code, "64 bits" in refused.json()["error"]) == (400, True)
        assert (await client.post(INFER, json=large)).status_code == 200

    run(tmp_path, test, GatewaySettings(offload_bytes=2000))


# --- clients that leave ---


def test_client_that_leaves_while_it_waits_releases_everything(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        replica = gateway.serve()
        replica.paused = True
        body = json.dumps(request(1)).encode()
        running = Exchange(gateway, INFER).body(body)
        await until(lambda: replica.batches)
        gateway.services.router.find("m", "").learn([(1, 10.0)] * 5)
        waiting = Exchange(gateway, INFER).body(body)
        await until(lambda: gateway.services.router.find("m", "").queue.count)
        for going in (running, waiting):
            going.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going.task
        replica.resume()
        assert len(replica.sent) == 1, "abandoned work is not run"
        assert gateway.outcomes() == [("oip-rest", Outcome.CANCELLED, "cancelled")] * 2

    run(tmp_path, test)


def test_client_that_is_gone_when_the_answer_is_ready(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        going = Exchange(gateway, INFER)
        going.send_error = ConnectionResetError("gone")
        await going.body(json.dumps(request(1)).encode()).end()
        cut = Exchange(gateway, INFER)
        cut.send_blocked.clear()
        cut.body(json.dumps(request(1)).encode())
        for _ in range(20):
            await asyncio.sleep(0)
        cut.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cut.task
        assert len(gateway.outcomes()) == 2, "one record each, whatever happens to the answer"
        assert gateway.outcomes()[0] == ("oip-rest", Outcome.CANCELLED, "cancelled")

    run(tmp_path, test)


@pytest.mark.parametrize("size", [1, 400])
def test_version_that_took_over_while_the_body_was_read_answers(tmp_path: Path, size: int) -> None:
    """A slow upload across a version switch: nobody sweeps the old deployment any more, so it must not get the call."""

    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        body = json.dumps(request(*[1.0] * size)).encode()
        going = Exchange(gateway, INFER).body(body[:10], more=True)
        await until(lambda: going.read == 2)
        (new,) = gateway.deploy(deployment_route(id="m@2", version="2"))
        new.add_replica(fakes.ComputingReplica(new, doubled))
        gateway.services.router.sweep(monotonic())
        assert gateway.services.router.leaving == []
        await going.body(body[10:]).end()
        assert (going.status, json.loads(going.content)["model_version"]) == (200, "2")
        assert len(gateway.outcomes()) == 1

    run(tmp_path, test, GatewaySettings(offload_bytes=2000))


def test_version_asked_for_by_number_that_left_is_unknown(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        going = Exchange(gateway, "/v2/models/m/versions/1/infer").body(b"{", more=True)
        await until(lambda: going.read == 2)
        gateway.deploy(deployment_route(id="m@2", version="2"))
        gateway.services.router.sweep(monotonic())
        await going.body(b"}").end()
        assert going.status == 404
        assert len(gateway.outcomes()) == 1

    run(tmp_path, test)


# --- other scopes ---


def test_lifespan_and_websockets(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        going: list[dict[str, Any]] = []
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(message: Any) -> None:
            going.append(message)

        await gateway.app({"type": "lifespan"}, receive, send)
        assert [m["type"] for m in going] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        messages = iter([{"type": "websocket.connect"}])
        await gateway.app({"type": "websocket", "path": "/"}, receive, send)
        assert going[-1]["type"] == "websocket.close"

    run(tmp_path, test)


def test_paths_are_resolved_once_and_the_memory_for_that_is_bounded(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        gateway.serve()
        for index in range(10_050):
            gateway.app._resolve(b"/v2/models/%d" % index)
        assert len(gateway.app._matches) <= 10_000
        assert (await client.get("/v2?x=1")).status_code == 200

    run(tmp_path, test)


def test_models_that_take_anything_and_states_of_versions(tmp_path: Path) -> None:
    async def test(gateway: Gateway, client: httpx.AsyncClient) -> None:
        anything = Signature(inputs=(), outputs=(), any_inputs=True)
        gateway.serve(
            lambda arrays: [Tensor("y", DType.FP32, arrays[0])], endpoint="any", id="any@1", signature=anything
        )
        answer = await client.post(
            "/v2/models/any/infer",
            json={"inputs": [{"name": "q", "datatype": "FP32", "shape": [2], "data": [1, 2]}]},
        )
        assert answer.json()["outputs"][0]["data"] == [1, 2]
        loading = deployment_route(
            id="any@2", version="2", replicas=(fakes.replica_route(state=ReplicaState.LOADING),), signature=None
        )
        gateway.deploy(deployment_route(id="any@1", signature=anything), loading, endpoint="any")
        status = (await client.get("/v1/models/any")).json()
        assert len(status.get("model_version_status", [1, 2])) == 2

    run(tmp_path, test)
