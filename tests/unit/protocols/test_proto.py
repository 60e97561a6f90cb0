"""The private pool: no clash with clients in the same process, and field tables equal to theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2 as their_health
from grpc_reflection.v1alpha import reflection_pb2 as their_reflection
from tritonclient.grpc import model_config_pb2, service_pb2

from headrace.protocols.proto import open_inference_pb2, pool

ROOT = Path(__file__).resolve().parents[3]


def test_our_messages_are_in_our_pool_only() -> None:
    ours = open_inference_pb2.ModelInferRequest.DESCRIPTOR
    theirs = service_pb2.ModelInferRequest.DESCRIPTOR
    assert ours.full_name == theirs.full_name
    assert ours is not theirs
    assert ours.file.pool is not descriptor_pool.Default()


@pytest.mark.parametrize(
    ("file", "theirs", "least"),
    [
        ("open_inference.proto", [service_pb2, model_config_pb2], 40),
        ("grpc/health/v1/health.proto", [their_health], 2),
        ("grpc/reflection/v1alpha/reflection.proto", [their_reflection], 8),
    ],
)
def test_every_field_has_the_number_and_type_of_the_clients(file: str, theirs: list, least: int) -> None:
    known = {name: message for module in theirs for name, message in module.DESCRIPTOR.message_types_by_name.items()}
    compared = 0
    for name, message in pool.names(file)["DESCRIPTOR"].message_types_by_name.items():
        if name in known:  # older clients lack some messages
            compared += compare(message, known[name])
    assert compared >= least


def compare(ours: object, theirs: object) -> int:
    for field in ours.fields:  # type: ignore[attr-defined]
        if (ours.full_name, field.name) == ("inference.ModelMetadataResponse", "properties"):  # type: ignore[attr-defined]
            continue  # Open Inference only
        other = theirs.fields_by_name[field.name]  # type: ignore[attr-defined]
        assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated), (
            field.name
        )
    nested = {message.name: message for message in theirs.nested_types}  # type: ignore[attr-defined]
    return 1 + sum(
        compare(message, nested[message.name])
        for message in ours.nested_types  # type: ignore[attr-defined]
        if message.name in nested
    )


def test_enums_equal_those_of_the_clients() -> None:
    theirs = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"]
    assert {value.name: value.number for value in theirs.values} == dict(open_inference_pb2.DataType.items())


def test_generated_files_are_up_to_date() -> None:
    pytest.importorskip("grpc_tools")
    script = ROOT / "scripts" / "generate_protos.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
