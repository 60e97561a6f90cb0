"""Environment variables of processes that must see one environment only, and nothing of ours or the user's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV", "CONDA_PREFIX")
"""Lead Python to modules that are not in the environment."""

_UV = ("UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_BREAK_SYSTEM_PACKAGES", "UV_NO_BINARY")
"""Would send uv's work elsewhere than into the environment, or turn wheels off."""


def variables(environ: Mapping[str, str], environment: Path) -> dict[str, str]:
    """For Python in the environment at this path: its modules and commands come from there, children's too."""
    kept = {name: value for name, value in environ.items() if name not in _PYTHON}
    kept["PATH"] = os.pathsep.join([str(environment / "bin"), *filter(None, [environ.get("PATH")])])
    return kept | {"VIRTUAL_ENV": str(environment), "PYTHONNOUSERSITE": "1", "PYTHONSAFEPATH": "1"}


def installer_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """For uv: the user's settings of indexes, caches and certificates hold, those of projects do not."""
    kept = {name: value for name, value in environ.items() if name not in (*_PYTHON, *_UV)}
    return kept | {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
