"""Recognizes ONNX files by walking their protobuf fields, without a protobuf schema or any framework.

Only lengths are read: the graph is skipped over, except for the names of files that hold its weights.
Field numbers are those of ModelProto, GraphProto and TensorProto in the ONNX specification (onnx.proto).
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace.core import errors

Buffer = memoryview

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL_FIELDS = {
    1: _VARINT,  # ir_version
    2: _BYTES,  # producer_name
    3: _BYTES,  # producer_version
    4: _BYTES,  # domain
    5: _VARINT,  # model_version
    6: _BYTES,  # doc_string
    7: _BYTES,  # graph
    8: _BYTES,  # opset_import
    14: _BYTES,  # metadata_props
    20: _BYTES,  # training_info
    25: _BYTES,  # functions
    26: _BYTES,  # configuration
}
_GRAPH, _OPSET, _IR_VERSION = 7, 8, 1
_INITIALIZER = 5  # of GraphProto
_NODE, _NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR = 1, 5, 5
_EXTERNAL_DATA = 13  # of TensorProto: entries of key (1) and value (2)

_MAX_FIELDS = 2_000_000
_MAX_LOCATIONS = 10_000


class Truncated(Exception):
    """The buffer ends inside a field. ``missing`` is the number of bytes, when it is known."""

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing


class Malformed(Exception):
    """The bytes are no protobuf message."""


class _Budget:
    """Bounds the work that one file can cause."""

    def __init__(self) -> None:
        self.left = _MAX_FIELDS

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Malformed


def is_onnx(buffer: Buffer) -> bool:
    """True for a whole ModelProto. Raises InvalidInput for one that is cut off."""
    seen: set[int] = set()
    try:
        for number, wire, _, _ in _fields(buffer, 0, len(buffer), _Budget()):
            if _MODEL_FIELDS.get(number) != wire:
                return False
            seen.add(number)
    except Malformed:
        return False
    except Truncated as error:
        # The first field of every writer is ir_version; without it a cut-off file could be anything.
        if _IR_VERSION in seen and buffer[0] == 0x08 and len(buffer) > 2 and buffer[1] < 0x40:
            what = f"{error.missing:,} bytes are missing" if error.missing else "it is cut off"
            raise errors.InvalidInput(f"this is an ONNX file that ends too early: {what}") from error
        return False
    return _GRAPH in seen and bool(seen & {_IR_VERSION, _OPSET})


def external_files(buffer: Buffer) -> list[str]:
    """Paths, relative to the model's folder, of the files that hold its weights. Raises InvalidInput when a path
    leaves that folder."""
    budget = _Budget()
    found: set[str] = set()
    try:
        for number, _, start, end in _fields(buffer, 0, len(buffer), budget):
            if number == _GRAPH:
                _read_graph(buffer, start, end, budget, found)
    except (Malformed, Truncated) as error:
        raise errors.InvalidInput("the graph of this ONNX file is damaged") from error
    for location in found:
        if location.startswith(("/", "\\")) or ".." in location.replace("\\", "/").split("/") or "\0" in location:
            raise errors.InvalidInput(f"this ONNX file keeps weights outside its folder: {location!r}")
    return sorted(found)


def _read_graph(buffer: Buffer, start: int, end: int, budget: _Budget, found: set[str]) -> None:
    for number, wire, at, stop in _fields(buffer, start, end, budget):
        if wire != _BYTES:
            continue
        if number == _INITIALIZER:
            _read_tensor(buffer, at, stop, budget, found)
        elif number == _NODE:
            for field, kind, a, b in _fields(buffer, at, stop, budget):
                if field == _NODE_ATTRIBUTE and kind == _BYTES:
                    for inner, inner_kind, c, d in _fields(buffer, a, b, budget):
                        if inner == _ATTRIBUTE_TENSOR and inner_kind == _BYTES:
                            _read_tensor(buffer, c, d, budget, found)


def _read_tensor(buffer: Buffer, start: int, end: int, budget: _Budget, found: set[str]) -> None:
    for number, wire, at, stop in _fields(buffer, start, end, budget):
        if number != _EXTERNAL_DATA or wire != _BYTES:
            continue
        entry = {field: bytes(buffer[a:b]) for field, kind, a, b in _fields(buffer, at, stop, budget) if kind == _BYTES}
        if entry.get(1) == b"location" and len(found) < _MAX_LOCATIONS:
            found.add(entry.get(2, b"").decode("utf-8", "surrogateescape"))


def _fields(buffer: Buffer, at: int, end: int, budget: _Budget) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, start, end) of each field between two offsets."""
    while at < end:
        budget.spend()
        tag, at = _varint(buffer, at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or number > 1 << 29:
            raise Malformed
        start = at
        match wire:
            case 0:
                _, stop = _varint(buffer, at, end)
            case 1:
                stop = at + 8
            case 2:
                size, start = _varint(buffer, at, end)
                stop = start + size
            case 5:
                stop = at + 4
            case _:
                raise Malformed
        if stop > end:
            raise Truncated(stop - end)
        yield number, wire, start, stop
        at = stop


def _varint(buffer: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end:
            raise Truncated(0)
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise Malformed
