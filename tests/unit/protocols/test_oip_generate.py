"""The generate extension: keys that name inputs, everything else, and answers as documents and events."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from headrace.core import binding, errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceRequest, InferenceResponse
from headrace.core.tensors import DType, Tensor, fp32_to_bf16
from headrace.protocols import oip_rest
from headrace.protocols.protocol import Rendering

TEXT = Signature(
    (
        TensorSpec("text_input", DType.BYTES, (-1, 1)),
        TensorSpec("max_tokens", DType.INT32, (-1, 1), optional=True),
        TensorSpec("stop_words", DType.BYTES, (-1, -1), optional=True),
    ),
    (TensorSpec("text_output", DType.BYTES, (-1, 1)),),
    streaming=True,
)
DYNAMIC = Signature((), (), any_inputs=True)


def parse(document: Any, signature: Signature = TEXT) -> InferenceRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    request, rendering = oip_rest.parse_generate(body, signature)
    assert rendering == Rendering()
    binding.bind(signature, request.tensors, {})
    return request


def test_inputs_parameters_and_the_rest() -> None:
    request = parse(
        {
            "id": "7",
            "text_input": "hello é",
            "stop_words": ["a", "b"],
            "temperature": 0.5,
            "seed": None,
            "parameters": {"max_tokens": 20, "stream": True},
        }
    )
    assert request.id == "7"
    assert request.parameters == {"temperature": 0.5, "stream": True}
    assert {t.name: t.array.tolist() for t in request.tensors} == {
        "text_input": [["hello é".encode()]],
        "stop_words": [[b"a", b"b"]],
        "max_tokens": [[20]],
    }


@pytest.mark.parametrize(
    ("shape", "batchable", "value", "expected"),
    [
        ((-1,), True, 5, (1,)),
        ((-1,), True, [5, 6], (2,)),
        ((-1, 2), True, [5, 6], (1, 2)),
        ((-1, 2), True, [[5, 6], [7, 8]], (2, 2)),
        ((-1, -1), True, [5, 6], (1, 2)),
        ((-1, -1, -1), True, [5, 6], (1, 1, 2)),
        ((1,), False, 5, (1,)),
        ((-1,), False, [5, 6], (2,)),
        ((), False, 5, ()),
        ((-1,), True, [], (0,)),
    ],
)
def test_values_fill_the_shape(shape: tuple[int, ...], batchable: bool, value: Any, expected: tuple[int, ...]) -> None:
    signature = Signature((TensorSpec("x", DType.INT64, shape),), (), batchable=batchable)
    assert parse({"x": value}, signature).tensors[0].shape == expected


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(DType.FP16, 1), (DType.BF16, 1), (DType.FP32, 1), (DType.BOOL, True), (DType.UINT64, 2**64 - 1)],
)
def test_datatypes_come_from_the_signature(dtype: DType, value: Any) -> None:
    (tensor,) = parse({"x": value}, Signature((TensorSpec("x", dtype, (-1,)),), ())).tensors
    assert tensor.dtype is dtype


def test_an_input_may_be_called_id() -> None:
    signature = Signature((TensorSpec("id", DType.INT64, (-1,)),), ())
    assert parse({"id": 5}, signature).tensors[0].array.tolist() == [5]


def test_a_dynamic_model_takes_every_key_as_an_input() -> None:
    request = parse(
        {"a": "x", "b": [1, 2], "parameters": {"c": 1}}, DYNAMIC.__class__((), (), batchable=False, any_inputs=True)
    )
    assert {t.name: t.array.tolist() for t in request.tensors} == {"a": [b"x"], "b": [1, 2]}
    assert request.parameters == {"c": 1}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "the body is empty"),
        (b"{", "not valid JSON"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        ([], "expected object, got array"),
        ({"text_input": 5}, "input 'text_input' BYTES: expected string, got integer"),
        ({"text_input": None, "max_tokens": "a"}, "input 'max_tokens' INT32: expected integer, got string"),
        ({"max_tokens": 2**31}, "input 'max_tokens' INT32: expected integer <= 2147483647"),
        ({"max_tokens": [1, [2]], "text_input": ["a", "b"]}, None),
        ({"text_input": "a", "stop_words": [[]], "max_tokens": "1"}, "input 'max_tokens' INT32"),
        ({"text_input": json.loads("[" * 30 + "]" * 30)}, "more than 10 deep"),
        ({"text_input": {"a": 1}}, "got object"),
        ({"text_input": "a", "parameters": [1]}, "parameters: expected an object"),
        ({"text_input": "a", "id": 5}, "id: expected a string"),
        ({"text_input": "a", "triton_x": 1}, "reserved"),
        ({"text_input": "a", "other": {"b": 1}}, "parameter 'other': expected a string, number or boolean"),
    ],
)
def test_refused_bodies(document: Any, words: str | None) -> None:
    if words is None:
        assert [t.shape for t in parse(document).tensors] == [(2, 1), (2, 1)]
        return
    with pytest.raises(errors.InvalidInput) as caught:
        parse(document)
    assert words in caught.value.message


def test_out_of_range_of_64_bits() -> None:
    with pytest.raises(errors.InvalidInput, match="out of range of INT64"):
        parse({"x": 2**63}, Signature((TensorSpec("x", DType.INT64, (-1,)),), ()))


RESPONSE = InferenceResponse(
    "m",
    "2",
    [
        Tensor("text_output", DType.BYTES, np.array([["é".encode()]], object)),
        Tensor("scores", DType.FP32, np.array([[0.5, 1.5]], np.float32)),
        Tensor("half", DType.BF16, fp32_to_bf16(np.array([0.5]))),
    ],
    id="7",
    parameters={"triton_final_response": True},
)


def test_documents_and_events() -> None:
    document = {
        "id": "7",
        "model_name": "m",
        "model_version": "2",
        "text_output": "é",
        "scores": [0.5, 1.5],
        "half": 0.5,
    }
    reply = oip_rest.render_generate(RESPONSE)
    assert (reply.status, reply.headers) == (200, [(b"content-type", b"application/json")])
    assert json.loads(reply.body) == document
    event = oip_rest.render_generate_event(RESPONSE)
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event[6:]) == document


def test_line_breaks_stay_inside_an_event() -> None:
    given = InferenceResponse("m", "1", [Tensor("t", DType.BYTES, np.array([b"a\n\nb\r"], object))])
    assert oip_rest.render_generate_event(given).count(b"\n") == 2


def test_error_events() -> None:
    assert oip_rest.render_generate_error_event(errors.ModelRaised("it broke\n\nbadly")) == (
        b'data: {"error":"it broke\\n\\nbadly"}\n\n'
    )


@pytest.mark.parametrize(
    "output",
    [Tensor("o", DType.FP32, np.array([np.nan], np.float32)), Tensor("o", DType.BYTES, np.array([b"\xff"], object))],
)
def test_outputs_that_json_cannot_hold(output: Tensor) -> None:
    with pytest.raises(errors.InvalidInput, match=r"output 'o'.*infer with binary data"):
        oip_rest.render_generate(InferenceResponse("m", "1", [output]))
