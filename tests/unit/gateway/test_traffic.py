"""One traffic policy, three ways in: REST, gRPC and streams choose alike, and errors have their protocol's shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.core.models import SlotKind, Slots, TensorSpec
from headrace.core.requests import Outcome
from headrace.core.shadows import Shadow
from headrace.core.tensors import DType, Tensor
from headrace.core.traffic import OVERRIDES, Rule, Source, SourceKind, TrafficPolicy
from headrace.gateway.settings import GatewaySettings
from headrace.protocols import grpc_frames
from headrace.protocols.grpc_status import Code
from headrace.protocols.proto import open_inference_pb2 as pb
from tests.fakes import ROWS, ComputingReplica, deployment_route, until
from tests.gateways import Exchange, Gateway, run

INFER = "/v2/models/m/infer"
GRPC = {"content-type": "application/grpc", "te": "trailers"}
PLAN = Source(SourceKind.HEADER, "x-plan")
BY_HEADER = TrafficPolicy(rules=(Rule(PLAN, ("gold",), "challenger"),), overrides=OVERRIDES)
BY_BODY = TrafficPolicy(rules=(Rule(Source(SourceKind.BODY, "plan"), ("gold",), "challenger"),), overrides=OVERRIDES)
OTHER_NAMES = msgspec.structs.replace(ROWS, inputs=(TensorSpec("other", DType.FP32, (-1, 2)),))


def deploy(gateway: Gateway, policy: TrafficPolicy, **challenger: Any) -> None:
    """A champion that answers 1 and takes all traffic; a challenger that answers 2."""
    routes = (
        deployment_route(id="m@1", version="1", name="champion"),
        deployment_route(**{"id": "m@2", "version": "2", "name": "challenger", **challenger}),
    )
    for number, deployment in enumerate(gateway.deploy(*routes, traffic={"m@1": 1.0}, policy=policy), start=1):
        deployment.add_replica(ComputingReplica(deployment, answering(number), chunks=chunks))


def answering(number: int) -> Any:
    return lambda arrays: [Tensor("y", DType.FP32, np.full_like(arrays[0], number))]


def chunks(arrays: list[Any]) -> Any:
    return [[Tensor("y", DType.FP32, arrays[0])]]


def document(plan: str = "", name: str = "x", size: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {
        "inputs": [{"name": name, "datatype": "FP32", "shape": [size, 2], "data": [1.0, 1.0] * size}]
    }
    return {**found, "parameters": {"plan": plan}} if plan else found


def message(plan: str = "", name: str = "x") -> bytes:
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name=name, datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.ones(2, np.float32).tobytes())
    if plan:
        request.parameters["plan"].string_param = plan
    return grpc_frames.frame(request.SerializeToString())


def ask(gateway: Gateway, method: str, body: bytes, **headers: str) -> Exchange:
    path = f"/inference.GRPCInferenceService/{method}"
    return Exchange(gateway, path, headers={**GRPC, **headers}).body(body)


@pytest.mark.parametrize(
    ("policy", "headers", "plan", "version"),
    [
        (BY_HEADER, {}, "", "1"),
        (BY_HEADER, {"x-plan": "gold"}, "", "2"),
        (BY_HEADER, {"x-plan": "iron"}, "gold", "1"),
        (BY_HEADER, {"azureml-model-deployment": "challenger"}, "", "2"),
        (BY_BODY, {}, "gold", "2"),
        (BY_BODY, {}, "iron", "1"),
        (BY_BODY, {"X-Headrace-Deployment": "champion"}, "gold", "1"),
    ],
)
def test_all_protocols_choose_alike_and_say_who_answered(
    tmp_path: Path, policy: TrafficPolicy, headers: dict[str, str], plan: str, version: str
) -> None:
    async def test(gateway: Gateway) -> None:
        deploy(gateway, policy)
        async with gateway.client() as client:
            answer = await client.post(INFER, json=document(plan), headers=headers)
        name = {"1": "champion", "2": "challenger"}[version]
        assert (answer.json()["model_version"], answer.headers["x-headrace-deployment"]) == (version, name)
        assert answer.json()["outputs"][0]["data"] == [float(version)] * 2
        unary = await ask(gateway, "ModelInfer", message(plan), **headers).end()
        assert pb.ModelInferResponse.FromString(unary.grpc()[1][0]).model_version == version
        assert unary.headers["x-headrace-deployment"] == name
        stream = await ask(gateway, "ModelStreamInfer", message(plan), **headers).end()
        (told,) = stream.grpc()[1]
        assert pb.ModelStreamInferResponse.FromString(told).infer_response.model_version == version
        gateway.records.flush()
        assert {(r.version, r.outcome) for r in gateway.seen} == {(version, Outcome.OK)}

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("allowed", "name", "status", "code", "words"),
    [
        ((), "champion", 400, Code.INVALID_ARGUMENT, "may not choose the deployment"),
        (OVERRIDES, "nobody", 404, Code.NOT_FOUND, "it has: challenger, champion"),
    ],
)
def test_refused_overrides_have_the_shape_of_their_protocol(
    tmp_path: Path, allowed: tuple[str, ...], name: str, status: int, code: Code, words: str
) -> None:
    headers = {"X-Amzn-SageMaker-Target-Variant": name}

    async def test(gateway: Gateway) -> None:
        deploy(gateway, TrafficPolicy(overrides=allowed))
        async with gateway.client() as client:
            answer = await client.post(INFER, json=document(), headers=headers)
        assert answer.status_code == status
        assert words in answer.json()["error"]
        unary = await ask(gateway, "ModelInfer", message(), **headers).end()
        assert (unary.grpc()[0], words in unary.headers["grpc-message"]) == (code, True)
        stream = await ask(gateway, "ModelStreamInfer", message(), **headers).end()
        assert words in pb.ModelStreamInferResponse.FromString(stream.grpc()[1][0]).error_message
        assert [o for _, o, _ in gateway.outcomes()] == [Outcome.CALLER_ERROR] * 3

    run(tmp_path, test)


@pytest.mark.parametrize("offload_bytes", [1_000_000, 100])
def test_a_body_is_read_again_where_the_chosen_signature_is_another(tmp_path: Path, offload_bytes: int) -> None:
    """Decoded in the gateway or in the codec process."""

    async def test(gateway: Gateway) -> None:
        deploy(gateway, BY_BODY, signature=OTHER_NAMES, timeout_s=7.0)
        async with gateway.client() as client:
            chosen = await client.post(INFER, json=document("gold", "other", size=20))
            refused = await client.post(INFER, json=document("gold", "x", size=20))
            stays = await client.post(INFER, json=document("iron", "x", size=20))
        assert (chosen.json()["model_version"], stays.json()["model_version"]) == ("2", "1")
        assert (refused.status_code, "'other'" in refused.json()["error"]) == (400, True)
        unary = await ask(gateway, "ModelInfer", message("gold", "other")).end()
        assert pb.ModelInferResponse.FromString(unary.grpc()[1][0]).model_version == "2"

    run(tmp_path, test, GatewaySettings(offload_bytes=offload_bytes))


def test_a_body_may_choose_a_model_that_streams(tmp_path: Path) -> None:
    streams = msgspec.structs.replace(ROWS, streaming=True)

    async def test(gateway: Gateway) -> None:
        deploy(gateway, BY_BODY, signature=streams, slots=Slots(SlotKind.CONCURRENT, 4))
        async with gateway.client() as client:
            refused = await client.post(INFER, json=document("gold"))
            told = await client.post("/v2/models/m/generate_stream", json={"x": [[1.0, 1.0]], "plan": "gold"})
        assert (refused.status_code, "answers with a stream" in refused.json()["error"]) == (501, True)
        assert (told.status_code, told.headers["x-headrace-deployment"]) == (200, "challenger")
        assert '"model_version":"2"' in told.text.replace(" ", "")
        unary = await ask(gateway, "ModelInfer", message("gold")).end()
        assert unary.grpc()[0] == Code.UNIMPLEMENTED
        stream = await ask(gateway, "ModelStreamInfer", message("gold")).end()
        first = pb.ModelStreamInferResponse.FromString(stream.grpc()[1][0])
        assert first.infer_response.model_version == "2"

    run(tmp_path, test)


def test_the_default_deadline_is_that_of_the_deployment_that_answers(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        deploy(gateway, BY_BODY, timeout_s=1e-9)
        async with gateway.client() as client:
            late = await client.post(INFER, json=document("gold"))
            own = await client.post(INFER, json=document("gold"), headers={"x-request-timeout-ms": "5000"})
        assert (late.status_code, own.status_code) == (504, 200)
        assert (await ask(gateway, "ModelInfer", message("gold")).end()).grpc()[0] == Code.DEADLINE_EXCEEDED
        in_time = await ask(gateway, "ModelInfer", message("gold"), **{"grpc-timeout": "5S"}).end()
        assert in_time.grpc()[0] == Code.OK

    run(tmp_path, test)


def test_metadata_are_those_of_the_greatest_share_and_readiness_is_that_of_any(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        routes = (
            deployment_route(id="m@1", version="1", name="champion", signature=OTHER_NAMES),
            deployment_route(id="m@2", version="2", name="challenger"),
        )
        _, challenger = gateway.deploy(*routes, traffic={"m@1": 0.7, "m@2": 0.3}, policy=TrafficPolicy())
        challenger.add_replica(ComputingReplica(challenger, answering(2)))
        async with gateway.client() as client:
            for _ in range(5):
                assert (await client.get("/v2/models/m")).json()["inputs"][0]["name"] == "other"
            assert (await client.get("/v2/models/m/ready")).status_code == 200
            assert (await client.get("/v2/models/m/versions/1/ready")).status_code == 503

    run(tmp_path, test)


def test_answers_of_every_unary_protocol_are_mirrored_after_they_were_sent(tmp_path: Path) -> None:
    async def test(gateway: Gateway) -> None:
        deploy(gateway, TrafficPolicy(shadows=(Shadow("challenger", 100.0),)))
        dark = gateway.services.router.endpoints["m"].deployments["2"]

        async def seen(count: int) -> None:
            await until(lambda: dark.shadow_load is not None and dark.shadow_load.disagreed == count)

        async with gateway.client() as client:
            assert (await client.post(INFER, json=document())).json()["model_version"] == "1"
            await seen(1)
            assert (await client.post(INFER, json=document(name="wrong"))).status_code == 400
        for number, method in enumerate(("ModelInfer", "ModelStreamInfer"), start=2):
            await ask(gateway, method, message()).end()
            await seen(number)
        gateway.records.flush()
        assert [r.version for r in gateway.seen] == ["1"] * 4, "what a shadow computes is no request"
        assert dark.shadow_load is not None
        assert (dark.shadow_load.max_absolute, dark.shadow_load.agreed) == (1.0, 0)

    run(tmp_path, test)
