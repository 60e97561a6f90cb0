"""Columns and datatypes of fitted estimators, read from what their first steps learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import compose, ensemble, linear_model, model_selection, pipeline, preprocessing
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer

from headrace.core.tensors import DType
from headrace.runtimes import sklearn, sklearn_columns
from headrace.runtimes.runtime import LoadOptions

ROWS = 40


@pytest.fixture
def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"row{index}" for index in range(ROWS)],
            "amount": random.normal(size=ROWS),
            "grade": random.integers(1, 4, ROWS),
            "city": random.choice(["Oslo", "Rome"], ROWS).astype(object),
            "tier": pd.Series(random.choice(["a", "b"], ROWS)).astype(object).where(random.random(ROWS) > 0.2),
            "vip": random.random(ROWS) > 0.5,
            "note": random.choice(["good fine", "bad"], ROWS).astype(object),
        }
    )


def _dtypes(estimator: Any) -> dict[str, str]:
    columns = sklearn_columns.of(estimator)
    assert columns is not None
    return {column.name: str(column.dtype) for column in columns}


def _transformer(**options: Any) -> compose.ColumnTransformer:
    return compose.ColumnTransformer(
        [
            ("number", preprocessing.StandardScaler(), ["amount"]),
            ("one", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["city", "grade"]),
            (
                "two",
                pipeline.make_pipeline(SimpleImputer(strategy="most_frequent"), preprocessing.OneHotEncoder()),
                ["tier"],
            ),
            ("three", preprocessing.OrdinalEncoder(), ["vip"]),
            ("text", CountVectorizer(), "note"),
            ("gone", "drop", ["id"]),
        ],
        **options,
    )


EXPECTED = {"amount": "FP64", "grade": "INT64", "city": "BYTES", "tier": "BYTES", "vip": "BOOL", "note": "BYTES"}


def test_every_kind_of_step(frame: pd.DataFrame) -> None:
    assert _dtypes(_transformer().fit(frame)) == EXPECTED


@pytest.mark.parametrize(
    "wrap",
    [
        lambda prepare: pipeline.make_pipeline(prepare, linear_model.LogisticRegression()),
        lambda prepare: model_selection.GridSearchCV(
            pipeline.make_pipeline(prepare, linear_model.LogisticRegression()), {"logisticregression__C": [1.0]}, cv=2
        ),
        lambda prepare: ensemble.VotingClassifier(
            [("a", pipeline.make_pipeline(prepare, linear_model.LogisticRegression()))]
        ),
        lambda prepare: compose.TransformedTargetRegressor(pipeline.make_pipeline(prepare, linear_model.Ridge())),
        lambda prepare: pipeline.make_pipeline(
            pipeline.FeatureUnion([("u", prepare)]), linear_model.LogisticRegression()
        ),
        lambda prepare: pipeline.make_pipeline("passthrough", prepare, linear_model.LogisticRegression()),
    ],
    ids=["pipeline", "search", "vote", "target", "union", "passthrough"],
)
def test_wrappers_are_looked_through_and_the_model_predicts(frame: pd.DataFrame, wrap: Any) -> None:
    target = (frame["amount"] > 0).astype(int)
    model = wrap(_transformer()).fit(frame, target)
    found = _dtypes(model)
    found.pop("id", None)  # only a ColumnTransformer at the very start says that it drops a column
    assert found == EXPECTED
    runtime = sklearn.wrap(model, LoadOptions())
    assert runtime.signature.columns
    samples = runtime.samples()
    assert samples is not None
    assert len(next(iter(runtime.predict(samples, {}).values()))) == 1


def test_dropped_columns_need_not_be_sent_and_a_remainder_counts(frame: pd.DataFrame) -> None:
    columns = ["amount", "grade", "city"]
    encoder = ("one", preprocessing.OneHotEncoder(), ["city"])
    dropped = compose.ColumnTransformer([encoder]).fit(frame[columns])
    assert _dtypes(dropped) == {"city": "BYTES"}
    kept = compose.ColumnTransformer([encoder], remainder="passthrough").fit(frame[columns])
    assert _dtypes(kept) == {"amount": "FP64", "grade": "FP64", "city": "BYTES"}


@pytest.mark.parametrize(
    "selection",
    [
        ["city", "tier"],
        [2, 3],
        [-2, -1],
        slice(2, 4),
        slice("city", "tier"),
        [False, False, True, True],
        np.array([False, False, True, True]),
        compose.make_column_selector(dtype_include=object),
        lambda table: ["city", "tier"],
    ],
    ids=["names", "positions", "negative", "slice", "named-slice", "mask", "array-mask", "selector", "function"],
)
def test_selections(frame: pd.DataFrame, selection: Any) -> None:
    table = frame[["amount", "grade", "city", "tier"]]
    transformer = compose.ColumnTransformer(
        [("one", preprocessing.OneHotEncoder(), selection)], remainder="passthrough"
    ).fit(table)
    assert _dtypes(transformer) == {"amount": "FP64", "grade": "FP64", "city": "BYTES", "tier": "BYTES"}


def test_missing_texts_reach_imputers_and_encoders_as_in_training(frame: pd.DataFrame) -> None:
    target = (frame["amount"] > 0).astype(int)
    imputed = pipeline.make_pipeline(
        compose.ColumnTransformer(
            [
                (
                    "t",
                    pipeline.make_pipeline(SimpleImputer(strategy="most_frequent"), preprocessing.OneHotEncoder()),
                    ["tier"],
                )
            ]
        ),
        linear_model.LogisticRegression(),
    ).fit(frame, target)
    encoded = pipeline.make_pipeline(preprocessing.OneHotEncoder(), linear_model.LogisticRegression())
    encoded.fit(frame[["tier"]], target)  # here the missing value is a category of its own
    for model in (imputed, encoded):
        runtime = sklearn.wrap(model, LoadOptions())
        found = runtime.predict({"tier": np.array([b"", b"a"], dtype=object)}, {})["probabilities"]
        np.testing.assert_array_equal(found, model.predict_proba(pd.DataFrame({"tier": [np.nan, "a"]}, dtype=object)))


def test_an_empty_text_stays_one_where_it_is_a_category() -> None:
    table = pd.DataFrame({"s": ["", "a", "", "b"]})
    model = pipeline.make_pipeline(preprocessing.OneHotEncoder(), linear_model.LogisticRegression())
    model.fit(table, [1, 0, 1, 0])
    runtime = sklearn.wrap(model, LoadOptions())
    outputs = runtime.predict({"s": np.array([b"", b"b"], dtype=object)}, {})
    np.testing.assert_array_equal(outputs["label"], model.predict(pd.DataFrame({"s": ["", "b"]})))


def test_gradient_boosting_on_categories(frame: pd.DataFrame) -> None:
    table = frame[["amount", "city"]].astype({"city": "category"})
    target = (frame["amount"] + (frame["city"] == "Oslo") > 0.5).astype(int)
    model = ensemble.HistGradientBoostingClassifier(
        max_iter=5, min_samples_leaf=2, categorical_features="from_dtype"
    ).fit(table, target)
    runtime = sklearn.wrap(model, LoadOptions())
    assert {s.name: s.dtype for s in runtime.signature.inputs} == {"amount": DType.FP64, "city": DType.BYTES}
    inputs = {
        "amount": table["amount"].to_numpy(),
        "city": np.array([city.encode() for city in table["city"]], dtype=object),
    }
    np.testing.assert_array_equal(runtime.predict(inputs, {})["label"], model.predict(table))


def test_a_matrix_has_no_names(frame: pd.DataFrame) -> None:
    model = linear_model.LinearRegression().fit(frame[["amount"]].to_numpy(), frame["grade"])
    assert sklearn_columns.names_of(model) is None
    assert _dtypes(model) == {"x0": "FP64"}
    assert sklearn_columns.of(object()) is None
