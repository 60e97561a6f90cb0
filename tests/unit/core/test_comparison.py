"""What counts as the same answer, how far apart two are, and how that is told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headrace.core import errors
from headrace.core.comparison import DEFAULTS, EXACT, Comparison, Tolerance, compare
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, Tensor, bf16_to_fp32, fp32_to_bf16

NAN, INF = math.nan, math.inf


def tensor(values: Any, dtype: DType = DType.FP32, name: str = "y") -> Tensor:
    if dtype is DType.BF16:
        return Tensor(name, dtype, fp32_to_bf16(np.array(values, np.float32)))
    return Tensor(name, dtype, np.array(values, NUMPY_DTYPES[dtype]))


def differences(expected: Tensor, got: Tensor, tolerance: Tolerance | None = None) -> tuple[str, ...]:
    return compare([expected], [got], {"y": tolerance} if tolerance is not None else {}).differences


@pytest.mark.parametrize(
    ("live", "other", "dtype", "agrees", "absolute", "relative"),
    [
        ([1.0, 2.0], [1.0, 2.0], DType.FP32, True, 0.0, 0.0),
        ([1.0], [1.000001], DType.FP64, True, 1e-6, 1e-6),
        ([1.0], [1.000009], DType.FP32, True, 9.06e-6, 9.06e-6),
        ([1.0], [1.0001], DType.FP32, False, 1e-4, 1e-4),
        ([0.0], [5e-7], DType.FP32, True, 5e-7, 0.0),
        ([1.0], [1.0001], DType.FP64, False, 1e-4, 1e-4),
        ([1.0, 4.0], [1.0, 5.0], DType.FP32, False, 1.0, 0.25),
        ([0.0], [0.5], DType.FP32, False, 0.5, 0.0),
        ([NAN, INF, -INF], [NAN, INF, -INF], DType.FP32, True, 0.0, 0.0),
        ([NAN], [1.0], DType.FP32, False, 0.0, 0.0),
        ([INF], [1.0], DType.FP32, False, 0.0, 0.0),
        ([INF], [-INF], DType.FP32, False, 0.0, 0.0),
        ([1e308], [-1e308], DType.FP64, False, 0.0, 0.0),
        ([1.0], [1.009], DType.FP16, True, 8.8e-3, 8.8e-3),
        ([1.0], [1.1], DType.FP16, False, 0.1, 0.1),
        ([1.0], [1.0078125], DType.BF16, True, 7.8e-3, 7.8e-3),
        ([1.0], [1.1], DType.BF16, False, 0.1, 0.1),
        ([NAN, INF], [NAN, INF], DType.BF16, True, 0.0, 0.0),
        ([NAN, INF], [NAN, -INF], DType.FP16, False, 0.0, 0.0),
        ([1, 2], [1, 3], DType.INT64, False, 1.0, 0.5),
        ([0], [255], DType.UINT8, False, 255.0, 0.0),
        ([2**62], [2**62 + 1], DType.INT64, False, 0.0, 0.0),
        ([True], [False], DType.BOOL, False, 0.0, 0.0),
        ([b"a"], [b"a"], DType.BYTES, True, 0.0, 0.0),
        ([b"a"], [b"b"], DType.BYTES, False, 0.0, 0.0),
        ([b"a"], [b"a\0"], DType.BYTES, False, 0.0, 0.0),
        ([], [], DType.FP32, True, 0.0, 0.0),
    ],
)
def test_answers(live: Any, other: Any, dtype: DType, agrees: bool, absolute: float, relative: float) -> None:
    found = compare([tensor(live, dtype)], [tensor(other, dtype)])
    assert found.agrees is agrees
    assert found.absolute == pytest.approx(absolute, rel=0.03)
    assert found.relative == pytest.approx(relative, rel=0.03)


def test_the_first_output_that_differs_is_shown() -> None:
    live = [tensor([1.0], name="same"), tensor([[b"cat"]], DType.BYTES, "label"), tensor(range(20), DType.INT64, "z")]
    other = [tensor(range(20), DType.INT64, "z"), tensor([[b"dog"]], DType.BYTES, "label"), tensor([1.0], name="same")]
    found = compare(live, other)
    assert (found.output, found.expected, found.got) == ("label", "[1, 1]: 'cat'", "[1, 1]: 'dog'")
    assert compare(live, other[1:]).output == "label"
    gone = compare(live[:1], [])
    assert (gone.output, gone.expected, gone.got) == ("same", "[1]: 1.0", "nothing")
    long = compare([tensor(range(9), DType.INT64)], [])
    assert long.expected == "[9]: 0, 1, 2, 3, 4, 5, 6, 7, …"


def test_bf16_is_shown_as_numbers_and_long_strings_are_cut() -> None:
    assert compare([tensor([1.5], DType.BF16)], []).expected == "[1]: 1.5"
    assert compare([tensor([b"x" * 100], DType.BYTES)], []).expected == f"[1]: '{'x' * 40}'…"


@pytest.mark.parametrize("other", [tensor([1.0, 2.0]), tensor([1], DType.INT64)])
def test_another_shape_or_type_differs(other: Tensor) -> None:
    assert not compare([tensor([1.0])], [other]).agrees


def test_a_declared_tolerance_holds_for_its_output() -> None:
    one, other = tensor([100.0]), tensor([100.4])
    assert differences(one, other, Tolerance(rtol=0.0, atol=0.5)) == ()
    assert differences(one, other, Tolerance(rtol=0.001, atol=0.0)) != ()
    assert not compare([one], [other], {"z": Tolerance(atol=1.0)}).agrees
    both = compare([one, tensor([1.0], name="z")], [other, tensor([1.4], name="z")], {"y": Tolerance(atol=0.5)})
    assert both.differences == ("output 'z' differs in 1 of 1 values, first at [0]: 1.4, expected 1.0",)
    assert both.absolute == pytest.approx(0.4, rel=1e-3)


def test_exact_is_bit_by_bit() -> None:
    one = np.float32(1.0)
    assert differences(tensor([1.0]), tensor([np.nextafter(one, np.float32(2))]), EXACT) != ()
    assert differences(tensor([0.0]), tensor([-0.0]), EXACT) != ()
    assert differences(tensor([np.nan, 1.0]), tensor([np.nan, 1.0]), EXACT) == ()
    assert differences(tensor([1.0], DType.BF16), tensor([1.0078125], DType.BF16), EXACT) != ()


def test_no_tolerance_makes_a_number_of_nan_or_infinity() -> None:
    wide = Tolerance(rtol=1e308, atol=1e308)
    for odd in (NAN, INF, -INF):
        assert differences(tensor([odd]), tensor([3.0]), wide) != ()
        assert differences(tensor([3.0]), tensor([odd]), wide) != ()


def test_a_signalling_nan_is_a_nan() -> None:
    odd = Tensor("y", DType.BF16, np.array([0x7F81], np.uint16))
    assert differences(odd, odd) == ()
    assert differences(odd, tensor([0.0], DType.BF16)) != ()


def test_a_difference_says_where_and_what() -> None:
    found = differences(tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[1.0, 2.0], [9.0, 5.0]]))
    assert found == ("output 'y' differs in 2 of 4 values, first at [1, 0]: 9.0, expected 3.0",)
    text = differences(tensor([b"cat"], DType.BYTES), tensor([b"dog"], DType.BYTES))
    assert text == ("output 'y' differs in 1 of 1 values, first at [0]: 'dog', expected 'cat'",)


def test_shapes_types_and_names_are_compared() -> None:
    assert differences(tensor([1.0]), tensor([[1.0]])) == ("output 'y' has shape [1, 1], expected [1]",)
    assert differences(tensor([1]), tensor([1], DType.INT64)) == ("output 'y' is INT64, expected FP32",)
    assert differences(tensor([1.0]), tensor([1.0], name="z")) == ("output 'y' is missing",)


def test_an_output_that_is_not_expected_is_no_difference() -> None:
    assert compare([tensor([1.0])], [tensor([1.0]), tensor([5.0], name="z")]).agrees


def test_scalars_and_empty_outputs() -> None:
    empty: Array = np.zeros((0, 3), np.float32)
    assert differences(Tensor("y", DType.FP32, empty), Tensor("y", DType.FP32, empty)) == ()
    scalar = ("output 'y' differs in 1 of 1 values, first at []: 2.0, expected 1.0",)
    assert differences(tensor(1.0), tensor(2.0)) == scalar
    assert differences(tensor(b"a", DType.BYTES), tensor(b"a", DType.BYTES)) == ()


@pytest.mark.parametrize("wrong", [-1.0, NAN, INF])
def test_tolerances_are_numbers_and_not_negative(wrong: float) -> None:
    with pytest.raises(errors.BadSettings, match="not negative"):
        Tolerance(rtol=wrong)
    with pytest.raises(errors.BadSettings, match="not negative"):
        Tolerance(atol=wrong)


# --- properties ---------------------------------------------------------------------------------------------------

_SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensors_of(draw: st.DrawFn, dtype: DType, shape: tuple[int, ...]) -> Tensor:
    if dtype is DType.BYTES:
        return Tensor("y", dtype, draw(arrays.arrays(object, shape, elements=st.binary(max_size=6))))
    return Tensor("y", dtype, draw(arrays.arrays(NUMPY_DTYPES[dtype], shape)))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Two outputs of one datatype and shape: every bit pattern of a number may be among their values."""
    dtype, shape = draw(st.sampled_from(list(DType))), draw(_SHAPES)
    return draw(tensors_of(dtype, shape)), draw(tensors_of(dtype, shape))


