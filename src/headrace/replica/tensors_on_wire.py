"""Tensors ↔ the payload of a frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from headrace.core import errors
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, Tensor, pack_bytes, unpack_bytes
from headrace.replica.messages import BadFrame, TensorHead

Part = bytes | memoryview

_DTYPES: dict[str, DType] = {str(dtype): dtype for dtype in DType}


def pack_all(tensors: Iterable[tuple[str, str, Sequence[Array]]]) -> tuple[list[TensorHead], list[Part]]:
    """Heads and payload parts of several tensors, each given as name, datatype and blocks of rows."""
    heads: list[TensorHead] = []
    parts: list[Part] = []
    for name, dtype, arrays in tensors:
        head, blobs = pack(name, dtype, arrays)
        heads.append(head)
        parts += blobs
    return heads, parts


def pack(name: str, dtype: str, arrays: Sequence[Array]) -> tuple[TensorHead, list[Part]]:
    """Blocks of rows as one tensor: its head, and the payload parts, which are views where memory allows.

    All ``arrays`` share their inner shape."""
    if len(arrays) == 1 and dtype != "BYTES":
        return _pack_one(name, dtype, arrays[0])
    parts: list[Part]
    if dtype == "BYTES":
        parts = [pack_bytes(a) for a in arrays]
        size = sum(map(len, parts))
    else:
        parts = [(a if a.flags.c_contiguous else np.ascontiguousarray(a)).data for a in arrays if a.size]
        size = sum(a.nbytes for a in arrays)
    first = arrays[0]
    if len(arrays) == 1:
        return TensorHead(name, dtype, first.shape, size), parts
    return TensorHead(name, dtype, (sum(a.shape[0] for a in arrays), *first.shape[1:]), size), parts


def _pack_one(name: str, dtype: str, array: Array) -> tuple[TensorHead, list[Part]]:
    nbytes = array.nbytes
    if not nbytes:
        return TensorHead(name, dtype, array.shape, 0), []
    memory = array.data
    if not memory.c_contiguous or not array.ndim:
        # ascontiguousarray also gives a dimension: a memoryview without one has no length.
        memory = np.ascontiguousarray(array).data
    return TensorHead(name, dtype, array.shape, nbytes), [memory]


def unpack(heads: Sequence[TensorHead], payload: memoryview) -> list[Array]:
    """Arrays of a payload: read-only views, except BYTES (object arrays) and unaligned ones (copies).

    Raises BadFrame when heads and payload do not agree."""
    arrays: list[Array] = []
    at = 0
    for head in heads:
        end = at + head.nbytes
        if not at <= end <= len(payload):
            raise BadFrame(f"tensor {head.name!r} ends at byte {end} of a payload of {len(payload)}")
        try:
            if head.dtype == "BYTES":
                arrays.append(unpack_bytes(payload[at:end], head.shape))
            else:
                dtype = NUMPY_DTYPES[head.dtype]
                array = np.frombuffer(payload[at:end], dtype).reshape(head.shape)
                arrays.append(array if not at % dtype.itemsize else array.copy())
        except (KeyError, ValueError, errors.InvalidInput) as error:
            raise BadFrame(f"tensor {head.name!r} {head.dtype}{list(head.shape)}: {error}") from error
        at = end
    return arrays


def unpack_tensors(heads: Sequence[TensorHead], payload: memoryview) -> list[Tensor]:
    """``unpack`` with the names and datatypes. Raises BadFrame."""
    arrays = unpack(heads, payload)
    return [Tensor(h.name, _DTYPES[h.dtype], array) for h, array in zip(heads, arrays, strict=True)]
