"""Requests of different lengths in one batch: which go together, and how their answers are cut back.

A *dimension* here is a named inner size that requests choose, such as the tokens of a text. Requests whose sizes fall
into the same buckets share a batch; the worker pads them to the longest of the batch, and each caller gets outputs of
its own size. Nothing is padded that was not declared (``runtimes/padding.py`` checks declarations at load).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import prod

import msgspec
import numpy as np

from headrace.core.tensors import Array, Tensor

Value = bool | int | float | str
Inner = tuple[int, ...]
"""A shape without its first dimension, the rows."""

DEFAULT_BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class PaddingRules(msgspec.Struct, frozen=True):
    """What was declared, in ``headrace.yaml`` or by a model's class, unchecked.

    pad      input → value that fills it up
    buckets  sizes up to which requests go together; empty: ``DEFAULT_BUCKETS``
    dims     input or output → names of its dimensions after the rows
    """

    pad: dict[str, Value] = {}
    buckets: tuple[int, ...] = ()
    dims: dict[str, tuple[str, ...]] = {}

    def over(self, lower: PaddingRules) -> PaddingRules:
        """Both, these winning; values and names by tensor."""
        return PaddingRules({**lower.pad, **self.pad}, self.buckets or lower.buckets, {**lower.dims, **self.dims})


class PaddedInput(msgspec.Struct, frozen=True):
    """``axes`` are pairs of an axis behind the rows (0: the first one) and an index into ``Padding.dims``."""

    axes: tuple[tuple[int, int], ...]
    value: Value


class Padding(msgspec.Struct, frozen=True):
    """How requests for one loaded model are padded. ``outputs`` has the axes, as in ``PaddedInput``, of outputs to
    cut; outputs that are not in it have no size that follows the requests'."""

    dims: tuple[str, ...]
    buckets: tuple[int, ...]
    inputs: dict[str, PaddedInput]
    outputs: dict[str, tuple[tuple[int, int], ...]]

    def fit(self, names: Sequence[str], inner: Sequence[Inner | None]) -> Padded | None:
        """The buckets of a request from the inner shapes of its inputs (None: absent). None when it must go by its
        exact shape: it is larger than the largest bucket, or its inputs disagree about a size."""
        sizes = [-1] * len(self.dims)
        for name, shape in zip(names, inner, strict=True):
            padded = self.inputs.get(name)
            if shape is None or padded is None:
                continue
            for axis, dim in padded.axes:
                if sizes[dim] not in (-1, shape[axis]):
                    return None
                sizes[dim] = shape[axis]
        buckets = []
        for size in sizes:
            at = bisect_left(self.buckets, size)
            if at == len(self.buckets):
                return None
            buckets.append(self.buckets[at])
        shapes = [None if s is None else self.resized(name, s, buckets) for name, s in zip(names, inner, strict=True)]
        return Padded(self, tuple(sizes), tuple(shapes))

    def resized(self, name: str, inner: Inner, sizes: Sequence[int]) -> Inner:
        """An input's inner shape with these sizes of ``dims``."""
        padded = self.inputs.get(name)
        return inner if padded is None else resized(inner, padded.axes, sizes)

    def cut(self, outputs: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Outputs of a padded batch as a request of ``sizes`` would have got them alone."""
        return [self._cut(tensor, sizes) for tensor in outputs]

    def _cut(self, tensor: Tensor, sizes: Sequence[int]) -> Tensor:
        axes = self.outputs.get(tensor.name)
        if axes is None:
            return tensor
        array = tensor.array
        want = (len(array), *resized(array.shape[1:], axes, sizes))
        if want == array.shape:
            return tensor
        return Tensor(tensor.name, tensor.dtype, np.ascontiguousarray(array[tuple(map(slice, want))]))

    def misfit(self, outputs: Mapping[str, Array], sizes: Sequence[int]) -> str | None:
        """What is wrong with outputs of a batch that was computed at ``sizes``; None: they have them."""
        for name, axes in self.outputs.items():
            shape = outputs[name].shape[1:] if name in outputs else None
            for axis, dim in axes:
                if shape is None or sizes[dim] < 0:
                    continue
                if len(shape) <= axis or shape[axis] != sizes[dim]:
                    return (
                        f"output {name!r} has shape {[-1, *shape]} in a batch padded to {self.dims[dim]}={sizes[dim]}:"
                        f" dimension {axis + 1} does not follow {self.dims[dim]!r}; name it otherwise in batching.dims"
                    )
        return None


class Padded(msgspec.Struct, frozen=True, gc=False):
    """A request that may be padded: its own sizes of ``padding.dims`` (-1: absent), and the inner shapes of its inputs
    in the order of the signature at their buckets' sizes."""

    padding: Padding
    sizes: tuple[int, ...]
    shapes: tuple[Inner | None, ...]

    def elements(self) -> int:
        """Values per row at the buckets' sizes: what the request takes in a batch at most."""
        return sum(prod(shape) for shape in self.shapes if shape is not None)


def resized(inner: Inner, axes: Sequence[tuple[int, int]], sizes: Sequence[int]) -> Inner:
    """An inner shape with ``sizes`` put in at ``axes``; absent sizes (-1) leave it."""
    shape = list(inner)
    for axis, dim in axes:
        if sizes[dim] >= 0:
            shape[axis] = sizes[dim]
    return tuple(shape)
