"""What a worker needs beside the packages that a version asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from headrace.core.models import Artifact, Format
from headrace.runtimes import needs


def artifact(kind: Format, runtime: str, *imports: str, flavor: str | None = None) -> Artifact:
    return Artifact("/m", kind, runtime, "sha256:0", imports=imports, flavor=flavor)


PICKLE = artifact(Format.PICKLE, "pickle", "sklearn.svm.SVC", "numpy.dtype")


@pytest.mark.parametrize(
    ("wanted", "named", "more"),
    [
        (artifact(Format.PYTHON, "python", "sklearn"), (), ()),
        (artifact(Format.ONNX, "onnx"), (), ("onnxruntime",)),
        (artifact(Format.ONNX, "onnx"), ("onnxruntime-gpu",), ()),
        (artifact(Format.XGBOOST_UBJ, "xgboost"), (), ("xgboost-cpu",)),
        (artifact(Format.XGBOOST_UBJ, "xgboost"), ("xgboost",), ()),
        (artifact(Format.SKOPS, "sklearn"), ("scikit-learn", "pandas"), ("skops",)),
        (PICKLE, ("scikit-learn",), ("skops", "pandas")),
        (artifact(Format.JOBLIB, "pickle", "lightgbm.sklearn.LGBMClassifier"), ("scikit-learn", "skops"), None),
        (artifact(Format.PICKLE, "pickle", "headrace.runtimes.model.Model", "cloudpickle.x"), (), ("cloudpickle",)),
        (artifact(Format.MLFLOW, "mlflow", flavor="lightgbm"), (), ("pyyaml", "lightgbm")),
        (artifact(Format.MLFLOW, "mlflow", flavor="python_function"), ("mlflow",), ("pyyaml", "pandas")),
        (artifact(Format.ECHO, "echo"), (), ()),
    ],
)
def test_needs(wanted: Artifact, named: tuple[str, ...], more: tuple[str, ...] | None) -> None:
    expected = ("pandas", "joblib", "lightgbm") if more is None else more
    assert needs.of(wanted, named) == (*needs.WORKER, *expected)


def test_bounds_of_the_worker_are_those_of_the_distribution() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=]", line)[0]: line for line in project["dependencies"]}
    assert [declared[re.split(r"[<>=]", line)[0]] for line in needs.WORKER] == list(needs.WORKER)
