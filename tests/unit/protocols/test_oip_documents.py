"""Metadata, configuration, statistics and the index, as REST sends them and as gRPC messages say the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from tritonclient.grpc import service_pb2

from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import DType
from headrace.protocols import http_status, oip_grpc_documents, oip_rest
from headrace.protocols.oip_documents import (
    BatchStatistics,
    Duration,
    IndexEntry,
    InferStatistics,
    ModelStatistics,
    data_type,
)

SIGNATURE = Signature(
    (
        TensorSpec("X", DType.FP32, (-1, 30)),
        TensorSpec("city", DType.BYTES, (-1,), optional=True),
    ),
    (TensorSpec("label", DType.INT64, (-1,)), TensorSpec("p", DType.BF16, (-1, 2))),
)


def as_json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def test_server_metadata() -> None:
    document = oip_rest.render_server_metadata("0.1.0")
    assert document["name"] == "headrace"
    assert document["version"] == "0.1.0"
    assert "binary_tensor_data" in document["extensions"]
    assert as_json(
        service_pb2.ServerMetadataResponse.FromString(oip_grpc_documents.render_server_metadata("0.1.0"))
    ) == (document)


def test_model_metadata() -> None:
    given = ("m", ["1", "2"], "onnx_onnxv1", SIGNATURE)
    document = oip_rest.render_model_metadata(*given)
    assert document == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "X", "datatype": "FP32", "shape": [-1, 30]},
            {"name": "city", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "p", "datatype": "BF16", "shape": [-1, 2]},
        ],
    }
    message = service_pb2.ModelMetadataResponse.FromString(oip_grpc_documents.render_model_metadata(*given))
    assert [list(item.shape) for item in message.inputs] == [[-1, 30], [-1]]
    assert [item.datatype for item in message.outputs] == ["INT64", "BF16"]
    assert list(message.versions) == ["1", "2"]


def test_the_configuration_of_a_batchable_model() -> None:
    config = oip_rest.render_model_config("m", "onnx_onnxv1", SIGNATURE, 64, "onnxruntime")
    assert config == {
        "name": "m",
        "platform": "onnx_onnxv1",
        "backend": "onnxruntime",
        "max_batch_size": 64,
        "input": [
            {"name": "X", "data_type": "TYPE_FP32", "dims": [30]},
            {"name": "city", "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}, "optional": True},
        ],
        "output": [
            {"name": "label", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}},
            {"name": "p", "data_type": "TYPE_BF16", "dims": [2]},
        ],
        "model_transaction_policy": {"decoupled": False},
        "dynamic_batching": {},
    }
    assert http_status.json_reply(config).body


def test_the_configuration_of_a_fixed_and_of_a_streaming_model() -> None:
    fixed = Signature((TensorSpec("X", DType.FP32, (1, 30)),), (), batchable=False, streaming=True)
    config = oip_rest.render_model_config("m", "python", fixed, 64)
    assert config["max_batch_size"] == 0
    assert config["input"][0]["dims"] == [1, 30]
    assert config["backend"] == "python"
    assert config["model_transaction_policy"] == {"decoupled": True}
    assert "dynamic_batching" not in config


def test_the_configuration_over_grpc() -> None:
    serialized = oip_grpc_documents.render_model_config("m", "onnx_onnxv1", SIGNATURE, 64, "onnxruntime")
    config = service_pb2.ModelConfigResponse.FromString(serialized).config
    assert (config.name, config.platform, config.backend, config.max_batch_size) == (
        "m",
        "onnx_onnxv1",
        "onnxruntime",
        64,
    )
    assert [(i.name, i.data_type, list(i.dims), i.optional) for i in config.input] == [
        ("X", 11, [30], False),
        ("city", 13, [1], True),
    ]
    assert config.input[1].HasField("reshape")
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [("label", 9, [1]), ("p", 14, [2])]
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    assert not config.model_transaction_policy.decoupled


@pytest.mark.parametrize("dtype", list(DType))
def test_every_datatype_has_a_configuration_name(dtype: DType) -> None:
    signature = Signature((TensorSpec("x", dtype, (-1, 2)),), ())
    serialized = oip_grpc_documents.render_model_config("m", "p", signature, 8)
    config = service_pb2.ModelConfigResponse.FromString(serialized).config
    assert as_json(config)["input"][0]["data_type"] == data_type(dtype)


STATISTICS = ModelStatistics(
    "m",
    "1",
    last_inference=1_700_000_000_000,
    inference_count=30,
    execution_count=10,
    inference_stats=InferStatistics(success=Duration(9, 900), fail=Duration(1, 5), queue=Duration(10, 2**63)),
    batch_stats=(BatchStatistics(4, compute_infer=Duration(2, 200)),),
)


def test_statistics() -> None:
    document = json.loads(http_status.json_reply(oip_rest.render_statistics([STATISTICS])).body)
    (model,) = document["model_stats"]
    assert (model["name"], model["inference_count"], model["execution_count"]) == ("m", 30, 10)
    assert model["inference_stats"]["success"] == {"count": 9, "ns": 900}
    assert set(model["inference_stats"]) == {
        "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss",
    }  # fmt: skip
    assert model["batch_stats"][0]["batch_size"] == 4
    message = service_pb2.ModelStatisticsResponse.FromString(oip_grpc_documents.render_statistics([STATISTICS]))
    assert message.model_stats[0].inference_stats.queue.ns == 2**63
    assert message.model_stats[0].batch_stats[0].compute_infer.count == 2
    assert message.model_stats[0].last_inference == 1_700_000_000_000


def test_the_index() -> None:
    entries = [IndexEntry("a", "1", "READY"), IndexEntry("b", "", "UNAVAILABLE", "could not load")]
    assert oip_rest.render_index(entries) == [
        {"name": "a", "version": "1", "state": "READY"},
        {"name": "b", "state": "UNAVAILABLE", "reason": "could not load"},
    ]
    message = service_pb2.RepositoryIndexResponse.FromString(oip_grpc_documents.render_index(entries))
    assert [(m.name, m.version, m.state, m.reason) for m in message.models] == [
        ("a", "1", "READY", ""),
        ("b", "", "UNAVAILABLE", "could not load"),
    ]


@pytest.mark.parametrize(
    ("body", "ready"),
    [(b"", False), (b" \n", False), (b"{}", False), (b'{"ready": true, "x": 1}', True), (b'{"ready": null}', False)],
)
def test_the_body_of_an_index_request(body: bytes, ready: bool) -> None:
    assert oip_rest.parse_index(body) is ready


@pytest.mark.parametrize("body", [b"[]", b'{"ready": "yes"}', b"{", b"\xff", b'{"x": ' + b"[" * 100_000])
def test_refused_index_requests(body: bytes) -> None:
    with pytest.raises(errors.InvalidInput):
        oip_rest.parse_index(body)


def test_index_requests_over_grpc() -> None:
    assert oip_grpc_documents.decode_index(service_pb2.RepositoryIndexRequest(ready=True).SerializeToString())
    assert not oip_grpc_documents.decode_index(b"")
    with pytest.raises(errors.InvalidInput, match="malformed"):
        oip_grpc_documents.decode_index(b"\xff")


@pytest.mark.parametrize("kind", ["ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"])
def test_requests_about_a_model(kind: str) -> None:
    request = getattr(service_pb2, f"{kind}Request")(name="org/m", version="3")
    assert oip_grpc_documents.decode_model(request.SerializeToString()) == ("org/m", "3")
    assert oip_grpc_documents.decode_model(b"") == ("", "")
    with pytest.raises(errors.InvalidInput, match="malformed"):
        oip_grpc_documents.decode_model(b"\x0a\x01\xff")


@pytest.mark.parametrize("state", [True, False])
def test_health(state: bool) -> None:
    assert service_pb2.ServerLiveResponse.FromString(oip_grpc_documents.render_live(state)).live is state
    assert service_pb2.ServerReadyResponse.FromString(oip_grpc_documents.render_ready(state)).ready is state
    assert service_pb2.ModelReadyResponse.FromString(oip_grpc_documents.render_model_ready(state)).ready is state
    assert oip_rest.render_health(live=True, ready=state) == {"live": True, "ready": state}
    assert oip_rest.render_model_ready("m", state) == {"name": "m", "ready": state}


def test_the_list_of_models() -> None:
    assert oip_rest.render_model_list(["a", "b"]) == {"models": ["a", "b"]}


def test_methods_of_the_port() -> None:
    methods = oip_grpc_documents.METHODS
    assert methods["/inference.GRPCInferenceService/ModelInfer"] == (False, False)
    assert methods["/inference.GRPCInferenceService/ModelStreamInfer"] == (True, True)
    assert methods["/grpc.health.v1.Health/Watch"] == (False, True)
    assert methods["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] == (True, True)
    assert "/inference.GRPCInferenceService/RepositoryModelLoad" not in methods
