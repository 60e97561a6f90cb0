"""Reads a TorchServe archive (``.mar``, what ``torch-model-archiver`` writes): a zip with ``MAR-INF/MANIFEST.json``.

The manifest and the names are read and checked, and the handler's source is parsed for what it imports; nothing in the
archive is ever run here. ``unpack`` writes the files for the runtime that does run it.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

import msgspec

from headrace.core import errors
from headrace.runtimes import python_file

MANIFEST = "MAR-INF/MANIFEST.json"

BUILT_IN_HANDLERS = frozenset(
    (
        *("base_handler", "image_classifier", "image_segmenter", "object_detector", "text_classifier"),
        *("dali_image_classifier", "vllm_handler", "trt_llm_handler"),
    )
)
"""Handlers that TorchServe brings along (``ts.torch_handler``), so that an archive only names them."""

_MAX_FILES = 20_000
_MAX_MANIFEST = 1 << 20
_MAX_REQUIREMENTS = 1 << 20
_MAX_PART = 255
"""Bytes of one name, as most file systems have it."""
_CHUNK = 1 << 20


class Archive(msgspec.Struct, frozen=True):
    """What the manifest says. Files are paths in the archive, None where it names none.

    ``handler`` is the name as written; ``handler_file`` None means that it is one of TorchServe's own. ``function`` is
    the function or class in it, when one is named."""

    model_name: str
    model_version: str
    runtime: str
    handler: str
    handler_file: str | None
    function: str | None
    serialized_file: str | None
    model_file: str | None
    requirements_file: str | None
    config_file: str | None
    extra_files: tuple[str, ...]
    archiver: str
    manifest: dict[str, object]

    def details(self) -> dict[str, str]:
        """The same for people, without what is not there."""
        shown = {
            "model_name": self.model_name,
            "model_version": self.model_version,
            "runtime": self.runtime,
            "handler": self.handler if self.handler_file else f"{self.handler} (TorchServe's own)",
            "serialized_file": self.serialized_file,
            "model_file": self.model_file,
            "requirements_file": self.requirements_file,
            "config_file": self.config_file,
            "extra_files": ", ".join(self.extra_files),
            "archiver": self.archiver,
        }
        return {name: text for name, text in shown.items() if text}


class _Model(msgspec.Struct, rename="camel"):
    """``model`` of the manifest, with the fields that ``torch-model-archiver`` writes."""

    model_name: str
    handler: str
    model_version: str | float | int | None = None
    serialized_file: str | None = None
    model_file: str | None = None
    requirements_file: str | None = None
    config_file: str | None = None


class _Manifest(msgspec.Struct, rename="camel"):
    model: _Model
    runtime: str = "python"
    archiver_version: str = ""


def read(archive: zipfile.ZipFile) -> Archive:
    """Check the names in an archive (of ``zip_file.opened``) and read its manifest.

    Raises InvalidInput for what is damaged, hostile or missing, Unsupported for handlers in other languages."""
    files = _files(archive)
    raw = _bounded(archive, MANIFEST, _MAX_MANIFEST)
    try:
        manifest = msgspec.json.decode(raw, type=_Manifest)
        document = msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.InvalidInput(f"{MANIFEST} of this TorchServe archive cannot be read: {error}") from error
    if not manifest.runtime.startswith("python"):
        raise errors.Unsupported(
            f"this is a TorchServe archive whose handler is for the runtime {manifest.runtime!r}; supported is python"
        )
    model = manifest.model
    handler_file, function = _handler(model.handler, files)
    named = {
        "serialized_file": _named("serializedFile", model.serialized_file, files),
        "model_file": _named("modelFile", model.model_file, files),
        "requirements_file": _named("requirementsFile", model.requirements_file, files),
        "config_file": _named("configFile", model.config_file, files),
    }
    return Archive(
        model_name=model.model_name,
        model_version="" if model.model_version is None else str(model.model_version),
        runtime=manifest.runtime,
        handler=model.handler,
        handler_file=handler_file,
        function=function,
        extra_files=tuple(sorted(files - {MANIFEST, handler_file, *named.values()})),
        archiver=manifest.archiver_version,
        manifest=document,
        **named,
    )


def imports_of(archive: zipfile.ZipFile, described: Archive) -> tuple[str, ...]:
    """Modules that the handler and the model's file import, without running them. Raises InvalidInput when one of them
    is no Python."""
    imports: set[str] = set()
    for name in (described.handler_file, described.model_file):
        if name is not None and name.endswith(".py"):
            imports |= python_file.imports_of(_bounded(archive, name, python_file.MAX_SIZE), name)
    if described.handler_file is None:
        imports.add(f"ts.torch_handler.{described.handler}")
    return tuple(sorted(imports))


def requirements(archive: zipfile.ZipFile, described: Archive) -> bytes | None:
    """The packages that the archive asks for, in the form of pip's ``requirements.txt``; None when it names none."""
    if described.requirements_file is None:
        return None
    return _bounded(archive, described.requirements_file, _MAX_REQUIREMENTS)


