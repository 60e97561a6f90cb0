"""Names of runtimes and the modules behind them, imported only when a worker needs one.

A plug-in adds a runtime with an entry point in the group ``headrace.runtimes`` whose value is a module with
``load(artifact, options)``; a built-in name cannot be taken over.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import cast

import msgspec

from headrace.core import errors
from headrace.core.environments import MANIFEST
from headrace.core.models import Artifact
from headrace.runtimes.runtime import LoadOptions, Runtime, RuntimeModule

GROUP = "headrace.runtimes"


class Entry(msgspec.Struct, frozen=True):
    """``needs`` maps the modules a runtime imports to the distribution that has them."""

    module: str
    needs: dict[str, str] = {}


BUILT_IN: dict[str, Entry] = {
    "onnx": Entry("headrace.runtimes.onnx", {"onnxruntime": "onnxruntime"}),
    "sklearn": Entry("headrace.runtimes.sklearn", {"sklearn": "scikit-learn", "skops": "skops", "pandas": "pandas"}),
    "pickle": Entry("headrace.runtimes.pickled"),
    "xgboost": Entry("headrace.runtimes.xgboost", {"xgboost": "xgboost-cpu"}),
    "lightgbm": Entry("headrace.runtimes.lightgbm", {"lightgbm": "lightgbm"}),
    "mlflow": Entry("headrace.runtimes.mlflow", {"yaml": "pyyaml"}),
    "torchserve": Entry("headrace.runtimes.torchserve", {"yaml": "pyyaml"}),
    "python": Entry("headrace.runtimes.python"),
    "echo": Entry("headrace.runtimes.echo"),
}

DISTRIBUTIONS = {
    module: distribution for entry in BUILT_IN.values() for module, distribution in entry.needs.items()
} | {"joblib": "joblib", "cloudpickle": "cloudpickle", "mlflow": "mlflow-skinny", "onnx": "onnx", "ts": "torchserve"}
"""Where a module comes from, when its distribution has another name."""


def names() -> tuple[str, ...]:
    """Every runtime that can be named, plug-ins included."""
    plugins = (point.name for point in importlib.metadata.entry_points(group=GROUP))
    return tuple(dict.fromkeys((*BUILT_IN, *plugins)))


def missing(name: str) -> list[str]:
    """Distributions a built-in runtime needs and this environment lacks; nothing is imported."""
    needs = BUILT_IN[name].needs if name in BUILT_IN else {}
    return [distribution for module, distribution in needs.items() if importlib.util.find_spec(module) is None]


def find(name: str) -> RuntimeModule:
    """Import the module of a runtime. Raises LoadFailed when it is unknown or its framework is missing."""
    entry = BUILT_IN.get(name)
    if entry is None:
        return _plugin(name)
    try:
        return cast(RuntimeModule, importlib.import_module(entry.module))
    except ImportError as error:
        raise import_failed(f"the {name} runtime", error) from error


def load(artifact: Artifact, options: LoadOptions) -> Runtime:
    """Load an artifact with the runtime it names."""
    return find(artifact.runtime).load(artifact, options)


def import_failed(what: str, error: ImportError) -> errors.LoadFailed:
    """The error for something that could not be imported, with the command that installs it."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        root = error.name.partition(".")[0]
        distribution = DISTRIBUTIONS.get(root, root)
        return errors.LoadFailed(f"{what} needs {error.name!r}, which is not installed: {_advice(distribution)}")
    return errors.LoadFailed(f"{what} cannot be imported: {error}")


def _advice(distribution: str) -> str:
    if (Path(sys.prefix) / MANIFEST).is_file():
        return f"put {distribution} into the requirements.txt of this version, in a release that has it"
    return f"pip install {distribution}"


def _plugin(name: str) -> RuntimeModule:
    points = importlib.metadata.entry_points(group=GROUP, name=name)
    for point in points:
        try:
            module = point.load()
        except ImportError as error:
            raise import_failed(f"the {name} runtime", error) from error
        if not callable(getattr(module, "load", None)):
            raise errors.LoadFailed(f"the plug-in runtime {name!r} ({point.value}) has no function load")
        return cast(RuntimeModule, module)
    raise errors.LoadFailed(f"there is no runtime {name!r}; known are {', '.join(names())}")
