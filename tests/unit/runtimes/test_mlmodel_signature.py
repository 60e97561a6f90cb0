"""Signatures of MLflow folders, held against what the models' own files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.runtimes import model_inputs
from headrace.runtimes.inspect import inspect
from headrace.runtimes.mlmodel_signature import compare
from headrace.runtimes.model_inputs import Features, TensorInput
from tests import models

MIXED = ("amount", "age", "country", "plan")


def columns(*names: str) -> dict[str, str]:
    return {"inputs": json.dumps([{"type": "double", "name": name} for name in names])}


def tensor(dtype: str, *shape: int, name: str | None = None) -> dict[str, str]:
    entry: dict[str, Any] = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}
    return {"inputs": json.dumps([entry if name is None else entry | {"name": name}])}


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("xgboost-ubj", Features(None, 30)),
        ("xgboost-json", Features(None, 30)),
        ("xgboost-categorical", Features(MIXED, 4)),
        ("xgboost-regressor-json", Features(tuple(f"f{i}_{'abcdefghij'[i]}" for i in range(10)), 10)),
        ("xgboost-regressor-ubj", Features(tuple(f"f{i}_{'abcdefghij'[i]}" for i in range(10)), 10)),
        ("lightgbm", Features(None, 30)),
        ("lightgbm-regressor", Features(("age", "sex", "bmi", "bp", *(f"s{i}" for i in range(1, 7))), 10)),
        ("onnx", (TensorInput("X", "float32", (-1, 30)),)),
        ("onnx-int64", (TensorInput("A", "int64", (-1, 3)), TensorInput("B", "int64", (-1, 3)))),
        ("onnx-strings", tuple(TensorInput(n, "float32" if n in MIXED[:2] else "str", (-1, 1)) for n in MIXED)),
        ("onnx-external-data", (TensorInput("X", "float32", (-1, 4)),)),
        ("sklearn-pickle", None),
    ],
)
def test_files_tell_their_inputs_without_being_loaded(kind: str, found: object) -> None:
    assert model_inputs.read(inspect(models.build(kind))) == found


@pytest.mark.parametrize(
    ("kind", "signature"),
    [
        ("xgboost-ubj", columns(*(f"m{index}" for index in range(30)))),
        ("xgboost-ubj", tensor("float64", -1, 30)),
        ("xgboost-categorical", columns(*MIXED)),
        ("lightgbm-categorical", columns(*MIXED)),
        ("onnx", tensor("float32", -1, 30)),
        ("onnx", tensor("float32", -1, -1, name="X")),
        ("onnx", columns(*(f"m{index}" for index in range(30)))),
        ("onnx-strings", columns(*MIXED)),
    ],
)
def test_signatures_that_fit(kind: str, signature: dict[str, str]) -> None:
    found = compare(signature, inspect(models.build(kind)))
    assert (found.verdict, found.differences) == ("as in the model's file", ())


@pytest.mark.parametrize(
    ("kind", "signature", "difference"),
    [
        ("xgboost-ubj", columns("a", "b"), "the signature has 2 columns, the model 30 features"),
        ("xgboost-json", tensor("float32", -1, 29), "the signature has 29 features, the model 30"),
        ("xgboost-categorical", columns(*MIXED[:3]), "the model has features that the signature lacks: plan"),
        ("xgboost-categorical", columns(*MIXED, "id"), "the signature has columns that the model lacks: id"),
        ("onnx", tensor("float64", -1, 30), "input 'X' is float64 in the signature, float32 in the model"),
        ("onnx", tensor("float32", -1, 29), "input 'X' has shape [-1, 29] in the signature, [-1, 30] in the model"),
        ("onnx", tensor("float32", -1, 30, name="Y"), "the model has no input 'Y'; it has X"),
        ("onnx", columns("a", "b"), "the signature has 2 columns, the model takes 30"),
        ("onnx-int64", tensor("int64", -1, 3), "the signature has 1 inputs, the model 2: A, B"),
        ("onnx-strings", columns(*MIXED[1:]), "the model has inputs that the signature lacks: amount"),
    ],
)
def test_signatures_that_do_not_fit(kind: str, signature: dict[str, str], difference: str) -> None:
    found = compare(signature, inspect(models.build(kind)))
    assert (found.verdict, found.differences) == ("differs from the model's file", (difference,))


def test_inspection_of_a_folder_tells_what_it_found(tmp_path: Path) -> None:
    folder = models.build("mlflow-xgboost", tmp_path)
    assert inspect(folder).details["signature"] == "none declared"
    document = yaml.safe_load((folder / "MLmodel").read_text())
    document |= {"signature": columns("a"), "run_id": "4711"}
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    artifact = inspect(folder)
    assert artifact.details == {
        "mlflow_version": "2.19.0",
        "run_id": "4711",
        "signature": "differs from the model's file",
    }
    assert artifact.warnings == ("the signature has 1 columns, the model 30 features",)
    pickled = inspect(models.build("mlflow-sklearn"))
    assert "only when it is loaded" in pickled.details["signature"]
    assert pickled.warnings == ()


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "text",
        {"inputs": "{"},
        {"inputs": "[1]"},
        {"inputs": '[{"type": "tensor"}]'},
        {"inputs": '[{"type": "tensor", "tensor-spec": 3}]'},
        {"inputs": '[{"type": "tensor", "tensor-spec": {"shape": ["a", null, {}], "dtype": []}}]'},
        {"inputs": '[{"name": null}]'},
    ],
)
@pytest.mark.parametrize("kind", ["onnx", "xgboost-categorical", "lightgbm"])
def test_odd_signatures_are_survived(signature: Any, kind: str) -> None:
    assert compare(signature, inspect(models.build(kind))).verdict


@pytest.mark.parametrize("kind", ["onnx", "xgboost-categorical", "xgboost-regressor-json", "lightgbm-regressor"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_files_say_something_or_nothing(tmp_path: Path, kind: str, edits: list[tuple[float, int]]) -> None:
    artifact = inspect(models.build(kind))
    raw = bytearray(Path(artifact.path).read_bytes())
    for place, byte in edits:
        raw[int(place * len(raw))] = byte
    path = tmp_path / "damaged"
    path.write_bytes(raw)
    found = model_inputs.read(type(artifact)(str(path), artifact.format, artifact.runtime, ""))
    assert found is None or isinstance(found, Features | tuple)
