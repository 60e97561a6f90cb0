"""Batched equals unbatched, on real artifacts of every runtime: callers of every protocol at the same moments, any
number of rows, against the runtime called directly with each request alone.

Equal means: bit-identical for integers, strings, labels and trees; rtol 1e-5 and atol 1e-6 for other floats.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.replica import execution
from tests import models
from tests.acceptance.clients.callers import Arrays, Callers, Failed, Specs
from tests.acceptance.clients.metrics import counts
from tests.acceptance.conftest import ZOO_BATCH, runtime
from tests.serving import Served, eventually

pytestmark = pytest.mark.xdist_group("zoo")

TREES = (
    *("onnx", "onnx-zipmap", "sklearn-forest", "xgboost-json", "xgboost-ubj", "xgboost-regressor-ubj"),
    *("xgboost-categorical", "lightgbm", "lightgbm-regressor", "lightgbm-categorical", "mlflow-xgboost"),
)
KINDS = (
    *TREES,
    *("onnx-regression", "onnx-strings", "onnx-strings-zipmap", "onnx-fp16", "onnx-bf16", "onnx-int64"),
    *("onnx-external-data", "sklearn-skops", "sklearn-joblib", "sklearn-regression", "mlflow-sklearn", "python"),
)

REQUESTS = st.lists(
    st.tuples(
        st.one_of(st.just(0), st.integers(1, 4), st.integers(1, 4), st.integers(ZOO_BATCH - 1, 3 * ZOO_BATCH)),
        st.integers(0, 1 << 30),
        st.randoms(use_true_random=False),
    ),
    min_size=8,
    max_size=24,
)

EXAMPLES = settings(
    max_examples=5, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def alone(kind: str, inputs: Arrays, rows: int) -> Arrays:
    computed = execution.run_batch(runtime(kind), inputs, [rows], {}, idempotent=True)
    assert not computed.failures
    return computed.outputs


def make_inputs(kind: str, rows: int, seed: int) -> Arrays:
    made = models.inputs(kind, max(rows, 1), seed)
    return made if rows else {name: array[:0] for name, array in made.items()}


def check(kind: str, form: str, got: Arrays | Failed, wanted: Arrays) -> None:
    assert not isinstance(got, Failed), f"{form}: {got}"
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].shape == array.shape, (form, name)
        assert got[name].dtype == array.dtype, (form, name)
        if array.dtype.kind == "f" and kind not in TREES:
            np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6, err_msg=f"{form} {name}")
        else:
            assert got[name].tolist() == array.tolist(), (form, name)


def grown(before: dict[str, float], after: dict[str, float], name: str) -> float:
    return after.get(name, 0.0) - before.get(name, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_batched_equals_unbatched(zoo: Served, callers: Callers, kind: str) -> None:
    specs = callers.specs(kind)
    before = counts(zoo, kind)
    sent = pieces = 0

    @EXAMPLES
    @given(REQUESTS)
    def compare(requests: list[tuple[int, int, Any]]) -> None:
        nonlocal sent, pieces
        given = []
        for rows, seed, random in requests:
            inputs = make_inputs(kind, rows, seed)
            given.append((random.choice(specs.forms_for(inputs, rows)), inputs, rows))
        sent += len(given)
        pieces += sum(max(1, math.ceil(rows / ZOO_BATCH)) for rows, _, _ in requests)
        answers = callers.together([callers.ask(form, kind, specs, inputs) for form, inputs, _ in given])
        for (form, inputs, rows), answer in zip(given, answers, strict=True):
            check(kind, form, answer, alone(kind, inputs, rows))

    compare()
    after = eventually_counted(zoo, kind, before, sent)
    batches, rows = grown(before, after, "headrace_batch_rows_count"), grown(before, after, "headrace_batch_rows_sum")
    # Batches did form: the pieces (large requests are cut) needed fewer calls of the model than there were pieces.
    assert rows / batches > 1
    assert batches < 0.9 * pieces


def eventually_counted(server: Served, model: str, before: dict[str, float], sent: int) -> dict[str, float]:
    def look() -> dict[str, float] | None:
        after = counts(server, model)
        return after if grown(before, after, "headrace_requests_total") >= sent else None

    found = eventually(look)
    assert found is not None
    return found


def test_failing_requests_fail_alone(callers: Callers) -> None:
    """An article that has no price raises KeyError for the whole call of the model."""
    specs = callers.specs("python")
    requests = []
    for at in range(30):
        rows = 1 + at % 3
        sku, qty = make_inputs("python", rows, at).values()
        if at % 7 == 3:
            sku[-1] = b"unobtainium"
        requests.append((("oip-binary", "oip-json", "grpc-raw", "grpc-typed", "v1-rows")[at % 5], sku, qty, rows))
    answers = callers.together(
        [callers.ask(form, "python", specs, {"sku": sku, "qty": qty}) for form, sku, qty, _ in requests]
    )
    failed = 0
    for (form, sku, qty, rows), answer in zip(requests, answers, strict=True):
        if b"unobtainium" in sku.tolist():
            failed += 1
            assert isinstance(answer, Failed)
            assert "KeyError: 'unobtainium'" in str(answer)
        else:
            check("python", form, answer, alone("python", {"sku": sku, "qty": qty}, rows))
    assert failed == 4


DTYPES = st.sampled_from(
    [np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.float32, np.float64]
)


def test_any_mix_of_names_dtypes_and_shapes(callers: Callers) -> None:
    """An untyped model: only what has the same names, dtypes and inner shapes may share a batch."""
    specs = Specs({"inputs": [], "outputs": []})
    shapes = st.lists(st.integers(0, 3), max_size=3)
    request = st.tuples(
        st.integers(0, 2 * ZOO_BATCH + 1),
        st.lists(
            st.tuples(st.sampled_from(["a", "b", "ü"]), DTYPES, shapes),
            min_size=1,
            max_size=3,
            unique_by=lambda t: t[0],
        ),
        st.integers(0, 1 << 30),
        st.randoms(use_true_random=False),
    )

    @settings(EXAMPLES, max_examples=15)
    @given(st.lists(request, min_size=4, max_size=16))
    def compare(requests: list[Any]) -> None:
        given: list[tuple[str, Arrays]] = []
        for rows, tensors, seed, random in requests:
            generator = np.random.default_rng(seed)
            inputs = {
                name: generator.integers(0, 2 if dtype is np.bool_ else 100, (rows, *shape)).astype(dtype)
                for name, dtype, shape in tensors
            }
            given.append((random.choice(specs.forms_for(inputs, rows)), inputs))
        answers = callers.together([callers.ask(form, "echo", specs, inputs) for form, inputs in given])
        for (form, inputs), answer in zip(given, answers, strict=True):
            check("echo", form, answer, inputs)

    compare()
