"""What ``store/mlflow_registry.py`` tells the process that started it, one JSON object per line."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headrace.core.versions import TrackedModel


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    """Bytes that came since the last one; ``total`` is 0 when it is not known."""

    size: int
    total: int


class Fetched(msgspec.Struct, frozen=True, tag="fetched"):
    """``path``: what was downloaded. ``name``: what the registry or the run calls it. ``notes``: what is missing of
    its story."""

    path: str
    name: str
    tracked: TrackedModel
    metrics: dict[str, float]
    git_sha: str | None = None
    notes: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    code: str
    message: str


Line = Moved | Fetched | Failed
Tell = Callable[[Line], None]
