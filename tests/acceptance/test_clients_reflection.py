"""Server reflection and health, as grpcurl and Kubernetes probes use them: nothing is known but the address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.serving import Served

pytestmark = pytest.mark.xdist_group("clients")

SERVICE = "inference.GRPCInferenceService"


@pytest.fixture
def channel(clients_server: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(clients_server.address) as opened:
        yield opened


@pytest.fixture
def service(channel: grpc.Channel) -> ServiceDescriptor:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    return pool.FindServiceByName(SERVICE)


def call(channel: grpc.Channel, method: MethodDescriptor, body: dict[str, Any]) -> dict[str, Any]:
    """One unary call as grpcurl makes it: JSON in, JSON out, types from reflection."""
    request_type = message_factory.GetMessageClass(method.input_type)
    response_type = message_factory.GetMessageClass(method.output_type)
    run = channel.unary_unary(
        f"/{SERVICE}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response_type.FromString,
    )
    response = run(json_format.ParseDict(body, request_type()), timeout=30)
    found: dict[str, Any] = json_format.MessageToDict(response, preserving_proto_field_name=True)
    return found


def test_services_are_listed(channel: grpc.Channel) -> None:
    services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {SERVICE, "grpc.health.v1.Health"} <= services
    assert any(name.startswith("grpc.reflection.v1") for name in services)


def test_the_service_is_described(service: ServiceDescriptor) -> None:
    methods = {method.name for method in service.methods}
    assert {
        *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"),
        *("ModelStreamInfer", "ModelConfig", "ModelStatistics", "RepositoryIndex"),
    } <= methods


def test_every_described_unary_method_answers(channel: grpc.Channel, service: ServiceDescriptor) -> None:
    """Nothing is listed that is not there."""
    for method in service.methods:
        if method.name in ("ModelInfer", "ModelStreamInfer"):
            continue
        body = {"name": "cancer"} if "name" in method.input_type.fields_by_name else {}
        call(channel, method, body)


def test_a_model_is_asked_through_reflection(channel: grpc.Channel, service: ServiceDescriptor) -> None:
    ready = call(channel, service.methods_by_name["ModelReady"], {"name": "mixed"})
    assert ready == {"ready": True}
    metadata = call(channel, service.methods_by_name["ModelMetadata"], {"name": "mixed"})
    assert [item["name"] for item in metadata["inputs"]] == ["amount", "age", "country", "plan"]
    columns = {
        "amount": ("FP64", "fp64_contents", [12.5, 900.0]),
        "age": ("FP64", "fp64_contents", [40.0, 23.0]),
        "country": ("BYTES", "bytes_contents", ["VVM=", "5Lit5Zu9"]),
        "plan": ("BYTES", "bytes_contents", ["cHJv", "ZnJlZQ=="]),
    }
    request = {
        "model_name": "mixed",
        "id": "by-hand",
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [2], "contents": {field: values}}
            for name, (datatype, field, values) in columns.items()
        ],
    }
    answer = call(channel, service.methods_by_name["ModelInfer"], request)
    assert answer["id"] == "by-hand"
    outputs = {item["name"]: item for item in answer["outputs"]}
    assert outputs["label"]["shape"] == ["2"]
    assert len(outputs["label"]["contents"]["bytes_contents"]) == 2
    assert len(outputs["probabilities"]["contents"]["fp64_contents"]) == 4


def test_health_check(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody.Service"), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_watch(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watching = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
    watching.cancel()
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nobody.Service"))
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()
