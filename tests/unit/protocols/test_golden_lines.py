"""Golden files: what is written is read, and what is wrong is named by line and field."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headrace.core import errors
from headrace.core.comparison import EXACT, Tolerance, compare
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor, bf16_to_fp32, fp32_to_bf16
from headrace.protocols import golden_lines
from headrace.protocols.golden_lines import GoldenRequest

X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}
Y = {"name": "y", "datatype": "FP32", "shape": [1], "data": [0.25]}


def line(**fields: Any) -> bytes:
    return msgspec.json.encode({"inputs": [X], "outputs": [Y]} | fields)


def read(content: bytes) -> list[GoldenRequest]:
    return list(golden_lines.read(content, "g.jsonl"))


def output(**fields: Any) -> bytes:
    return line(outputs=[Y | fields])


def stream(*responses: Any, **fields: Any) -> bytes:
    return msgspec.json.encode({"inputs": [X], "responses": responses} | fields)


def test_a_line_of_a_stream_is_read() -> None:
    [found, unary] = read(
        stream([Y], [Y | {"data": [0.5]}, Y | {"name": "z"}], tolerances={"y": {"rtol": 0.1}}) + b"\n" + line()
    )
    assert (found.streams, found.outputs, found.tolerances) == (True, (), {"y": Tolerance(rtol=0.1)})
    assert [[(t.name, t.array.tolist()) for t in response] for response in found.answer] == [
        [("y", [0.25])],
        [("y", [0.5]), ("z", [0.25])],
    ]
    assert (unary.streams, unary.responses, unary.answer) == (False, None, (unary.outputs,))


def test_a_stream_without_a_response_is_no_unary_answer() -> None:
    [found] = read(stream())
    assert (found.streams, found.answer) == (True, ())
    [again] = read(golden_lines.write(found))
    assert (again.streams, again.answer) == (True, ())


def test_a_line_is_read() -> None:
    [found] = read(line(name="a", parameters={"seed": 7}, tolerances={"y": {"rtol": 0.1}}))
    assert (found.name, found.title, found.line, found.parameters) == ("a", "a", 1, {"seed": 7})
    assert found.tolerances == {"y": Tolerance(rtol=0.1)}
    [given], [expected] = found.inputs, found.outputs
    assert (given.name, given.dtype, given.array.tolist()) == ("x", DType.FP32, [[0.5, 1.5]])
    assert (expected.name, expected.array.dtype, expected.array.tolist()) == ("y", np.float32, [0.25])


def test_half_a_tolerance_has_the_datatypes_other_half() -> None:
    half = Y | {"name": "h", "datatype": "FP16"}
    [found] = read(line(outputs=[Y, half], tolerances={"h": {"rtol": 0}, "y": {"atol": 1}}))
    assert found.tolerances == {"h": Tolerance(0.0, 1e-2), "y": Tolerance(1e-5, 1.0)}


def test_the_example_of_messages_is_valid_and_empty_lines_are_skipped() -> None:
    example = golden_lines.EXAMPLE.encode()
    found = read(b"\n" + example + b"\r\n   \n" + example)
    assert [request.title for request in found] == ["line 2", "line 4"]


def test_the_line_in_the_documentation_is_valid() -> None:
    text = (Path(__file__).parents[3] / "docs" / "golden-requests.md").read_text(encoding="utf-8")
    found = [request for part in text.split("```json\n")[1:] for request in read(part.partition("```")[0].encode())]
    assert [(request.title, request.streams) for request in found] == [("big order", False), ("line 1", True)]


def test_data_may_be_flat_or_nested_and_tensors_may_say_more() -> None:
    nested = X | {"data": [[0.5, 1.5]], "parameters": {"content_type": "np"}}
    [found] = read(line(inputs=[nested]))
    assert found.inputs[0].array.tolist() == [[0.5, 1.5]]


def test_what_the_protocol_has_no_json_for() -> None:
    of = [
        {"name": "half", "datatype": "FP16", "shape": [2], "data": [0.1, "NaN"]},
        {"name": "brain", "datatype": "BF16", "shape": [2], "data": [1.5, "-Infinity"]},
        {"name": "single", "datatype": "FP32", "shape": [1], "data": ["Infinity"]},
        {"name": "bytes", "datatype": "BYTES", "shape": [2], "data": ["NaN", {"b64": "AP8="}]},
    ]
    [found] = read(line(outputs=of))
    half, brain, single, raw = (tensor.array for tensor in found.outputs)
    assert half[0] == np.float16(0.1)
    assert math.isnan(half[1])
    assert bf16_to_fp32(brain).tolist() == [1.5, -math.inf]
    assert single.tolist() == [math.inf]
    assert raw.tolist() == [b"NaN", b"\x00\xff"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no json", r'not valid JSON: .*; every line is a JSON object like \{"inputs"'),
        (b"[]", r'expected object, got array; expected a line like \{"inputs"'),
        (b"{}", r"missing required field `inputs`; expected a line like"),
        (b'{"inputs": []}', r"missing required field `outputs`, or `responses` of a model that streams; expected a li"),
        (line(responses=[[Y]]), "outputs and responses: a line has one of them, `outputs` of one answer or"),
        (stream([Y], []), r"responses\[1\]: expected array of length >= 1"),
        (stream(Y), r"responses\[0\]: expected array, got object"),
        (stream([Y], [Y, Y]), r"responses\[1\]: 'y' is given more than once"),
        (stream([Y], [Y | {"shape": [2]}]), r"responses\[1\]\[0\] 'y': shape \[2\] takes 2 elements, data has 1"),
        (stream([Y | {"datatype": "FP99"}]), r"responses\[0\]\[0\].datatype: invalid enum value 'FP99'; expected"),
        (stream([Y], tolerances={"z": {}}), "tolerances: 'z' is none of the outputs 'y'"),
        (
            stream([Y], [Y | {"datatype": "FP16"}], tolerances={"y": {}}),
            "tolerances: output 'y' is FP32 in one response and FP16 in another",
        ),
        (line(outputs=[]), "outputs: expected array of length >= 1"),
        (
            line(tolerance={}),
            "unknown field `tolerance`; a line has inputs, outputs .or responses, of a stream. and, if w",
        ),
        (line(inputs=[{"name": "x"}]), r"inputs\[0\]: object missing required field `datatype`"),
        (line(inputs=[X, X]), "inputs: 'x' is given more than once"),
        (line(outputs=[Y, Y]), "outputs: 'y' is given more than once"),
        (line(name=7), "name: expected string, got integer"),
        (output(datatype="FP99"), r"outputs\[0\].datatype: invalid enum value 'FP99'; expected one of BOOL, UINT8"),
        (output(shape=[-1]), r"outputs\[0\].shape\[0\]: expected integer >= 0"),
        (output(shape=[2]), r"outputs\[0\] 'y': shape \[2\] takes 2 elements, data has 1"),
        (output(shape=[1 << 30, 1 << 30]), r"outputs\[0\] 'y': shape .* has \d+ elements"),
        (output(data=["a"]), r"outputs\[0\] 'y': data\[0\]: invalid enum value 'a'; expected numbers in .* FP32 like"),
        (output(data=[1e39]), r"outputs\[0\] 'y': data\[0\]: expected number <= .*range of FP32"),
        (output(data=[[1], []]), r"outputs\[0\] 'y': the nested lists of data have different lengths"),
        (output(data=1), r"outputs\[0\] 'y': data: expected array, got integer"),
        (output(datatype="INT8", data=[300]), r"data\[0\]: expected integer <= 127; expected whole numbers in"),
        (output(datatype="INT32", data=[0.5]), r"data\[0\]: expected integer, got number; expected whole numbers"),
        (output(datatype="INT64", data=[1 << 64]), "out of range of INT64"),
        (output(datatype="BOOL", data=["yes"]), r"data\[0\]: .*; expected true or false"),
        (output(datatype="BYTES", data=[1]), r"data\[0\]: .*; expected strings like \"US\""),
        (output(datatype="BYTES", data=[{"b64": "%"}]), r"data\[0\].b64: invalid base64"),
        (line(parameters={"a": [1]}), "parameter 'a': expected a string, number or boolean, got an array"),
        (line(tolerances={"z": {}}), "tolerances: 'z' is none of the outputs 'y'"),
        (line(tolerances={"y": {"rtol": -1}}), "rtol: expected number >= 0"),
        (line(tolerances={"y": {"tol": 1}}), "unknown field `tol`; expected numbers that are not negative"),
        (
            line(outputs=[Y | {"datatype": "INT64", "data": [1]}], tolerances={"y": {}}),
            "tolerances: output 'y' is INT64, which is equal or is not; only FP64, FP32, FP16, BF16 have",
        ),
        (line().replace(b"0.25", b"NaN"), 'JSON has no NaN and infinity: write "NaN"'),
        (line().replace(b"0.25", b'"\xff"'), "0.* 'y': data"),
        (line(inputs=[X | {"data": None}]), r"inputs\[0\] 'x': data: expected array, got null"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_field(content: bytes, says: str) -> None:
    with pytest.raises(errors.InvalidInput, match=rf"^g\.jsonl, line 3: .*{says}"):
        read(line() + b"\n\n" + content + b"\n")


def test_there_are_some_requests_and_not_too_many() -> None:
    for empty in (b"", b"\n \n"):
        with pytest.raises(errors.InvalidInput, match=r"g\.jsonl holds no golden requests; a line is like"):
            read(empty)
    golden_lines.check((line() + b"\n") * golden_lines.MAX_REQUESTS, "g.jsonl")
    with pytest.raises(errors.InvalidInput, match="line 10001: there are more than 10000 golden requests"):
        golden_lines.check((line() + b"\n") * (golden_lines.MAX_REQUESTS + 1), "g.jsonl")


def test_floats_are_written_as_people_write_them() -> None:
    single = Tensor("y", DType.FP32, np.array([0.1, 3.4028235e38], np.float32))
    brain = Tensor("z", DType.BF16, fp32_to_bf16(np.array([0.1], np.float32)))
    text = golden_lines.write(GoldenRequest((), (single, brain))).decode()
    assert '"data":[0.1,3.4028234663852886e38]' in text
    assert '"data":[0.100097656]' in text
    assert text.endswith("\n")


def test_a_request_without_inputs_survives() -> None:
    [found] = read(golden_lines.write(GoldenRequest((), (Tensor("y", DType.BOOL, np.array([True])),))))
    assert found.inputs == ()


@st.composite
def tensors(draw: st.DrawFn, name: str) -> Tensor:
    """Any datatype, any bits, up to three dimensions."""
    dtype = draw(st.sampled_from(list(DType)))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    if dtype is DType.BYTES:
        return Tensor(name, dtype, draw(arrays.arrays(object, shape, elements=st.binary(max_size=5))))
    return Tensor(name, dtype, draw(arrays.arrays(NUMPY_DTYPES[dtype], shape)))


_bounds = st.floats(0, allow_infinity=False, allow_nan=False)


@given(tensors("x"), tensors("y"), st.text(max_size=5), st.builds(Tolerance, rtol=_bounds, atol=_bounds))
def test_what_is_written_is_read_bit_for_bit(given: Tensor, answer: Tensor, name: str, tolerance: Tolerance) -> None:
    tolerances = {"y": tolerance} if answer.dtype in golden_lines.DEFAULTS else {}
    wanted = GoldenRequest((given,), (answer,), {"seed": 7, "deep": True, "rate": 0.5, "who": "é"}, tolerances, name)
    [found] = read(golden_lines.write(wanted))
    assert (found.parameters, found.tolerances, found.name) == (wanted.parameters, tolerances, name)
    exact = {"x": EXACT, "y": EXACT}
    assert compare(wanted.inputs, found.inputs, exact).differences == ()
    assert compare(wanted.outputs, found.outputs, exact).differences == ()


@given(st.lists(st.tuples(tensors("y"), st.none() | tensors("z")), max_size=4))
def test_a_stream_that_is_written_is_read_bit_for_bit(responses: list[tuple[Tensor, Tensor | None]]) -> None:
    answer = tuple((first, *([second] if second is not None else [])) for first, second in responses)
    [found] = read(golden_lines.write(GoldenRequest((), (), {"seed": 7}, responses=answer)))
    assert (found.parameters, found.outputs, len(found.answer)) == ({"seed": 7}, (), len(answer))
    for wanted, got in zip(answer, found.answer, strict=True):
        assert [tensor.name for tensor in got] == [tensor.name for tensor in wanted]
        assert compare(wanted, got, {"y": EXACT, "z": EXACT}).differences == ()
