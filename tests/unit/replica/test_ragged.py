"""Requests of different lengths through a worker's steps, from frame to answer; on a real model they get what each
would have got alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core import binding
from headrace.core.binding import Bound
from headrace.core.models import Signature, TensorSpec
from headrace.core.padding import PaddedInput, Padding, PaddingRules
from headrace.core.tensors import Array, DType, Tensor
from headrace.replica import execution, messages, ragged
from headrace.replica.messages import BadFrame, RunHead, TensorHead
from headrace.replica.waiting import Waiting, compatible, join, padded_to, split
from headrace.runtimes import inspect, onnx
from headrace.runtimes.padding import resolve
from headrace.runtimes.runtime import LoadOptions
from tests import models

TEXT = Padding(
    ("n",), (4, 8), {"ids": PaddedInput(((0, 0),), -1), "words": PaddedInput(((0, 0),), "?")}, {"y": ((0, 0),)}
)
SIGNATURE = Signature(
    inputs=(
        TensorSpec("ids", DType.INT64, (-1, -1, 2)),
        TensorSpec("words", DType.BYTES, (-1, -1)),
        TensorSpec("weight", DType.FP32, (-1,)),
    ),
    outputs=(TensorSpec("y", DType.INT64, (-1, -1)),),
    padding=TEXT,
)
CALLS = st.lists(st.tuples(st.integers(0, 3), st.integers(5, 8)), min_size=1, max_size=6)
"""(rows, length): of one bucket."""


def request(rows: int, length: int, seed: int = 0) -> Bound:
    random = np.random.default_rng(seed)
    words = np.array([b"w%d" % i for i in range(rows * length)], object).reshape(rows, length)
    tensors = [
        Tensor("ids", DType.INT64, random.integers(0, 99, (rows, length, 2))),
        Tensor("words", DType.BYTES, words),
        Tensor("weight", DType.FP32, random.normal(size=rows).astype(np.float32)),
    ]
    return binding.bind(SIGNATURE, tensors, {})


def received(bounds: Sequence[Bound]) -> Waiting:
    """What a worker has of a batch that a gateway sent."""
    padded = bounds[0].padded
    assert padded is not None
    heads, parts, sizes = ragged.pack(bounds, padded.padding)
    run = RunHead(1, [bound.rows for bound in bounds], heads, {}, 64, True, 0, sizes)
    sent = messages.frame(messages.RUN, run, messages.total_bytes(heads)) + b"".join(map(bytes, parts))
    frame = messages.parse(memoryview(sent))
    head = messages.decode_run(frame.head)
    assert head.ragged is not None
    return Waiting(None, frame, head, [], blocks=ragged.unpack(head, head.ragged, frame.payload))  # type: ignore[arg-type]


@given(CALLS, CALLS)
def test_blocks_are_joined_and_filled_up_to_the_longest(
    mine: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    batches = [[request(*call, seed=at) for at, call in enumerate(calls)] for calls in (mine, others)]
    group = [received(bounds) for bounds in batches]
    assert compatible(*group)
    longest = max(length for _, length in (*mine, *others))
    sizes = padded_to(group)
    assert sizes == (longest,)
    inputs = join(group, sizes)
    rows = sum(count for count, _ in (*mine, *others))
    assert {name: array.shape for name, array in inputs.items()} == {
        "ids": (rows, longest, 2), "words": (rows, longest), "weight": (rows,),
    }  # fmt: skip
    at = 0
    for bound in (*batches[0], *batches[1]):
        ids, words, weight = bound.arrays
        end, length = at + bound.rows, ids.shape[1]
        assert inputs["ids"][at:end, :length].tolist() == ids.tolist()
        assert (inputs["ids"][at:end, length:] == -1).all()
        assert inputs["words"][at:end, :length].tolist() == words.tolist()
        assert (inputs["words"][at:end, length:] == b"?").all()
        assert inputs["weight"][at:end].tolist() == weight.tolist()
        at = end


def test_a_lone_request_is_neither_padded_nor_copied() -> None:
    waiting = received([request(2, 5)])
    inputs = join([waiting], padded_to([waiting]))
    assert inputs["ids"].shape == (2, 5, 2)
    assert not inputs["ids"].flags.writeable, "a view on the frame"


def test_what_may_not_be_joined() -> None:
    text = received([request(1, 5)])
    exact = received([request(1, 6)])
    assert compatible(text, exact)
    exact.head = msgspec.structs.replace(exact.head, ragged=None)
    assert not compatible(text, exact)
    assert not compatible(text, received([request(1, 3)])), "of another bucket"
    assert text.head.ragged is not None
    changed = msgspec.structs.replace(TEXT, buckets=(8,))
    settings_changed = received([request(1, 6)])
    other = messages.Ragged(changed, [(6,)])
    settings_changed.head = msgspec.structs.replace(settings_changed.head, ragged=other)
    assert not compatible(text, settings_changed), "a gateway that follows other settings"


@pytest.mark.parametrize("sizes", [[(5,)], [(5,), (7,)], [(5,), (6,), (6,)]])
def test_frames_whose_sizes_do_not_fit_are_refused(sizes: list[tuple[int, ...]]) -> None:
    heads = [TensorHead("ids", "INT64", (2, 8, 2), (5 + 6) * 2 * 8)]
    head = RunHead(1, [1, 1], heads, {}, 64, True, 0, messages.Ragged(TEXT, sizes))
    assert head.ragged is not None
    with pytest.raises(BadFrame):
        ragged.unpack(head, head.ragged, memoryview(bytes(heads[0].nbytes)))


# --- a real model ---


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Answers of the masked model to batches of gateways, as their callers get them."""
    path = models.onnx_masked(tmp_path_factory.mktemp("masked"))
    runtime = onnx.load(inspect.inspect(path), LoadOptions())
    rules = PaddingRules({"input_ids": 0, "attention_mask": 0}, (4, 8, 16))
    padding = resolve(runtime.signature, runtime.slots, runtime.dims(), rules)
    signature = msgspec.structs.replace(runtime.signature, padding=padding)

    def ask(gateways: list[list[dict[str, Array]]]) -> list[dict[str, Array]]:
        batches = [[bind(signature, inputs) for inputs in requests] for requests in gateways]
        group = [received(bounds) for bounds in batches]
        assert all(compatible(group[0], other) for other in group[1:])
        sizes = padded_to(group)
        rows = [count for waiting in group for count in waiting.head.rows]
        computed = execution.run_batch(runtime, join(group, sizes), rows, {}, idempotent=True)
        assert padding is not None
        computed = execution.of_sizes(computed, padding, sizes, len(rows))
        assert not computed.failures
        parts = split(group, computed)
        return [found for bounds, part in zip(batches, parts, strict=True) for found in cut(bounds, part.outputs)]

    yield runtime, ask
    runtime.close()


