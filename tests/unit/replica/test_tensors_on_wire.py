"""Tensors of every datatype and shape travel in a payload unchanged; what does not fit together is refused."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from headrace.core.tensors import NUMPY_DTYPES, DType
from headrace.replica import tensors_on_wire
from headrace.replica.messages import BadFrame, TensorHead

NUMBERS = [d for d in DType if d is not DType.BYTES]


def travel(name: str, dtype: str, blocks: list[Any]) -> Any:
    head, parts = tensors_on_wire.pack(name, dtype, blocks)
    payload = b"".join(parts)
    assert len(payload) == head.nbytes
    (array,) = tensors_on_wire.unpack([head], memoryview(payload))
    return array


def same(one: Any, other: Any) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, Any]:
    dtype = draw(st.sampled_from(NUMBERS))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    size = int(np.prod(shape)) * NUMPY_DTYPES[dtype].itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype is DType.BOOL:
        raw = bytes(b & 1 for b in raw)
    array = np.frombuffer(raw, NUMPY_DTYPES[dtype]).reshape(shape)
    if draw(st.booleans()):
        array = np.asfortranarray(array)
    return dtype, array


@given(tensors())
def test_numbers_bit_for_bit(tensor: tuple[str, Any]) -> None:
    dtype, array = tensor
    assert same(travel("x", dtype, [array]), array)


@given(st.lists(st.lists(st.binary(max_size=8), max_size=4), min_size=1, max_size=4))
def test_bytes_blocks_are_joined(blocks: list[list[bytes]]) -> None:
    arrays = []
    for block in blocks:
        array = np.empty(len(block), object)
        array[:] = block
        arrays.append(array)
    assert travel("x", "BYTES", arrays).tolist() == [item for block in blocks for item in block]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.sampled_from(NUMBERS), st.booleans())
def test_number_blocks_are_joined_along_the_rows(rows: list[int], dtype: str, strided: bool) -> None:
    blocks = [np.arange(n * 6).reshape(n, 6).astype(NUMPY_DTYPES[dtype])[:, :: 2 if strided else 1] for n in rows]
    assert same(travel("x", dtype, blocks), np.concatenate(blocks))


def test_scalars_have_a_length_for_those_who_send_them() -> None:
    head, parts = tensors_on_wire.pack("x", "FP64", [np.array(1.5)])
    assert head.shape == ()
    assert [len(memoryview(p).cast("B")) for p in parts] == [8]
    assert len(parts[0]) == 1
    assert travel("x", "FP64", [np.array(1.5)]) == 1.5


@given(st.lists(tensors(), max_size=5))
def test_several_tensors_share_a_payload_whatever_their_alignment(several: list[tuple[str, Any]]) -> None:
    heads, payload = [], b""
    for index, (dtype, array) in enumerate(several):
        head, parts = tensors_on_wire.pack(str(index), dtype, [array])
        heads.append(head)
        payload += b"".join(parts)
    for (_, expected), array in zip(several, tensors_on_wire.unpack(heads, memoryview(payload)), strict=True):
        assert same(array, expected)
        assert array.flags.aligned


@pytest.mark.parametrize(
    "head",
    [
        TensorHead("x", "FP32", (2, 2), 16),
        TensorHead("x", "FP32", (3,), 8),
        TensorHead("x", "FP32", (2,), 7),
        TensorHead("x", "FP32", (2,), -8),
        TensorHead("x", "FP99", (2,), 8),
        TensorHead("x", "BYTES", (3,), 8),
        TensorHead("x", "BYTES", (1 << 50,), 8),
    ],
)
def test_heads_that_do_not_fit_the_payload_are_refused(head: TensorHead) -> None:
    with pytest.raises(BadFrame, match="'x'"):
        tensors_on_wire.unpack([head], memoryview(bytes(8)))
