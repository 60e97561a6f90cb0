"""Request parameters as every Open Inference dialect treats them: scalars only, reserved names kept out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.core import errors
from headrace.core.requests import Parameter

EMPTY_FINAL = "triton_enable_empty_final_response"
"""The one parameter with the reserved prefix that a client may send."""
FINAL = "triton_final_response"
"""Response parameter: whether a response is the last one of its request."""

SHARED_MEMORY = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")


def scalars(parameters: Mapping[str, Any]) -> dict[str, Parameter]:
    """Parameters of a request, without nulls.

    Raises InvalidInput for reserved names and for values that are no string, number or boolean."""
    kept: dict[str, Parameter] = {}
    for key, value in parameters.items():
        if value is None:
            continue
        if key.startswith("triton_") and key != EMPTY_FINAL:
            raise errors.InvalidInput(f"parameter {key!r}: names that begin with 'triton_' are reserved")
        if isinstance(value, str | bool | int | float):
            kept[key] = value
        elif key != "headers":  # MLServer's clients put an object of HTTP headers here
            raise errors.InvalidInput(f"parameter {key!r}: expected a string, number or boolean, got {_kind(value)}")
    return kept


def _kind(value: object) -> str:
    return "an object" if isinstance(value, dict) else "an array"


def flag(parameters: Mapping[str, Any], key: str) -> bool:
    """A boolean parameter, False when absent or null. Raises InvalidInput for anything else."""
    value = parameters.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise errors.InvalidInput(f"parameter {key!r}: expected a boolean, got {value!r}")
    return value


def count(parameters: Mapping[str, Any], key: str) -> int | None:
    """A non-negative integer parameter; None when absent or null. Raises InvalidInput for anything else."""
    value = parameters.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise errors.InvalidInput(f"parameter {key!r}: expected a non-negative integer, got {value!r}")
    return value


def refuse_shared_memory(parameters: Mapping[str, Any]) -> None:
    """Raise Unsupported when a tensor lives in shared memory."""
    if any(parameters.get(key) is not None for key in SHARED_MEMORY):
        raise errors.Unsupported("shared memory is not supported; send the tensor as binary data in the body")
