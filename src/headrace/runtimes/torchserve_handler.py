"""Finds what to call in the handler of a TorchServe archive, by TorchServe's own rules, and calls it.

A function (``handle``, or the one named in the manifest) is called with ``(None, context)`` to initialize and with
``(requests, context)`` after that. Otherwise the one class in the file is made: ``initialize(context)``, then
``handle(requests, context)``, or ``preprocess``, ``inference`` and ``postprocess`` in a row.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from headrace.core import errors
from headrace.runtimes import python
from headrace.runtimes.torchserve_archive import Archive
from headrace.runtimes.torchserve_context import Context

Handle = Callable[[Any, Context], Any]

_STEPS = ("preprocess", "inference", "postprocess")


def start(archive: Archive, folder: Path, digest: str, context: Context) -> Handle:
    """Import the handler of an archive that is unpacked in ``folder``, and initialize it.

    Raises LoadFailed that names the line, or the packages that are missing."""
    if archive.handler_file is None:
        return _own(archive.handler, context)
    path = folder / archive.handler_file
    module = python.import_file(path, digest, path)
    return _start(module, archive.function, path, context)


def _own(name: str, context: Context) -> Handle:
    """One of the handlers that TorchServe itself has."""
    try:
        module = importlib.import_module(f"ts.torch_handler.{name}")
    except ImportError as error:
        raise errors.LoadFailed(
            f"this archive has no handler of its own: it uses TorchServe's {name!r}, which needs PyTorch and"
            f" TorchServe, and here {error.name or error} is missing: pip install torch torchserve (and"
            " what the handler needs, such as torchvision), or export the model to ONNX and serve that"
        ) from error
    return _start(module, None, Path(module.__file__ or name), context)


def _start(module: ModuleType, function: str | None, path: Path, context: Context) -> Handle:
    entry = getattr(module, function or "handle", None)
    if entry is None and function is not None:
        raise errors.LoadFailed(f"{path.name} has no {function!r}, which the manifest names as its entry")
    if entry is not None and not inspect.isclass(entry):
        if not callable(entry):
            raise errors.LoadFailed(f"{function or 'handle'!r} in {path.name} is no function")
        python.run_theirs(path, lambda: entry(None, context))
        found: Handle = entry
        return found
    handler_class = entry if entry is not None else _only_class(module, path)
    handler = python.run_theirs(path, handler_class)
    if hasattr(handler, "initialize"):
        python.run_theirs(path, lambda: handler.initialize(context))
    return _handle_of(handler, path)


def _only_class(module: ModuleType, path: Path) -> Callable[[], Any]:
    own = [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]
    able = [cls for cls in own if hasattr(cls, "handle") or any(hasattr(cls, step) for step in _STEPS)]
    # A class that another one in the file derives from is a base, not a candidate.
    leaves = [cls for cls in able if not any(cls is not other and issubclass(other, cls) for other in able)]
    if len(leaves) == 1:
        return leaves[0]
    if leaves:
        listed = ", ".join(cls.__name__ for cls in leaves)
        raise errors.LoadFailed(
            f"{path.name} has several handlers ({listed}); name one in the manifest: {path.stem}:NAME"
        )
    raise errors.LoadFailed(
        f"{path.name} has neither a function handle(data, context) nor a class with handle, or with preprocess,"
        " inference and postprocess"
    )


def _handle_of(handler: Any, path: Path) -> Handle:
    if callable(getattr(handler, "handle", None)):
        handle: Handle = handler.handle
        return handle
    missing = [step for step in _STEPS if not callable(getattr(handler, step, None))]
    if missing:
        raise errors.LoadFailed(f"{type(handler).__name__} in {path.name} has no handle, and no {' or '.join(missing)}")
    return lambda data, _: handler.postprocess(handler.inference(handler.preprocess(data)))
