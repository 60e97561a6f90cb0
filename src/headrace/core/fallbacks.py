"""What answers instead when a deployment cannot: another one, or constant outputs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor, as_bytes_elements


class FallbackKind(StrEnum):
    DEPLOYMENT = "deployment"
    """Another deployment of the endpoint answered."""
    CONSTANT = "constant"
    """Constant outputs were sent; no model ran."""


class DeploymentFallback(msgspec.Struct, frozen=True, tag=FallbackKind.DEPLOYMENT.value):
    """Another deployment of the endpoint, by name."""

    deployment: str


class ConstantFallback(msgspec.Struct, frozen=True, tag=FallbackKind.CONSTANT.value):
    """The same outputs for every row: output name → number, text, boolean or nested list of them."""

    outputs: dict[str, Any]


Fallback = DeploymentFallback | ConstantFallback


def constant_outputs(outputs: dict[str, Any], signature: Signature, rows: int) -> list[Tensor]:
    """One tensor for each output that the model declares. Raises BadModelOutput that names the output."""
    return [_constant(spec, outputs, signature.batchable, rows) for spec in signature.outputs]


def _constant(spec: TensorSpec, outputs: dict[str, Any], batchable: bool, rows: int) -> Tensor:
    if spec.name not in outputs:
        raise errors.BadModelOutput(
            f"fallback: the constant has no output {spec.name!r}; it has: {', '.join(sorted(outputs)) or 'none'}"
        )
    if spec.dtype is DType.BF16:
        raise errors.BadModelOutput(f"fallback: output {spec.name!r} is BF16, which a constant cannot be")
    value = outputs[spec.name]
    shape = spec.shape[1:] if batchable else spec.shape
    try:
        array = np.array(value)
        array = as_bytes_elements(array) if spec.dtype is DType.BYTES else array.astype(NUMPY_DTYPES[spec.dtype])
        if array.ndim == 0 and -1 not in shape:
            # One number for a row of fixed width.
            array = np.broadcast_to(array, shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise errors.BadModelOutput(
            f"fallback: output {spec.name!r} is {spec.dtype}, the constant {value!r} is not: {error}"
        ) from None
    if not _fits(array.shape, shape):
        raise errors.BadModelOutput(
            f"fallback: output {spec.name!r} has the shape {list(shape)}{' a row' if batchable else ''},"
            f" the constant has {list(array.shape)}"
        )
    full = np.broadcast_to(array, (rows, *array.shape)) if batchable else array
    return Tensor(spec.name, spec.dtype, np.ascontiguousarray(full))


def _fits(found: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(found) == len(wanted) and all(w in (-1, f) for f, w in zip(found, wanted, strict=True))
