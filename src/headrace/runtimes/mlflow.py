"""MLflow model folders, loaded without MLflow where the flavor is one of ours.

sklearn, xgboost, lightgbm and onnx flavors are read by their own runtimes from the file inside; the folder's
signature names the columns. A folder that has only ``python_function`` is loaded by MLflow itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import Artifact, Signature, Slots
from headrace.core.requests import Parameter
from headrace.core.tensors import Array, DType
from headrace.runtimes import columns as tables
from headrace.runtimes import declarations, digest, mlmodel, table, trust
from headrace.runtimes.columns import Column
from headrace.runtimes.inspect import inspect
from headrace.runtimes.runtime import Arrays, LoadOptions, Runtime

_COLUMN_RUNTIMES = frozenset({"sklearn", "pickle", "xgboost", "lightgbm"})


def load(artifact: Artifact, options: LoadOptions) -> Runtime:
    trust.require(artifact, options.options)
    folder = Path(artifact.path)
    if artifact.code_bearing and digest.of_folder(folder) != artifact.digest:
        raise errors.UntrustedArtifact(f"{folder} changed after it was inspected")
    model = mlmodel.read(folder)
    if model.path is None:
        return PyfuncRuntime(folder, model.columns)
    if model.code is not None and artifact.code_bearing:
        # Bytecode written into the folder would change its digest, and with it the trust in it.
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(model.code))
    inner = inspect(model.path)
    if model.columns is not None and inner.runtime in _COLUMN_RUNTIMES and tables.OPTION not in options.options:
        named = {**options.options, tables.OPTION: tables.to_option(_columns(model.columns))}
        options = msgspec.structs.replace(options, options=named)
    runtime = table.load(inner, options)
    runtime.metadata["mlflow_flavor"] = model.flavor
    return runtime


def _columns(columns: tuple[mlmodel.Column, ...]) -> tuple[Column, ...]:
    return tuple(Column(c.name, c.dtype, optional=not c.required, kind=c.kind) for c in columns)


class PyfuncRuntime(Runtime):
    """A folder that only MLflow can load. Its columns come from the signature; what it returns is not declared."""

    def __init__(self, folder: Path, columns: tuple[mlmodel.Column, ...] | None) -> None:
        try:
            import mlflow.pyfunc
        except ImportError as error:
            raise table.import_failed("an MLflow python_function model", error) from error
        if columns is None:
            raise errors.LoadFailed(f"{folder} has no column signature; log the model with one (infer_signature)")
        try:
            self._model = mlflow.pyfunc.load_model(str(folder))
        except ImportError as error:
            raise table.import_failed(f"the model in {folder.name}", error) from error
        except Exception as error:  # the boundary to code that is not ours
            raise errors.LoadFailed(f"MLflow cannot load {folder}: {type(error).__name__}: {error}") from error
        self._columns = _columns(columns)
        self.platform = "mlflow_pyfunc"
        self.slots = Slots()
        self.metadata = {"mlflow_flavor": mlmodel.PYFUNC}
        self.signature = Signature(tuple(column.spec for column in self._columns), (), columns=True)

    def predict(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Arrays:
        import pandas as pd

        frame = pd.DataFrame({c.name: _values(c, inputs[c.name]) for c in self._columns if c.name in inputs})
        return _outputs(self._model.predict(frame))


def _values(column: Column, array: Array) -> Any:
    if column.dtype is not DType.BYTES:
        return array
    if column.kind == "binary":
        return array
    text = tables.text(column, array)
    return np.array(text, dtype="datetime64[ns]") if column.kind == "datetime" else text


def _outputs(answer: Any) -> Arrays:
    """A data frame or a dict has an output per column, anything else is called ``prediction``."""
    if hasattr(answer, "columns"):
        answer = {str(name): answer[name].to_numpy() for name in answer.columns}
    named = answer if isinstance(answer, Mapping) else {"prediction": answer}
    return {str(name): declarations.undeclared(str(name), value) for name, value in named.items()}
