"""Prints predictions of ``headrace predict``: one JSON document, JSON lines, or a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TextIO

import msgspec
import numpy as np

from headrace.client.wire import Prediction
from headrace.core.tensors import Array

ROWS_SHOWN = 50
_CELL = 60

_encode = msgspec.json.Encoder().encode


class Writer(Protocol):
    """Gets the answer of each request, in order; ``finish`` once at the end."""

    def add(self, prediction: Prediction, batchable: bool) -> None: ...

    def finish(self) -> None: ...


def make_writer(form: str, out: TextIO) -> Writer:
    match form:
        case "json":
            return JsonWriter(out)
        case "jsonl":
            return LineWriter(out)
        case _:
            return TableWriter(out)


class JsonWriter:
    """``{"model": …, "version": …, "outputs": {name: values}}``, rows of all requests together.

    NaN and infinity are null, bytes that are not UTF-8 are base64: JSON has no other form for them."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._parts: list[Prediction] = []

    def add(self, prediction: Prediction, batchable: bool) -> None:
        self._parts.append(prediction)

    def finish(self) -> None:
        if not self._parts:
            return
        last = self._parts[-1]
        outputs = {
            name: plain(np.concatenate([part.outputs[name] for part in self._parts]) if len(self._parts) > 1 else array)
            for name, array in last.outputs.items()
        }
        self._out.write(_encode({"model": last.model, "version": last.version, "outputs": outputs}).decode() + "\n")


class LineWriter:
    """One JSON object per row, written as it comes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def add(self, prediction: Prediction, batchable: bool) -> None:
        for row in rows_of(prediction, batchable):
            self._out.write(_encode(row).decode() + "\n")
        self._out.flush()

    def finish(self) -> None:
        return


class TableWriter:
    """A table of the first rows."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rows: list[dict[str, Any]] = []
        self._count = 0

    def add(self, prediction: Prediction, batchable: bool) -> None:
        for row in rows_of(prediction, batchable):
            self._count += 1
            if self._count <= ROWS_SHOWN:
                self._rows.append(row)

    def finish(self) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        console = Console(file=self._out, highlight=False)
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name, value in (self._rows[0] if self._rows else {}).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            table.add_column(escape(name), justify="right" if number else "left", overflow="fold")
        for row in self._rows:
            table.add_row(*(escape(_cell(value)) for value in row.values()))
        console.print(table)
        if self._count > ROWS_SHOWN:
            console.print(f"… and {self._count - ROWS_SHOWN} more rows; --output jsonl prints all")


def rows_of(prediction: Prediction, batchable: bool) -> Iterator[dict[str, Any]]:
    """Outputs row by row; one row with everything when dimension 0 is not the rows."""
    plain_outputs = {name: plain(array) for name, array in prediction.outputs.items()}
    lengths = {len(array) if array.ndim else None for array in prediction.outputs.values()}
    if not batchable or None in lengths or len(lengths) != 1:
        yield plain_outputs
        return
    for index in range(lengths.pop() or 0):
        yield {name: values[index] for name, values in plain_outputs.items()}


def plain(array: Array) -> Any:
    """Lists of Python values. Short floats keep their own digits: 0.1, not 0.10000000149011612."""
    if array.dtype in (np.float32, np.float16):
        items = np.array([float(str(value)) for value in array.ravel()], dtype=np.float64)
        return items.reshape(array.shape).tolist()
    return array.tolist()


def _cell(value: Any) -> str:
    text = _short(value)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _short(value: Any) -> str:
    match value:
        case float():
            return f"{value:.6g}"
        case list():
            return f"[{', '.join(map(_short, value))}]"
        case _:
            return str(value)
