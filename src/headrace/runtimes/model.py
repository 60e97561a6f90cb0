"""``headrace.Model``: the class that users derive their own models from, and the types of its annotations.

    class Pricer(headrace.Model):
        def load(self):
            self.table = load_table(self.path)

        def predict(self, sku: headrace.Strings, qty: headrace.Int64) -> {"price": headrace.Float32}:
            return {"price": self.table[sku] * qty}

Every annotation stands for a numpy array whose first dimension is the rows of a batch. Type checkers see numpy
array types; ``runtimes/declarations.py`` reads the objects defined here. Nothing is imported but numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.core.tensors import DType


class Shape:
    """The whole shape of a tensor, the rows included, for ``Annotated``; -1 is any size.

    ``Annotated[headrace.Float32, headrace.Shape(-1, 3, 224, 224)]`` is the form that type checkers accept of
    ``headrace.Float32[3, 224, 224]``, and the only one for a first dimension that is fixed or absent."""

    def __init__(self, *dims: int) -> None:
        self.dims = _checked(dims)

    def __repr__(self) -> str:
        return f"Shape{self.dims}"


@dataclass(frozen=True, slots=True)
class TensorType:
    """What ``headrace.Float32`` and its siblings are at run time.

    ``shape`` is the whole shape. ``text`` tells Strings (``str`` elements) from Bytes (``bytes`` elements)."""

    name: str
    dtype: DType
    shape: tuple[int, ...] = (-1,)
    text: bool = False
    optional: bool = False

    def __getitem__(self, dims: int | tuple[int, ...]) -> TensorType:
        """``Float32[3, 224, 224]``: every row is a tensor of this shape."""
        return self.shaped((-1, *_checked(dims if isinstance(dims, tuple) else (dims,))))

    def __or__(self, other: object) -> TensorType:
        """``Float32 | None``: the input may be left out."""
        if other is not None:
            raise TypeError(f"{self} can only be combined with None, which makes an input optional")
        return replace(self, optional=True)

    __ror__ = __or__

    def shaped(self, shape: tuple[int, ...]) -> TensorType:
        return replace(self, shape=shape)

    def __repr__(self) -> str:
        inner = f"[{', '.join(str(d) for d in self.shape[1:])}]" if len(self.shape) > 1 else ""
        return f"headrace.{self.name}{inner}"


def _checked(dims: tuple[int, ...]) -> tuple[int, ...]:
    for dim in dims:
        if not isinstance(dim, int) or dim < -1 or dim == 0:
            raise TypeError(f"a dimension is a positive int, or -1 for any size; got {dim!r}")
    return dims


if TYPE_CHECKING:
    # An annotation must be a type for a checker and an object that can be indexed with sizes at run time.
    Bool: TypeAlias = npt.NDArray[np.bool_]
    Int8: TypeAlias = npt.NDArray[np.int8]
    Int16: TypeAlias = npt.NDArray[np.int16]
    Int32: TypeAlias = npt.NDArray[np.int32]
    Int64: TypeAlias = npt.NDArray[np.int64]
    UInt8: TypeAlias = npt.NDArray[np.uint8]
    UInt16: TypeAlias = npt.NDArray[np.uint16]
    UInt32: TypeAlias = npt.NDArray[np.uint32]
    UInt64: TypeAlias = npt.NDArray[np.uint64]
    Float16: TypeAlias = npt.NDArray[np.float16]
    BFloat16: TypeAlias = npt.NDArray[np.float32]
    Float32: TypeAlias = npt.NDArray[np.float32]
    Float64: TypeAlias = npt.NDArray[np.float64]
    Strings: TypeAlias = npt.NDArray[np.object_]
    Bytes: TypeAlias = npt.NDArray[np.object_]
else:
    Bool = TensorType("Bool", DType.BOOL)
    Int8 = TensorType("Int8", DType.INT8)
    Int16 = TensorType("Int16", DType.INT16)
    Int32 = TensorType("Int32", DType.INT32)
    Int64 = TensorType("Int64", DType.INT64)
    UInt8 = TensorType("UInt8", DType.UINT8)
    UInt16 = TensorType("UInt16", DType.UINT16)
    UInt32 = TensorType("UInt32", DType.UINT32)
    UInt64 = TensorType("UInt64", DType.UINT64)
    Float16 = TensorType("Float16", DType.FP16)
    BFloat16 = TensorType("BFloat16", DType.BF16)
    Float32 = TensorType("Float32", DType.FP32)
    Float64 = TensorType("Float64", DType.FP64)
    Strings = TensorType("Strings", DType.BYTES, text=True)
    Bytes = TensorType("Bytes", DType.BYTES)

TYPE_NAMES = (
    *("Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"),
    *("Float16", "BFloat16", "Float32", "Float64", "Strings", "Bytes"),
)
"""Names of the annotation types, all exported by ``headrace``."""


class Model:
    """A model written in Python. One object serves one replica; it is made without arguments, then loaded.

    Annotate the arguments of ``predict`` and its result with ``headrace.Float32``, ``headrace.Strings``, …:
    they become the typed, named inputs and outputs of the model, and every argument arrives as a numpy array
    with one entry per row (``Strings`` as an object array of ``str``, ``Bytes`` of ``bytes``, ``BFloat16``
    widened to float32). ``Float32[3, 224, 224]`` gives each row a shape, ``Float32 | None`` an optional input.
    The arrays are read-only and belong to the call: copy what is to be changed or kept.
    The result is a dict of arrays, lists or scalars; one value when one type is annotated (the output is then
    called ``output``). Arguments annotated ``str``, ``int``, ``float`` or ``bool`` with a default are request
    parameters. A ``predict(self, inputs)`` without annotations takes whatever tensors arrive, as a dict.

    A ``predict`` that yields is a stream: each chunk is sent as soon as it is yielded, requests run side by
    side in threads, each alone; when the caller goes away ``GeneratorExit`` is raised at the ``yield``."""

    batchable: ClassVar[bool] = True
    """Rows of several requests may be joined in one call. False: each call gets exactly one request."""
    idempotent: ClassVar[bool] = True
    """The same input may be computed twice without harm, e.g. after a crash. False: nothing is ever re-run."""
    concurrency: ClassVar[int | None] = None
    """Requests that run side by side in threads, each alone; None: one call at a time (64 for streams)."""
    parameters: ClassVar[tuple[str, ...]] = ()
    """Request parameters that ``predict`` reads, passed as keyword arguments of these names; each needs a
    default there. Arguments annotated with a scalar type need not be listed."""
    samples: ClassVar[Mapping[str, Any] | None] = None
    """One row of example input by name, for the warm-up; None: zeros and empty strings."""

    pad: ClassVar[Mapping[str, Any]] = {}
    """Input → value that fills its dimensions of any size up to the longest of a batch: ``{"tokens": 0, "mask": 0}``.
    Only for models whose answers do not depend on it; without it only requests of equal shapes share a call."""
    buckets: ClassVar[Sequence[int]] = ()
    """Lengths up to which requests share a call, with ``pad``; default: powers of two from 16 to 4096."""
    dims: ClassVar[Mapping[str, str | Sequence[str]]] = {}
    """Names of the dimensions after the rows, of inputs and outputs: outputs are cut back to the caller's length along
    dimensions that have the name of a padded one. The only padded dimension is called ``length`` by itself."""

    path: Path = Path()
    """The folder of the Python file; set before ``load``."""

    def load(self) -> None:
        """Read weights and tables. Called once, before the first ``predict``."""

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Compute outputs for a batch of rows. What it raises is answered to the caller as the model's error."""
        raise NotImplementedError(f"{type(self).__name__} has no predict method")

    def close(self) -> None:
        """Release what ``load`` took: called once, after the last ``predict``, when the process is asked to stop.

        It has a few seconds; a process that dies or has to be killed does not come here."""
