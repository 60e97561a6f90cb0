"""scikit-learn estimators and pipelines, and whatever else has their methods.

A model trained on a data frame takes named columns (``runtimes/sklearn_columns.py``), one trained on a matrix
takes one input called ``input``. Outputs: ``label`` and ``probabilities`` of a classifier, ``prediction`` of a
regressor, ``label`` of a clusterer, ``label`` and ``score`` of an outlier detector, ``output`` of a transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import skops.io
import skops.io.exceptions
from sklearn import base, ensemble, pipeline, tree

from headrace.core import errors
from headrace.core.models import Artifact, Format, Signature, Slots, TensorSpec
from headrace.core.requests import Parameter
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, as_bytes_elements, dtype_of
from headrace.runtimes import columns as tables
from headrace.runtimes import declarations, sklearn_columns, trust
from headrace.runtimes import options as text_options
from headrace.runtimes.columns import Column
from headrace.runtimes.runtime import Arrays, LoadOptions, Runtime

OPTIONS = {tables.OPTION: "datatypes of the columns, when they cannot be told from the model"}

_HARMLESS = ["numpy.dtype", "collections.OrderedDict"]
"""Types outside skops' own list that are plain data: a dtype is read from an empty array without pickle."""

_ARGMAX = (ensemble.RandomForestClassifier, ensemble.ExtraTreesClassifier, tree.DecisionTreeClassifier)
"""Classifiers whose ``predict`` is, in scikit-learn's source, the class of the highest ``predict_proba``."""

_SUMMING = (
    *(ensemble.RandomForestClassifier, ensemble.RandomForestRegressor, ensemble.ExtraTreesClassifier),
    *(ensemble.ExtraTreesRegressor, ensemble.IsolationForest),
)
"""Their threads add up trees in the order in which they finish, so the last bits of a result would vary."""

Produce = Callable[[Any], list[Any]]


