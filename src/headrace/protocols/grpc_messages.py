"""Protobuf messages of callers."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from headrace.core import errors

M = TypeVar("M", bound=Message)


def parse(kind: type[M], body: bytes, name: str = "") -> M:
    """``body`` as a message of ``kind``, which errors call ``name``. Raises InvalidInput."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise errors.InvalidInput(f"the {name or kind.__name__} is malformed: {error}") from None