_bounds = st.floats(0, allow_infinity=False, allow_nan=False)
tolerances = st.none() | st.builds(Tolerance, rtol=_bounds, atol=_bounds)


@given(pairs(), tolerances)
def test_every_answer_agrees_with_itself_and_distances_are_numbers(
    pair: tuple[Tensor, Tensor], tolerance: Tolerance | None
) -> None:
    one, two = pair
    given = {"y": tolerance} if tolerance is not None else None
    assert compare([one], [one], given) == Comparison("", "", "", 0.0, 0.0)
    found = compare([one], [two], given)
    assert math.isfinite(found.absolute)
    assert math.isfinite(found.relative)
    assert found.agrees is (found.output == "")


@given(pairs(), tolerances)
def test_values_are_close_exactly_as_the_formula_says(pair: tuple[Tensor, Tensor], tolerance: Tolerance | None) -> None:
    """Against the definition, value by value, in Python's own numbers."""
    one, two = pair
    found = compare([one], [two], {"y": tolerance} if tolerance is not None else None)
    expected = [_close(a, b, one.dtype, tolerance) for a, b in zip(_numbers(one), _numbers(two), strict=True)]
    assert found.agrees is all(expected)


def _numbers(of: Tensor) -> list[Any]:
    array = bf16_to_fp32(of.array) if of.dtype is DType.BF16 else of.array
    values: list[Any] = array.ravel().tolist()
    return values


def _close(wanted: Any, got: Any, dtype: DType, tolerance: Tolerance | None) -> bool:
    if dtype not in DEFAULTS:
        return bool(wanted == got)
    if math.isnan(wanted) or math.isnan(got):
        return math.isnan(wanted) and math.isnan(got)
    allowed = tolerance or DEFAULTS[dtype]
    if allowed == EXACT:
        return wanted == got and math.copysign(1, wanted) == math.copysign(1, got)
    if math.isinf(wanted) or math.isinf(got):
        return bool(wanted == got)
    return abs(got - wanted) <= allowed.atol + allowed.rtol * abs(wanted)


@given(pairs(), _bounds, _bounds)
def test_a_wider_tolerance_accepts_what_a_narrower_one_does(
    pair: tuple[Tensor, Tensor], narrow: float, more: float
) -> None:
    one, two = pair
    wide = Tolerance(narrow + more if math.isfinite(narrow + more) else narrow, narrow)
    if compare([one], [two], {"y": Tolerance(narrow, narrow)}).agrees:
        assert compare([one], [two], {"y": wide}).agrees
    if compare([one], [two], {"y": EXACT}).agrees:
        assert compare([one], [two]).agrees
