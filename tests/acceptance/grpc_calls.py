"""ModelInfer as plain gRPC calls, for tests that cancel, stall or look at trailers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc


@contextlib.contextmanager
def stub(address: str) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    """The service on a channel of its own: gRPC shares connections between channels that look alike."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(
    model: str, value: float, *, name: str = "x", parameters: dict[str, float] | None = None
) -> service_pb2.ModelInferRequest:
    """One FP32 number."""
    made = service_pb2.ModelInferRequest(model_name=model)
    tensor = made.inputs.add(name=name, datatype="FP32", shape=[1])
    tensor.contents.fp32_contents.append(value)
    for key, number in (parameters or {}).items():
        made.parameters[key].double_param = number
    return made


def prompt(model: str, text: str, **parameters: int) -> service_pb2.ModelInferRequest:
    """One text, for models that stream."""
    made = service_pb2.ModelInferRequest(model_name=model)
    tensor = made.inputs.add(name="prompt", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(text.encode())
    for key, number in parameters.items():
        made.parameters[key].int64_param = number
    return made