def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Write every file of an archive that ``read`` has accepted below ``folder``, which is empty.

    Raises LoadFailed when it cannot be written, and what ``zip_file.opened`` raises for damaged data."""
    for entry in archive.infolist():
        if entry.is_dir():
            continue
        target = folder / entry.filename
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            output = target.open("xb")
        except OSError as error:
            raise _unwritten(target, error) from error
        with output, archive.open(entry) as source:
            while chunk := source.read(_CHUNK):
                try:
                    output.write(chunk)
                except OSError as error:
                    raise _unwritten(target, error) from error


def _unwritten(target: Path, error: OSError) -> errors.LoadFailed:
    free = shutil.disk_usage(target.anchor).free if target.anchor else 0
    return errors.LoadFailed(f"{target} cannot be unpacked: {error.strerror} ({free >> 20} MiB are free)")


# --- names --------------------------------------------------------------------------------------------------------


def _files(archive: zipfile.ZipFile) -> frozenset[str]:
    """Names of the files in the archive. Raises InvalidInput for names that would be written elsewhere or twice."""
    entries = archive.infolist()
    if len(entries) > _MAX_FILES:
        raise errors.InvalidInput(f"this archive holds {len(entries):,} files; {_MAX_FILES:,} are allowed")
    seen: set[str] = set()
    files: set[str] = set()
    folders: set[str] = set()
    for entry in entries:
        name = _checked(entry)
        if name in seen:
            raise errors.InvalidInput(f"this archive holds {name!r} twice")
        seen.add(name)
        folders.update(parent.as_posix() for parent in PurePosixPath(name).parents)
        (folders if entry.is_dir() else files).add(name)
    both = files & folders
    if both:
        raise errors.InvalidInput(f"this archive holds {min(both)!r} both as a file and as a folder")
    return frozenset(files)


def _checked(entry: zipfile.ZipInfo) -> str:
    """The name of an entry without the slash of a folder."""
    name = entry.orig_filename
    parts = name.removesuffix("/").split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise errors.InvalidInput(f"this archive holds a name that is not safe to write to disk: {name!r}")
    if any(len(part.encode("utf-8", "surrogatepass")) > _MAX_PART for part in parts):
        raise errors.InvalidInput(f"this archive holds a name of more than {_MAX_PART} bytes: {name[:80]!r}…")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise errors.InvalidInput(f"this archive holds {name!r}, which is a link or a device")
    if entry.flag_bits & 0x1:
        raise errors.InvalidInput(f"this archive is encrypted ({name!r}); TorchServe archives have no password")
    return name.removesuffix("/")


def _handler(handler: str, files: frozenset[str]) -> tuple[str | None, str | None]:
    """File (None: TorchServe's own) and function of ``handler.py``, ``handler``, ``handler:entry`` or
    ``image_classifier``."""
    module, _, function = handler.partition(":")
    name = PurePosixPath(module.removesuffix(".py")).name
    file = f"{name}.py"
    if file in files:
        if function and not function.isidentifier():
            raise errors.InvalidInput(f"{MANIFEST} names the handler {handler!r}, and {function!r} is no Python name")
        return file, function or None
    if module in BUILT_IN_HANDLERS:
        return None, None
    raise errors.InvalidInput(f"{MANIFEST} names the handler {handler!r}, but {file} is missing from the archive")


def _named(field: str, name: str | None, files: frozenset[str]) -> str | None:
    if not name:
        return None
    if name not in files:
        raise errors.InvalidInput(f"{MANIFEST} names the {field} {name!r}, which is missing from the archive")
    return name


def _bounded(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise errors.InvalidInput(f"{name} in this archive is larger than {limit >> 20} MiB")
    return content
