"""Batches on a runtime: who fails alone, and what a model may get wrong without harm."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given

from headrace.core import errors
from headrace.core.models import Signature, Slots, TensorSpec
from headrace.core.tensors import DType
from headrace.replica import execution
from tests.fakes import ROWS

SINGLE = msgspec.structs.replace(ROWS, batchable=False)


class Model:
    """A runtime that is a function."""

    platform = "test"
    slots = Slots()
    metadata: dict[str, str] = {}

    def __init__(self, function: Callable[[Any], Any], signature: Signature = ROWS) -> None:
        self.function = function
        self.signature = signature
        self.calls: list[int] = []

    def predict(self, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
        self.calls.append(len(inputs["x"]))
        return self.function(inputs["x"])

    def stream(self, inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def samples(self) -> None:
        return None

    def close(self) -> None: ...


def run(
    model: Model, rows: list[int], *, idempotent: bool = True, values: list[float] | None = None
) -> execution.Computed:
    flat = values if values is not None else [float(i) for i, count in enumerate(rows) for _ in range(count)]
    x = np.repeat(np.array(flat, np.float32)[:, None], 2, axis=1) if flat else np.empty((0, 2), np.float32)
    return execution.run_batch(model, {"x": x}, rows, {}, idempotent=idempotent)


def fail_on(*bad: float) -> Callable[[Any], Any]:
    def predict(x: Any) -> Any:
        if np.isin(x, bad).any():
            raise ValueError(f"cannot take {x[np.isin(x, bad)][0]}")
        return {"y": x * 2}

    return predict


def test_all_together_when_all_is_well() -> None:
    model = Model(lambda x: {"y": x * 2})
    computed = run(model, [1, 3, 2])
    assert model.calls == [6]
    assert computed.failures == []
    assert computed.outputs["y"][:, 0].tolist() == [0, 2, 2, 2, 4, 4]
    assert computed.compute > 0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.sets(st.integers(0, 5)))
def test_exactly_the_culprits_fail(rows: list[int], bad: set[int]) -> None:
    computed = run(Model(fail_on(*bad)), rows)
    culprits = {i for i in bad if i < len(rows) and rows[i]}
    assert {f.index for f in computed.failures} == culprits
    assert all("cannot take" in f.message for f in computed.failures)
    fine = [2.0 * i for i, count in enumerate(rows) for _ in range(count) if i not in culprits]
    if len(culprits) < len(rows):
        assert computed.outputs["y"][:, 0].tolist() == fine
    else:
        assert computed.outputs == {}


def test_not_idempotent_fails_as_a_whole_and_runs_once() -> None:
    model = Model(fail_on(1.0))
    computed = run(model, [1, 1, 1], idempotent=False)
    assert model.calls == [3]
    assert [f.index for f in computed.failures] == [0, 1, 2]


def test_lone_failing_call_is_not_run_twice() -> None:
    model = Model(fail_on(0.0))
    computed = run(model, [5])
    assert model.calls == [5]
    assert [f.index for f in computed.failures] == [0]


def test_model_that_lies_about_rows_in_a_batch_is_run_call_by_call() -> None:
    model = Model(lambda x: {"y": x[:1]})
    computed = run(model, [1, 2, 1])
    assert [f.index for f in computed.failures] == [1]
    assert computed.failures[0].code == errors.BadModelOutput.code
    assert "dimension 0 must be the rows" in computed.failures[0].message
    assert len(computed.outputs["y"]) == 2


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: {}, "no outputs"),
        (lambda x: {"y": 3.0}, "has shape [] for 1 rows"),
        (lambda x: {"y": x * 1j}, "numpy dtype complex64"),
        (lambda x: {"y": np.array(["2026-01-01"], "datetime64[D]")}, "numpy dtype datetime64"),
        (lambda x: {"y": np.zeros(1, [("a", "<f4")])}, "numpy dtype"),
        (lambda x: {"y": np.zeros(1, np.longdouble)}, "numpy dtype float128"),
        (lambda x: {"y": [[1, 2], [3]]}, "the model raised ValueError"),
        (lambda x: {"y": np.array(["\ud800"])}, "the model raised UnicodeEncodeError"),
        (lambda x: None, "no outputs"),
        (lambda x: sys.exit("bye"), "the model raised SystemExit: bye"),
        (lambda x: 1 / 0, "the model raised ZeroDivisionError: division by zero (in <lambda>, test_execution.py:"),
    ],
)
def test_what_a_model_gets_wrong_is_told_to_its_caller(function: Callable[[Any], Any], words: str) -> None:
    computed = run(Model(function), [1])
    assert words in computed.failures[0].message


def test_memory_error_is_named() -> None:
    def predict(x: Any) -> Any:
        raise MemoryError

    assert "ran out of memory" in run(Model(predict), [1]).failures[0].message


class Panic(BaseException):
    """As extensions raise it: not an Exception."""


class Mute(Exception):
    """Cannot even be printed."""

    def __str__(self) -> str:
        raise Panic


@pytest.mark.parametrize("error", [Panic, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, Mute])
@pytest.mark.parametrize("rows", [[1], [1, 1, 1]], ids=["alone", "in a batch"])
def test_whatever_a_model_raises_ends_its_own_call_only(error: type[BaseException], rows: list[int]) -> None:
    def predict(x: Any) -> Any:
        if (x == len(rows) - 1).any():
            raise error
        return {"y": x}

    computed = run(Model(predict), rows)
    assert [f.index for f in computed.failures] == [len(rows) - 1]
    assert f"the model raised {error.__name__}: no message" in computed.failures[0].message
    assert len(computed.outputs.get("y", ())) == len(rows) - 1


@pytest.mark.parametrize("gone", [set(), {0}], ids=["one by one", "without those that left"])
def test_rows_that_cannot_be_joined_for_lack_of_memory(gone: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(x: Any) -> Any:
        if len(x) > 1:
            raise ValueError("one at a time")
        return {"y": x}

    def no_memory(blocks: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(np, "concatenate", no_memory)
    x = np.zeros((3, 2), np.float32)
    computed = (
        execution.run_others(Model(predict), {"x": x}, [1, 1, 1], gone, {}, idempotent=True)
        if gone
        else run(Model(predict), [1, 1, 1])
    )
    assert [f.index for f in computed.failures] == [0, 1, 2]
    assert all("ran out of memory" in f.message for f in computed.failures if f.index not in gone)
    assert {f.code for f in computed.failures if f.index in gone} == ({errors.Cancelled.code} if gone else set())
    assert computed.outputs == {}


def test_long_messages_are_cut() -> None:
    def predict(x: Any) -> Any:
        raise RuntimeError("x" * 100_000)

    assert len(run(Model(predict), [1]).failures[0].message) < 2_300


def test_outputs_of_calls_that_do_not_fit_together_are_the_models_fault() -> None:
    def predict(x: Any) -> Any:
        if len(x) > 1:
            raise ValueError("one at a time")
        return {"y": np.zeros((1, int(x[0, 0]) + 1), np.float32)}

    computed = run(Model(predict), [1, 1])
    assert {f.code for f in computed.failures} == {errors.BadModelOutput.code}
    assert len(computed.failures) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([1.5], ">f4"), np.array([1.5], "<f4")),
        (np.array([258], ">i8"), np.array([258], "<i8")),
        (np.array([True]), np.array([True])),
        ([7], np.array([7])),
        (np.array([1], np.longlong), np.array([1], "<i8")),
    ],
)
def test_numbers_become_little_endian_arrays(value: Any, expected: Any) -> None:
    array = execution.checked(ROWS, {"y": value}, 1)["y"]
    assert array.dtype == expected.dtype
    assert array.dtype.byteorder != ">"
    assert array.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "value", [np.array([b"abc"]), np.array(["abc"]), ["abc"], np.array(["abc"], object), np.array([b"abc"], object)]
)
def test_text_becomes_bytes(value: Any) -> None:
    array = execution.checked(ROWS, {"y": value}, 1)["y"]
    assert array.tolist() == [b"abc"]


def test_unbatchable_models_may_return_any_shape() -> None:
    computed = run(Model(lambda x: {"y": 3.0, "z": np.zeros((2, 2))}, SINGLE), [1])
    assert computed.failures == []
    assert computed.outputs["y"].shape == ()


def test_bfloat16_travels_under_its_declared_name() -> None:
    bits = np.zeros(1, np.uint16)
    assert execution.wire_dtype(bits, DType.BF16) == "BF16"
    assert execution.wire_dtype(bits, None) == "UINT16"
    assert execution.wire_dtype(bits, DType.FP32) == "UINT16"


def test_zeros_follow_the_signature() -> None:
    signature = Signature(
        inputs=(TensorSpec("a", DType.FP32, (-1, 3, -1)), TensorSpec("b", DType.BYTES, (-1,))), outputs=()
    )
    made = execution.zeros(signature, 4)
    assert made["a"].shape == (4, 3, 1)
    assert made["b"].tolist() == [b""] * 4
    single = execution.zeros(msgspec.structs.replace(signature, batchable=False), 4)
    assert single["a"].shape == (1, 3, 1)


def test_no_rows_need_no_model() -> None:
    model = Model(lambda x: 1 / 0)
    computed = run(model, [0])
    assert computed.failures == []
    assert computed.outputs["y"].shape == (0, 2)
    assert model.calls == []


@given(
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    gone=st.sets(st.integers(0, 5)),
    bad=st.sets(st.integers(0, 5)),
)
def test_calls_that_are_gone_are_not_computed(rows: list[int], gone: set[int], bad: set[int]) -> None:
    model = Model(lambda x: {"y": fail_on(*bad)(x)["y"]})
    values = [float(i) for i, count in enumerate(rows) for _ in range(count)]
    x = np.repeat(np.array(values, np.float32)[:, None], 2, axis=1)
    computed = execution.run_others(model, {"x": x}, rows, gone, {}, idempotent=True)
    expected = run(Model(fail_on(*bad, *gone)), rows)
    assert [f.index for f in computed.failures] == [f.index for f in expected.failures]
    assert {f.index for f in computed.failures if f.code == errors.Cancelled.code} == gone & set(range(len(rows)))
    kept = sum(count for index, count in enumerate(rows) if index not in gone)
    assert all(count <= kept for count in model.calls)
    assert len(computed.outputs.get("y", ())) == len(expected.outputs.get("y", ()))
    if computed.outputs:
        assert np.array_equal(computed.outputs["y"], expected.outputs["y"])
