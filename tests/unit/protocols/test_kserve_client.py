"""The kserve client's own encoders and decoders against the codecs, through ``kserve_peer.py``."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.core.models import Signature
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import NUMPY_DTYPES, Array, DType
from headrace.protocols import oip_grpc, oip_rest
from headrace.protocols.protocol import Rendering

DYNAMIC = Signature((), (), any_inputs=True)

ARRAYS: dict[DType, Array] = {
    DType(name): np.array([[0, 1, 2], [3, 4, 5]], NUMPY_DTYPES[name])
    for name in ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64")
} | {
    DType.BOOL: np.array([[True, False]]),
    DType.FP16: np.array([0.5, 2], np.float16),
    DType.BYTES: np.array([["é".encode(), b""]], object),
}


class Peer:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **job: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the peer died"
        found: dict[str, Any] = json.loads(line)
        return found


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("kserve_peer.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Peer(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def encode(
    peer: Peer, over: str, arrays: dict[DType, Array], binary: bool, **fields: Any
) -> tuple[InferenceRequest, Rendering]:
    inputs = [
        {
            "name": str(dtype),
            "datatype": str(dtype),
            "shape": list(array.shape),
            "numpy": None if array.dtype == object else array.dtype.str,
            "data": "" if array.dtype == object else base64.b64encode(array.tobytes()).decode(),
            "items": [base64.b64encode(v).decode() for v in array.ravel()] if array.dtype == object else None,
            "binary": binary,
        }
        for dtype, array in arrays.items()
    ]
    answer = peer.ask(do="encode", over=over, inputs=inputs, id="a1", **fields)
    body = base64.b64decode(answer["body"])
    if over == "grpc":
        return oip_grpc.to_request(oip_grpc.decode_infer(body), DYNAMIC)
    return oip_rest.parse_request(body, answer["size"], DYNAMIC)


def check(found: InferenceRequest, arrays: dict[DType, Array]) -> None:
    assert found.id == "a1"
    assert [tensor.dtype for tensor in found.tensors] == list(arrays)
    for tensor in found.tensors:
        assert tensor.array.dtype == arrays[tensor.dtype].dtype
        assert tensor.array.tolist() == arrays[tensor.dtype].tolist()


@pytest.mark.parametrize("over", ["rest", "grpc"])
@pytest.mark.parametrize("binary", [True, False])
def test_round_trip(peer: Peer, over: str, binary: bool) -> None:
    arrays = {dtype: array for dtype, array in ARRAYS.items() if binary or dtype is not DType.FP16}
    request, rendering = encode(peer, over, arrays, binary)
    check(request, arrays)
    response = InferenceResponse("m", "1", request.tensors, id=request.id)
    size = None
    if over == "grpc":
        body = oip_grpc.from_response(response, rendering)
    else:
        rendering.binary_default = binary
        reply = oip_rest.render_response(response, rendering, DYNAMIC)
        body, header = reply.body, dict(reply.headers).get(oip_rest.HEADER_LENGTH)
        size = None if header is None else int(header)
    answer = peer.ask(do="decode", over=over, body=base64.b64encode(body).decode(), size=size)
    assert (answer["id"], answer["model_name"]) == ("a1", "m")
    for output, (dtype, array) in zip(answer["outputs"], arrays.items(), strict=True):
        assert (output["datatype"], output["shape"]) == (str(dtype), list(array.shape))
        if dtype is DType.BYTES:
            assert [base64.b64decode(item) for item in output["data"]] == array.ravel().tolist()
        else:
            assert base64.b64decode(output["data"]) == array.tobytes()


@pytest.mark.parametrize("over", ["rest", "grpc"])
def test_binary_outputs_by_parameter(peer: Peer, over: str) -> None:
    arrays = {DType.FP32: ARRAYS[DType.FP32]}
    request, rendering = encode(peer, over, arrays, True, parameters={"binary_data_output": True, "a": "b"})
    assert request.parameters == {"a": "b"}
    if over == "rest":
        assert rendering.binary_default


def test_empty_tensors(peer: Peer) -> None:
    arrays = {DType.FP32: np.zeros((0, 3), np.float32)}
    request, _ = encode(peer, "rest", arrays, True)
    assert request.tensors[0].shape == (0, 3)
