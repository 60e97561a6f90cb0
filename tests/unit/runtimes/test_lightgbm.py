"""LightGBM: values equal the framework's, names and pandas categories are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest

from headrace.core import errors
from headrace.core.tensors import DType
from headrace.runtimes.runtime import Runtime
from tests import models

Load = Callable[..., Runtime]


def _train(path: Path, labels: Any, **parameters: Any) -> lightgbm.Booster:
    settings = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, **parameters}
    booster = lightgbm.train(settings, lightgbm.Dataset(models.breast_cancer()[0], labels), 6)
    booster.save_model(path)
    return booster


def test_binary_classifier_equals_the_booster(load: Load) -> None:
    inputs = models.inputs("lightgbm", 30)
    outputs = load("lightgbm").predict(inputs, {})
    raw = lightgbm.Booster(model_file=models.build("lightgbm")).predict(inputs["input"])
    np.testing.assert_array_equal(outputs["probabilities"][:, 1], raw)
    np.testing.assert_array_equal(outputs["label"], raw > 0.5)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1)


def test_named_columns_in_any_order(load: Load) -> None:
    inputs = models.inputs("lightgbm-regressor", 12)
    runtime = load("lightgbm-regressor")
    assert runtime.signature.columns
    expected = lightgbm.Booster(model_file=models.build("lightgbm-regressor")).predict(
        np.column_stack(list(inputs.values()))
    )
    np.testing.assert_array_equal(runtime.predict(dict(reversed(inputs.items())), {})["prediction"], expected)


def test_pandas_categories_are_taken_as_text_and_unknown_ones_are_missing(load: Load) -> None:
    inputs = models.inputs("lightgbm-categorical", 30)
    inputs["country"][3] = b"Atlantis"
    inputs["plan"][4] = b""
    runtime = load("lightgbm-categorical")
    assert {s.name: s.dtype for s in runtime.signature.inputs}["country"] is DType.BYTES
    frame = pd.DataFrame({n: [v.decode() for v in a] if a.dtype == object else a for n, a in inputs.items()})
    frame = frame.astype({"country": "category", "plan": "category"})
    expected = lightgbm.Booster(model_file=models.build("lightgbm-categorical")).predict(frame)
    outputs = runtime.predict(inputs, {})
    np.testing.assert_array_equal(outputs["probabilities"], expected)
    np.testing.assert_array_equal(outputs["label"], expected.argmax(axis=1))


@pytest.mark.parametrize(
    ("parameters", "shapes"),
    [
        ({"objective": "regression"}, {"prediction": (5,)}),
        ({"objective": "quantile"}, {"prediction": (5,)}),
        ({"objective": "multiclassova", "num_class": 2}, {"label": (5,), "probabilities": (5, 2)}),
        ({"objective": "cross_entropy"}, {"prediction": (5,)}),
        ({"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
         {"label": (5,), "probabilities": (5, 2)}),
    ],
)  # fmt: skip
def test_objectives(load: Load, tmp_path: Path, parameters: dict[str, Any], shapes: dict[str, Any]) -> None:
    features, labels = models.breast_cancer()
    _train(tmp_path / "m.txt", labels, **parameters)
    outputs = load(tmp_path / "m.txt").predict({"input": features[:5]}, {})
    assert {name: array.shape for name, array in outputs.items()} == shapes


def test_a_pickled_estimator_answers_with_its_own_classes(load: Load, tmp_path: Path) -> None:
    features, labels = models.breast_cancer()
    words = np.where(labels == 1, "benign", "malignant").astype(object)
    estimator = lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(features, words)
    joblib.dump(estimator, tmp_path / "m.joblib")
    runtime = load(tmp_path / "m.joblib")
    assert runtime.platform == "lightgbm"
    outputs = runtime.predict({"input": features[:30]}, {})
    assert [label.decode() for label in outputs["label"]] == list(estimator.predict(features[:30]))
    assert {s.name: s.labels for s in runtime.signature.outputs}["probabilities"] == ("benign", "malignant")


def test_a_damaged_file_is_refused_or_fails_the_load(load: Load, tmp_path: Path) -> None:
    text = models.build("lightgbm").read_text()
    (tmp_path / "cut.txt").write_text(text[: len(text) // 3])
    with pytest.raises(errors.InvalidInput, match="cut off"):
        load(tmp_path / "cut.txt")
    (tmp_path / "m.txt").write_text(text.replace("max_feature_idx=29\n", ""))
    with pytest.raises(errors.LoadFailed, match="LightGBM cannot load it"):
        load(tmp_path / "m.txt")
