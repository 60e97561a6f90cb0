"""XGBoost: values equal the framework's, names and categories are kept, objectives decide about the outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import xgboost

from headrace.core import errors
from headrace.core.tensors import DType
from headrace.runtimes.runtime import Runtime
from tests import models

Load = Callable[..., Runtime]


def _train(
    path: Path, parameters: dict[str, Any], labels: Any, features: Any = None, rounds: int = 6
) -> xgboost.Booster:
    features = models.breast_cancer()[0] if features is None else features
    data = xgboost.DMatrix(features, label=labels, enable_categorical=True)
    booster = xgboost.train({"nthread": 1, **parameters}, data, rounds)
    booster.save_model(path)
    return booster


@pytest.mark.parametrize("kind", ["xgboost-json", "xgboost-ubj"])
def test_classifier_equals_the_estimator(load: Load, kind: str) -> None:
    inputs = models.inputs(kind, 50)
    outputs = load(kind).predict(inputs, {})
    estimator = xgboost.XGBClassifier()
    estimator.load_model(models.build(kind))
    np.testing.assert_array_equal(outputs["label"], estimator.predict(inputs["input"]))
    np.testing.assert_array_equal(outputs["probabilities"], estimator.predict_proba(inputs["input"]))


@pytest.mark.parametrize("kind", ["xgboost-regressor-json", "xgboost-regressor-ubj"])
def test_named_columns_in_any_order_equal_the_estimator(load: Load, kind: str) -> None:
    inputs = models.inputs(kind, 20)
    runtime = load(kind)
    assert runtime.signature.columns
    assert [s.name for s in runtime.signature.inputs] == list(inputs)
    estimator = xgboost.XGBRegressor()
    estimator.load_model(models.build(kind))
    expected = estimator.predict(pd.DataFrame(inputs))
    turned = dict(reversed(inputs.items()))
    np.testing.assert_array_equal(runtime.predict(turned, {})["prediction"], expected)


def test_nan_is_a_missing_value(load: Load) -> None:
    inputs = models.inputs("xgboost-ubj", 8)
    inputs["input"][:, ::2] = np.nan
    outputs = load("xgboost-ubj").predict(inputs, {})
    estimator = xgboost.XGBClassifier()
    estimator.load_model(models.build("xgboost-ubj"))
    np.testing.assert_array_equal(outputs["probabilities"], estimator.predict_proba(inputs["input"]))


def test_categories_are_taken_as_text(load: Load) -> None:
    inputs = models.inputs("xgboost-categorical", 60)
    runtime = load("xgboost-categorical")
    assert {s.name: s.dtype for s in runtime.signature.inputs}["country"] is DType.BYTES
    estimator = xgboost.XGBClassifier(enable_categorical=True)
    estimator.load_model(models.build("xgboost-categorical"))
    frame = pd.DataFrame({n: [v.decode() for v in a] if a.dtype == object else a for n, a in inputs.items()})
    frame = frame.astype({"country": "category", "plan": "category"})
    np.testing.assert_array_equal(runtime.predict(inputs, {})["probabilities"], estimator.predict_proba(frame))


def test_an_unknown_category_names_the_known_ones_and_an_empty_one_is_missing(load: Load) -> None:
    runtime = load("xgboost-categorical")
    inputs = models.inputs("xgboost-categorical", 1)
    inputs["country"] = np.array([b"Atlantis"], dtype=object)
    with pytest.raises(errors.InvalidInput, match=r"'country': 'Atlantis' is no category .* 'DE'"):
        runtime.predict(inputs, {})
    inputs["country"] = np.array([b""], dtype=object)
    assert runtime.predict(inputs, {})["label"].shape == (1,)


def test_integer_categories(load: Load, tmp_path: Path) -> None:
    codes = np.array([30, 10, 20] * 30)
    frame = pd.DataFrame({"size": pd.Categorical(codes), "x": np.arange(90.0)})
    booster = _train(tmp_path / "m.ubj", {"objective": "reg:squarederror"}, codes * 1.5, frame)
    runtime = load(tmp_path / "m.ubj")
    inputs = {"size": np.array([10, 20, 30]), "x": np.array([1, 2, 3], np.float32)}
    expected = booster.inplace_predict(pd.DataFrame({"size": pd.Categorical([10, 20, 30]), "x": [1.0, 2.0, 3.0]}))
    assert runtime.signature.inputs[0].dtype is DType.INT64
    np.testing.assert_array_equal(runtime.predict(inputs, {})["prediction"], expected)


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
def test_several_classes_give_labels_and_probabilities(load: Load, tmp_path: Path, objective: str) -> None:
    features, labels = models.breast_cancer()
    three = labels + (features[:, 0] > 15)
    booster = _train(tmp_path / "m.json", {"objective": objective, "num_class": 3}, three)
    outputs = load(tmp_path / "m.json").predict({"input": features[:40].astype(np.float32)}, {})
    assert outputs["probabilities"].shape == (40, 3)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, rtol=1e-5)
    raw = booster.predict(xgboost.DMatrix(features[:40]))
    expected = raw if objective == "multi:softmax" else raw.argmax(axis=1)
    np.testing.assert_array_equal(outputs["label"], expected)


@pytest.mark.parametrize(
    ("parameters", "outputs"),
    [
        ({"objective": "reg:squarederror"}, {"prediction": (4,)}),
        ({"objective": "count:poisson"}, {"prediction": (4,)}),
        ({"objective": "binary:hinge"}, {"label": (4,)}),
        ({"objective": "binary:logitraw"}, {"prediction": (4,)}),
        ({"objective": "rank:pairwise"}, {"prediction": (4,)}),
        ({"objective": "reg:squarederror", "booster": "gblinear"}, {"prediction": (4,)}),
        ({"objective": "binary:logistic", "booster": "dart"}, {"label": (4,), "probabilities": (4, 2)}),
    ],
)
def test_objectives(
    load: Load, tmp_path: Path, parameters: dict[str, Any], outputs: dict[str, tuple[int, ...]]
) -> None:
    features, labels = models.breast_cancer()
    booster = _train(tmp_path / "m.ubj", parameters, labels)
    found = load(tmp_path / "m.ubj").predict({"input": features[:4].astype(np.float32)}, {})
    assert {name: array.shape for name, array in found.items()} == outputs
    raw = booster.predict(xgboost.DMatrix(features[:4]))
    last = found["probabilities"][:, 1] if "probabilities" in found else next(iter(found.values()))
    np.testing.assert_array_equal(last, raw)


def test_several_targets(load: Load, tmp_path: Path) -> None:
    features, labels = models.breast_cancer()
    _train(tmp_path / "m.ubj", {"objective": "reg:squarederror"}, np.stack([labels, 1 - labels, labels], axis=1))
    runtime = load(tmp_path / "m.ubj")
    assert runtime.signature.outputs[0].shape == (-1, 3)
    _train(tmp_path / "yes_no.ubj", {"objective": "binary:logistic"}, np.stack([labels, 1 - labels], axis=1))
    outputs = load(tmp_path / "yes_no.ubj").predict({"input": features[:3].astype(np.float32)}, {})
    assert outputs["label"].shape == outputs["probabilities"].shape == (3, 2)


def test_the_best_iteration_is_used_as_the_estimator_does(load: Load, tmp_path: Path) -> None:
    features, labels = models.breast_cancer()
    estimator = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=2, n_jobs=1, learning_rate=0.9)
    estimator.fit(features[:300], labels[:300], eval_set=[(features[300:], labels[300:])], verbose=False)
    estimator.save_model(tmp_path / "m.ubj")
    assert estimator.best_iteration + 1 < estimator.get_booster().num_boosted_rounds()
    x = features[:50].astype(np.float32)
    best = load(tmp_path / "m.ubj").predict({"input": x}, {})["probabilities"]
    np.testing.assert_array_equal(best, estimator.predict_proba(x))
    every = load(tmp_path / "m.ubj", iterations="all").predict({"input": x}, {})["probabilities"]
    assert not np.array_equal(best, every)
    with pytest.raises(errors.BadSettings, match="best or all"):
        load(tmp_path / "m.ubj", iterations="none")


def test_a_pickled_estimator_answers_with_its_own_classes(load: Load, tmp_path: Path) -> None:
    features, labels = models.breast_cancer()
    estimator = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(features, labels)
    joblib.dump(estimator, tmp_path / "m.joblib")
    runtime = load(tmp_path / "m.joblib")
    assert runtime.platform == "xgboost"
    outputs = runtime.predict({"input": features[:9].astype(np.float32)}, {})
    np.testing.assert_array_equal(outputs["label"], estimator.predict(features[:9]))


def test_columns_can_be_named_by_an_option(load: Load) -> None:
    named = json.dumps({f"m{index}": "FP64" for index in range(30)})
    runtime = load("xgboost-ubj", columns=named)
    assert runtime.signature.inputs[3].name == "m3"
    matrix = models.inputs("xgboost-ubj", 4)["input"]
    columns = {f"m{index}": matrix[:, index].astype(np.float64) for index in range(30)}
    plain = load("xgboost-ubj").predict({"input": matrix}, {})
    np.testing.assert_array_equal(runtime.predict(columns, {})["probabilities"], plain["probabilities"])
    with pytest.raises(errors.BadSettings, match="names 1 columns, the model has 30 features"):
        load("xgboost-ubj", columns='{"a": "FP64"}')
    with pytest.raises(errors.BadSettings, match="is JSON such as"):
        load("xgboost-ubj", columns="a=FP64")


def test_a_damaged_file_is_a_load_failure(load: Load, tmp_path: Path) -> None:
    document = json.loads(models.build("xgboost-json").read_text())
    del document["learner"]["gradient_booster"]["model"]["trees"]
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(errors.LoadFailed, match="XGBoost cannot load it"):
        load(tmp_path / "m.json")
