"""Which columns a fitted scikit-learn estimator was trained on, and of which types.

scikit-learn keeps the names (``feature_names_in_``) but not the dtypes. They are read from what the first
steps learned: categories of an encoder, the fill values of an imputer, the vocabulary of a text vectorizer.
A column that nothing tells about is a number. Types by duck: the attributes are documented, classes move.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from headrace.core.tensors import DType
from headrace.runtimes.columns import Column

_MAX_DEPTH = 20
"""Wrappers in wrappers that are looked through."""

Kinds = dict[int, Column]
"""Columns by their position; a position that is absent is not used by the model."""


def of(estimator: Any) -> tuple[Column, ...] | None:
    """The columns of an estimator in training order; None when it does not say how many features it takes.

    Columns that the model drops are left out: they need not be sent."""
    names, count = names_of(estimator), count_of(estimator)
    if count < 0:
        return None
    labels = names if names is not None else [f"x{index}" for index in range(count)]
    kinds = _kinds(estimator, labels, list(range(count)))
    return tuple(msgspec.structs.replace(kinds[index], name=labels[index]) for index in sorted(kinds))


def names_of(estimator: Any) -> list[str] | None:
    """Names of the training data frame, None for a model trained on a matrix."""
    names = _learned(estimator, "feature_names_in_")
    return None if names is None else [str(name) for name in names]


def takes_text(estimator: Any) -> bool:
    """The first step is a text vectorizer: its input is a list of documents, not a table."""
    first = _first_step(estimator)
    return first is not None and _is_vectorizer(first)


def count_of(estimator: Any) -> int:
    """Features of the training data; -1 when the estimator does not say."""
    count = _learned(estimator, "n_features_in_")
    return -1 if count is None else int(count)


def _learned(estimator: Any, attribute: str) -> Any:
    """An attribute of the estimator, or of the first one inside that has it: wrappers do not always pass it on."""
    for _ in range(_MAX_DEPTH):
        found = getattr(estimator, attribute, None)
        if found is not None:
            return found
        estimator = next(_inside(estimator), None)
        if estimator is None:
            return None
    return None


def _first_step(estimator: Any) -> Any:
    for _ in range(_MAX_DEPTH):
        inner = next(_inside(estimator), None)
        if inner is None:
            return estimator
        estimator = inner
    return estimator


def _inside(estimator: Any) -> Iterator[Any]:
    """Estimators that get the same input as this one: the first step, or what a search or a vote wraps."""
    steps = getattr(estimator, "steps", None)
    if isinstance(steps, list):
        yield from (step for _, step in steps if step is not None and step != "passthrough")
        return
    for attribute in ("best_estimator_", "estimator_", "regressor_", "classifier_"):
        inner = getattr(estimator, attribute, None)
        if hasattr(inner, "fit"):
            yield inner
            return
    fitted = getattr(estimator, "estimators_", None)
    if hasattr(estimator, "named_estimators_") and isinstance(fitted, list):  # voting, stacking; not bagging
        yield from (inner for inner in fitted if hasattr(inner, "fit"))


def _is_vectorizer(step: Any) -> bool:
    return hasattr(step, "vocabulary_") or type(step).__name__ == "HashingVectorizer"


def _kinds(estimator: Any, labels: Sequence[str], positions: list[int]) -> Kinds:
    """Columns used by one estimator that gets the features at ``positions``."""
    if hasattr(estimator, "transformers_"):
        return _of_column_transformer(estimator, labels, positions)
    if hasattr(estimator, "transformer_list"):
        parts = [step for _, step in estimator.transformer_list if hasattr(step, "fit")]
        return _merged([_kinds(step, labels, positions) for step in parts], positions)
    if _is_vectorizer(estimator):
        return {position: Column("", DType.BYTES) for position in positions}
    categories = getattr(estimator, "categories_", None)
    if isinstance(categories, list) and len(categories) == len(positions):
        return {position: _of_categories(known) for position, known in zip(positions, categories, strict=True)}
    statistics = getattr(estimator, "statistics_", None)
    if statistics is not None and len(statistics) == len(positions):
        missing = getattr(estimator, "missing_values", np.nan)
        return {p: _of_statistic(value, missing) for p, value in zip(positions, statistics, strict=True)}
    preprocessor = getattr(estimator, "_preprocessor", None)
    if getattr(estimator, "is_categorical_", None) is not None and hasattr(preprocessor, "transformers_"):
        # Histogram gradient boosting encodes its categorical columns itself.
        return _of_column_transformer(preprocessor, labels, positions)
    inner = list(_inside(estimator))
    if hasattr(estimator, "steps"):
        inner = inner[:1]
    if inner:
        return _merged([_kinds(part, labels, positions) for part in inner], positions)
    return {position: Column("") for position in positions}


def _merged(parts: list[Kinds], positions: list[int]) -> Kinds:
    """A column is text as soon as one user of it says so; a plain number says the least."""
    merged: Kinds = {}
    for part in parts:
        for position, column in part.items():
            before = merged.get(position)
            if before is None or _tells_more(column, before):
                merged[position] = column
    return merged or {position: Column("") for position in positions}


def _tells_more(column: Column, than: Column) -> bool:
    if than.dtype is DType.FP64:
        return column.dtype is not DType.FP64
    return bool(than.missing == "" and column.missing != "")


def _of_column_transformer(transformer: Any, labels: Sequence[str], positions: list[int]) -> Kinds:
    names = [labels[position] for position in positions]
    parts: list[Kinds] = []
    for _, step, selection in transformer.transformers_:
        if isinstance(step, str) and step == "drop":
            continue
        chosen = [positions[index] for index in _selected(selection, names)]
        parts.append(
            {position: Column("") for position in chosen} if isinstance(step, str) else _kinds(step, labels, chosen)
        )
    merged: Kinds = {}
    for part in parts:
        if part:
            merged = _merged([merged, part], []) if merged else dict(part)
    return merged


def _selected(selection: Any, names: list[str]) -> list[int]:
    """Indices that a column selection of a fitted ColumnTransformer means."""
    if isinstance(selection, str):
        return [names.index(selection)]
    if isinstance(selection, int | np.integer):
        return [range(len(names))[selection]]
    if isinstance(selection, slice):
        if isinstance(selection.start, str) or isinstance(selection.stop, str):
            start = names.index(selection.start) if selection.start is not None else 0
            # By label both ends count, as in pandas.
            stop = names.index(selection.stop) + 1 if selection.stop is not None else len(names)
            return list(range(len(names))[start : stop : selection.step])
        return list(range(len(names))[selection])
    chosen = list(selection)
    if chosen and all(isinstance(item, bool | np.bool_) for item in chosen):
        return [index for index, used in enumerate(chosen) if used]
    return [names.index(item) if isinstance(item, str) else range(len(names))[int(item)] for item in chosen]


def _of_categories(known: Any) -> Column:
    values = np.asarray(known)
    if values.dtype.kind in "US":
        return Column("", DType.BYTES, example=str(values[0]) if len(values) else None)
    if values.dtype.kind == "O":
        texts = [value for value in values if isinstance(value, str)]
        if texts:
            absent = [value for value in values if not isinstance(value, str)]
            missing = absent[0] if absent and "" not in texts else ""
            return Column("", DType.BYTES, missing, example=texts[0])
        numbers = [v for v in values if isinstance(v, int | float) and v == v]
        return Column("", DType.FP64, example=float(numbers[0]) if numbers else None)
    dtype = {"b": DType.BOOL, "i": DType.INT64, "u": DType.INT64}.get(values.dtype.kind, DType.FP64)
    finite = [value for value in values.tolist() if value == value]
    return Column("", dtype, example=finite[0] if finite else None)


def _of_statistic(value: Any, missing: Any) -> Column:
    if isinstance(value, str):
        return Column("", DType.BYTES, missing, example=value)
    return Column("")
