"""The packages that a version asks for are a file of it, also when its model keeps them inside an archive."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from headrace.core.models import Artifact
from headrace.core.versions import StoredFile
from headrace.runtimes import digest, version_files
from headrace.store.artifacts import Artifacts


class Required(msgspec.Struct, frozen=True):
    """``path`` is that of the requirements among the version's files, ``added`` is a file that came to them."""

    content: bytes = b""
    path: str | None = None
    added: tuple[StoredFile, ...] = ()


def keep(artifacts: Artifacts, artifact: Artifact, files: Sequence[StoredFile]) -> Required:
    """Find the requirements of an inspected artifact, and store them when they are no file of the version yet.

    Raises InvalidInput for an archive that is damaged, StorageFull, StoreFailed."""
    content = version_files.requirements_of(artifact)
    if content is None:
        return Required()
    inside = f"{version_files.MODEL}/{version_files.REQUIREMENTS}"
    if any(file.path == inside for file in files):
        return Required(content, inside)
    with tempfile.TemporaryDirectory(prefix="headrace-push-") as folder:
        made = Path(folder) / version_files.REQUIREMENTS
        made.write_bytes(content)
        stored = StoredFile(made.name, digest.of_file(made), len(content))
        artifacts.put(made, stored.digest, lambda _: None)
    return Required(content, stored.path, (stored,))
