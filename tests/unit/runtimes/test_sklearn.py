"""scikit-learn: values equal the estimator's, columns and outputs are found without being told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn import cluster, compose, decomposition, ensemble, linear_model, multioutput, neighbors, pipeline, svm, tree
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from headrace.core import errors
from headrace.core.tensors import DType
from headrace.runtimes import sklearn, table, trust
from headrace.runtimes.inspect import inspect
from headrace.runtimes.runtime import LoadOptions, Runtime
from tests import models

Load = Callable[..., Runtime]


def _frame(inputs: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({n: [v.decode() for v in a] if a.dtype == object else a for n, a in inputs.items()})


def _wrap(model: Any, threads: int = 1, **options: str) -> Runtime:
    return sklearn.wrap(model, LoadOptions(threads=threads, options=options))


@pytest.mark.parametrize("kind", ["sklearn-skops", "sklearn-joblib", "sklearn-joblib-compressed", "sklearn-pickle"])
def test_mixed_columns_equal_the_pipeline(load: Load, kind: str) -> None:
    inputs = models.inputs(kind, 40)
    runtime = load(kind)
    outputs = runtime.predict(inputs, {})
    model = models.mixed_pipeline()
    assert [label.decode() for label in outputs["label"]] == list(model.predict(_frame(inputs)))
    np.testing.assert_array_equal(outputs["probabilities"], model.predict_proba(_frame(inputs)))
    assert {s.name: s.dtype for s in runtime.signature.inputs} == {
        "amount": DType.FP64,
        "age": DType.FP64,
        "country": DType.BYTES,
        "plan": DType.BYTES,
    }
    assert runtime.signature.columns
    assert runtime.signature.outputs[1].labels == ("fine", "fraud")


def test_the_order_of_columns_does_not_matter(load: Load) -> None:
    inputs = models.inputs("sklearn-skops", 5)
    runtime = load("sklearn-skops")
    straight = runtime.predict(inputs, {})["probabilities"]
    np.testing.assert_array_equal(runtime.predict(dict(reversed(inputs.items())), {})["probabilities"], straight)


def test_nan_reaches_the_imputer(load: Load) -> None:
    inputs = models.inputs("sklearn-skops", 3)
    inputs["amount"] = np.array([np.nan, 1.0, np.nan])
    outputs = load("sklearn-skops").predict(inputs, {})
    expected = models.mixed_pipeline().predict_proba(_frame(inputs))
    np.testing.assert_array_equal(outputs["probabilities"], expected)


def test_a_forest_labels_by_its_probabilities_and_forgets_its_training_threads(load: Load) -> None:
    inputs = models.inputs("sklearn-forest", 60)
    outputs = load("sklearn-forest").predict(inputs, {})
    model = joblib.load(models.build("sklearn-forest"))
    assert model.n_jobs == -1
    model.n_jobs = 1  # with threads the trees are added up in any order
    np.testing.assert_array_equal(outputs["label"], model.predict(inputs["input"]))
    np.testing.assert_array_equal(outputs["probabilities"], model.predict_proba(inputs["input"]))


def test_threads_reach_every_estimator_inside() -> None:
    forest = ensemble.RandomForestClassifier(n_estimators=3, random_state=0)
    vote = ensemble.VotingClassifier([("a", forest), ("b", neighbors.KNeighborsClassifier())], voting="soft")
    model = pipeline.make_pipeline(StandardScaler(), vote).fit(*models.breast_cancer())
    for estimator in (vote, *vote.estimators_):  # as if trained on all cores, without starting processes here
        estimator.n_jobs = -1
    _wrap(model, threads=2)
    assert model[-1].n_jobs == 2
    assert model[-1].estimators_[1].n_jobs == 2
    assert model[-1].estimators_[0].n_jobs == 1  # a forest computes the same bits every time


def test_regression_on_a_matrix(load: Load) -> None:
    inputs = models.inputs("sklearn-regression", 9)
    runtime = load("sklearn-regression")
    expected = skops.io.load(models.build("sklearn-regression")).predict(inputs["input"])
    np.testing.assert_array_equal(runtime.predict(inputs, {})["prediction"], expected)
    assert not runtime.signature.columns
    assert runtime.signature.inputs[0].shape == (-1, 10)


def _outputs(runtime: Runtime, rows: int = 6) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = runtime.predict({"input": models.breast_cancer()[0][:rows]}, {})
    return {name: (array.dtype.str[1:], array.shape) for name, array in found.items()}


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        (linear_model.LogisticRegression(max_iter=5000), {"label": ("i8", (6,)), "probabilities": ("f8", (6, 2))}),
        (linear_model.RidgeClassifier(), {"label": ("i8", (6,))}),
        (svm.LinearSVC(), {"label": ("i8", (6,))}),
        (neighbors.KNeighborsRegressor(), {"prediction": ("f8", (6,))}),
        (cluster.KMeans(3, n_init=1, random_state=0), {"label": ("i4", (6,))}),
        (ensemble.IsolationForest(n_estimators=5, random_state=0), {"label": ("i8", (6,)), "score": ("f8", (6,))}),
        (decomposition.PCA(4), {"output": ("f8", (6, 4))}),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=True), None),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_outputs_of_every_sort_of_estimator(model: Any, outputs: dict[str, Any] | None) -> None:
    features, labels = models.breast_cancer()
    model.fit(features[:80] if outputs is None else features, labels[:80] if outputs is None else labels)
    runtime = _wrap(model)
    found = _outputs(runtime)
    if outputs is None:  # sparse inside, dense outside, as wide as the example said
        assert found["output"][1] == (6, runtime.signature.outputs[0].shape[1])
    else:
        assert found == outputs


def test_string_and_boolean_classes() -> None:
    features, labels = models.breast_cancer()
    words = _wrap(tree.DecisionTreeClassifier(max_depth=2).fit(features, np.where(labels, "good", "bad")))
    assert set(words.predict({"input": features[:50]}, {})["label"]) == {b"good", b"bad"}
    truth = _wrap(tree.DecisionTreeClassifier(max_depth=2).fit(features, labels.astype(bool)))
    assert truth.signature.outputs[0].dtype is DType.BOOL


def test_several_targets() -> None:
    features, labels = models.breast_cancer()
    both = np.stack([labels, 1 - labels], axis=1)
    runtime = _wrap(multioutput.MultiOutputClassifier(tree.DecisionTreeClassifier(max_depth=2)).fit(features, both))
    shapes = {name: shape for name, (_, shape) in _outputs(runtime).items()}
    assert shapes == {"label": (6, 2), "probabilities_0": (6, 2), "probabilities_1": (6, 2)}
    regressor = _wrap(linear_model.LinearRegression().fit(features, both))
    assert regressor.signature.outputs[0].shape == (-1, 2)


def test_a_text_pipeline_takes_documents() -> None:
    texts = ["good fine nice", "bad awful", "nice good", "awful bad bad"]
    model = pipeline.make_pipeline(TfidfVectorizer(), linear_model.LogisticRegression()).fit(texts, [1, 0, 1, 0])
    runtime = _wrap(model)
    assert (runtime.signature.inputs[0].dtype, runtime.signature.inputs[0].shape) == (DType.BYTES, (-1,))
    documents = np.array([b"nice and good", b"awful"], dtype=object)
    assert runtime.predict({"input": documents}, {})["label"].tolist() == [1, 0]


def test_a_text_column_inside_a_table() -> None:
    frame = pd.DataFrame({"text": ["good fine", "bad", "nice good", "awful"], "n": [1.0, 2.0, 3.0, 4.0]})
    prepare = compose.ColumnTransformer([("words", TfidfVectorizer(), "text"), ("rest", "passthrough", ["n"])])
    model = pipeline.make_pipeline(prepare, linear_model.LogisticRegression()).fit(frame, [1, 0, 1, 0])
    runtime = _wrap(model)
    assert {s.name: s.dtype for s in runtime.signature.inputs} == {"text": DType.BYTES, "n": DType.FP64}
    inputs = {"text": np.array([b"good", b"bad"], dtype=object), "n": np.array([1.0, 2.0])}
    expected = model.predict_proba(_frame(inputs))
    np.testing.assert_array_equal(runtime.predict(inputs, {})["probabilities"], expected)


def test_a_matrix_of_mixed_objects_becomes_columns() -> None:
    matrix = np.array([["a", 1.0], ["b", 2.0], ["a", 3.0], ["b", 4.0]], dtype=object)
    prepare = compose.ColumnTransformer([("c", OneHotEncoder(), [0]), ("n", "passthrough", [1])])
    model = pipeline.make_pipeline(prepare, linear_model.LogisticRegression()).fit(matrix, [0, 1, 0, 1])
    runtime = _wrap(model)
    assert [(s.name, s.dtype) for s in runtime.signature.inputs] == [("x0", DType.BYTES), ("x1", DType.FP64)]
    outputs = runtime.predict({"x0": np.array([b"a", b"b"], dtype=object), "x1": np.array([1.0, 2.0])}, {})
    np.testing.assert_array_equal(outputs["label"], model.predict(matrix[:2]))


def test_datatypes_can_be_given_by_an_option() -> None:
    frame = pd.DataFrame({"code": ["1", "22"] * 4, "n": np.arange(8.0)})

    def length(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(code=table["code"].str.len())

    model = pipeline.make_pipeline(FunctionTransformer(length), linear_model.LinearRegression()).fit(frame, frame["n"])
    silent = _wrap(model)
    assert silent.signature.outputs == ()  # the guess does not run, so the outputs stay undeclared
    assert "example row fails" in silent.metadata["tried"]
    told = _wrap(model, columns=json.dumps({"code": "BYTES", "n": "FP64"}))
    inputs = {"code": np.array([b"22", b"1"], dtype=object), "n": np.array([1.0, 2.0])}
    np.testing.assert_array_equal(told.predict(inputs, {})["prediction"], model.predict(_frame(inputs)))


def test_an_optional_column_that_is_left_out_is_missing() -> None:
    columns = {"amount": "FP64", "age": {"dtype": "FP64", "optional": True}, "country": "BYTES", "plan": "BYTES"}
    runtime = _wrap(models.mixed_pipeline(), columns=json.dumps(columns))
    inputs = models.inputs("sklearn-skops", 4)
    frame = _frame(inputs).assign(age=np.nan)
    del inputs["age"]
    expected = models.mixed_pipeline().predict_proba(frame)
    np.testing.assert_array_equal(runtime.predict(inputs, {})["probabilities"], expected)


def test_a_column_that_is_not_utf8_is_the_callers_error(load: Load) -> None:
    inputs = models.inputs("sklearn-skops", 1)
    inputs["country"] = np.array([b"\xff"], dtype=object)
    with pytest.raises(errors.InvalidInput, match="column 'country' is not valid UTF-8"):
        load("sklearn-skops").predict(inputs, {})


@pytest.mark.parametrize(
    ("thing", "what"),
    [({"model": 1, "scaler": 2}, "dict with the keys 'model', 'scaler'"), (cluster.DBSCAN(), "DBSCAN")],
)
def test_what_cannot_predict_is_described(thing: Any, what: str) -> None:
    with pytest.raises(errors.LoadFailed, match=what):
        _wrap(thing)


# --- skops and trust ----------------------------------------------------------------------------------------------


def test_skops_with_types_of_strangers_needs_trust(tmp_path: Path) -> None:
    path = tmp_path / "forest.skops"
    skops.io.dump(joblib.load(models.build("sklearn-forest")), path)
    artifact = inspect(path)
    assert artifact.code_bearing
    assert artifact.imports == ("sklearn.tree._tree.Tree",)
    with pytest.raises(errors.UntrustedArtifact, match=artifact.digest):
        table.load(artifact, LoadOptions())
    runtime = table.load(artifact, LoadOptions(options={trust.OPTION: "yes"}))
    assert runtime.signature.inputs[0].shape == (-1, 30)


def test_skops_itself_has_the_last_word(tmp_path: Path) -> None:
    """Inspection only estimates; what it lets pass and skops does not is refused at load, with the command."""
    path = tmp_path / "forest.skops"
    skops.io.dump(joblib.load(models.build("sklearn-forest")), path)
    fooled = inspect(path)
    fooled = type(fooled)(path=fooled.path, format=fooled.format, runtime="sklearn", digest=fooled.digest)
    with pytest.raises(errors.UntrustedArtifact, match=f"sklearn.tree._tree.Tree\n.*--trust {fooled.digest}"):
        table.load(fooled, LoadOptions())


def test_a_usual_skops_pipeline_needs_no_trust() -> None:
    artifact = inspect(models.build("sklearn-skops"))
    assert not artifact.code_bearing
    assert table.load(artifact, LoadOptions()).platform == "sklearn"
