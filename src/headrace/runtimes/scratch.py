"""Folders for what a runtime must have on disk while a model is loaded, such as the files of an archive."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "model-"


@contextmanager
def folder(parent: str | None) -> Iterator[Path]:
    """A new folder below ``parent`` (None: where temporary files go) that is removed at the end.

    A process that is killed cannot remove its folder. The next one does: folders of living processes are locked."""
    if parent is None:
        with tempfile.TemporaryDirectory(prefix="headrace-model-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    home = Path(parent)
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "lock"):
        _remove_orphans(home)
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
        descriptor = _lock(made, fcntl.LOCK_EX)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.touch()
    descriptor = _lock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def _remove_orphans(home: Path) -> None:
    for found in home.glob(f"{_PREFIX}*"):
        try:
            descriptor = _lock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # in use, or removed in this moment
            continue
        shutil.rmtree(found, ignore_errors=True)
        os.close(descriptor)


def _lock(path: Path, how: int) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
