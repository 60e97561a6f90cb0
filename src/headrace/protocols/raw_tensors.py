"""Raw tensor bytes of a request as arrays, with errors that name the input. Shared by REST (binary) and gRPC."""

from __future__ import annotations

import numpy as np

from headrace.core import errors, tensors
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, Tensor


def read(name: str, dtype: DType, shape: tuple[int, ...], buffer: bytes | memoryview) -> Tensor:
    """A tensor that views ``buffer`` (BOOL and BYTES are copied). Raises InvalidInput."""
    kind = _VIEWS.get(dtype)
    if kind is not None and (not shape or min(shape) >= 0):
        try:
            return Tensor(name, dtype, np.frombuffer(buffer, kind).reshape(shape))
        except ValueError:
            pass  # explained below
    return Tensor(name, dtype, _array(name, dtype, shape, buffer))


_VIEWS = {str(dtype): NUMPY_DTYPES[dtype] for dtype in DType if dtype not in (DType.BOOL, DType.BYTES)}


def _array(name: str, dtype: DType, shape: tuple[int, ...], buffer: bytes | memoryview) -> Array:
    try:
        array = tensors.from_wire(dtype, shape, buffer)
    except errors.InvalidInput as error:
        raise errors.InvalidInput(f"input {name!r}: {error.message}") from None
    except ValueError as error:  # numpy's own limits: too many or too large dimensions
        raise errors.InvalidInput(f"input {name!r}: shape {list(shape)} is not possible: {error}") from None
    # A boolean byte other than 0 and 1 is undefined behaviour in numpy and in frameworks.
    return array.view(np.uint8) != 0 if dtype is DType.BOOL else array
