"""Tensors to bytes and back, bit for bit; sizes that do not agree are refused."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from headrace.core import errors, tensors
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor

NUMBERS = [d for d in DType if d is not DType.BYTES]


@given(st.sampled_from(NUMBERS), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), st.data())
def test_numbers_round_trip(dtype: DType, shape: tuple[int, ...], data: st.DataObject) -> None:
    kind = NUMPY_DTYPES[dtype]
    size = int(np.prod(shape)) * kind.itemsize
    raw = data.draw(st.binary(min_size=size, max_size=size))
    array = np.frombuffer(raw, kind).reshape(shape)
    for layout in (array, np.asfortranarray(array)):
        wire = bytes(tensors.to_wire(Tensor("x", dtype, layout)))
        assert wire == raw
        back = tensors.from_wire(dtype, shape, wire)
        assert back.shape == shape
        assert back.tobytes() == raw


@given(st.lists(st.binary(max_size=20), max_size=12))
def test_bytes_round_trip(items: list[bytes]) -> None:
    array = np.empty(len(items), object)
    array[:] = items
    packed = tensors.pack_bytes(array)
    assert tensors.unpack_bytes(packed, (len(items),)).tolist() == items
    assert tensors.wire_size(Tensor("x", DType.BYTES, array)) == len(packed)


@given(st.binary(max_size=60), st.lists(st.integers(-1, 5), max_size=3).map(tuple))
def test_any_bytes_are_refused_or_hold_exactly_the_shape(data: bytes, shape: tuple[int, ...]) -> None:
    try:
        array = tensors.unpack_bytes(data, shape)
    except errors.InvalidInput:
        return
    assert array.shape == shape
    assert tensors.pack_bytes(array) == data


@pytest.mark.parametrize("dtype", NUMBERS)
def test_sizes_must_agree(dtype: DType) -> None:
    size = NUMPY_DTYPES[dtype].itemsize
    for wrong in (0, size * 3 - 1, size * 3 + 1):
        with pytest.raises(errors.InvalidInput, match=rf"shape \[3\] of {dtype} takes {size * 3} bytes, got {wrong}"):
            tensors.from_wire(dtype, (3,), bytes(wrong))


@pytest.mark.parametrize("shape", [(-1,), (2, -3), (1 << 30, 1 << 30)])
def test_absurd_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(errors.InvalidInput):
        tensors.element_count(shape)


def test_absurd_element_count_does_not_allocate() -> None:
    with pytest.raises(errors.InvalidInput, match="1099511627776 length-prefixed elements"):
        tensors.unpack_bytes(b"", (1 << 40,))


@pytest.mark.parametrize("name", [d for d in DType if d is not DType.BF16])
def test_datatype_of_an_array(name: DType) -> None:
    assert tensors.dtype_of(np.zeros(1, NUMPY_DTYPES[name])) is name


def test_datatype_of_other_arrays() -> None:
    assert tensors.dtype_of(np.zeros(1, ">f4")) is DType.FP32
    assert tensors.dtype_of(np.array(["a"])) is DType.BYTES
    assert tensors.dtype_of(np.array([b"a"])) is DType.BYTES
    for dtype in ("complex64", "datetime64[s]", "float128"):
        with pytest.raises(errors.InvalidInput, match="has no Open Inference datatype"):
            tensors.dtype_of(np.zeros(1, dtype))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([b"ab", b"\xff"], object), [b"ab", b"\xff"]),
        (np.array(["ä", ""], object), ["ä".encode(), b""]),
        (np.array([None, 1.5, True], object), [b"", b"1.5", b"True"]),
        (np.array([b"abc"]), [b"abc"]),
        (np.array(["abc"]), [b"abc"]),
        (np.array([bytearray(b"x"), np.bytes_(b"y"), np.str_("z")], object), [b"x", b"y", b"z"]),
    ],
)
def test_anything_as_bytes_elements(values: Any, expected: list[bytes]) -> None:
    made = tensors.as_bytes_elements(values)
    assert made.tolist() == expected
    assert all(type(item) is bytes for item in made)


def test_bytes_elements_keep_their_shape() -> None:
    assert tensors.as_bytes_elements(np.array([["a", "b"]])).shape == (1, 2)
    assert tensors.as_bytes_elements(np.empty((0, 3), object)).shape == (0, 3)


@given(hnp.arrays(np.uint16, 8))
def test_bf16_widens_exactly_and_comes_back(bits: Any) -> None:
    wide = tensors.bf16_to_fp32(bits)
    back = tensors.fp32_to_bf16(wide)
    is_nan = np.isnan(wide)
    assert (back[~is_nan] == bits[~is_nan]).all()
    assert np.isnan(tensors.bf16_to_fp32(back))[is_nan].all()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bf16_rounds_to_the_nearest(value: float) -> None:
    exact = np.array([value], np.float32)
    (bits,) = tensors.fp32_to_bf16(exact)
    near = tensors.bf16_to_fp32(np.array([bits], np.uint16)).astype(np.float64)[0]
    if np.isfinite(near):
        neighbours = tensors.bf16_to_fp32(np.array([bits - 1 if bits & 0x7FFF else bits, bits + 1], np.uint16))
        for neighbour in neighbours.astype(np.float64):
            if np.isfinite(neighbour):
                assert abs(near - value) <= abs(neighbour - value)


def test_bf16_infinities() -> None:
    values = np.array([np.inf, -np.inf, 3.4e38], np.float32)
    assert tensors.bf16_to_fp32(tensors.fp32_to_bf16(values)).tolist() == [np.inf, -np.inf, np.inf]
