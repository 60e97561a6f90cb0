"""Reflection against grpcio-reflection's messages, in both versions."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2 as alpha

from headrace.core import errors
from headrace.protocols import reflection
from headrace.protocols.proto import reflection_v1_pb2, reflection_v1alpha_pb2


def ask(**fields: Any) -> alpha.ServerReflectionResponse:
    request = alpha.ServerReflectionRequest(host="h", **fields)
    response = alpha.ServerReflectionResponse.FromString(reflection.respond(request.SerializeToString()))
    assert response.valid_host == "h"
    assert response.original_request == request
    return response


def test_services() -> None:
    names = [service.name for service in ask(list_services="").list_services_response.service]
    assert names == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("inference.GRPCInferenceService", "open_inference.proto"),
        ("inference.GRPCInferenceService.ModelInfer", "open_inference.proto"),
        ("inference.ModelInferRequest.InferInputTensor", "open_inference.proto"),
        ("inference.DataType", "open_inference.proto"),
        ("grpc.health.v1.Health", "grpc/health/v1/health.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"),
        ("grpc.reflection.v1alpha.ServerReflection", "grpc/reflection/v1alpha/reflection.proto"),
    ],
)
def test_files_by_symbol_and_by_name(symbol: str, file: str) -> None:
    (by_symbol,) = ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
    (by_name,) = ask(file_by_filename=file).file_descriptor_response.file_descriptor_proto
    assert by_symbol == by_name
    assert descriptor_pb2.FileDescriptorProto.FromString(by_name).name == file


def test_a_client_can_build_the_service_from_what_it_gets() -> None:
    pool = descriptor_pool.DescriptorPool()
    for service in ask(list_services="").list_services_response.service:
        for file in ask(file_containing_symbol=service.name).file_descriptor_response.file_descriptor_proto:
            pool.AddSerializedFile(file)
        assert pool.FindServiceByName(service.name).methods


@pytest.mark.parametrize(
    "fields",
    [
        {"file_by_filename": "nope.proto"},
        {"file_containing_symbol": "inference.Nope"},
        {"file_containing_symbol": ""},
        {"all_extension_numbers_of_type": "inference.Nope"},
        {
            "file_containing_extension": alpha.ExtensionRequest(
                containing_type="inference.ModelConfig", extension_number=5
            )
        },
    ],
)
def test_what_is_not_found(fields: dict[str, Any]) -> None:
    assert ask(**fields).error_response.error_code == 5


def test_messages_have_no_extensions() -> None:
    found = ask(all_extension_numbers_of_type="inference.ModelConfig").all_extension_numbers_response
    assert found.base_type_name == "inference.ModelConfig"
    assert list(found.extension_number) == []


def test_a_request_for_nothing() -> None:
    assert ask().error_response.error_code == 3


def test_both_versions_are_the_same_on_the_wire() -> None:
    for kind in ("ServerReflectionRequest", "ServerReflectionResponse"):
        first = getattr(reflection_v1_pb2, kind).DESCRIPTOR.fields
        second = getattr(reflection_v1alpha_pb2, kind).DESCRIPTOR.fields
        assert [(f.name, f.number, f.type) for f in first] == [(f.name, f.number, f.type) for f in second]


def test_a_malformed_request() -> None:
    with pytest.raises(errors.InvalidInput, match="malformed"):
        reflection.respond(b"\xff\xff")
