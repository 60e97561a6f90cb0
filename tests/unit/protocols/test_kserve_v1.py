"""Plain JSON: rows and columns by the signature, NaN literals, base64, and words that name row and column."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from headrace.core import binding, errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceResponse
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, Tensor, bf16_to_fp32, fp32_to_bf16
from headrace.protocols import kserve_v1, tabular
from headrace.protocols.protocol import Rendering

MATRIX = Signature((TensorSpec("X", DType.FP32, (-1, 3)),), (TensorSpec("y", DType.FP32, (-1,)),))
TABLE = Signature(
    (
        TensorSpec("amount", DType.FP32, (-1,)),
        TensorSpec("country", DType.BYTES, (-1,)),
        TensorSpec("visits", DType.INT64, (-1,)),
        TensorSpec("vip", DType.BOOL, (-1,)),
        TensorSpec("age", DType.FP32, (-1,)),
    ),
    (TensorSpec("y", DType.FP32, (-1,)),),
    columns=True,
)
TEXT = Signature((TensorSpec("text", DType.BYTES, (-1,)),), ())
DYNAMIC = Signature((), (), any_inputs=True)

ROW = {"amount": 12.5, "country": "US", "visits": 3, "vip": True, "age": 40}


def parse(document: Any, signature: Signature) -> dict[str, Array]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    request, _ = kserve_v1.parse_request(body, None, signature)
    for tensor in request.tensors:
        assert tensor.array.dtype == NUMPY_DTYPES[tensor.dtype]
    if not signature.any_inputs:
        by_name = {spec.name: spec for spec in signature.inputs}
        assert all(tensor.dtype is by_name[tensor.name].dtype for tensor in request.tensors)
        binding.bind(signature, request.tensors, {})
    return {tensor.name: tensor.array for tensor in request.tensors}


def refused(document: Any, signature: Signature) -> str:
    with pytest.raises(errors.InvalidInput) as caught:
        parse(document, signature)
    return caught.value.message


# Rows.


def test_rows_of_mixed_columns() -> None:
    found = parse({"instances": [ROW, ROW | {"country": "DÉ", "age": 1.5, "vip": 0}]}, TABLE)
    assert {name: array.tolist() for name, array in found.items()} == {
        "amount": [12.5, 12.5],
        "country": [b"US", "DÉ".encode()],
        "visits": [3, 3],
        "vip": [True, False],
        "age": [40.0, 1.5],
    }


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_columns_of_one_datatype(rows: int) -> None:
    names = [f"c {i}" for i in range(30)]
    signature = Signature(tuple(TensorSpec(name, DType.FP64, (-1,)) for name in names), (), columns=True)
    table = np.random.default_rng(0).normal(size=(rows, 30))
    found = parse({"instances": [dict(zip(names, row, strict=True)) for row in table.tolist()]}, signature)
    assert list(found) == names
    for at, name in enumerate(names):
        assert found[name].tolist() == table[:, at].tolist()
        assert found[name].flags.c_contiguous


def test_rows_as_lists_for_one_input() -> None:
    assert parse({"instances": [[1, 2, 3], [4.5, 5, 6]]}, MATRIX)["X"].tolist() == [[1, 2, 3], [4.5, 5, 6]]
    assert parse({"instances": [{"X": [1, 2, 3]}]}, MATRIX)["X"].tolist() == [[1, 2, 3]]


def test_scalars_for_one_input() -> None:
    assert parse({"instances": ["a", "b"]}, TEXT)["text"].tolist() == [b"a", b"b"]
    assert parse({"instances": [{"text": "a"}, {"text": "b"}]}, TEXT)["text"].tolist() == [b"a", b"b"]
    one = Signature((TensorSpec("n", DType.INT32, (-1, 1)),), ())
    assert parse({"instances": [1, 2]}, one)["n"].tolist() == [1, 2]
    assert parse({"instances": [[1], [2]]}, one)["n"].tolist() == [[1], [2]]
    column = Signature((TensorSpec("n", DType.INT32, (-1,)),), ())
    assert parse({"instances": [[1], [2]]}, column)["n"].tolist() == [[1], [2]]


def test_rows_with_inner_shapes() -> None:
    signature = Signature((TensorSpec("image", DType.UINT8, (-1, 2, 2)), TensorSpec("id", DType.INT64, (-1,))), ())
    rows = [{"image": [[1, 2], [3, 4]], "id": 1}, {"image": [[5, 6], [7, 8]], "id": 2}]
    found = parse({"instances": rows}, signature)
    assert found["image"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert found["id"].tolist() == [1, 2]


def test_a_fixed_shape_stacks_along_its_first_dimension() -> None:
    fixed = Signature((TensorSpec("X", DType.FP32, (2, 2)),), (), batchable=False)
    assert parse({"instances": [[1, 2], [3, 4]]}, fixed)["X"].shape == (2, 2)
    scalar = Signature((TensorSpec("X", DType.FP32, ()),), (), batchable=False)
    assert parse({"instances": [7]}, scalar)["X"].shape == ()


def test_null_is_nan_in_float_columns_only() -> None:
    found = parse({"instances": [ROW | {"age": None}, ROW]}, TABLE)
    assert math.isnan(found["age"][0])
    assert found["age"][1] == 40
    assert np.isnan(parse({"instances": [[1, None, 3]]}, MATRIX)["X"][0, 1])
    assert refused({"instances": [ROW, ROW | {"visits": None}]}, TABLE) == (
        "instances[1]: column 'visits' INT64: expected integer, got null"
    )
    assert "instances[0]: column 'country' BYTES: expected string" in refused(
        {"instances": [ROW | {"country": None}]}, TABLE
    )


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_literals(literal: str) -> None:
    body = b'{"instances": [{"amount": %s, "country": "NaN", "visits": 3, "vip": true, "age": 1}]}' % literal.encode()
    found = parse(body, TABLE)
    assert repr(float(found["amount"][0])) == repr(float(literal))
    assert found["country"].tolist() == [b"NaN"]
    assert "expected integer, got number" in refused(body.replace(b"3", literal.encode()), TABLE)
    assert repr(float(parse(b'{"inputs": [[1, 2, %s]]}' % literal.encode(), MATRIX)["X"][0, 2])) == repr(float(literal))


@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_text_that_is_no_utf8(key: str) -> None:
    assert "not valid UTF-8" in refused(b'{"%s": ["\xff"]}' % key.encode(), TEXT)
    assert "UTF-8" in refused(b'{"%s": ["\xff", NaN]}' % key.encode(), TEXT)


def test_text_that_says_nan_takes_the_usual_way() -> None:
    assert parse({"instances": ["NaN", "Infinity"]}, TEXT)["text"].tolist() == [b"NaN", b"Infinity"]


@pytest.mark.parametrize("body", [b'{"instances": [NaN', b'{"instances": NaN, }', b"[NaN]", b"NaN", b'{"a": NaN}'])
def test_malformed_bodies_with_literals(body: bytes) -> None:
    refused(body, MATRIX)


def test_base64() -> None:
    value = {"b64": base64.b64encode(b"\xff\x00").decode()}
    assert parse({"instances": [value, "b"]}, TEXT)["text"].tolist() == [b"\xff\x00", b"b"]
    assert parse({"instances": [{"text": value}]}, TEXT)["text"].tolist() == [b"\xff\x00"]
    assert parse({"instances": [ROW | {"country": value}]}, TABLE)["country"].tolist() == [b"\xff\x00"]
    assert parse({"inputs": [value]}, TEXT)["text"].tolist() == [b"\xff\x00"]
    assert parse({"inputs": {"text": [value]}}, TEXT)["text"].tolist() == [b"\xff\x00"]
    single = Signature((TensorSpec("t", DType.BYTES, ()),), (), batchable=False)
    assert parse({"inputs": value}, single)["t"].tolist() == b"\xff\x00"
    assert "instances[0]" in refused({"instances": [{"b64": "***"}]}, TEXT)
    assert "column 'amount' FP32: expected number or null, got object" in refused(
        {"instances": [ROW | {"amount": value}]}, TABLE
    )


def test_optional_columns() -> None:
    signature = Signature(
        (
            TensorSpec("a", DType.FP32, (-1,), optional=True),
            TensorSpec("b", DType.BYTES, (-1,), optional=True),
            TensorSpec("c", DType.INT64, (-1,)),
        ),
        (),
    )
    assert list(parse({"instances": [{"c": 1}, {"c": 2}]}, signature)) == ["c"]
    found = parse({"instances": [{"c": 1, "a": 5}, {"c": 2}]}, signature)
    assert found["a"][0] == 5
    assert math.isnan(found["a"][1])
    assert refused({"instances": [{"c": 1, "b": "x"}, {"c": 2}]}, signature) == (
        "instances[1]: column 'b' is missing, but other rows have it"
    )
    assert parse({"inputs": {"c": [1]}}, signature).keys() == {"c"}


def test_names_that_msgspec_cannot_use() -> None:
    odd = Signature((TensorSpec('say "a"', DType.FP32, (-1,)), TensorSpec("back\\slash", DType.INT64, (-1,))), ())
    found = parse({"instances": [{'say "a"': 1.5, "back\\slash": 2}]}, odd)
    assert found['say "a"'].tolist() == [1.5]
    assert found["back\\slash"].tolist() == [2]
    assert parse({"inputs": {'say "a"': [1.5], "back\\slash": [2]}}, odd)["back\\slash"].tolist() == [2]
    assert "column 'say \"a\"' is missing" in refused({"instances": [{"back\\slash": 2}]}, odd)
    assert "column 'back\\\\slash' INT64: expected integer" in refused(
        {"instances": [{'say "a"': 1, "back\\slash": "x"}]}, odd
    )


@pytest.mark.parametrize("name", ["a`b", "a.b", "a[0]", "é", "", "f0", "a b"])
def test_odd_names_in_messages(name: str) -> None:
    signature = Signature((TensorSpec(name, DType.FP32, (-1,)), TensorSpec("zz", DType.FP32, (-1,))), ())
    assert refused({"instances": [{name: "x", "zz": 1}]}, signature).endswith("expected number or null, got string")
    if name:
        assert f"column {name!r} FP32:" in refused({"instances": [{name: "x", "zz": 1}]}, signature)
    assert f"column {name!r} is missing" in refused({"instances": [{"zz": 1}]}, signature)


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.BYTES])
def test_every_datatype_takes_json_numbers(dtype: DType) -> None:
    value: Any = True if dtype is DType.BOOL else 1
    single = Signature((TensorSpec("n", dtype, (-1,)),), ())
    pair = Signature((TensorSpec("n", dtype, (-1,)), TensorSpec("m", dtype, (-1,))), ())
    found = [
        parse({"instances": [value]}, single)["n"],
        parse({"instances": [{"n": value, "m": value}]}, pair)["m"],
        parse({"inputs": {"n": [value], "m": [value]}}, pair)["n"],
    ]
    for array in found:
        assert (bf16_to_fp32(array) if dtype is DType.BF16 else array).tolist() == [1]


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        (DType.INT8, 128, "expected integer <= 127"),
        (DType.UINT8, -1, "expected integer >= 0"),
        (DType.INT64, 2**63, "out of range of INT64"),
        (DType.UINT64, 2**64, "out of range of UINT64"),
        (DType.FP16, 70000, "expected number <= 65504"),
        (DType.BF16, 3.4e38, "expected number <= 3.3"),
        (DType.FP32, 1e39, "expected number <= 3.4"),
        (DType.INT64, 1.5, "expected integer, got number"),
        (DType.INT64, True, "expected integer, got boolean"),
        (DType.INT64, "1", "expected integer, got string"),
        (DType.FP32, "1.5", "expected number or null, got string"),
        (DType.FP32, False, "expected number or null, got boolean"),
        (DType.BOOL, 2, "expected integer <= 1"),
        (DType.BYTES, 7, "got integer"),
    ],
)
def test_wrong_values_name_row_and_column(dtype: DType, value: Any, words: str) -> None:
    good: Any = "x" if dtype is DType.BYTES else 1
    pair = Signature((TensorSpec("n", dtype, (-1,)), TensorSpec("m", dtype, (-1,))), ())
    message = refused({"instances": [{"n": good, "m": good}, {"n": good, "m": value}]}, pair)
    assert message.startswith("instances[1]: column 'm'")
    assert words in message
    single = Signature((TensorSpec("n", dtype, (-1,)),), ())
    assert "'n'" in refused({"instances": [good, value]}, single)
    message = refused({"inputs": {"n": [good], "m": [value]}}, pair)
    assert "'m'" in message


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "neither 'instances' nor 'inputs' is given"),
        ({"instances": None}, "neither"),
        ({"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, "both"),
        ({"instances": []}, "instances is empty"),
        ({"instances": 5}, "instances: input 'X' FP32: expected array, got integer"),
        ({"instances": "abc"}, "expected array, got string"),
        ({"instances": {}}, "expected array, got object"),
        ({"instances": [[1, 2, "3"]]}, "instances[0][2]: input 'X' FP32: expected number"),
        ({"instances": [[1, 2, 3], [1, 2]]}, "input 'X': the nested lists have different lengths"),
        ({"instances": [{"Y": [1, 2, 3]}]}, "instances[0]: column 'Y' is unknown; the model takes 'X' FP32[-1, 3]"),
        ({"instances": [{"X": [1, 2, 3], "Y": 1}]}, "instances[0]: column 'Y' is unknown"),
        (
            {"instances": [{"X": [1, 2, "3"]}]},
            "instances[0]: column 'X' FP32 at [2]: expected number or array or null, got string",
        ),
        ({"instances": [{"X": [1, 2, 3]}, [1, 2, 3]]}, "instances[1]"),
        ({"instances": [{"X": [1, 2, 3]}, {"X": [1, 2]}]}, "input 'X': the rows have different shapes"),
        ({"inputs": {"Y": 1}}, "inputs: column 'Y' is unknown"),
        ({"inputs": {"X": "a"}}, "inputs: column 'X' FP32"),
        ({"inputs": [[1, 2, 3], [1, 2]]}, "different lengths"),
        ({"inputs": [["a"]]}, "inputs[0][0]: input 'X' FP32"),
        ([], "expected object, got array"),
        (b"", "the body is empty"),
        (b"{", "not valid JSON"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"instances": ' + b"[" * 100_000, ""),
        (b'{"instances": ' + b"[" * 100_000 + b"NaN", ""),
        (b'{"instances": [NaN, ' + b"9" * 5000 + b"]}", "not valid JSON"),
    ],
)
def test_refused_bodies(document: Any, words: str) -> None:
    message = refused(document, MATRIX)
    assert words in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"instances": [[1, "US", 3, True, 4]]},
            "this model takes several inputs, so a row is an object with 'amount'",
        ),
        ({"instances": [5]}, "instances[0]: expected object, got integer"),
        ({"instances": []}, "instances is empty"),
        ({"instances": {}}, "instances: expected array, got object"),
        (
            {"instances": [{"amount": 1}]},
            "instances[0]: column 'country' is missing; the model takes 'amount' FP32[-1]",
        ),
        ({"instances": [ROW, {}]}, "instances[1]: column 'amount' is missing"),
        ({"instances": [ROW | {"x": 1}]}, "instances[0]: column 'x' is unknown; the model takes"),
        ({"inputs": [1]}, "inputs: expected object, got array; this model takes several inputs"),
        ({"inputs": {"amount": [1]}}, "inputs: column 'country' is missing"),
    ],
)
def test_refused_tables(document: Any, words: str) -> None:
    assert words in refused(document, TABLE)


# Columns.


def test_columns_form() -> None:
    columns = {"amount": [1, 2], "country": ["US", "DE"], "visits": [1, 2], "vip": [True, False], "age": [None, 2]}
    found = parse({"inputs": columns}, TABLE)
    assert found["country"].tolist() == [b"US", b"DE"]
    assert found["vip"].tolist() == [True, False]
    assert math.isnan(found["age"][0])


def test_a_bare_tensor() -> None:
    assert parse({"inputs": [[1, 2, 3]]}, MATRIX)["X"].tolist() == [[1, 2, 3]]
    assert parse({"inputs": {"X": [[1, 2, 3]]}}, MATRIX)["X"].tolist() == [[1, 2, 3]]
    assert parse({"inputs": []}, Signature((TensorSpec("X", DType.FP32, (-1,)),), ()))["X"].shape == (0,)


def test_other_keys_are_ignored() -> None:
    assert parse({"instances": [[1, 2, 3]], "signature_name": "serving_default", "inputs": None}, MATRIX)


# Dynamic models: datatypes are guessed.


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        ([1, 2], DType.INT64),
        ([2**63, 1], DType.UINT64),
        ([1, 2.5], DType.FP64),
        ([1.5, None], DType.FP64),
        ([True, False], DType.BOOL),
        (["a", "b"], DType.BYTES),
        ([[1, 2], [3, 4]], DType.INT64),
    ],
)
def test_guessed_datatypes(data: list[Any], dtype: DType) -> None:
    for document in ({"instances": data}, {"inputs": data}, {"inputs": {"input": data}}):
        (tensor,) = kserve_v1.parse_request(json.dumps(document).encode(), None, DYNAMIC)[0].tensors
        assert (tensor.name, tensor.dtype) == ("input", dtype)
    rows = {"instances": [{"v": value} for value in data]}
    (tensor,) = kserve_v1.parse_request(json.dumps(rows).encode(), None, DYNAMIC)[0].tensors
    assert (tensor.name, tensor.dtype) == ("v", dtype)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"instances": [1, "a"]}, "all of one kind; got number, string"),
        ({"instances": [True, 1]}, "got boolean, number"),
        ({"instances": [[1], [1, 2]]}, "different lengths"),
        ({"instances": [{"a": 1}, {"b": 1}]}, "instances[1]: expected an object with the keys of the first row: ['a']"),
        ({"instances": [{"a": {}}]}, "got object"),
        ({"instances": []}, "at least one row"),
        ({"instances": 1}, "expected a list"),
        ({"inputs": {"a": [2**64]}}, "does not fit in 64 bits"),
        ({"inputs": {"a": [-1, 2**63]}}, "does not fit in 64 bits"),
        ({"inputs": json.loads("[" * 50 + "1" + "]" * 50)}, "more than 10 deep"),
    ],
)
def test_refused_guesses(document: Any, words: str) -> None:
    assert words in refused(document, DYNAMIC)


# Responses.


def render(form: str, *outputs: Tensor) -> Any:
    reply = kserve_v1.render_response(InferenceResponse("m", "1", list(outputs)), Rendering(detail=form), MATRIX)
    assert (reply.status, reply.headers) == (200, [(b"content-type", b"application/json")])
    return json.loads(reply.body)


LABEL = Tensor("label", DType.INT64, np.array([1, 0]))
P = Tensor("p", DType.FP32, np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))


def test_one_output() -> None:
    assert render("instances", P) == {"predictions": [[0.25, 0.75], [0.5, 0.5]]}
    assert render("inputs", P) == {"outputs": [[0.25, 0.75], [0.5, 0.5]]}
    scalar = Tensor("s", DType.FP64, np.array(1.5))
    assert render("instances", scalar) == {"predictions": [1.5]}
    assert render("inputs", scalar) == {"outputs": 1.5}


def test_several_outputs() -> None:
    assert render("instances", LABEL, P) == {
        "predictions": [{"label": 1, "p": [0.25, 0.75]}, {"label": 0, "p": [0.5, 0.5]}]
    }
    assert render("inputs", LABEL, P) == {"outputs": {"label": [1, 0], "p": [[0.25, 0.75], [0.5, 0.5]]}}


@pytest.mark.parametrize("other", [np.array([1]), np.array(1)])
def test_outputs_without_rows_in_common(other: Array) -> None:
    output = Tensor("n", DType.INT64, other)
    with pytest.raises(errors.InvalidInput, match="no rows in common; send 'inputs'"):
        render("instances", LABEL, output)
    assert render("inputs", LABEL, output)["outputs"]["label"] == [1, 0]


def test_bytes_outputs() -> None:
    def output(name: str, *items: bytes) -> Tensor:
        return Tensor(name, DType.BYTES, np.array([*items, b""], object)[:-1])

    assert render("instances", output("t", "é".encode(), b"null")) == {"predictions": ["é", "null"]}
    assert render("instances", output("t", b"\xff", b"a")) == {"predictions": [{"b64": "/w=="}, {"b64": "YQ=="}]}
    assert render("instances", output("t_bytes", b"a")) == {"predictions": [{"b64": "YQ=="}]}
    nested = Tensor("t", DType.BYTES, np.array([[b"a", b"b"]], object))
    assert render("inputs", nested) == {"outputs": [["a", "b"]]}


def test_half_precision_outputs_have_numbers() -> None:
    assert render("instances", Tensor("h", DType.FP16, np.array([0.5], np.float16))) == {"predictions": [0.5]}
    assert render("instances", Tensor("b", DType.BF16, fp32_to_bf16(np.array([0.5])))) == {"predictions": [0.5]}


def test_nonfinite_outputs_are_literals() -> None:
    output = Tensor("y", DType.FP32, np.array([np.nan, np.inf, -np.inf, 1], np.float32))
    reply = kserve_v1.render_response(InferenceResponse("m", "1", [output]), Rendering(detail="instances"), MATRIX)
    assert reply.body == b'{"predictions":[NaN,Infinity,-Infinity,1.0]}'


def test_the_form_of_the_request_decides_the_form_of_the_answer() -> None:
    _, rendering = kserve_v1.parse_request(b'{"inputs": [[1, 2, 3]]}', None, MATRIX)
    assert "outputs" in json.loads(kserve_v1.render_response(InferenceResponse("m", "1", [P]), rendering, MATRIX).body)


# Documents.


def test_the_list_of_models_reads_in_every_dialect() -> None:
    document = kserve_v1.render_list(["a", "org/b"], created=86_400)
    assert document["models"] == ["a", "org/b"]
    assert (document["object"], document["has_more"]) == ("list", False)
    assert (document["first_id"], document["last_id"]) == ("a", "org/b")
    assert document["data"][1] == {
        "id": "org/b",
        "object": "model",
        "created": 86_400,
        "owned_by": "headrace",
        "type": "model",
        "display_name": "org/b",
        "created_at": "1970-01-02T00:00:00Z",
    }
    assert kserve_v1.render_list([])["first_id"] is None


def test_one_model_reads_in_every_dialect() -> None:
    versions = [kserve_v1.VersionStatus("2", "AVAILABLE"), kserve_v1.VersionStatus("1", "END", "could not load")]
    document = kserve_v1.render_model("a", True, versions)
    assert (document["name"], document["id"], document["ready"]) == ("a", "a", True)
    assert document["model_version_status"] == [
        {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
        {"version": "1", "state": "END", "status": {"error_code": "UNKNOWN", "error_message": "could not load"}},
    ]


def test_tables_are_remembered_and_bounded() -> None:
    assert tabular.table(MATRIX) is tabular.table(MATRIX)
    assert tabular.table(MATRIX, literals=True) is not tabular.table(MATRIX)
    for _ in range(600):
        tabular.table(Signature((TensorSpec("X", DType.FP32, (-1,)),), ()))
    assert parse({"instances": [[1, 2, 3]]}, MATRIX)
