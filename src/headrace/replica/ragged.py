"""Batches of requests of different lengths: blocks of rows on the wire, padded to the longest when the model runs.

In a ragged frame the head of a tensor has the size of the bucket in its shape, so that batches which may be joined have
equal inner shapes; the payload has the blocks as they came, and ``Ragged.sizes`` tells their shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from headrace.core.binding import Bound
from headrace.core.padding import Inner, Padding
from headrace.core.tensors import Array, DType
from headrace.replica import tensors_on_wire
from headrace.replica.messages import BadFrame, Ragged, RunHead, TensorHead

Blocks = list[list[Array]]
"""Per tensor, the rows of each call."""


def pack(bounds: Sequence[Bound], padding: Padding) -> tuple[list[TensorHead], list[tensors_on_wire.Part], Ragged]:
    """Requests of one key as tensors of one frame. No copies but those of ``tensors_on_wire.pack``."""
    rows = sum(bound.rows for bound in bounds)
    first = bounds[0]
    assert first.padded is not None
    heads: list[TensorHead] = []
    parts: list[tensors_on_wire.Part] = []
    shapes = [shape for shape in first.padded.shapes if shape is not None]
    for at, (name, dtype, inner) in enumerate(zip(first.names, first.dtypes, shapes, strict=True)):
        head, blobs = tensors_on_wire.pack(name, dtype, [bound.arrays[at] for bound in bounds])
        heads.append(TensorHead(name, dtype, (rows, *inner), head.nbytes))
        parts += blobs
    return heads, parts, Ragged(padding, [bound.padded.sizes for bound in bounds if bound.padded is not None])


def unpack(head: RunHead, ragged: Ragged, payload: memoryview) -> Blocks:
    """The blocks of every tensor: read-only views where memory allows. Raises BadFrame."""
    if len(ragged.sizes) != len(head.rows):
        raise BadFrame(f"sizes of {len(ragged.sizes)} calls in a batch of {len(head.rows)}")
    shapes = [
        [
            (rows, *ragged.padding.resized(t.name, t.shape[1:], s))
            for rows, s in zip(head.rows, ragged.sizes, strict=True)
        ]
        for t in head.tensors
    ]
    flat_heads = [
        TensorHead(t.name, t.dtype, (sum(map(prod, of_tensor)),), t.nbytes)
        for t, of_tensor in zip(head.tensors, shapes, strict=True)
    ]
    flat = tensors_on_wire.unpack(flat_heads, payload)
    return [_cut(array, of_tensor) for array, of_tensor in zip(flat, shapes, strict=True)]


def _cut(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    blocks = []
    at = 0
    for shape in shapes:
        end = at + prod(shape)
        blocks.append(flat[at:end].reshape(shape))
        at = end
    return blocks


def longest(sizes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The size of every dimension in a batch of calls of these sizes."""
    return tuple(map(max, zip(*sizes, strict=True)))


def join(tensors: Sequence[TensorHead], padding: Padding, sizes: Sequence[int], blocks: Blocks) -> dict[str, Array]:
    """The inputs of a batch: the blocks of each tensor one below the other, each filled up to ``sizes``."""
    joined: dict[str, Array] = {}
    for head, of_tensor in zip(tensors, blocks, strict=True):
        inner = padding.resized(head.name, head.shape[1:], sizes)
        if all(block.shape[1:] == inner for block in of_tensor):
            joined[head.name] = of_tensor[0] if len(of_tensor) == 1 else np.concatenate(of_tensor)
        else:
            joined[head.name] = _filled(of_tensor, inner, _fill(head, padding))
    return joined


def _fill(head: TensorHead, padding: Padding) -> Any:
    value = padding.inputs[head.name].value
    return str(value).encode() if head.dtype == DType.BYTES else value


def _filled(blocks: Sequence[Array], inner: Inner, value: Any) -> Array:
    whole = np.full((sum(map(len, blocks)), *inner), value, blocks[0].dtype)
    at = 0
    for block in blocks:
        end = at + len(block)
        whole[(slice(at, end), *map(slice, block.shape[1:]))] = block
        at = end
    return whole
