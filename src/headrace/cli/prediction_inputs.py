"""Reads what ``headrace predict`` sends: JSON, JSON lines, CSV, ``name=value`` and .npy files, in chunks of rows.

Texts of a CSV get the type of the model's input; errors name the line and the column.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import msgspec
import numpy as np

from headrace.client import ModelMetadata
from headrace.core import errors
from headrace.core.models import TensorSpec
from headrace.core.tensors import DType

FORMATS = ("json", "jsonl", "csv")

_SUFFIXES = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
_FLOATS = frozenset({DType.FP16, DType.BF16, DType.FP32, DType.FP64})
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Inputs for one request; ``first`` is the number of its first row, for messages."""

    inputs: Any
    first: int = 0


@dataclass(slots=True)
class Source:
    """Where rows come from. ``position`` and ``size`` are bytes, for a progress bar; size 0: not known."""

    text: TextIO
    format: str
    name: str
    size: int = 0
    position: Callable[[], int] = lambda: 0


@contextmanager
def open_source(path: str, stdin: BinaryIO, forced: str | None) -> Iterator[Source]:
    """Open a file, or stdin for ``-``. Raises BadSettings when it cannot be read or its format is not known."""
    if path == "-":
        head = stdin if isinstance(stdin, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stdin))
        kind = forced or _sniff(head.peek(4096))
        yield Source(io.TextIOWrapper(head, encoding="utf-8-sig", newline=""), kind, "stdin")
        return
    kind = forced or _SUFFIXES.get(Path(path).suffix.lower(), "")
    if not kind:
        raise errors.BadSettings(f"{path}: the format is not known by its name; pass --format {'|'.join(FORMATS)}")
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below, by the wrapper
    except OSError as error:
        raise errors.BadSettings(f"{path}: cannot be read: {error.strerror}") from None
    size = Path(path).stat().st_size
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        yield Source(text, kind, path, size, file.tell)


def read_chunks(source: Source, metadata: ModelMetadata, rows: int) -> Iterator[Chunk]:
    """Requests of at most ``rows`` rows each, read as they are needed."""
    try:
        match source.format:
            case "csv":
                yield from _csv_chunks(source, metadata, rows)
            case "jsonl":
                yield from _line_chunks(source, rows)
            case _:
                yield from value_chunks(parse_json(source.text.read(), source.name), metadata, rows)
    except UnicodeDecodeError as error:
        raise errors.InvalidInput(f"{source.name}: not UTF-8 text: {error}") from None


def value_chunks(value: Any, metadata: ModelMetadata, rows: int) -> Iterator[Chunk]:
    """A value as ``Client.predict`` takes it, or ``{"instances": …}``, cut into requests of ``rows`` rows."""
    names = {spec.name for spec in metadata.inputs}
    if isinstance(value, dict) and len(value) == 1 and not names & value.keys():
        ((key, inner),) = value.items()
        if key in ("instances", "inputs"):
            value = inner
    if not metadata.batchable or not isinstance(value, list | dict):
        yield Chunk(value)
    elif isinstance(value, list):
        # One row of a matrix model, [5.1, 3.5], is not a list of rows.
        single = bool(value) and not isinstance(value[0], dict | list) and not metadata.columns
        if single or not value:
            yield Chunk(value)
        else:
            for first in range(0, len(value), rows):
                yield Chunk(value[first : first + rows], first)
    else:
        count = max((len(column) for column in value.values() if isinstance(column, list)), default=0)
        if count <= rows or any(not isinstance(c, list) or len(c) != count for c in value.values()):
            yield Chunk(value)
        else:
            for first in range(0, count, rows):
                yield Chunk({name: column[first : first + rows] for name, column in value.items()}, first)


