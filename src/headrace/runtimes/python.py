"""Models written in Python: a ``headrace.Model`` class in a file, or such an object that was unpickled."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from headrace.core import errors
from headrace.core.models import Artifact
from headrace.core.padding import PaddingRules
from headrace.core.requests import Parameter
from headrace.core.tensors import Array, DType
from headrace.runtimes import declarations, options, table
from headrace.runtimes.model import Model, TensorType
from headrace.runtimes.runtime import Arrays, LoadOptions, Runtime

T = TypeVar("T")


class PythonRuntime(Runtime):
    """Calls ``predict`` of a loaded model object with arguments by name."""

    def __init__(self, model: Model, declared: declarations.Declared) -> None:
        self.platform = "python"
        self.signature = declared.signature
        self.slots = declared.slots
        self.metadata = {"class": type(model).__name__, "idempotent": "yes" if model.idempotent else "no"}
        self._model = model
        self._predict: Callable[..., Any] = model.predict
        self._declared = declared
        self._padding = declarations.padding_rules(model)
        self._samples = declarations.sample_rows(declared, model.samples)
        # Inputs that need no conversion are passed as they are.
        self._converted = {name: kind for name, kind in declared.inputs if kind.text or kind.dtype is DType.BF16}
        self._absent_is_none = [
            name for name, kind in declared.inputs if kind.optional and not _has_default(model.predict, name)
        ]

    def predict(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Arrays:
        return declarations.results(self._declared, self._call(inputs, parameters))

    def stream(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Iterator[Arrays]:
        chunks = self._call(inputs, parameters)
        try:
            for chunk in chunks:
                yield declarations.results(self._declared, chunk)
        finally:
            # Reached by GeneratorExit when the caller goes away: the model's own `finally` must run now.
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def samples(self) -> Arrays | None:
        return self._samples

    def padding(self) -> PaddingRules:
        return self._padding

    def close(self) -> None:
        self._model.close()

    def _call(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Any:
        positional = self._declared.positional
        if positional is not None:
            return self._predict(dict(inputs), **parameters)
        arguments: dict[str, Any] = dict(inputs)
        for name, kind in self._converted.items():
            if name in arguments:
                arguments[name] = _converted(name, kind, arguments[name])
        for name in self._absent_is_none:
            arguments.setdefault(name, None)
        return self._predict(**arguments, **parameters)


def _converted(name: str, kind: TensorType, array: Array) -> Array:
    try:
        return declarations.from_wire(kind, array)
    except UnicodeDecodeError as error:
        raise errors.InvalidInput(f"input {name!r} is not valid UTF-8: {error.reason}") from error


def _has_default(predict: Callable[..., Any], name: str) -> bool:
    return inspect.signature(predict).parameters[name].default is not inspect.Parameter.empty


def load(artifact: Artifact, load_options: LoadOptions) -> PythonRuntime:
    options.check("python", load_options.options, ())
    path = Path(artifact.path)
    module = import_file(path, artifact.digest, Path(load_options.source or path))
    chosen = _choose(module, artifact.attribute, path.name)
    model = run_theirs(path, chosen) if isinstance(chosen, type) else chosen
    model.path = path.parent
    return start(model, path)


def start(model: Model, path: Path) -> PythonRuntime:
    """Load a model object; ``path`` is where its code is, for messages."""
    declared = declarations.read(model)
    run_theirs(path, model.load)
    return PythonRuntime(model, declared)


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Compiles the file itself, or a copy under its name: cached bytecode only tells changes apart by whole seconds."""

    def __init__(self, name: str, path: Path, source: Path) -> None:
        super().__init__(name, str(path))
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self._source.read_bytes(), self.path)
        return code


def import_file(path: Path, digest: str, source: Path) -> ModuleType:
    """Run a Python file as a module of its own name, with its folder first on the import path. ``source`` holds the
    code; ``path`` is where it came from."""
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # Unique: two versions of pricer.py may live in one packed worker, and a file may be called like a library.
    name = f"headrace_model_{path.stem}_{digest.rpartition(':')[2][:12]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, path, source))
    if spec is None or spec.loader is None:
        raise errors.LoadFailed(f"{path} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader = spec.loader
    try:
        run_theirs(path, lambda: loader.exec_module(module))
    except errors.LoadFailed:
        del sys.modules[name]
        raise
    return module


def run_theirs(path: Path, step: Callable[[], T]) -> T:
    """Run code of the user's file; whatever it raises becomes a LoadFailed that names the line."""
    try:
        return step()
    except errors.HeadraceError:
        raise
    except ModuleNotFoundError as error:
        raise table.import_failed(path.name, error) from error
    except (Exception, SystemExit) as error:  # the boundary to code that is not ours
        raise errors.LoadFailed(f"{_place(path, error)}: {type(error).__name__}: {error}") from error


def _place(path: Path, error: BaseException) -> str:
    """The deepest line in the user's folder that the error went through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name} line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent == path.parent]
    return f"{Path(own[-1].filename).name} line {own[-1].lineno}" if own else path.name


def _choose(module: ModuleType, attribute: str | None, file: str) -> type[Model] | Model:
    if attribute is not None:
        found = getattr(module, attribute, None)
        if isinstance(found, Model) or (isinstance(found, type) and issubclass(found, Model)):
            return found
        problem = "has no" if found is None else "is not a headrace.Model:"
        raise errors.LoadFailed(f"{file} {problem} {attribute}")
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__
    ]
    # A class that another one in the file derives from is a base, not a candidate.
    leaves = [cls for cls in own if not any(cls is not other and issubclass(other, cls) for other in own)]
    if len(leaves) == 1:
        return leaves[0]
    listed = ", ".join(f"{file}:{cls.__name__}" for cls in leaves)
    raise errors.LoadFailed(
        f"{file} has several models; name one: {listed}" if leaves else f"{file} has no class that is a headrace.Model"
    )
