"""Where the state is: light to import, for commands that only pass it on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from headrace.app.state.directory import state_directory
from headrace.core import errors

DATABASE_FILE = "state.db"


class Location(msgspec.Struct, frozen=True):
    """``database`` None: SQLite in the directory. ``artifacts``: a folder or a URL of an object store."""

    directory: Path
    database: str | None
    artifacts: str

    @property
    def exists(self) -> bool:
        """There may be something in it; a database that is named counts, reachable or not. Raises BadSettings when the
        directory does not let one look."""
        if self.database is not None:
            return True
        try:
            (self.directory / DATABASE_FILE).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise errors.BadSettings(f"--state {self.directory}: {error.strerror}") from error
        return True


def locate(state: str | None, database: str | None, artifacts: str | None, environ: Mapping[str, str]) -> Location:
    """Flags win over ``HEADRACE_STATE``, ``HEADRACE_DATABASE``, ``HEADRACE_ARTIFACTS``."""
    directory = state_directory(state, environ)
    return Location(
        directory,
        database or environ.get("HEADRACE_DATABASE") or None,
        artifacts or environ.get("HEADRACE_ARTIFACTS") or str(directory / "artifacts"),
    )


def is_named(state: str | None, database: str | None, environ: Mapping[str, str]) -> bool:
    """Somebody said which state: what is served then belongs to it."""
    return bool(state or database or environ.get("HEADRACE_STATE") or environ.get("HEADRACE_DATABASE"))


def locate_for_server(
    state: str | None, database: str | None, artifacts: str | None, environ: Mapping[str, str]
) -> Location | None:
    """The state that a server goes by. None: nobody named one, and there is no home to look into, as for the nameless
    users of containers. Raises BadSettings when one that was named cannot be looked into."""
    named = is_named(state, database, environ)
    try:
        found = locate(state, database, artifacts, environ)
        _ = found.exists
    except RuntimeError as error:  # pathlib's word for a home that cannot be determined
        if named:
            raise errors.BadSettings(f"--state {state or environ.get('HEADRACE_STATE')}: {error}") from error
        return None
    except errors.BadSettings:
        if named:
            raise
        return None
    return found
