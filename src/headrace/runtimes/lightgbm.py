"""LightGBM models (text files).

A model with feature names takes one FP64 column per feature, else one matrix ``input`` FP64[-1, n]. NaN is a missing
value; pandas categories kept in the file are taken as such, and unknown ones count as missing, as LightGBM does.
Classifiers answer ``label`` and ``probabilities``, the others ``prediction``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import lightgbm
import numpy as np

from headrace.core import errors
from headrace.core.models import Artifact, Signature, Slots, TensorSpec
from headrace.core.requests import Parameter
from headrace.core.tensors import Array, DType
from headrace.runtimes import boosting
from headrace.runtimes import columns as tables
from headrace.runtimes import options as text_options
from headrace.runtimes.runtime import Arrays, LoadOptions, Runtime

OPTIONS = {tables.OPTION: "names and datatypes of the columns, for a model trained on a matrix"}

_HEADER_LINE = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)
_CATEGORICAL = re.compile(r"^\[categorical_feature: ([\d,]+)\]$", re.MULTILINE)


class LightGBMRuntime(Runtime):
    """``_read`` makes the matrix of a request, ``_finish`` the outputs of the raw prediction."""

    def __init__(self, booster: lightgbm.Booster, options: LoadOptions, classes: Array | None) -> None:
        text = booster.model_to_string(num_iteration=1)
        header = dict(_HEADER_LINE.findall(text[: text.find("\n\n")]))
        objective = header.get("objective", "").partition(" ")[0]
        width = booster.num_feature()
        named = tables.from_option(options.options)
        table = boosting.table(width, _names(booster), _categories(booster, text), named, DType.FP64)
        self._read = table.read
        self._example = table.example
        self._predict = booster.predict
        self._threads = options.threads
        groups = booster.num_model_per_iteration()
        outputs, self._finish = _outputs(objective, groups, classes)
        self.platform = "lightgbm"
        self.slots = Slots()
        self.metadata = {"objective": objective, "framework": f"lightgbm {lightgbm.__version__}"}
        self.signature = Signature(table.inputs, outputs, columns=table.by_columns)

    def predict(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Arrays:
        raw: Any = self._predict(self._read(inputs), num_threads=self._threads)
        return self._finish(raw)

    def samples(self) -> Arrays | None:
        return self._example


def load(artifact: Artifact, options: LoadOptions) -> LightGBMRuntime:
    try:
        booster = lightgbm.Booster(model_file=artifact.path)
    except lightgbm.basic.LightGBMError as error:
        raise errors.LoadFailed(f"LightGBM cannot load it: {error}") from error
    return wrap(booster, options)


def wrap(booster: lightgbm.Booster, options: LoadOptions, classes: Array | None = None) -> LightGBMRuntime:
    text_options.check("lightgbm", options.options, OPTIONS)
    return LightGBMRuntime(booster, options, classes)


def adopt(model: Any, options: LoadOptions) -> LightGBMRuntime | None:
    """A runtime for an unpickled LightGBM object; None for one that only its own methods can predict with."""
    if isinstance(model, lightgbm.Booster):
        return wrap(model, options)
    if isinstance(model, lightgbm.LGBMModel):
        classes = getattr(model, "classes_", None)
        return wrap(model.booster_, options, None if classes is None else np.asarray(classes))
    return None


def _names(booster: lightgbm.Booster) -> list[str] | None:
    names: list[str] = booster.feature_name()
    return None if names == [f"Column_{index}" for index in range(len(names))] else names


def _categories(booster: lightgbm.Booster, text: str) -> dict[int, boosting.Categories]:
    """pandas categories are kept in the order of the categorical columns."""
    kept = booster.pandas_categorical
    positions = _CATEGORICAL.search(text)
    if not kept or positions is None:
        return {}
    indices = [int(position) for position in positions.group(1).split(",")]
    if len(indices) != len(kept):
        raise errors.LoadFailed(
            f"the file keeps categories of {len(kept)} columns and names {len(indices)} categorical ones; save it again"
        )
    return {
        index: boosting.Categories(tuple(values), unknown_is_missing=True)
        for index, values in zip(indices, kept, strict=True)
    }


def _outputs(
    objective: str, groups: int, classes: Array | None
) -> tuple[tuple[TensorSpec, ...], Callable[[Array], Arrays]]:
    if objective == "binary":
        return boosting.binary(DType.FP64, classes)
    if objective in ("multiclass", "multiclassova"):
        return boosting.multiclass(DType.FP64, groups, classes)
    if groups > 1:
        return (TensorSpec("prediction", DType.FP64, (-1, groups)),), lambda raw: {"prediction": raw}
    return (TensorSpec("prediction", DType.FP64, (-1,)),), lambda raw: {"prediction": raw}
