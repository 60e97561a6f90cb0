"""Where the state is: light to import, for commands that only pass it on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec


class Location(msgspec.Struct, frozen=True):
    """``database`` None: SQLite in the directory. ``artifacts``: a folder or a URL of an object store."""

    directory: Path
    database: str | None
    artifacts: str


def locate(state: str | None, database: str | None, artifacts: str | None, environ: Mapping[str, str]) -> Location:
    """Flags win over ``HEADRACE_STATE``, ``HEADRACE_DATABASE``, ``HEADRACE_ARTIFACTS``."""
    directory = Path(state or environ.get("HEADRACE_STATE") or "~/.headrace").expanduser().absolute()
    return Location(
        directory,
        database or environ.get("HEADRACE_DATABASE") or None,
        artifacts or environ.get("HEADRACE_ARTIFACTS") or str(directory / "artifacts"),
    )


def is_named(state: str | None, database: str | None, environ: Mapping[str, str]) -> bool:
    """Somebody said which state: what is served then belongs to it."""
    return bool(state or database or environ.get("HEADRACE_STATE") or environ.get("HEADRACE_DATABASE"))
