"""Every kind of real artifact loads, keeps its signature's word, and computes batches as it computes rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.binding import bind
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor
from headrace.runtimes import table, trust
from headrace.runtimes.inspect import inspect
from headrace.runtimes.runtime import LoadOptions, Runtime
from tests import models

BATCHABLE = [k for k in models.KINDS if k not in ("onnx-fixed-batch", "onnx-count-varies", "python-stream")]
EXACT_FRAMEWORKS = ("xgboost", "lightgbm", "forest", "int64", "python", "echo")
"""Trees and integers: the same bits whatever the batch."""


@cache
def loaded(kind: str) -> Runtime:
    artifact = inspect(models.build(kind))
    return table.load(artifact, LoadOptions(options={trust.OPTION: "yes"}))


@pytest.mark.parametrize("kind", [k for k in models.KINDS if k != "python-stream"])
def test_outputs_are_as_the_signature_says(kind: str) -> None:
    runtime = loaded(kind)
    inputs = models.inputs(kind, 5)
    outputs = runtime.predict(inputs, {})
    declared = {spec.name: spec for spec in runtime.signature.outputs}
    if not runtime.signature.any_inputs:
        assert set(outputs) == set(declared)
    for name, array in outputs.items():
        if name not in declared:
            continue
        spec = declared[name]
        assert array.dtype == NUMPY_DTYPES[spec.dtype]
        assert len(array.shape) == len(spec.shape)
        assert all(want in (-1, have) for want, have in zip(spec.shape, array.shape, strict=True))
        if spec.dtype is DType.BYTES:
            assert all(type(item) is bytes for item in array.ravel())


@pytest.mark.parametrize("kind", models.KINDS)
def test_inputs_pass_the_binding(kind: str) -> None:
    runtime = loaded(kind)
    dtypes = {spec.name: spec.dtype for spec in runtime.signature.inputs}
    tensors = [Tensor(name, dtypes.get(name, DType.FP32), array) for name, array in models.inputs(kind, 3).items()]
    bound = bind(runtime.signature, tensors, {})
    assert bound.rows == (3 if runtime.signature.batchable else 1)


@pytest.mark.parametrize("kind", BATCHABLE)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_batched_equals_unbatched(kind: str, sizes: list[int], seed: int) -> None:
    runtime = loaded(kind)
    if kind == "onnx-cnn":
        sizes = sizes[:2]
    whole = models.inputs(kind, sum(sizes), seed)
    together = runtime.predict(whole, {})
    at = 0
    for size in sizes:
        part = {name: array[at : at + size] for name, array in whole.items()}
        alone = runtime.predict(part, {})
        for name, array in alone.items():
            assert_same(kind, array, together[name][at : at + size])
        at += size


def assert_same(kind: str, alone: Any, together: Any) -> None:
    """Equal in DESIGN's meaning: the same bits, or within 1e-5 for floats of other models."""
    assert alone.dtype == together.dtype
    if alone.dtype.kind != "f" or any(word in kind for word in EXACT_FRAMEWORKS):
        np.testing.assert_array_equal(alone, together)
    else:
        tolerance = 1e-2 if alone.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(alone, together, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("kind", BATCHABLE)
def test_inputs_may_be_read_only_and_are_not_changed(kind: str) -> None:
    inputs = models.inputs(kind, 2)
    for array in inputs.values():
        array.flags.writeable = False
    before = {name: array.copy() for name, array in inputs.items()}
    loaded(kind).predict(inputs, {})
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("kind", BATCHABLE)
def test_samples_are_one_row_the_model_accepts(kind: str) -> None:
    runtime = loaded(kind)
    samples = runtime.samples()
    if samples is None:
        return
    assert all(array.shape[0] == 1 for array in samples.values())
    outputs = runtime.predict(samples, {})
    assert all(array.shape[0] == 1 for array in outputs.values())


@pytest.mark.parametrize("kind", ["onnx-fixed-batch", "onnx-count-varies"])
def test_fixed_or_value_dependent_rows_are_not_batchable(kind: str) -> None:
    assert not loaded(kind).signature.batchable


def test_kinds_are_built_once_and_can_be_copied(tmp_path: Any) -> None:
    first = models.build("onnx-int64")
    assert models.build("onnx-int64") == first
    copy = models.build("onnx-int64", tmp_path)
    assert copy.parent == tmp_path
    assert copy.read_bytes() == first.read_bytes()


def test_loading_twice_gives_the_same_signature(load: Callable[[str], Runtime]) -> None:
    for kind in ("onnx", "xgboost-ubj", "lightgbm", "sklearn-skops"):
        assert load(kind).signature == loaded(kind).signature
