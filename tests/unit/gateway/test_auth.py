"""Keys at the inference port: asked for before the body is read, of every path but health, over REST and gRPC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.core.keys import Scope
from headrace.core.requests import Outcome
from headrace.core.tensors import DType, Tensor
from headrace.core.traffic import Rule, Source, SourceKind, TrafficPolicy
from headrace.pipeline.auth import Guard
from headrace.protocols import grpc_frames
from headrace.protocols.grpc_status import Code
from headrace.protocols.proto import open_inference_pb2 as pb
from tests.fakes import ComputingReplica, deployment_route
from tests.gateways import Exchange, Gateway, run
from tests.issued import TestKey, key, key_set

PARTNER = key("partner", Scope.PREDICT, endpoints=("m",))
TEAM = key("team", Scope.PREDICT, endpoints=("team/*",))
MANAGER = key("manager", Scope.MANAGE)
ADMIN = key("admin", Scope.ADMIN)
EXPIRED = key("expired", Scope.ADMIN, expires=1.0)
REVOKED = key("revoked", Scope.ADMIN, revoked=1.0)
SCRAPER = key("scraper", Scope.METRICS)
EVERY = (PARTNER, TEAM, MANAGER, ADMIN, EXPIRED, REVOKED, SCRAPER)

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
SERVICE = "/inference.GRPCInferenceService"
GRPC = {"content-type": "application/grpc", "te": "trailers"}


def infer(model: str = "m") -> bytes:
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    message.raw_input_contents.append(np.ones(2, np.float32).tobytes())
    return grpc_frames.frame(message.SerializeToString())


def guarded(gateway: Gateway, *endpoints: str) -> None:
    for endpoint in endpoints or ("m", "team/a"):
        gateway.serve(endpoint=endpoint, id=f"{endpoint}@1")
    gateway.services.guard.follow(key_set(*EVERY))


@pytest.mark.parametrize(
    ("caller", "path", "status"),
    [
        (None, "/v2/models/m/infer", 401),
        (EXPIRED, "/v2/models/m/infer", 401),
        (REVOKED, "/v2/models/m/infer", 401),
        (TEAM, "/v2/models/m/infer", 403),
        (MANAGER, "/v2/models/m/infer", 403),
        (SCRAPER, "/v2/models/m/infer", 403),
        (PARTNER, "/v2/models/m/infer", 200),
        (ADMIN, "/v2/models/m/infer", 200),
        (TEAM, "/v2/models/team/a/infer", 200),
        (TEAM, "/v2/models/team%2Fa/infer", 200),
        (TEAM, "/v2/models/team/a/../../m/infer", 404),
        # Nobody learns what there is outside of what is theirs.
        (None, "/v2/models/absent/infer", 401),
        (PARTNER, "/v2/models/absent/infer", 403),
        (ADMIN, "/v2/models/absent/infer", 404),
    ],
)
def test_inference_takes_a_key_for_the_endpoint(tmp_path: Path, caller: TestKey | None, path: str, status: int) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        going = Exchange(gateway, path, headers=caller.bearer if caller else {})
        if status in (401, 403):
            await going.end()  # no byte of the body has come
            assert going.read == 0
            assert going.headers["x-headrace-error"] == {401: "unauthorized", 403: "forbidden"}[status]
            assert (going.headers.get("www-authenticate") == "Bearer") == (status == 401)
            assert json.loads(going.content).keys() == {"error"}
            assert gateway.outcomes() == [("oip-rest", Outcome.CALLER_ERROR, going.headers["x-headrace-error"])]
        else:
            await going.body(json.dumps(BODY).encode()).end()
        assert going.status == status

    run(tmp_path, test)


@pytest.mark.parametrize(
    "path", ["/v1/models/m:predict", "/v2/models/m/generate", "/v2/models/m/generate_stream", "/v2/repository/index"]
)
def test_every_post_takes_a_key(tmp_path: Path, path: str) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        going = await Exchange(gateway, path).end()
        assert (going.status, going.read) == (401, 0)

    run(tmp_path, test)


@pytest.mark.parametrize(
    "path", ["/v2", "/v2/models", "/v2/models/m", "/v2/models/m/ready", "/v2/models/m/stats", "/v1/models", "/nothing"]
)
def test_what_tells_of_models_takes_a_key(tmp_path: Path, path: str) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        async with gateway.client() as client:
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers=ADMIN.bearer)).status_code == (404 if path == "/nothing" else 200)
            if "/m" in path.replace("/models", ""):
                assert (await client.get(path, headers=TEAM.bearer)).status_code == 403
                assert (await client.get(path, headers=MANAGER.bearer)).status_code == 200

    run(tmp_path, test)


@pytest.mark.parametrize("path", ["/", "/ping", "/health", "/v2/health/live", "/v2/health/ready"])
def test_health_is_open(tmp_path: Path, path: str) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        async with gateway.client() as client:
            assert (await client.get(path)).status_code == 200
            assert (await client.get(path, headers={"authorization": "Bearer junk"})).status_code == 200

    run(tmp_path, test)


def test_lists_show_what_the_key_is_for(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway, "m", "team/a", "team/b")
        wanted = {PARTNER: ["m"], TEAM: ["team/a", "team/b"], SCRAPER: [], MANAGER: ["m", "team/a", "team/b"]}
        async with gateway.client() as client:
            for caller, names in wanted.items():
                headers = caller.bearer
                assert (await client.get("/v2/models", headers=headers)).json()["models"] == names
                assert (await client.get("/v1/models", headers=headers)).json()["models"] == names
                index = (await client.post("/v2/repository/index", headers=headers)).json()
                assert [entry["name"] for entry in index] == names
                stats = (await client.get("/v2/models/stats", headers=headers)).json()
                assert [entry["name"] for entry in stats["model_stats"]] == names

    run(tmp_path, test)


def test_keys_that_are_not_known_yet_open_nothing(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        gateway.services.guard = Guard(closed=True)
        gateway.serve()
        async with gateway.client() as client:
            answer = await client.post("/v2/models/m/infer", json=BODY, headers=ADMIN.bearer)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert (await client.get("/v2/health/live")).status_code == 200

    run(tmp_path, test)


def test_repeated_headers_are_refused_whichever_comes_last(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        good, bad = (b"authorization", ADMIN.bearer["authorization"].encode()), (b"authorization", b"Bearer \xff\xfe")
        for pairs in ([good, bad], [bad, good], [good, good]):
            going = Exchange(gateway, "/v2/models/m/infer")
            going.scope["headers"] = pairs
            await going.end()
            assert going.status == 401

    run(tmp_path, test)


# --- gRPC ------------------------------------------------------------------------------------------------------


def call(gateway: Gateway, path: str, caller: TestKey | None = None, **metadata: str) -> Exchange:
    headers = {**GRPC, **(caller.bearer if caller else {}), **{k.replace("_", "-"): v for k, v in metadata.items()}}
    return Exchange(gateway, path if path.startswith("/") else f"{SERVICE}/{path}", headers=headers)


@pytest.mark.parametrize(
    ("caller", "model", "code"),
    [
        (None, "m", Code.UNAUTHENTICATED),
        (EXPIRED, "m", Code.UNAUTHENTICATED),
        (TEAM, "m", Code.PERMISSION_DENIED),
        (PARTNER, "absent", Code.PERMISSION_DENIED),
        (ADMIN, "absent", Code.NOT_FOUND),
        (PARTNER, "m", Code.OK),
    ],
)
def test_grpc_inference(tmp_path: Path, caller: TestKey | None, model: str, code: Code) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        going = call(gateway, "ModelInfer", caller)
        if code is not Code.UNAUTHENTICATED:
            going.body(infer(model))
        await going.end()
        assert int(going.headers["grpc-status"]) == code
        assert (going.read == 0) == (code is Code.UNAUTHENTICATED)

    run(tmp_path, test)


@pytest.mark.parametrize(
    "path",
    [
        *("ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"),
        *("ModelStreamInfer", "NoSuchMethod", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    ],
)
def test_other_grpc_methods_take_a_key(tmp_path: Path, path: str) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        going = await call(gateway, path).end()
        assert (int(going.headers["grpc-status"]), going.read) == (Code.UNAUTHENTICATED, 0)

    run(tmp_path, test)


@pytest.mark.parametrize("path", ["ServerLive", "ServerReady", "/grpc.health.v1.Health/Check"])
def test_grpc_health_is_open(tmp_path: Path, path: str) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        going = await call(gateway, path).body(grpc_frames.frame(b"")).end()
        assert going.grpc()[0] == Code.OK

    run(tmp_path, test)


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_grpc_metadata_is_of_what_the_key_is_for(tmp_path: Path, method: str) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        body = grpc_frames.frame(pb.ModelReadyRequest(name="m").SerializeToString())  # the first field of all of them
        for caller, code in ((PARTNER, Code.OK), (TEAM, Code.PERMISSION_DENIED), (MANAGER, Code.OK)):
            going = await call(gateway, method, caller).body(body).end()
            assert int(going.headers["grpc-status"]) == code

    run(tmp_path, test)


def test_grpc_lists_show_what_the_key_is_for(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        for caller, names in ((PARTNER, ["m"]), (MANAGER, ["m", "team/a"])):
            going = await call(gateway, "RepositoryIndex", caller).body(grpc_frames.frame(b"")).end()
            (message,) = going.grpc()[1]
            assert [m.name for m in pb.RepositoryIndexResponse.FromString(message).models] == names
            going = await call(gateway, "ModelStatistics", caller).body(grpc_frames.frame(b"")).end()
            (message,) = going.grpc()[1]
            assert [m.name for m in pb.ModelStatisticsResponse.FromString(message).model_stats] == names

    run(tmp_path, test)


def test_a_stream_that_outlives_its_key_is_refused_message_by_message(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        guarded(gateway)
        going = call(gateway, "ModelStreamInfer", PARTNER).body(infer(), more=True)
        await going.message(2)
        going.body(infer("team/a"), more=True)
        await going.message(3)
        gateway.services.guard.follow(key_set(key("partner", Scope.PREDICT, endpoints=("m",), revoked=2.0)))
        going.body(infer(), more=True)
        await going.message(4)
        await going.body(b"").end()
        status, messages = going.grpc()
        assert status == Code.OK
        said = [pb.ModelStreamInferResponse.FromString(message).error_message for message in messages]
        assert said[0] == ""
        assert "may not ask 'team/a'" in said[1]
        assert "was revoked" in said[2]

    run(tmp_path, test)


# --- what comes of it ------------------------------------------------------------------------------------------


def test_traffic_sticks_to_the_name_of_the_key(tmp_path: Path) -> None:
    callers = [key(f"caller-{n}", Scope.ADMIN) for n in range(40)]

    async def test(gateway: Gateway) -> None:
        routes = (deployment_route(id="m@1", version="1", name="a"), deployment_route(id="m@2", version="2", name="b"))
        policy = TrafficPolicy({"a": 1.0, "b": 1.0}, Source(SourceKind.KEY, ""))
        for number, made in enumerate(gateway.deploy(*routes, traffic={"m@1": 1.0, "m@2": 1.0}, policy=policy), 1):
            made.add_replica(ComputingReplica(made, answering(number)))
        gateway.services.guard.follow(key_set(*callers))

        async def asked(caller: TestKey) -> float:
            answer = await client.post("/v2/models/m/infer", json=BODY, headers=caller.bearer)
            return float(answer.json()["outputs"][0]["data"][0])

        async with gateway.client() as client:
            first = [await asked(caller) for caller in callers]
            assert [await asked(caller) for caller in callers] == first
            assert 5 < sum(first) - 40 < 35
            grpc = [await call(gateway, "ModelInfer", caller).body(infer()).end() for caller in callers]
            answers = [pb.ModelInferResponse.FromString(going.grpc()[1][0]) for going in grpc]
            assert [first_value(answer) for answer in answers] == first

    run(tmp_path, test)


def test_rules_read_the_key_also_where_the_body_decides_too(tmp_path: Path) -> None:
    """The deployment is chosen after decoding then; the key is still known, over REST, gRPC and streams."""
    gold = Rule(Source(SourceKind.BODY, "plan"), ("gold",), "a")
    partner = Rule(Source(SourceKind.KEY, ""), ("partner",), "b")

    async def test(gateway: Gateway) -> None:
        routes = (deployment_route(id="m@1", version="1", name="a"), deployment_route(id="m@2", version="2", name="b"))
        policy = TrafficPolicy({"a": 1.0}, rules=(gold, partner))
        for number, made in enumerate(gateway.deploy(*routes, traffic={"m@1": 1.0}, policy=policy), 1):
            made.add_replica(ComputingReplica(made, answering(number)))
        gateway.services.guard.follow(key_set(*EVERY))
        for caller, number in ((PARTNER, 2.0), (ADMIN, 1.0)):
            async with gateway.client() as client:
                answer = await client.post("/v2/models/m/infer", json=BODY, headers=caller.bearer)
            assert answer.json()["outputs"][0]["data"][0] == number
            going = await call(gateway, "ModelInfer", caller).body(infer()).end()
            assert first_value(pb.ModelInferResponse.FromString(going.grpc()[1][0])) == number
            going = await call(gateway, "ModelStreamInfer", caller).body(infer()).end()
            streamed = pb.ModelStreamInferResponse.FromString(going.grpc()[1][0])
            assert first_value(streamed.infer_response) == number

    run(tmp_path, test)


def answering(number: int) -> Any:
    return lambda arrays: [Tensor("y", DType.FP32, np.full_like(arrays[0], number))]


def first_value(response: Any) -> float:
    return float(np.frombuffer(response.raw_output_contents[0], np.float32)[0])
