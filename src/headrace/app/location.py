"""Where the state lives. Apart from what opens it, so that naming a place imports no database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

DATABASE_FILE = "state.db"


class Location(msgspec.Struct, frozen=True):
    """``database`` None: SQLite in the directory. ``artifacts``: a folder or a URL of an object store."""

    directory: Path
    database: str | None
    artifacts: str

    @property
    def exists(self) -> bool:
        """There may be something in it; a database that is named counts, reachable or not."""
        return self.database is not None or (self.directory / DATABASE_FILE).exists()


def locate(state: str | None, database: str | None, artifacts: str | None, environ: Mapping[str, str]) -> Location:
    """Flags win over ``HEADRACE_STATE``, ``HEADRACE_DATABASE``, ``HEADRACE_ARTIFACTS``."""
    directory = Path(state or environ.get("HEADRACE_STATE") or "~/.headrace").expanduser().absolute()
    return Location(
        directory,
        database or environ.get("HEADRACE_DATABASE") or None,
        artifacts or environ.get("HEADRACE_ARTIFACTS") or str(directory / "artifacts"),
    )
