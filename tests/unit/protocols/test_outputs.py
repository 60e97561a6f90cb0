"""Selection of outputs and the classification extension."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.core import errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.requests import InferenceResponse
from headrace.core.tensors import DType, Tensor, fp32_to_bf16
from headrace.protocols import outputs
from headrace.protocols.protocol import Rendering

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, (-1, 2)),),
    outputs=(
        TensorSpec("label", DType.INT64, (-1,)),
        TensorSpec("p", DType.FP32, (-1, 3), labels=("cat", "dog", "eel")),
    ),
)
DYNAMIC = Signature((), (), any_inputs=True)


def response() -> InferenceResponse:
    return InferenceResponse(
        "m",
        "1",
        [
            Tensor("label", DType.INT64, np.array([1, 2])),
            Tensor("p", DType.FP32, np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], np.float32)),
        ],
    )


def test_wanted_names_are_checked_and_kept_once() -> None:
    assert outputs.check_wanted(["p", "label", "p"], SIGNATURE) == ("p", "label")
    with pytest.raises(errors.InvalidInput, match="unknown output 'q'; the model gives 'label', 'p'"):
        outputs.check_wanted(["q"], SIGNATURE)


def test_a_dynamic_model_may_have_any_output() -> None:
    assert outputs.check_wanted(["q"], DYNAMIC) == ("q",)
    with pytest.raises(errors.InvalidInput, match="unknown output 'q'; the model gives 'label', 'p'"):
        outputs.select(response(), Rendering(wanted=("q",)), DYNAMIC)


def test_outputs_come_in_the_order_asked_for() -> None:
    chosen = outputs.select(response(), Rendering(wanted=("p", "label")), SIGNATURE)
    assert [tensor.name for tensor in chosen] == ["p", "label"]


def test_classification_by_row_with_labels() -> None:
    rendering = Rendering(wanted=("p",), classification={"p": 2})
    (tensor,) = outputs.select(response(), rendering, SIGNATURE)
    assert tensor.dtype is DType.BYTES
    assert tensor.array.tolist() == [[b"0.699999988:1:dog", b"0.200000003:2:eel"], [b"0.5:0:cat", b"0.25:1:dog"]]


@pytest.mark.parametrize(
    ("dtype", "array", "expected"),
    [
        (DType.FP64, np.array([0.1, 1 / 3]), [b"0.3333333333333333:1", b"0.1:0"]),
        (DType.FP16, np.array([0.5, 1.5], np.float16), [b"1.5:1", b"0.5:0"]),
        (DType.BF16, fp32_to_bf16(np.array([0.5, 1.5])), [b"1.5:1", b"0.5:0"]),
        (DType.INT8, np.array([-3, 7], np.int8), [b"7:1", b"-3:0"]),
        (DType.UINT64, np.array([1, 2**64 - 1], np.uint64), [b"18446744073709551615:1", b"1:0"]),
        (DType.BOOL, np.array([False, True]), [b"1:1", b"0:0"]),
    ],
)
def test_classification_without_rows(dtype: DType, array: np.ndarray, expected: list[bytes]) -> None:
    found = outputs.classify(Tensor("y", dtype, array), 5, None, rows=False)
    assert found.array.tolist() == expected


def test_classification_flattens_a_row_and_keeps_ties_in_order() -> None:
    found = outputs.classify(Tensor("y", DType.FP32, np.ones((2, 2, 2), np.float32)), 3, ("a",), rows=True)
    assert found.array.tolist() == [[b"1:0:a", b"1:1", b"1:2"]] * 2


def test_classification_of_no_rows() -> None:
    found = outputs.classify(Tensor("y", DType.FP32, np.zeros((0, 3), np.float32)), 2, None, rows=True)
    assert found.array.size == 0
    assert found.shape[0] == 0


def test_bytes_cannot_be_classified() -> None:
    tensor = Tensor("y", DType.BYTES, np.array([b"a"], object))
    with pytest.raises(errors.InvalidInput, match="output 'y': BYTES"):
        outputs.classify(tensor, 1, None, rows=True)


@pytest.mark.parametrize("value", [0, -1, "2", True, 1.5])
def test_a_wrong_number_of_classes(value: object) -> None:
    with pytest.raises(errors.InvalidInput, match="classification"):
        outputs.classification_of("y", {"classification": value})
