"""Example requests are accepted by the server's own codecs for every kind of signature."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec
import pytest

from headrace.client.example import curl, example_inputs, predict_command
from headrace.client.inputs import to_tensors
from headrace.client.metadata import ModelMetadata
from headrace.core.binding import bind
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import DType
from headrace.protocols import kserve_v1, oip_generate

URL = "http://127.0.0.1:8000"


def spec(name: str, dtype: DType, *shape: int, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, dtype, shape, optional=optional)


SIGNATURES: dict[str, Signature] = {
    "columns": Signature((spec("amount", DType.FP64, -1), spec("it's", DType.BYTES, -1)), (), columns=True),
    "one column": Signature((spec("amount", DType.INT64, -1),), (), columns=True),
    "matrix": Signature((spec("X", DType.FP32, -1, 4),), ()),
    "vector": Signature((spec("x", DType.FP32, -1),), ()),
    "two inputs": Signature((spec("a", DType.FP32, -1, 2, 2), spec("b", DType.BOOL, -1)), ()),
    "free inner": Signature((spec("ids", DType.INT64, -1, -1),), ()),
    "fixed": Signature((spec("x", DType.FP32, 2, 3),), (), batchable=False),
    "fixed, two": Signature((spec("x", DType.FP32, 2), spec("n", DType.INT8)), (), batchable=False),
    "half": Signature((spec("x", DType.FP16, -1, 2), spec("y", DType.BF16, -1)), ()),
    "optional": Signature((spec("a", DType.FP32, -1), spec("b", DType.FP32, -1, optional=True)), ()),
    "any": Signature((), (), any_inputs=True),
    "text": Signature((spec("prompt", DType.BYTES, -1),), ()),
}


def command(name: str, signature: Signature, streaming: bool = False) -> list[str]:
    line = curl(
        URL,
        name,
        signature.inputs,
        batchable=signature.batchable,
        columns=signature.columns,
        streaming=streaming,
    )
    return shlex.split(line)


@pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES.keys())
def test_curl_sends_what_the_server_takes(signature: Signature) -> None:
    program, silent, url, flag, body = command("team/m", signature)
    assert (program, silent, url, flag) == ("curl", "-s", f"{URL}/v1/models/team/m:predict", "-d")
    request, _ = kserve_v1.parse_request(body.encode(), None, signature)
    assert bind(signature, request.tensors, {}).rows == 1


@pytest.mark.parametrize("signature", SIGNATURES.values(), ids=SIGNATURES.keys())
def test_headrace_predict_sends_what_the_server_takes(signature: Signature) -> None:
    *words, data = shlex.split(predict_command(URL, "m", signature.inputs))
    assert words == ["headrace", "predict", "m", "--data"]
    metadata = ModelMetadata("m", (), "", signature.inputs, ())
    assert bind(signature, to_tensors(msgspec.json.decode(data), metadata), {}).rows == 1


def test_streams_are_followed() -> None:
    signature = SIGNATURES["text"]
    _, _, unbuffered, url, _, body = command("m", signature, streaming=True)
    assert (unbuffered, url) == ("-N", f"{URL}/v2/models/m/generate_stream")
    request, _ = oip_generate.parse_generate(body.encode(), signature)
    assert bind(signature, request.tensors, {}).rows == 1


def test_large_inputs_get_their_metadata_and_a_file() -> None:
    image = Signature((spec("image", DType.FP32, -1, 3, 224, 224),), ())
    assert example_inputs(image.inputs) is None
    assert command("img", image) == ["curl", "-s", f"{URL}/v2/models/img"]
    assert predict_command(URL, "img", image.inputs) == "headrace predict img --input image=@image.npy"


def test_https_and_other_servers_are_named() -> None:
    line = curl("https://h:1", "m", SIGNATURES["vector"].inputs, batchable=True, columns=False, streaming=False)
    assert line.startswith("curl -s -k https://h:1/v1/models/m:predict -d ")
    assert "--url http://h:1" in predict_command("http://h:1", "m", SIGNATURES["vector"].inputs)


@pytest.mark.parametrize(
    ("dtype", "value"), [(DType.FP32, 0.0), (DType.INT8, 0), (DType.BOOL, False), (DType.BYTES, "a")]
)
def test_values(dtype: DType, value: Any) -> None:
    assert example_inputs([spec("x", dtype, -1)]) == {"x": [value]}
