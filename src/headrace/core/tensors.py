"""Tensors: a name, a datatype of the Open Inference Protocol and a numpy array.

BYTES tensors are object arrays of ``bytes``. BF16 has no numpy dtype: its tensors are uint16 arrays that
hold the bit patterns, and runtimes widen them (``bf16_to_fp32``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.core import errors

Array = npt.NDArray[Any]


class DType(StrEnum):
    """Datatypes of the Open Inference Protocol (plus Triton's BF16)."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"


NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
"""Little-endian numpy dtype that holds each datatype."""

_FROM_NUMPY: dict[np.dtype[Any], DType] = {dtype: DType(name) for name, dtype in NUMPY_DTYPES.items() if name != "BF16"}


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """A named array. ``array.dtype`` is ``NUMPY_DTYPES[dtype]``; the array may be a read-only view."""

    name: str
    dtype: DType
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


def dtype_of(array: Array) -> DType:
    """The datatype that carries ``array``; str and object arrays are BYTES.

    Raises InvalidInput for dtypes the protocol cannot carry (complex, datetime, structured)."""
    found = _FROM_NUMPY.get(array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype)
    if found is not None:
        return found
    if array.dtype.kind in "US":
        return DType.BYTES
    raise errors.InvalidInput(f"numpy dtype {array.dtype} has no Open Inference datatype")


def as_bytes_elements(array: Array) -> Array:
    """An object array whose elements are ``bytes``: str is encoded as UTF-8, anything else by ``str()``.

    None becomes an empty string. Shape is kept."""
    flat = [item if type(item) is bytes else _as_bytes(item) for item in array.ravel()]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(array.shape)


def _as_bytes(item: object) -> bytes:
    if item is None:
        return b""
    # numpy's own bytes_ of a fixed-width array, bytearray.
    return bytes(item) if isinstance(item, bytes | bytearray) else str(item).encode()


def pack_bytes(array: Array) -> bytes:
    """Serialize a BYTES array: each element is a 4-byte little-endian length, then its bytes."""
    parts: list[bytes] = []
    for item in array.ravel():
        parts.append(len(item).to_bytes(4, "little"))
        parts.append(item)
    return b"".join(parts)


def unpack_bytes(buffer: bytes | memoryview, shape: tuple[int, ...]) -> Array:
    """The inverse of ``pack_bytes``. Raises InvalidInput when ``buffer`` does not hold exactly ``shape``."""
    count = element_count(shape)
    if count * 4 > len(buffer):
        raise errors.InvalidInput(
            f"expected {count} length-prefixed elements for shape {list(shape)}, got {len(buffer)} bytes"
        )
    view = memoryview(buffer)
    items: list[bytes] = []
    at, end = 0, len(view)
    for index in range(count):
        if at + 4 > end:
            raise errors.InvalidInput(f"element {index} of {count} has no length prefix")
        size = int.from_bytes(view[at : at + 4], "little")
        at += 4
        if at + size > end:
            raise errors.InvalidInput(f"element {index} claims {size} bytes, {end - at} are left")
        items.append(bytes(view[at : at + size]))
        at += size
    if at != end:
        raise errors.InvalidInput(f"{end - at} bytes are left after {count} elements")
    out = np.empty(count, dtype=object)
    out[:] = items
    return out.reshape(shape)


def to_wire(tensor: Tensor) -> bytes | memoryview:
    """Row-major little-endian bytes of a tensor (a view where the memory already has that form)."""
    if tensor.dtype is DType.BYTES:
        return pack_bytes(tensor.array)
    return np.ascontiguousarray(tensor.array).reshape(-1).view(np.uint8).data


def from_wire(dtype: str, shape: tuple[int, ...], buffer: bytes | memoryview) -> Array:
    """A view on ``buffer`` with this dtype and shape. Raises InvalidInput when the sizes do not agree."""
    if dtype == "BYTES":
        return unpack_bytes(buffer, shape)
    numpy_dtype = NUMPY_DTYPES[dtype]
    expected = element_count(shape) * numpy_dtype.itemsize
    if len(buffer) != expected:
        raise errors.InvalidInput(f"shape {list(shape)} of {dtype} takes {expected} bytes, got {len(buffer)}")
    return np.frombuffer(buffer, numpy_dtype).reshape(shape)


def element_count(shape: tuple[int, ...]) -> int:
    """Product of a concrete shape; raises InvalidInput on negative or absurd dimensions."""
    count = 1
    for dim in shape:
        if dim < 0:
            raise errors.InvalidInput(f"shape {list(shape)} has a negative dimension")
        count *= dim
    if count > 1 << 40:
        raise errors.InvalidInput(f"shape {list(shape)} has {count} elements")
    return count


def wire_size(tensor: Tensor) -> int:
    """Approximate bytes this tensor holds, for budgets."""
    if tensor.dtype is DType.BYTES:
        return sum(len(item) + 4 for item in tensor.array.ravel())
    return tensor.array.nbytes


def bf16_to_fp32(bits: Array) -> Array:
    """Widen BF16 bit patterns (uint16) to float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def fp32_to_bf16(values: Array) -> Array:
    """Round float32 to BF16 bit patterns (uint16), to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    quiet_nan = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet_nan, rounded).astype(np.uint16)