class SklearnRuntime(Runtime):
    """``_read`` makes the estimator's input of a request, ``_produce`` the outputs in order."""

    def __init__(self, model: Any, options: LoadOptions) -> None:
        _limit_threads(model, options.threads)
        self.platform = "sklearn"
        self.slots = Slots()
        self.metadata = {"estimator": _described(model)}
        inputs, self._read, self._example, by_columns = _input(model, tables.from_option(options.options))
        names, self._produce, labels = _output(model)
        self._names = names
        outputs = self._probe(labels)
        self._dtypes = [NUMPY_DTYPES[spec.dtype] for spec in outputs]
        self.signature = Signature(inputs, outputs, columns=by_columns)

    def predict(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Arrays:
        produced = self._produce(self._read(inputs))
        if not self._dtypes:
            named = zip(self._names, produced, strict=True)
            return {name: declarations.undeclared(name, _dense(value)) for name, value in named}
        return {
            name: as_bytes_elements(np.asarray(value, dtype=object)) if dtype.hasobject else _dense(value, dtype)
            for name, dtype, value in zip(self._names, self._dtypes, produced, strict=True)
        }

    def samples(self) -> Arrays | None:
        return self._example

    def _probe(self, labels: dict[str, tuple[str, ...]]) -> tuple[TensorSpec, ...]:
        """Datatypes and widths of the outputs, from one example row: estimators do not declare them. A model that
        does not take the example has undeclared outputs."""
        if self._example is None:
            return ()
        try:
            produced = self._produce(self._read(self._example))
        except Exception as error:  # the model's own code runs here, on values it may not know
            self.metadata["tried"] = f"an example row fails: {type(error).__name__}: {error}"[:300]
            self._example = None
            return ()
        return tuple(_spec(name, value, labels.get(name)) for name, value in zip(self._names, produced, strict=True))


def load(artifact: Artifact, options: LoadOptions) -> SklearnRuntime:
    """Load a skops file; pickles go through ``runtimes/pickled.py``."""
    trust.require(artifact, options.options)
    if artifact.format is not Format.SKOPS:
        raise errors.Bug(f"the sklearn runtime was given {artifact.format}")
    return wrap(read_skops(artifact, options), options)


def wrap(model: Any, options: LoadOptions) -> SklearnRuntime:
    """A runtime for an estimator in memory."""
    text_options.check("sklearn", options.options, OPTIONS)
    if not any(hasattr(model, method) for method in ("predict", "transform")):
        raise errors.LoadFailed(
            f"this is a {_described(model)}: it has neither predict nor transform, so it cannot be served"
        )
    return SklearnRuntime(model, options)


def read_skops(artifact: Artifact, options: LoadOptions) -> Any:
    trusted = _HARMLESS
    if options.options.get(trust.OPTION) == "yes":
        trusted = [*_HARMLESS, *skops.io.get_untrusted_types(file=artifact.path)]
    try:
        return skops.io.load(artifact.path, trusted=trusted)
    except skops.io.exceptions.UntrustedTypesFoundException as error:
        types = [name for name in skops.io.get_untrusted_types(file=artifact.path) if name not in _HARMLESS]
        raise errors.UntrustedArtifact(
            f"{artifact.path} holds types that are not safe to load from a stranger: {trust.shortened(types)}\n"
            f"  if you know where it comes from: {trust.command(artifact)}"
        ) from error
    except Exception as error:  # a file written for another version fails in many ways
        raise errors.LoadFailed(f"skops cannot load it: {type(error).__name__}: {error}") from error


# --- in -----------------------------------------------------------------------------------------------------------

Input = tuple[tuple[TensorSpec, ...], Callable[[Mapping[str, Array]], Any], Arrays | None, bool]


def _input(model: Any, given: tuple[Column, ...] | None) -> Input:
    """Input specs, the function that makes the estimator's input, an example row, and whether they are columns."""
    if given is not None:
        return _frame_input(given)
    if sklearn_columns.takes_text(model) and sklearn_columns.names_of(model) is None:
        return _text_input()
    found = sklearn_columns.of(model)
    width = sklearn_columns.count_of(model)
    if found is not None and sklearn_columns.names_of(model) is not None:
        return _frame_input(found)
    if found is not None and any(column.dtype is DType.BYTES for column in found):
        return _object_input(found, width)
    example = {"input": np.zeros((1, width))} if width >= 0 else None
    return (TensorSpec("input", DType.FP64, (-1, width)),), lambda inputs: inputs["input"], example, False


def _frame_input(found: tuple[Column, ...]) -> Input:
    def read(inputs: Mapping[str, Array]) -> pd.DataFrame:
        # An optional column that was left out is missing in every row.
        return pd.DataFrame({c.name: _values(c, inputs[c.name]) if c.name in inputs else c.missing for c in found},
                            index=pd.RangeIndex(len(next(iter(inputs.values())))))  # fmt: skip

    return tuple(column.spec for column in found), read, tables.samples(found), True


def _values(column: Column, array: Array) -> Any:
    if column.dtype is not DType.BYTES or column.kind == "binary":
        return array
    text = tables.text(column, array)
    return pd.to_datetime(pd.Series(text)) if column.kind == "datetime" else text


def _text_input() -> Input:
    column = Column("input", DType.BYTES)
    return (column.spec,), lambda inputs: tables.text(column, inputs["input"]), tables.samples([column]), False


def _object_input(found: tuple[Column, ...], width: int) -> Input:
    """A model trained on a matrix of mixed objects: columns x0, x1, … as scikit-learn calls them."""

    def read(inputs: Mapping[str, Array]) -> Array:
        matrix = np.full((len(next(iter(inputs.values()))), width), np.nan, dtype=object)
        for column in found:
            matrix[:, int(column.name[1:])] = _values(column, inputs[column.name])
        return matrix

    return tuple(column.spec for column in found), read, tables.samples(found), True


# --- out ----------------------------------------------------------------------------------------------------------


def _output(model: Any) -> tuple[list[str], Produce, dict[str, tuple[str, ...]]]:
    """Names of the outputs, the function that computes them, and class names where there are any."""
    if hasattr(model, "predict_proba") and hasattr(model, "classes_"):
        return _classifier(model)
    if base.is_outlier_detector(model) and hasattr(model, "decision_function"):
        before, last = _split(model)
        return ["label", "score"], lambda x: _both(before, x, last.predict, last.decision_function), {}
    if hasattr(model, "predict"):
        labels = _is(model, base.is_classifier) or _is(model, base.is_clusterer)
        return ["label" if labels else "prediction"], lambda x: [model.predict(x)], {}
    return ["output"], lambda x: [model.transform(x)], {}


def _is(model: Any, question: Callable[[Any], bool]) -> bool:
    try:
        return question(model)
    except (AttributeError, TypeError):  # objects with predict that are no estimators have no tags
        return False


def _classifier(model: Any) -> tuple[list[str], Produce, dict[str, tuple[str, ...]]]:
    classes = model.classes_
    before, last = _split(model)
    if isinstance(classes, list):  # one classification per column of y
        names = ["label", *(f"probabilities_{index}" for index in range(len(classes)))]

        def several(x: Any) -> list[Any]:
            label, probabilities = _both(before, x, last.predict, last.predict_proba)
            return [label, *probabilities]

        named = {f"probabilities_{index}": _texts(known) for index, known in enumerate(classes)}
        return names, several, named
    labels = {"probabilities": _texts(classes)}
    if type(last) in _ARGMAX:
        known = np.asarray(classes)

        def highest(x: Any) -> list[Any]:
            probabilities = last.predict_proba(x if before is None else before.transform(x))
            return [known.take(np.argmax(probabilities, axis=1), axis=0), probabilities]

        return ["label", "probabilities"], highest, labels
    return ["label", "probabilities"], lambda x: _both(before, x, last.predict, last.predict_proba), labels


def _split(model: Any) -> tuple[Any, Any]:
    """The steps before the last, and the last: so that they run once for two answers."""
    if type(model) is pipeline.Pipeline and len(model.steps) > 1:
        return model[:-1], model.steps[-1][1]
    return None, model


def _both(before: Any, x: Any, first: Callable[[Any], Any], second: Callable[[Any], Any]) -> list[Any]:
    if before is not None:
        x = before.transform(x)
    return [first(x), second(x)]


def _texts(classes: Any) -> tuple[str, ...]:
    return tuple(str(known) for known in np.asarray(classes).tolist())


def _dense(value: Any, dtype: np.dtype[Any] | None = None) -> Array:
    if hasattr(value, "toarray"):
        value = value.toarray()
    return np.asarray(value, dtype=dtype)


def _spec(name: str, value: Any, labels: tuple[str, ...] | None) -> TensorSpec:
    array = _dense(value)
    if array.dtype.kind in "OUS":
        dtype = DType.BYTES
    else:
        try:
            dtype = dtype_of(array)
        except errors.InvalidInput as error:
            raise errors.LoadFailed(f"output {name!r}: {error.message}") from error
    return TensorSpec(name, dtype, (-1, *array.shape[1:]), labels=labels)


def _described(model: Any) -> str:
    steps = getattr(model, "steps", None)
    if isinstance(steps, list):
        return f"{type(model).__name__}({', '.join(type(step).__name__ for _, step in steps)})"
    if isinstance(model, dict):
        return f"dict with the keys {', '.join(map(repr, list(model)[:8]))}"
    return type(model).__name__


def _limit_threads(model: Any, threads: int) -> None:
    """Estimators remember the ``n_jobs`` of their training, often all cores; serving has its own number."""
    seen: set[int] = set()
    stack = [model]
    while stack:
        part = stack.pop()
        if id(part) in seen or len(seen) > 10_000:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            stack.extend(part[:1000])
        elif isinstance(part, base.BaseEstimator):
            if getattr(part, "n_jobs", None) is not None:
                part.n_jobs = 1 if isinstance(part, _SUMMING) else threads
            stack.extend(vars(part).values())
