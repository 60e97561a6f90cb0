"""The packages that a version asks for are a file of it, also when its model keeps them inside an archive."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from headrace.core.models import Artifact, Format
from headrace.core.versions import StoredFile
from headrace.runtimes import digest, version_files
from headrace.store.artifacts import Artifacts


class Required(msgspec.Struct, frozen=True):
    """``path`` is that of the requirements of the version's own environment among its files, None when it runs in the
    server's; ``added`` is a file that came to them."""

    content: bytes = b""
    path: str | None = None
    added: tuple[StoredFile, ...] = ()


def keep(artifacts: Artifacts, artifact: Artifact, named: str | None, path: Path | None) -> Required:
    """The requirements of an inspected artifact: ``named`` among its files and readable at ``path``, else its own.

    Those of an archive are stored beside it. What an MLflow folder names is only told: it lists everything that the
    training had installed. Raises InvalidInput for an archive that is damaged, StorageFull, StoreFailed."""
    if path is not None:
        return Required(path.read_bytes(), named)
    content = version_files.requirements_of(artifact)
    if content is None:
        return Required()
    if artifact.format is not Format.TORCHSERVE:
        return Required(content)
    with tempfile.TemporaryDirectory(prefix="headrace-push-") as folder:
        made = Path(folder) / version_files.REQUIREMENTS
        made.write_bytes(content)
        stored = StoredFile(made.name, digest.of_file(made), len(content))
        artifacts.put(made, stored.digest, lambda _: None)
    return Required(content, stored.path, (stored,))
