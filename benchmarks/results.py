"""The results file: one entry a row, each with its own date and machine, so that rows can be measured one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from benchmarks.machine import Machine

FILE = "figures.json"


class RowResult(msgspec.Struct, frozen=True):
    machine: Machine
    settings: dict[str, float]
    """Rounds and seconds it was measured with; ``long_seconds`` where a part of the row runs longer."""
    figures: dict[str, Any]


class Results(msgspec.Struct, frozen=True):
    rows: dict[str, RowResult] = {}

    def figures(self) -> dict[str, dict[str, Any]]:
        return {name: row.figures for name, row in self.rows.items()}


def read(folder: Path) -> Results:
    path = folder / FILE
    return msgspec.json.decode(path.read_bytes(), type=Results) if path.exists() else Results()


def record(folder: Path, name: str, row: RowResult) -> Results:
    """Put one row into the file, in place of the one that was there."""
    folder.mkdir(parents=True, exist_ok=True)
    results = Results({**read(folder).rows, name: row})
    (folder / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    return results
