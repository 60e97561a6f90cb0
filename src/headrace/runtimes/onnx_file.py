"""Recognizes ONNX files by walking their protobuf fields, without a protobuf schema or any framework.

Only lengths are read: the graph is skipped over, except for the names of files that hold its weights.
Field numbers are those of ModelProto, GraphProto and TensorProto in the ONNX specification (onnx.proto).
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

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
_GRAPH, _OPSET, _IR_VERSION, _FUNCTION = 7, 8, 1, 25

# What may hold weights, and where in it: message → field → message. Nodes hold graphs (branches of If, bodies of Loop).
_INSIDE = {
    "model": {_GRAPH: "graph", _FUNCTION: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2  # of an entry of TensorProto.external_data

_MAX_TOP_FIELDS = 100_000
_MAX_FIELDS = 2_000_000
_MAX_LOCATIONS = 10_000


class Truncated(Exception):
    """The buffer ends inside a field. ``missing`` is the number of bytes, when it is known."""

    def __init__(self, missing: int) -> None:
        super().__init__(missing)
        self.missing = missing


class Malformed(Exception):
    """The bytes are no protobuf message."""


def is_onnx(buffer: Buffer) -> bool:
    """True for a whole ModelProto. Raises InvalidInput for one that is cut off."""
    seen: set[int] = set()
    try:
        for count, (number, wire, _, _) in enumerate(fields(buffer, 0, len(buffer))):
            if _MODEL_FIELDS.get(number) != wire or count > _MAX_TOP_FIELDS:
                return False
            seen.add(number)
    except Malformed:
        return False
    except Truncated as error:
        # The first field of every writer is ir_version; without it a cut-off file could be anything.
        if _IR_VERSION in seen and buffer[0] == 0x08 and buffer[1] < 0x40:
            what = f"at least {error.missing:,} bytes are missing" if error.missing else "it is cut off"
            raise errors.InvalidInput(f"this is an ONNX file that ends too early: {what}") from error
        return False
    return _GRAPH in seen and bool(seen & {_IR_VERSION, _OPSET})


def external_files(buffer: Buffer) -> list[str]:
    """Paths, relative to the model's folder, of the files that hold its weights. Raises InvalidInput when a path
    leaves that folder."""
    if re.search(b"location", buffer) is None:
        return []
    found = _locations(buffer)
    for location in found:
        if location.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", location) or "\0" in location:
            raise errors.InvalidInput(f"this ONNX file keeps weights outside its folder: {location!r}")
    return sorted(found)


def weights_of(path: Path) -> list[Path]:
    """The files beside an ONNX file that hold its weights."""
    if path.stat().st_size == 0:
        return []
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as buffer,
    ):
        return [path.parent / name for name in external_files(buffer)]


def _locations(buffer: Buffer) -> set[str]:
    found: set[str] = set()
    stack = [("model", 0, len(buffer))]
    left = _MAX_FIELDS
    try:
        while stack:
            message, start, end = stack.pop()
            if message == "entry":
                _add_location(buffer, start, end, found)
                continue
            inside = _INSIDE[message]
            for number, wire, at, stop in fields(buffer, start, end):
                left -= 1
                if left < 0 or len(found) > _MAX_LOCATIONS:
                    raise errors.InvalidInput("this ONNX file has too many parts to be inspected")
                if wire == _BYTES and number in inside:
                    stack.append((inside[number], at, stop))
    except (Malformed, Truncated) as error:
        raise errors.InvalidInput("the graph of this ONNX file is damaged") from error
    return found


def _add_location(buffer: Buffer, start: int, end: int, found: set[str]) -> None:
    entry = {number: bytes(buffer[at:stop]) for number, wire, at, stop in fields(buffer, start, end) if wire == _BYTES}
    if entry.get(_KEY) == b"location":
        found.add(entry.get(_VALUE, b"").decode("utf-8", "surrogateescape"))


def fields(buffer: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, start, end) of each field between two offsets."""
    while at < end:
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