def parse_json(text: str, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise errors.InvalidInput(f"{where}: not valid JSON: {error}") from None


def parse_pairs(pairs: Sequence[str], metadata: ModelMetadata) -> dict[str, Any]:
    """``--input name=value``: JSON where it parses, else text; ``name=@file.npy`` is an array from a file."""
    specs = {spec.name: spec for spec in metadata.inputs}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not name or not equals:
            raise errors.BadSettings(f"--input: expected NAME=VALUE, got {pair!r}")
        if text.startswith("@"):
            values[name] = _array_file(text[1:])
        else:
            spec = specs.get(name)
            values[name] = text if spec is not None and spec.dtype is DType.BYTES and text[:1] != "[" else _loose(text)
    return values


def _array_file(path: str) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise errors.InvalidInput(f"--input: {path} is not a readable .npy file: {error}") from None


def _loose(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _sniff(head: bytes) -> str:
    """Format of stdin by its beginning."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not text.startswith((b"{", b"[")):
        return "csv"
    first, newline, rest = text.partition(b"\n")
    if newline and rest.lstrip().startswith((b"{", b"[")):
        try:
            msgspec.json.decode(first)
        except msgspec.DecodeError:
            return "json"
        return "jsonl"
    return "json"


def _line_chunks(source: Source, rows: int) -> Iterator[Chunk]:
    numbered = ((number, line) for number, line in enumerate(source.text, start=1) if line.strip())
    values = (parse_json(line, f"{source.name} line {number}") for number, line in numbered)
    yield from _batched(values, rows)


def _batched(values: Iterable[Any], rows: int) -> Iterator[Chunk]:
    values = iter(values)
    for first in itertools.count(step=rows):
        batch = list(itertools.islice(values, rows))
        if not batch:
            return
        yield Chunk(batch, first)


def _csv_chunks(source: Source, metadata: ModelMetadata, rows: int) -> Iterator[Chunk]:
    try:
        reader = csv.reader(source.text, strict=True)
        header = next(reader, None)
        if header is None:
            raise errors.InvalidInput(f"{source.name}: the file is empty")
        specs = {spec.name: spec for spec in metadata.inputs}
        if len(specs) == 1 and len(metadata.inputs[0].shape) == 2 and metadata.inputs[0].name not in header:
            yield from _matrix_chunks(source, reader, header, metadata.inputs[0], rows)
            return
        columns = [specs.get(name) for name in header]
        for chunk in _batched(_records(source, reader, len(header)), rows):
            yield Chunk(
                {
                    name: [
                        _typed(spec, record[at], f"{source.name} line {line}, column {name!r}")
                        for line, record in chunk.inputs
                    ]
                    for at, (name, spec) in enumerate(zip(header, columns, strict=True))
                },
                chunk.first,
            )
    except csv.Error as error:
        raise errors.InvalidInput(f"{source.name}: not valid CSV: {error}") from None


def _matrix_chunks(source: Source, reader: Any, header: list[str], spec: TensorSpec, rows: int) -> Iterator[Chunk]:
    """A model with one matrix input takes all columns in order; a first line of numbers is data."""
    records: Iterable[tuple[int, list[str]]] = _records(source, reader, len(header))
    if all(_is_number(cell) for cell in header):
        records = itertools.chain([(1, header)], records)
    for chunk in _batched(records, rows):
        yield Chunk(
            [
                [_typed(spec, cell, f"{source.name} line {line}, column {at + 1}") for at, cell in enumerate(record)]
                for line, record in chunk.inputs
            ],
            chunk.first,
        )


def _records(source: Source, reader: Any, width: int) -> Iterator[tuple[int, list[str]]]:
    for record in reader:
        if not record:
            continue
        if len(record) != width:
            raise errors.InvalidInput(
                f"{source.name} line {reader.line_num}: {len(record)} columns, the first line has {width}"
            )
        yield reader.line_num, record


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _typed(spec: TensorSpec | None, text: str, where: str) -> Any:
    """A CSV cell as a value of the input; an input that the model does not have is left for the client to refuse."""
    if spec is None:
        return _loose(text)
    if spec.dtype is DType.BYTES:
        return text
    try:
        if spec.dtype is DType.BOOL:
            return _BOOLEANS[text.strip().lower()]
        if spec.dtype in _FLOATS:
            return float(text) if text.strip() else float("nan")
        return int(text)
    except (ValueError, KeyError):
        raise errors.InvalidInput(f"{where}: expected {spec.dtype}, got {text!r}") from None
