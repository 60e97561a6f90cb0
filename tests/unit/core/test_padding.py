"""Which requests of different lengths go together, and what is cut back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core import binding
from headrace.core.models import Signature, TensorSpec
from headrace.core.padding import Padded, PaddedInput, Padding, PaddingRules
from headrace.core.tensors import DType, Tensor

TEXT = Padding(
    ("tokens",),
    (4, 8),
    {"ids": PaddedInput(((0, 0),), 0), "mask": PaddedInput(((0, 0),), 0)},
    {"scores": ((0, 0),), "pairs": ((0, 0), (1, 0))},
)
IMAGE = Padding(
    ("height", "width"), (16, 32), {"image": PaddedInput(((1, 0), (2, 1)), 0.0)}, {"mask": ((1, 1), (0, 0))}
)
SIZES = st.integers(0, 12)

SIGNATURE = Signature(
    inputs=(
        TensorSpec("ids", DType.INT64, (-1, -1)),
        TensorSpec("mask", DType.INT64, (-1, -1), optional=True),
        TensorSpec("country", DType.BYTES, (-1,)),
    ),
    outputs=(TensorSpec("scores", DType.FP32, (-1, -1)),),
    parameters=("mode",),
    padding=TEXT,
)


def request(ids: int, mask: int | None, rows: int = 2) -> list[Tensor]:
    tensors = [Tensor("ids", DType.INT64, np.ones((rows, ids), np.int64))]
    if mask is not None:
        tensors.append(Tensor("mask", DType.INT64, np.ones((rows, mask), np.int64)))
    return [*tensors, Tensor("country", DType.BYTES, np.full(rows, b"AT", object))]


@given(SIZES, SIZES)
def test_requests_share_a_batch_when_their_bucket_is_the_same(one: int, other: int) -> None:
    def bucket(size: int) -> int:
        return 4 if size <= 4 else 8 if size <= 8 else size

    keys = [binding.bind(SIGNATURE, request(size, size), {}).key for size in (one, other)]
    assert (keys[0] == keys[1]) == (bucket(one) == bucket(other))


@given(SIZES, SIZES)
def test_inputs_that_disagree_go_by_their_exact_shape(ids: int, mask: int) -> None:
    bound = binding.bind(SIGNATURE, request(ids, mask), {})
    assert (bound.padded is not None) == (ids == mask and ids <= 8)
    if bound.padded is None:
        assert bound.key == ((ids,), (mask,), ())
    else:
        assert bound.padded.sizes == (ids,)


def test_absent_inputs_and_parameters_keep_requests_apart() -> None:
    keys = {
        binding.bind(SIGNATURE, request(3, 3), {}).key,
        binding.bind(SIGNATURE, request(3, None), {}).key,
        binding.bind(SIGNATURE, request(3, 3), {"mode": 1}).key,
        binding.bind(SIGNATURE, request(3, 3), {"mode": True}).key,
    }
    assert len(keys) == 4
    assert binding.bind(SIGNATURE, request(3, 3), {"other": 1}).key in keys


def test_nothing_is_padded_by_default() -> None:
    plain = Signature(SIGNATURE.inputs, SIGNATURE.outputs)
    bound = binding.bind(plain, request(3, 3), {})
    assert (bound.padded, bound.key) == (None, ((3,), (3,), ()))


def test_every_dimension_has_its_own_bucket() -> None:
    padded = IMAGE.fit(["image"], [(3, 10, 20)])
    assert padded == Padded(IMAGE, (10, 20), ((3, 16, 32),))
    assert padded.elements() == 3 * 16 * 32
    assert IMAGE.fit(["image"], [(3, 10, 33)]) is None


@given(st.integers(0, 3), st.integers(0, 6), st.integers(0, 6))
def test_outputs_are_cut_back_along_their_dimensions(rows: int, length: int, more: int) -> None:
    long = length + more
    outputs = [
        Tensor("scores", DType.FP32, np.arange(rows * long, dtype=np.float32).reshape(rows, long)),
        Tensor("pairs", DType.INT64, np.arange(rows * long * long).reshape(rows, long, long)),
        Tensor("other", DType.INT64, np.arange(rows * 5).reshape(rows, 5)),
    ]
    scores, pairs, other = (tensor.array for tensor in TEXT.cut(outputs, (length,)))
    assert scores.tolist() == outputs[0].array[:, :length].tolist()
    assert pairs.tolist() == outputs[1].array[:, :length, :length].tolist()
    assert other is outputs[2].array
    assert scores.flags.c_contiguous
    assert pairs.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "fits"), [((2, 8), True), ((2, 7), False), ((2,), False), ((2, 8, 1), True), ((2, 4), False)]
)
def test_outputs_that_do_not_follow_are_found(shape: tuple[int, ...], fits: bool) -> None:
    wrong = TEXT.misfit({"scores": np.zeros(shape)}, (8,))
    assert (wrong is None) == fits
    if wrong is not None:
        assert "'scores'" in wrong
        assert "tokens=8" in wrong


def test_a_dimension_that_no_input_has_is_not_looked_for() -> None:
    assert TEXT.misfit({"scores": np.zeros((2, 3))}, (-1,)) is None
    assert TEXT.cut([Tensor("scores", DType.FP32, np.zeros((2, 3)))], (-1,))[0].array.shape == (2, 3)


def test_settings_win_over_what_a_class_declares() -> None:
    declared = PaddingRules({"a": 0, "b": 1}, (8,), {"y": ("n",)})
    assert PaddingRules().over(declared) == declared
    assert PaddingRules({"b": "7"}, (16,), {"x": ("m",)}).over(declared) == PaddingRules(
        {"a": 0, "b": "7"}, (16,), {"y": ("n",), "x": ("m",)}
    )


def test_signatures_agree_when_only_padding_differs() -> None:
    plain = Signature(SIGNATURE.inputs, SIGNATURE.outputs, parameters=("mode",))
    assert plain.agrees(SIGNATURE)
    assert SIGNATURE.agrees(plain)
    assert not plain.agrees(Signature(SIGNATURE.inputs, SIGNATURE.outputs))
    bound = binding.bind(SIGNATURE, request(3, 3), {"mode": 2})
    assert binding.rebind(bound, plain).key == binding.bind(plain, request(3, 3), {"mode": 2}).key
