"""The packages that a model asks for: ``requirements.txt`` of an MLflow folder or a TorchServe archive."""

from __future__ import annotations

import re
from pathlib import Path

from headrace.core.models import Artifact, Format
from headrace.runtimes import torchserve_archive, zip_file

FILE = "requirements.txt"

_PINNED = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._\-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;#]+)")


def read(artifact: Artifact) -> bytes | None:
    """The file's content; None when the artifact has none. Raises InvalidInput for a damaged archive."""
    path = Path(artifact.path)
    if artifact.format is Format.TORCHSERVE:
        with zip_file.opened(path) as archive:
            return torchserve_archive.requirements(archive, torchserve_archive.read(archive))
    file = path / FILE
    return file.read_bytes() if file.is_file() else None


def pinned(content: bytes) -> dict[str, str]:
    """Versions of the packages that are pinned to one, by name."""
    lines = content.decode("utf-8", "replace").splitlines()
    return {match[1]: match[2] for line in lines if (match := _PINNED.match(line))}
