"""Where Headrace keeps what outlives a run; a module of its own, so that asking needs no database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def state_directory(state: str | None, environ: Mapping[str, str]) -> Path:
    """A flag wins over ``HEADRACE_STATE``."""
    return Path(state or environ.get("HEADRACE_STATE") or "~/.headrace").expanduser().absolute()


def environments_folder(setting: str | None, state: str | None, environ: Mapping[str, str]) -> Path:
    """Where environments of versions are kept; ``setting`` is ``environments.folder``."""
    return Path(setting).absolute() if setting else state_directory(state, environ) / "environments"
