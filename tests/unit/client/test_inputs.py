"""Python values to typed tensors: nothing is lost silently, errors name input and row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.client.inputs import to_array, to_tensors
from headrace.client.metadata import ModelMetadata
from headrace.core import errors
from headrace.core.models import TensorSpec
from headrace.core.tensors import NUMPY_DTYPES, DType, bf16_to_fp32


def metadata(*specs: TensorSpec) -> ModelMetadata:
    return ModelMetadata("m", ("1",), "test", specs, ())


AMOUNT = TensorSpec("amount", DType.FP64, (-1,))
COUNTRY = TensorSpec("country", DType.BYTES, (-1,))
AGE = TensorSpec("age", DType.INT32, (-1,))
TABLE = metadata(AMOUNT, COUNTRY, AGE)
MATRIX = metadata(TensorSpec("X", DType.FP32, (-1, 3)))
ANY = metadata()


def arrays(inputs: Any, of: ModelMetadata) -> dict[str, Any]:
    return {t.name: t.array.tolist() for t in to_tensors(inputs, of)}


EXPECTED = {"amount": [1.0, 2.5], "country": [b"US", b"FR"], "age": [3, 4]}


@pytest.mark.parametrize(
    "inputs",
    [
        {"amount": [1, 2.5], "country": ["US", "FR"], "age": [3.0, 4]},
        [{"amount": 1, "country": "US", "age": 3}, {"amount": 2.5, "country": "FR", "age": 4}],
        {
            "amount": np.array([1, 2.5], np.float32),
            "country": np.array(["US", "FR"]),
            "age": np.array([3, 4], np.uint8),
        },
        pd.DataFrame({"amount": [1, 2.5], "country": ["US", "FR"], "age": [3, 4]}),
        {
            "amount": pd.Series([1, 2.5]),
            "country": pd.Categorical(["US", "FR"]),
            "age": pd.Series([3, 4], dtype="Int64"),
        },
    ],
    ids=["lists", "rows", "arrays", "frame", "series"],
)
def test_tables_in_every_form(inputs: Any) -> None:
    tensors = to_tensors(inputs, TABLE)
    assert {t.name: t.array.tolist() for t in tensors} == EXPECTED
    assert {t.name: t.dtype for t in tensors} == {"amount": DType.FP64, "country": DType.BYTES, "age": DType.INT32}
    assert [t.array.dtype for t in tensors] == [NUMPY_DTYPES[t.dtype] for t in tensors]


def test_one_array_for_a_model_with_one_input() -> None:
    assert arrays([[1, 2, 3], [4, 5, 6]], MATRIX) == {"X": [[1, 2, 3], [4, 5, 6]]}
    assert arrays(np.ones((1, 3)), MATRIX) == {"X": [[1, 1, 1]]}
    assert arrays(pd.DataFrame({"a": [1.0], "b": [2.0], "c": [3.0]}), MATRIX) == {"X": [[1, 2, 3]]}


def test_a_single_row_gets_its_dimension() -> None:
    assert arrays([1, 2, 3], MATRIX) == {"X": [[1, 2, 3]]}
    assert arrays({"amount": 1.5, "country": "US", "age": 3}, TABLE) == {
        "amount": [1.5],
        "country": [b"US"],
        "age": [3],
    }


def test_fixed_first_dimensions_are_left_alone() -> None:
    fixed = metadata(TensorSpec("X", DType.FP32, (3,)))
    assert arrays([1, 2, 3], fixed) == {"X": [1, 2, 3]}


def test_models_without_signature_take_what_numpy_says() -> None:
    found = {t.name: (t.dtype, t.array.tolist()) for t in to_tensors({"a": [1, 2], "b": ["x"], "c": [True]}, ANY)}
    assert found == {"a": (DType.INT64, [1, 2]), "b": (DType.BYTES, [b"x"]), "c": (DType.BOOL, [True])}
    assert arrays([1.5], ANY) == {"input": [1.5]}


def test_missing_values_are_nan_for_floats_and_empty_for_text() -> None:
    floats = to_array(AMOUNT, [1, None, float("nan")])
    assert np.isnan(floats[1:]).all()
    nullable = to_array(AMOUNT, pd.Series([1, pd.NA], dtype="Int64"))
    assert np.isnan(nullable[1])
    assert to_array(COUNTRY, ["a", None]).tolist() == [b"a", b""]
    assert to_array(COUNTRY, np.array(["a", np.nan], dtype=object)).tolist() == [b"a", b""]


def test_bytes_keep_zero_bytes_and_unicode_is_utf8() -> None:
    assert to_array(COUNTRY, [b"a\0", "é"]).tolist() == [b"a\0", "é".encode()]
    assert to_array(COUNTRY, b"a\0").tolist() == [b"a\0"]


def test_bf16_is_rounded_from_floats() -> None:
    bits = to_array(TensorSpec("x", DType.BF16, (-1,)), [1.0, 3.14159])
    assert bits.dtype == np.uint16
    assert bf16_to_fp32(bits).tolist() == [1.0, 3.140625]


def test_big_integers_stay_exact() -> None:
    spec = TensorSpec("id", DType.INT64, (-1,))
    assert to_array(spec, [2**62 + 1, -1]).tolist() == [2**62 + 1, -1]
    unsigned = TensorSpec("id", DType.UINT64, (-1,))
    assert to_array(unsigned, [2**64 - 1, 1]).tolist() == [2**64 - 1, 1]
    # numpy alone would make these float64 and round them
    assert to_array(unsigned, [2**63 + 1, 1.0]).tolist() == [2**63 + 1, 1]


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (AGE, [1, 2.5], "input 'age' row 1: expected a whole number from -2147483648 to 2147483647 (INT32), got 2.5"),
        (
            AGE,
            [2**31],
            "input 'age' row 0: expected a whole number from -2147483648 to 2147483647 (INT32), got 2147483648",
        ),
        (AGE, [1, None], "input 'age' row 1: expected a number (INT32), got None"),
        (AGE, [1, "x"], "input 'age' row 1: expected a number (INT32), got 'x'"),
        (
            AGE,
            [1, float("nan")],
            "input 'age' row 1: expected a whole number from -2147483648 to 2147483647 (INT32), got nan",
        ),
        (
            AGE,
            [float("inf")],
            "input 'age' row 0: expected a whole number from -2147483648 to 2147483647 (INT32), got inf",
        ),
        (
            TensorSpec("u", DType.UINT8, (-1,)),
            [-1],
            "input 'u' row 0: expected a whole number from 0 to 255 (UINT8), got -1",
        ),
        (
            TensorSpec("u", DType.UINT8, (-1,)),
            [256.0],
            "input 'u' row 0: expected a whole number from 0 to 255 (UINT8), got 256.0",
        ),
        (
            TensorSpec("i", DType.INT64, (-1,)),
            [2.0**63],
            "input 'i' row 0: expected a whole number from -9223372036854775808 to 9223372036854775807 (INT64),"
            " got 9.223372036854776e+18",
        ),
        (AMOUNT, ["12.5"], "input 'amount' row 0: expected a number (FP64), got '12.5'"),
        (
            TensorSpec("h", DType.FP16, (-1,)),
            [1e6],
            "input 'h' row 0: expected a number in the range of FP16 (FP16), got 1000000.0",
        ),
        (COUNTRY, ["a", 5], "input 'country' row 1: expected text (BYTES), got 5"),
        (COUNTRY, [5.5], "input 'country' row 0: expected text (BYTES), got 5.5"),
        (TensorSpec("b", DType.BOOL, (-1,)), [0, 2], "input 'b' row 1: expected true or false (BOOL), got 2"),
        (TensorSpec("b", DType.BOOL, (-1,)), ["true"], "input 'b' row 0: expected true or false (BOOL), got 'true'"),
        (
            TensorSpec("X", DType.FP32, (-1, 2)),
            [[1, 2], [3, "x"]],
            "input 'X' row 1: expected a number (FP32), got 'x'",
        ),
        (AMOUNT, np.array([1 + 2j]), "input 'amount': expected numbers (FP64), got 'complex128'"),
    ],
)
def test_what_does_not_fit_names_input_row_and_value(spec: TensorSpec, value: Any, message: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        to_array(spec, value)
    assert caught.value.message == message


@pytest.mark.parametrize("value", [[[1, 2], [3]], [["a"], ["b", "c"]]])
def test_ragged_lists_are_refused(value: Any) -> None:
    with pytest.raises(errors.InvalidInput, match="input 'X': rows have different lengths"):
        to_array(TensorSpec("X", DType.FP32, (-1, 2)), value)


def test_unexpected_names_suggest_the_nearest() -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        to_tensors({"amout": [1]}, TABLE)
    assert "unexpected input 'amout'" in caught.value.message
    assert caught.value.message.endswith("did you mean 'amount'?")


def test_unnamed_values_for_several_inputs_are_refused() -> None:
    with pytest.raises(
        errors.InvalidInput, match="the model has 3 inputs: give a dict of name to values or a data frame"
    ):
        to_tensors([[1, 2]], TABLE)


def test_rows_must_have_the_same_keys() -> None:
    with pytest.raises(errors.InvalidInput, match="row 1 and row 0 differ in 'country'"):
        to_tensors([{"amount": 1, "country": "a"}, {"amount": 1}], TABLE)


@given(
    hnp.arrays(np.int64, hnp.array_shapes(max_dims=1, max_side=8)),
    st.sampled_from(["INT8", "UINT16", "INT32", "UINT64"]),
)
def test_integers_convert_exactly_or_not_at_all(values: np.ndarray[Any, Any], name: str) -> None:
    spec = TensorSpec("x", DType(name), (-1,))
    limits = np.iinfo(NUMPY_DTYPES[name])
    if all(limits.min <= int(v) <= limits.max for v in values):
        assert [int(v) for v in to_array(spec, values)] == [int(v) for v in values]
        assert [int(v) for v in to_array(spec, values.tolist())] == [int(v) for v in values]
    else:
        for given_values in (values, values.tolist()):
            with pytest.raises(errors.InvalidInput):
                to_array(spec, given_values)