def bind(signature: Signature, inputs: dict[str, Array]) -> Bound:
    return binding.bind(signature, [Tensor(name, DType.INT64, array) for name, array in inputs.items()], {})


def cut(bounds: list[Bound], outputs: dict[str, Array]) -> list[dict[str, Array]]:
    found, at = [], 0
    for bound in bounds:
        assert bound.padded is not None
        mine = [Tensor(name, DType.FP32, array[at : at + bound.rows]) for name, array in outputs.items()]
        found.append({t.name: t.array for t in bound.padded.padding.cut(mine, bound.padded.sizes)})
        at += bound.rows
    return found


def texts(rows: int, length: int, seed: int) -> dict[str, Array]:
    """Token ids with a mask that has holes, but not only holes."""
    random = np.random.default_rng(seed)
    mask = random.integers(0, 2, (rows, length))
    mask[:, :1] = 1
    return {"input_ids": random.integers(0, 100, (rows, length)), "attention_mask": mask}


@settings(deadline=None)
@given(st.data())
def test_padded_and_batched_equals_alone(
    answer: tuple[Any, Callable[[list[list[dict[str, Array]]]], list[dict[str, Array]]]], data: st.DataObject
) -> None:
    runtime, ask = answer
    low, high = data.draw(st.sampled_from([(1, 4), (5, 8), (9, 16)]))
    call = st.tuples(st.integers(0, 4), st.integers(low, high), st.integers(0, 1 << 30))
    gateways = data.draw(st.lists(st.lists(call, min_size=1, max_size=6), min_size=1, max_size=3))
    requests = [[texts(*one) for one in of_gateway] for of_gateway in gateways]
    answers = ask(requests)
    for inputs, got in zip([one for of_gateway in requests for one in of_gateway], answers, strict=True):
        alone = runtime.predict(inputs, {})
        assert got.keys() == alone.keys()
        for name, array in alone.items():
            assert got[name].shape == array.shape, name
            if array.dtype.kind == "f":
                np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
            else:
                assert got[name].tolist() == array.tolist(), name


def test_outputs_that_cannot_be_cut_back_fail_their_calls() -> None:
    computed = execution.Computed({"y": np.zeros((3, 4))}, [], 7)
    failed = execution.of_sizes(computed, TEXT, (8,), 2)
    assert (failed.outputs, failed.compute, [f.code for f in failed.failures]) == ({}, 7, ["bad_model_output"] * 2)
    assert "does not follow 'n'" in failed.failures[0].message
    assert execution.of_sizes(computed, TEXT, (4,), 2) is computed
