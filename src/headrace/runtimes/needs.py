"""What a worker imports to load an artifact, as requirements: an environment of a version's own must have it.

Knows no file and no installer. Bounds stand only where the worker's own code depends on them: which scikit-learn or
XGBoost a model wants is its author's choice.
"""

from __future__ import annotations

from collections.abc import Collection

from headrace.core.models import Artifact, Format
from headrace.runtimes import mlmodel, table

WORKER = ("msgspec>=0.19", "numpy>=1.24")
"""Every worker's own; the bounds are those of the distribution."""

_SAME_MODULE = {
    "xgboost-cpu": frozenset({"xgboost"}),
    "onnxruntime": frozenset(
        {"onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-rocm", "onnxruntime-qnn"}
    ),
    "mlflow-skinny": frozenset({"mlflow"}),
}
"""Distributions that bring the same module: when the version names one of them, ours would overwrite its files."""


def of(artifact: Artifact, named: Collection[str]) -> tuple[str, ...]:
    """Requirements of the worker that loads ``artifact``. ``named`` are the normalized names of the distributions that
    the version asks for itself, in whichever release it likes."""
    wanted = dict.fromkeys(_distributions(artifact))
    missing = [d for d in wanted if d not in named and _SAME_MODULE.get(d, frozenset()).isdisjoint(named)]
    return (*WORKER, *missing)


def _distributions(artifact: Artifact) -> list[str]:
    if artifact.format is Format.MLFLOW:
        inner = ["mlflow-skinny", "pandas"] if artifact.flavor == mlmodel.PYFUNC else _of_runtime(artifact.flavor or "")
        return [*_of_runtime("mlflow"), *inner, *_imported(artifact)]
    if artifact.format in (Format.PICKLE, Format.JOBLIB):
        own = [] if "headrace" in _roots(artifact) else _of_runtime("sklearn")
        joblib = ["joblib"] if artifact.format is Format.JOBLIB else []
        return [*own, *joblib, *_imported(artifact)]
    return _of_runtime(artifact.runtime)


def _of_runtime(name: str) -> list[str]:
    return list(table.BUILT_IN[name].needs.values()) if name in table.BUILT_IN else []


def _imported(artifact: Artifact) -> list[str]:
    """Of what unpickling would import, the frameworks that we know."""
    return [table.DISTRIBUTIONS[root] for root in sorted(_roots(artifact)) if root in table.DISTRIBUTIONS]


def _roots(artifact: Artifact) -> set[str]:
    return {name.partition(".")[0] for name in artifact.imports}
