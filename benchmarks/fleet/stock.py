"""A state with many registered models, and settings files with many endpoints.

Every model that is served has a content of its own; those that only fill the registry share one, because lists read no
files.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.dialects import Dialect, oip
from headrace.app.registry.pushing import Prepared, PushRequest, make_draft, prepared
from headrace.app.state.location import Location
from headrace.app.state.registry_state import RegistryState, open_registry
from headrace.runtimes import digest

_DOC_STRING = b"\x32"
"""Tag of ``doc_string`` in an ONNX ModelProto: field 6, length-delimited. Fields may stand in any order and the
last one counts, so that a few bytes more make the same model another file."""


def relabelled(model: bytes, name: str) -> bytes:
    """The same ONNX model under another digest. ``name`` is ASCII and shorter than 128 characters."""
    label = name.encode("ascii")
    if len(label) > 127:
        raise ValueError(f"{name!r} is too long: one byte holds the length of a label")
    return model + _DOC_STRING + bytes([len(label)]) + label


def name_of(number: int) -> str:
    return f"fraud-{number:04}"


def question(number: int) -> Dialect:
    """How the endpoint of a model is asked."""
    return oip(name_of(number))


def copies(model: Path, folder: Path, count: int) -> list[Path]:
    """``count`` files that hold the same model and differ in their content."""
    folder.mkdir(parents=True, exist_ok=True)
    content = model.read_bytes()
    paths = [folder / f"{name_of(number)}.onnx" for number in range(count)]
    for path in paths:
        path.write_bytes(relabelled(content, path.stem))
    return paths


def fill_registry(directory: Path, model: Path, scratch: Path, *, models: int, served: int) -> Location:
    """Register ``models`` versions 1 in a new state in ``directory``; the first ``served`` are files of their own."""
    location = Location(directory, None, str(directory / "artifacts"))
    files = copies(model, scratch, served)
    with open_registry(location) as state:
        with prepared(PushRequest(str(files[0])), _silent) as found:
            template = next(found)
        for number in range(models):
            _register(state, template, name_of(number), files[min(number, served - 1)])
    return location


def _register(state: RegistryState, template: Prepared, name: str, file: Path) -> None:
    """A push without its inspection: what is found in one of the files is true of all of them."""
    (stored,) = template.registration.files
    content = digest.of_file(file)
    state.artifacts.put(file, content, lambda done: None)
    artifact = msgspec.structs.replace(template.artifact, path=str(file), digest=content)
    stored = msgspec.structs.replace(stored, digest=content, size=file.stat().st_size)
    wanted = msgspec.structs.replace(template.registration, files=(stored,), source=str(file))
    draft = make_draft(state.artifacts, name, artifact, wanted, who=state.who, at=0.0)
    with state.changing("benchmark") as registry:
        registry.register(draft)


def settings_text(served: int, awake: int) -> str:
    """A headrace.yaml with an endpoint for each of the first ``served`` models; those after the first ``awake`` start
    on their first request."""
    lines = ["endpoints:"]
    for number in range(served):
        lazy = "" if number < awake else ", lazy: true"
        lines.append(f"  {name_of(number)}: {{model: {name_of(number)}@1{lazy}}}")
    return "\n".join(lines) + "\n"


def packed_text(files: list[Path]) -> str:
    """A headrace.yaml with an endpoint for each file, all of them in shared workers."""
    lines = ["isolation: packed", "endpoints:"]
    lines += [f"  {file.stem}: {{model: {file}}}" for file in files]
    return "\n".join(lines) + "\n"


def _silent(what: str, done: int, total: int) -> None:
    """Nobody watches."""
