"""A JSON value whose type is decided later: still raw (the usual case), or parsed because it held NaN literals."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_OBJECTS = re.compile(rb"\s*\[\s*\{")
_OBJECT = re.compile(rb"\s*\{")


class Source:
    """A JSON value, still raw (the usual case) or parsed (when it held NaN literals)."""

    __slots__ = ("parsed", "raw")

    def __init__(self, raw: msgspec.Raw | None, parsed: Any = None) -> None:
        self.raw = raw
        self.parsed = parsed

    def holds_objects(self) -> bool:
        """Whether this is a list whose first item is an object."""
        if self.raw is not None:
            return _OBJECTS.match(self.raw) is not None
        return isinstance(self.parsed, list) and bool(self.parsed) and isinstance(self.parsed[0], dict)

    def is_object(self) -> bool:
        if self.raw is not None:
            return _OBJECT.match(self.raw) is not None
        return isinstance(self.parsed, dict)

    def value(self) -> Any:
        return self.parsed if self.raw is None else msgspec.json.decode(self.raw)

    def renamed(self, keys: dict[str, str]) -> Source:
        """A copy whose objects (this one, or the items of this list) have other keys."""
        value = self.value()
        if isinstance(value, list):
            return Source(None, [_renamed(item, keys) for item in value])
        return Source(None, _renamed(value, keys))


def _renamed(item: Any, keys: dict[str, str]) -> Any:
    return {keys.get(key, key): value for key, value in item.items()} if isinstance(item, dict) else item


class Typed:
    """A msgspec type that takes values from a source, whether raw or parsed."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._decode = msgspec.json.Decoder(kind).decode

    def take(self, source: Source) -> Any:
        if source.raw is not None:
            return self._decode(source.raw)
        return msgspec.convert(source.parsed, self._kind)
