from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.control import golden
from headrace.control.analysis.verdict import Finding
from headrace.control.golden import EXACT, GoldenAnswer, Tolerance
from headrace.core import errors, tensors
from headrace.core.tensors import Array, DType, Tensor


def tensor(values: Any, dtype: DType = DType.FP32, name: str = "y") -> Tensor:
    if dtype is DType.BF16:
        return Tensor(name, dtype, tensors.fp32_to_bf16(np.array(values, np.float32)))
    return Tensor(name, dtype, np.array(values, tensors.NUMPY_DTYPES[dtype]))


def differences(expected: Tensor, got: Tensor, tolerance: Tolerance | None = None) -> list[str]:
    return golden.compare([expected], [got], {"y": tolerance} if tolerance is not None else {})


@pytest.mark.parametrize(
    ("dtype", "expected", "got", "equal"),
    [
        (DType.FP32, 1.0, 1.000009, True),
        (DType.FP32, 1.0, 1.0001, False),
        (DType.FP32, 0.0, 5e-7, True),
        (DType.FP32, float("nan"), float("nan"), True),
        (DType.FP32, float("nan"), 1.0, False),
        (DType.FP32, float("inf"), float("inf"), True),
        (DType.FP32, float("inf"), float("-inf"), False),
        (DType.FP64, 1.0, 1.0001, False),
        (DType.FP16, 1.0, 1.009, True),
        (DType.FP16, 1.0, 1.1, False),
        (DType.BF16, 1.0, 1.0078125, True),
        (DType.BF16, 1.0, 1.1, False),
        (DType.INT64, 1 << 60, (1 << 60) + 1, False),
        (DType.INT64, 7, 7, True),
        (DType.BOOL, True, False, False),
        (DType.BYTES, b"cat", b"cat", True),
        (DType.BYTES, b"cat", b"dog", False),
    ],
)
def test_equal_means(dtype: DType, expected: Any, got: Any, equal: bool) -> None:
    assert (differences(tensor([expected], dtype), tensor([got], dtype)) == []) is equal


def test_a_declared_tolerance_holds_for_its_output() -> None:
    one, other = tensor([100.0]), tensor([100.4])
    assert differences(one, other, Tolerance(rtol=0.0, atol=0.5)) == []
    assert differences(one, other, Tolerance(rtol=0.001, atol=0.0)) != []
    assert golden.compare([one], [other], {"z": Tolerance(atol=1.0)}) != []


def test_exact_is_bit_by_bit() -> None:
    one = np.float32(1.0)
    assert differences(tensor([1.0]), tensor([np.nextafter(one, np.float32(2))]), EXACT) != []
    assert differences(tensor([0.0]), tensor([-0.0]), EXACT) != []
    assert differences(tensor([np.nan, 1.0]), tensor([np.nan, 1.0]), EXACT) == []


def test_a_difference_says_where_and_what() -> None:
    found = differences(tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[1.0, 2.0], [9.0, 5.0]]))
    assert found == ["output 'y' differs in 2 of 4 values, first at [1, 0]: 9.0, expected 3.0"]
    text = differences(tensor([b"cat"], DType.BYTES), tensor([b"dog"], DType.BYTES))
    assert text == ["output 'y' differs in 1 of 1 values, first at [0]: 'dog', expected 'cat'"]


def test_shapes_types_and_names_are_compared() -> None:
    assert differences(tensor([1.0]), tensor([[1.0]])) == ["output 'y' has shape [1, 1], expected [1]"]
    assert differences(tensor([1]), tensor([1], DType.INT64)) == ["output 'y' is INT64, expected FP32"]
    assert differences(tensor([1.0]), tensor([1.0], name="z")) == ["output 'y' is missing"]


def test_an_output_that_was_not_recorded_is_no_difference() -> None:
    assert golden.compare([tensor([1.0])], [tensor([1.0]), tensor([5.0], name="z")], {}) == []


def test_scalars_and_empty_outputs() -> None:
    empty: Array = np.zeros((0, 3), np.float32)
    assert differences(Tensor("y", DType.FP32, empty), Tensor("y", DType.FP32, empty)) == []
    assert differences(tensor(1.0), tensor(2.0)) == [
        "output 'y' differs in 1 of 1 values, first at []: 2.0, expected 1.0"
    ]


def test_negative_tolerances_are_refused() -> None:
    with pytest.raises(errors.BadSettings, match="not negative"):
        Tolerance(rtol=-1.0)


def answer(got: float = 1.0, error: errors.HeadraceError | None = None, request: str = "line 1") -> GoldenAnswer:
    outputs = () if error is not None else (tensor([got]),)
    return GoldenAnswer(request, (tensor([1.0]),), outputs, error)


def test_report_of_right_answers() -> None:
    found = golden.report([answer(), answer(request="line 2")])
    assert found == golden.GoldenReport(Finding.PASS, "2 answered as recorded")
    assert golden.report([]).finding is Finding.PASS


def test_report_of_wrong_answers_and_of_the_models_errors() -> None:
    found = golden.report(
        [answer(), answer(2.0, request="a: b"), answer(error=errors.ModelRaised("no"), request="line 3")]
    )
    assert found.finding is Finding.FAIL
    assert found.reason.startswith("2 of 3 differ: a: b: output 'y' differs in 1 of 1 values")
    assert found.differences[1] == "line 3: failed with model_raised: no"


@pytest.mark.parametrize("error", [errors.NotReady(), errors.Overloaded(), errors.ReplicaDied(), errors.Cancelled()])
def test_requests_that_could_not_be_asked_are_no_failure(error: errors.HeadraceError) -> None:
    found = golden.report([answer(), answer(error=error, request="line 2")])
    assert found.finding is Finding.INCONCLUSIVE
    assert found.reason.startswith("1 of 2 could not be asked: line 2:")


def test_a_wrong_answer_counts_more_than_one_that_could_not_be_had() -> None:
    assert golden.report([answer(error=errors.NotReady()), answer(2.0)]).finding is Finding.FAIL


def test_only_the_first_differences_are_spelled_out() -> None:
    found = golden.report([answer(2.0, request=f"line {i}") for i in range(50)])
    assert len(found.differences) == 50
    assert found.reason.count("line ") == 5
