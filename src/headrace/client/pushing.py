"""What a client pushes: the models at a path, with the files that each consists of.

They are looked at here only to know which files belong to them, and to refuse at once what is no model; what a version
is, the server finds out by itself.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.core import errors, names
from headrace.core.versions import Registration, StoredFile
from headrace.protocols import golden_lines
from headrace.runtimes import digest, repository, version_files
from headrace.runtimes.inspect import inspect


class Found(msgspec.Struct, frozen=True):
    """A model to register, and where its files lie, by their path in the version."""

    model: str
    registration: Registration
    sources: dict[str, Path]


def find(
    source: str, model: str | None, known: Registration, golden: Path | None = None, reference: Path | None = None
) -> list[Found]:
    """Every model at ``source`` with what is ``known`` about all of them, and what accompanies them. Blocking.

    Raises InvalidInput, Unsupported for what is no model, BadSettings for several under one name."""
    found = repository.discover(source)
    if model is not None:
        names.check_model(model)
        if len({entry.name for entry in found}) > 1:
            raise errors.BadSettings(f"{source} holds several models; push it without a name, or the folder of one")
    extras = {}
    if golden is not None:
        golden_lines.check(version_files.read_golden(golden, str(golden)), str(golden))
        extras[version_files.GOLDEN] = golden
    if reference is not None:
        version_files.check_reference(reference, str(reference))
        extras[version_files.REFERENCE] = reference
    return [_described(source, model or entry.name, entry, known, extras) for entry in found]


def _described(source: str, model: str, entry: repository.Found, known: Registration, extras: dict[str, Path]) -> Found:
    artifact = inspect(entry.path, entry.attribute)
    sources = version_files.files_of(artifact) | extras
    files = tuple(StoredFile(name, digest.of_file(path), path.stat().st_size) for name, path in sources.items())
    version_files.require_inspected(artifact, {file.path: file.digest for file in files})
    registration = msgspec.structs.replace(
        known,
        path=version_files.entry_of(artifact),
        files=files,
        source=str(Path(source).absolute()),
        attribute=artifact.attribute,
        number=version_files.number_of(entry, Path(source).absolute()),
        golden=version_files.GOLDEN if version_files.GOLDEN in extras else None,
        reference=version_files.REFERENCE if version_files.REFERENCE in extras else None,
    )
    return Found(model, registration, sources)
