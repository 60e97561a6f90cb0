"""Requests against signatures: what fits, what may share a batch, and what the refusals say."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from headrace.core import binding, errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor

TWO = Signature(
    inputs=(TensorSpec("x", DType.FP32, (-1, 3)), TensorSpec("s", DType.BYTES, (-1,), optional=True)),
    outputs=(),
    parameters=("mode", "seed"),
)
ONE = Signature(inputs=(TensorSpec("x", DType.FP32, (-1, 3)),), outputs=(), parameters=("mode",))
FREE = Signature(inputs=(TensorSpec("x", DType.FP32, (-1, -1)),), outputs=())
COLUMNS = Signature(
    inputs=(TensorSpec("a", DType.FP64, (-1,)), TensorSpec("b", DType.INT64, (-1, 1))), outputs=(), columns=True
)
SINGLE = Signature(inputs=(TensorSpec("x", DType.FP32, (2, 2)),), outputs=(), batchable=False)
ANY = Signature(inputs=(), outputs=(), any_inputs=True, parameters=("mode",))
ANY_SINGLE = Signature(inputs=(), outputs=(), any_inputs=True, batchable=False)


def fp32(name: str, *shape: int) -> Tensor:
    return Tensor(name, DType.FP32, np.zeros(shape, np.float32))


def text(name: str, *items: bytes) -> Tensor:
    array = np.empty(len(items), object)
    array[:] = items
    return Tensor(name, DType.BYTES, array)


def test_binds_in_the_order_of_the_signature() -> None:
    bound = binding.bind(TWO, [text("s", b"ab", b""), fp32("x", 2, 3)], {})
    assert (bound.names, bound.dtypes, bound.rows) == (("x", "s"), ("FP32", "BYTES"), 2)
    assert bound.nbytes == 2 * 3 * 4 + (4 + 2) + 4
    assert [a.shape for a in bound.arrays] == [(2, 3), (2,)]


def test_optional_inputs_may_be_absent_and_keep_batches_apart() -> None:
    without = binding.bind(TWO, [fp32("x", 2, 3)], {})
    assert without.names == ("x",)
    assert without.key != binding.bind(TWO, [fp32("x", 2, 3), text("s", b"", b"")], {}).key


@pytest.mark.parametrize(
    ("signature", "tensors", "words"),
    [
        (ONE, [fp32("y", 1, 3)], "missing input 'x' and unexpected input 'y'; the model takes 'x' FP32[-1, 3]"),
        (ONE, [], "missing input 'x'"),
        (ONE, [fp32("x", 1, 3), fp32("x", 1, 3)], "input 'x' is given more than once"),
        (ONE, [fp32("x", 1, 3), fp32("z", 1, 3)], "unexpected input 'z'"),
        (TWO, [text("s", b"")], "missing input 'x'"),
        (TWO, [fp32("x", 2, 3), text("s", b"")], "input 's' has 1 rows, input 'x' has 2"),
        (ONE, [fp32("x", 3)], "input 'x': expected shape [-1, 3] (-1 is any size), got [3]"),
        (ONE, [fp32("x", 1, 4)], "expected shape [-1, 3] (-1 is any size), got [1, 4]"),
        (ONE, [fp32("x")], "got []"),
        (SINGLE, [fp32("x", 2, 3)], "expected shape [2, 2]"),
        (
            ONE,
            [Tensor("x", DType.FP64, np.zeros((1, 3)))],
            "input 'x': expected datatype FP32, got FP64",
        ),
        (ANY, [], "at least one input"),
        (ANY, [fp32("a", 1), fp32("a", 1)], "input 'a' is given more than once"),
        (ANY, [fp32("a")], "input 'a' has no dimensions"),
        (ANY, [fp32("a", 2), fp32("b", 3)], "input 'b' has 3 rows, input 'a' has 2"),
    ],
)
def test_refusals_name_the_input_and_what_was_expected(signature: Signature, tensors: list[Tensor], words: str) -> None:
    with pytest.raises(errors.InvalidInput) as caught:
        binding.bind(signature, tensors, {})
    assert words in caught.value.message


def test_long_lists_of_names_are_cut() -> None:
    many = Signature(inputs=tuple(TensorSpec(f"c{i}", DType.FP32, (-1,)) for i in range(40)), outputs=())
    with pytest.raises(errors.InvalidInput, match=r"and 32 more.*and 28 more"):
        binding.bind(many, [], {})


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_columns_may_come_with_or_without_their_second_dimension(rows: int) -> None:
    for a, b in (((rows,), (rows, 1)), ((rows, 1), (rows,))):
        bound = binding.bind(
            COLUMNS,
            [Tensor("a", DType.FP64, np.zeros(a)), Tensor("b", DType.INT64, np.zeros(b, np.int64))],
            {},
        )
        assert [x.shape for x in bound.arrays] == [(rows,), (rows, 1)]
        assert bound.rows == rows


def test_models_without_rows_count_one() -> None:
    assert binding.bind(SINGLE, [fp32("x", 2, 2)], {}).rows == 1
    assert binding.bind(ANY_SINGLE, [fp32("x"), fp32("y", 7, 7)], {}).rows == 1
    assert binding.bind(ANY_SINGLE, [], {}).rows == 1


def test_free_dimensions_keep_batches_apart() -> None:
    keys = {binding.bind(FREE, [fp32("x", 4, width)], {}).key for width in (1, 2, 2, 3)}
    assert len(keys) == 3
    assert binding.bind(FREE, [fp32("x", 1, 2)], {}).key == binding.bind(FREE, [fp32("x", 9, 2)], {}).key


@pytest.mark.parametrize("signature", [ONE, ANY])
def test_only_parameters_that_the_model_reads_keep_batches_apart(signature: Signature) -> None:
    def key(parameters: dict[str, Any]) -> binding.Key:
        bound = binding.bind(signature, [fp32("x", 1, 3)], parameters)
        assert set(bound.parameters) <= {"mode"}
        return bound.key

    assert key({}) == key({"trace": "yes", "binary_data_output": True})
    assert key({"mode": "a", "trace": 1}) == key({"trace": 2, "mode": "a"})
    assert len({key({}), key({"mode": "a"}), key({"mode": "b"})}) == 3
    assert len({key({"mode": 1}), key({"mode": 1.0}), key({"mode": True})}) == 3, "a model may tell them apart"


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**400])
def test_integers_that_no_frame_carries_are_the_callers_mistake(value: int) -> None:
    with pytest.raises(errors.InvalidInput, match="parameter 'seed': an integer may have 64 bits"):
        binding.bind(TWO, [fp32("x", 1, 3)], {"seed": value})
    assert binding.bind(TWO, [fp32("x", 1, 3)], {"unread": value}).parameters == {}


@given(
    dtype=st.sampled_from([d for d in DType if d is not DType.BYTES]),
    want=st.lists(st.sampled_from([-1, 0, 1, 2, 3]), min_size=0, max_size=3),
    have=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    sent=st.sampled_from(["x", "y"]),
)
def test_quick_way_and_long_way_agree(dtype: DType, want: list[int], have: tuple[int, ...], sent: str) -> None:
    """One input takes a shortcut; the same input beside an optional one does not: same verdict, same key."""
    spec = TensorSpec("x", dtype, (-1, *want))
    tensor = Tensor(sent, dtype, np.zeros(have, NUMPY_DTYPES[dtype]))
    short = Signature(inputs=(spec,), outputs=())
    long = Signature(inputs=(spec, TensorSpec("other", DType.BYTES, (-1,), optional=True)), outputs=())
    results: list[Any] = []
    for signature in (short, long):
        try:
            bound = binding.bind(signature, [tensor], {})
            results.append((bound.names, bound.dtypes, bound.rows, bound.nbytes, bound.key[0], bound.arrays[0].shape))
        except errors.InvalidInput as error:
            results.append(error.message.partition(";")[0])
    assert results[0] == results[1]


def test_describe() -> None:
    assert binding.describe(TWO.inputs) == "'x' FP32[-1, 3], 's' BYTES[-1]"
