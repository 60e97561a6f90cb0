"""How a row of numbers is written for each server and how its answer is read: REST and gRPC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput, service_pb2

Rows = npt.NDArray[np.float32]

JSON_HEADER = "Content-Type: application/json"
INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
BINARY_LENGTH_HEADER = "Inference-Header-Content-Length"


class WrongAnswer(AssertionError):
    """A server answered 200 with values that are not the model's."""


class Refused(RuntimeError):
    """A server answered 429 or 503."""


@dataclass(frozen=True)
class Dialect:
    """``encode`` gives the body for a few rows, ``decode`` the last output (probabilities, scores) of an answer."""

    path: str
    encode: Callable[[Rows], bytes]
    decode: Callable[[bytes], npt.NDArray[Any]]
    headers: tuple[str, ...] = (JSON_HEADER,)


def numbers(rows: Rows) -> list[float]:
    """Row-major, as short as they are in the training data: six decimals."""
    return [round(value, 6) for value in rows.ravel().tolist()]


def nested(rows: Rows) -> list[list[float]]:
    return [numbers(row) for row in rows]


def oip_body(rows: Rows, name: str = "input") -> bytes:
    tensor = {"name": name, "shape": list(rows.shape), "datatype": "FP32", "data": numbers(rows)}
    return msgspec.json.encode({"inputs": [tensor]})


def oip_outputs(body: bytes) -> dict[str, npt.NDArray[Any]]:
    outputs = msgspec.json.decode(body)["outputs"]
    return {output["name"]: np.asarray(output["data"]).reshape(output["shape"]) for output in outputs}


def oip(endpoint: str, output: str = "probabilities", path: str = "", input_name: str = "input") -> Dialect:
    """Open Inference Protocol, JSON."""
    return Dialect(
        path=path or f"/v2/models/{endpoint}/infer",
        encode=lambda rows: oip_body(rows, input_name),
        decode=lambda body: oip_outputs(body)[output],
    )


def oip_binary(endpoint: str, rows: Rows) -> tuple[str, tuple[str, ...], bytes]:
    """Path, headers and body of a request whose tensor travels as bytes; the answer is asked for as JSON."""
    parameters = {"binary_data_size": rows.nbytes}
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP32", "parameters": parameters}
    head = msgspec.json.encode({"inputs": [tensor]})
    headers = (f"{BINARY_LENGTH_HEADER}: {len(head)}", "Content-Type: application/octet-stream")
    return f"/v2/models/{endpoint}/infer", headers, head + rows.tobytes()


TEXTBOOK = Dialect(
    path="/predict",
    encode=lambda rows: msgspec.json.encode({"instances": nested(rows)}),
    decode=lambda body: np.asarray(msgspec.json.decode(body)["predictions"]),
)
BENTOML = Dialect(
    path="/predict",
    encode=lambda rows: msgspec.json.encode({"input": nested(rows)}),
    decode=lambda body: np.asarray(msgspec.json.decode(body)),
)
LITSERVE = Dialect(
    path="/predict",
    encode=lambda rows: msgspec.json.encode({"input": numbers(rows)}),  # one row a request is all it takes
    decode=lambda body: np.asarray([msgspec.json.decode(body)["output"]]),
)


def http_request(path: str, headers: tuple[str, ...], body: bytes, port: int) -> bytes:
    """A whole HTTP/1.1 request, for the open-loop generator."""
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def grpc_message(endpoint: str, rows: Rows) -> bytes:
    """A serialized ModelInferRequest with the tensor as raw bytes, as tritonclient and kserve send it."""
    request = service_pb2.ModelInferRequest(model_name=endpoint)
    request.inputs.add(name="input", datatype="FP32", shape=rows.shape)
    request.raw_input_contents.append(rows.tobytes())
    message: bytes = request.SerializeToString()
    return message


def grpc_infer(client: InferenceServerClient, endpoint: str, rows: Rows, output: str) -> npt.NDArray[Any]:
    tensor = InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return grpc_output(client.infer(endpoint, [tensor], client_timeout=30).get_response(), output)


def grpc_output(response: service_pb2.ModelInferResponse, name: str) -> npt.NDArray[Any]:
    """An FP32 output, raw or typed: tritonclient's own ``as_numpy`` reads only the raw form, KServe sends the typed."""
    for index, output in enumerate(response.outputs):
        if output.name == name:
            if index < len(response.raw_output_contents):
                values = np.frombuffer(response.raw_output_contents[index], np.float32)
            else:
                values = np.asarray(output.contents.fp32_contents, np.float32)
            return values.reshape(output.shape)
    raise WrongAnswer(f"no output {name!r} in the gRPC response")


def check(got: npt.NDArray[Any], right: npt.NDArray[Any], who: str) -> None:
    """Raise WrongAnswer unless ``got`` is ``right`` to a relative 1e-4."""
    if got.shape != right.shape or not np.allclose(got, right, rtol=1e-4, atol=1e-6):
        raise WrongAnswer(f"{who}: got {got.ravel()[:4]} of shape {got.shape}, expected {right.ravel()[:4]}")
