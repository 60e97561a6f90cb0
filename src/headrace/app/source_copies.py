"""Copies of the Python files that are served, in the runtime directory.

A replica that is started again must run the code of its version, whatever stands in the file by now: a change that
does not work, or one that nobody asked to be served.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from headrace.core.models import Artifact, Format


def keep(directory: Path, artifact: Artifact) -> None:
    """Copy the file of an artifact that was just inspected. One that has changed already is left alone: the copy would
    be another version's."""
    if artifact.format is not Format.PYTHON:
        return
    content = Path(artifact.path).read_bytes()
    if f"sha256:{hashlib.sha256(content).hexdigest()}" == artifact.digest:
        copy = _path(directory, artifact)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(content)


def find(directory: Path, artifact: Artifact) -> str | None:
    """The copy for this artifact, None when there is none."""
    copy = _path(directory, artifact)
    return str(copy) if copy.exists() else None


def _path(directory: Path, artifact: Artifact) -> Path:
    return directory / "sources" / f"{artifact.digest.rpartition(':')[2]}.py"
