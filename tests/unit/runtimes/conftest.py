"""Fixtures for the runtimes: real artifacts, loaded the way a worker loads them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# `tests` is a namespace package of the repository; pytest's importlib mode does not put the root on the path.
_ROOT = str(Path(__file__).parents[3])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from headrace.core.models import Artifact  # noqa: E402
from headrace.runtimes import table, trust  # noqa: E402
from headrace.runtimes.inspect import inspect  # noqa: E402
from headrace.runtimes.runtime import LoadOptions, Runtime  # noqa: E402
from tests import models  # noqa: E402

Loader = Callable[..., Runtime]


def load_path(path: Path, attribute: str | None = None, **options: str) -> Runtime:
    """Inspect and load a path as a trusted artifact."""
    artifact = inspect(path, attribute)
    return table.load(artifact, LoadOptions(options={trust.OPTION: "yes", **options}))


@pytest.fixture
def load() -> Loader:
    """``load(kind)`` or ``load(path)``: the runtime of a trusted artifact."""

    def from_kind_or_path(what: str | Path, attribute: str | None = None, **options: str) -> Runtime:
        path = models.build(what) if isinstance(what, str) else what
        return load_path(path, attribute, **options)

    return from_kind_or_path


@pytest.fixture
def artifact() -> Callable[[str], Artifact]:
    return lambda kind: inspect(models.build(kind))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a text file into the test's folder."""

    def to_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return to_file
