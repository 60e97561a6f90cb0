"""XGBoost models (json, ubj), predicted in place without a DMatrix.

A model that kept feature names takes one FP32 column per feature, else one matrix ``input`` FP32[-1, n]. NaN is a
missing value. Categorical features whose categories were kept take the categories themselves. Classifiers
answer ``label`` and ``probabilities``, the others ``prediction``. After early stopping the best iteration is
used, as XGBoost's scikit-learn interface does.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xgboost

from headrace.core import errors
from headrace.core.models import Artifact, Signature, Slots, TensorSpec
from headrace.core.requests import Parameter
from headrace.core.tensors import Array, DType
from headrace.runtimes import boosting
from headrace.runtimes import columns as tables
from headrace.runtimes import options as text_options
from headrace.runtimes.runtime import Arrays, LoadOptions, Runtime

OPTIONS = {
    tables.OPTION: "names and datatypes of the columns, for a model trained on a matrix",
    "iterations": "best (default): up to the best iteration of early stopping; all: every tree",
}


class XGBoostRuntime(Runtime):
    """``_read`` makes the matrix of a request, ``_finish`` the outputs of the raw prediction [n, groups]."""

    def __init__(self, booster: xgboost.Booster, options: LoadOptions, classes: Array | None) -> None:
        booster.set_param({"nthread": options.threads})
        learner = json.loads(booster.save_config())["learner"]
        objective = learner["objective"]["name"]
        if objective == "multi:softmax":
            # The same trees and numbers; only so they can be had as probabilities.
            booster.set_param({"objective": "multi:softprob"})
            objective = "multi:softprob"
        self._booster = booster
        self._iterations = _iterations(booster, options)
        self._raw = self._raw_function(booster)
        named = tables.from_option(options.options)
        table = boosting.table(booster.num_features(), _names(booster), _categories(booster), named, DType.FP32)
        self._read = table.read
        self._example = table.example
        groups = self._raw(np.full((1, booster.num_features()), np.nan, np.float32)).shape[1]
        outputs, self._finish = _outputs(objective, groups, classes)
        self.platform = "xgboost"
        self.slots = Slots()
        self.metadata = {"objective": objective, "framework": f"xgboost {xgboost.__version__}"}
        self.signature = Signature(table.inputs, outputs, columns=table.by_columns)

    def predict(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Arrays:
        return self._finish(self._raw(self._read(inputs)))

    def samples(self) -> Arrays | None:
        return self._example

    def _raw_function(self, booster: xgboost.Booster) -> Callable[[Array], Array]:
        iterations = self._iterations

        def in_place(matrix: Array) -> Array:
            found: Array = booster.inplace_predict(
                matrix, iteration_range=iterations, validate_features=False, strict_shape=True
            )
            return found

        def from_matrix(matrix: Array) -> Array:
            data = xgboost.DMatrix(matrix, feature_names=booster.feature_names, feature_types=booster.feature_types)
            found: Array = booster.predict(data, iteration_range=iterations, strict_shape=True)
            return found

        return from_matrix if _is_linear(booster) else in_place


def load(artifact: Artifact, options: LoadOptions) -> XGBoostRuntime:
    booster = xgboost.Booster()
    try:
        booster.load_model(artifact.path)
    except xgboost.core.XGBoostError as error:
        raise errors.LoadFailed(f"XGBoost cannot load it: {str(error).splitlines()[0]}") from error
    return wrap(booster, options)


def wrap(booster: xgboost.Booster, options: LoadOptions, classes: Array | None = None) -> XGBoostRuntime:
    text_options.check("xgboost", options.options, OPTIONS)
    return XGBoostRuntime(booster, options, classes)


def adopt(model: Any, options: LoadOptions) -> XGBoostRuntime | None:
    """A runtime for an unpickled XGBoost object; None for one that only its own methods can predict with."""
    if isinstance(model, xgboost.Booster):
        return wrap(model, options)
    if isinstance(model, xgboost.XGBModel):
        classes = getattr(model, "classes_", None)
        return wrap(model.get_booster(), options, None if classes is None else np.asarray(classes))
    return None


def _is_linear(booster: xgboost.Booster) -> bool:
    return bool(json.loads(booster.save_config())["learner"]["gradient_booster"]["name"] == "gblinear")


def _iterations(booster: xgboost.Booster, options: LoadOptions) -> tuple[int, int]:
    wanted = options.options.get("iterations", "best")
    if wanted not in ("best", "all"):
        raise errors.BadSettings(f"option 'iterations' is best or all, got {wanted!r}")
    best = booster.attr("best_iteration")
    return (0, int(best) + 1) if best is not None and wanted == "best" else (0, 0)


def _names(booster: xgboost.Booster) -> list[str] | None:
    names = booster.feature_names
    return None if not names or names == [f"f{index}" for index in range(len(names))] else list(names)


def _categories(booster: xgboost.Booster) -> dict[int, boosting.Categories]:
    """Categories that the model kept, by feature."""
    if "c" not in (booster.feature_types or []):
        return {}
    model = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    kept = model.get("gbtree", model).get("model", {}).get("cats", {}).get("enc", [])
    found: dict[int, boosting.Categories] = {}
    for index, encoding in enumerate(kept):
        values = encoding.get("values", [])
        if "offsets" in encoding and values:
            offsets, text = encoding["offsets"], bytes(value & 0xFF for value in values)
            # surrogateescape: XGBoost 3 cuts texts outside ASCII, counting characters where it stores bytes.
            parts = [text[a:b].decode(errors="surrogateescape") for a, b in itertools.pairwise(offsets)]
            found[index] = boosting.Categories(tuple(parts), unknown_is_missing=False)
        elif values:
            found[index] = boosting.Categories(tuple(values), unknown_is_missing=False)
    return found


def _outputs(
    objective: str, groups: int, classes: Array | None
) -> tuple[tuple[TensorSpec, ...], Callable[[Array], Arrays]]:
    if objective == "binary:logistic" and groups == 1:
        return boosting.binary(DType.FP32, classes)
    if objective == "multi:softprob":
        return boosting.multiclass(DType.FP32, groups, classes)
    if objective == "binary:logistic":  # one yes or no per column of y
        specs = (TensorSpec("label", DType.INT64, (-1, groups)), TensorSpec("probabilities", DType.FP32, (-1, groups)))
        return specs, lambda raw: {"label": (raw > 0.5).astype(np.int64), "probabilities": raw}
    if objective == "binary:hinge" and groups == 1:
        known = boosting.Labels(2, classes)
        return (known.spec,), lambda raw: {"label": known.take((raw[:, 0] > 0.5).astype(np.intp))}
    if groups == 1:
        return (TensorSpec("prediction", DType.FP32, (-1,)),), lambda raw: {"prediction": raw[:, 0]}
    return (TensorSpec("prediction", DType.FP32, (-1, groups)),), lambda raw: {"prediction": raw}
