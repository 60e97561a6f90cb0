"""Streams as golden requests: what events do not carry comes from what the model declares, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headrace.cli.prediction_recording import recording
from headrace.client import ModelMetadata
from headrace.core import errors
from headrace.core.comparison import EXACT, compare
from headrace.core.models import TensorSpec
from headrace.core.requests import InferenceResponse
from headrace.core.tensors import NUMPY_DTYPES, DType, Tensor
from headrace.protocols import golden_lines, oip_generate
from headrace.protocols.golden_lines import GoldenRequest

X = TensorSpec("x", DType.FP32, (-1,))
INPUT = Tensor("x", DType.FP32, np.array([1.0], np.float32))


def metadata(*outputs: TensorSpec, inputs: tuple[TensorSpec, ...] = (X,)) -> ModelMetadata:
    return ModelMetadata("m", ("1",), "python", inputs, outputs)


def recorded(folder: Path, *events: dict[str, Any], of: ModelMetadata, given: Tensor = INPUT) -> GoldenRequest:
    path = folder / "golden.jsonl"
    with recording(path) as recorder:
        recorder.add_stream([given], {}, events, of)
    [found] = golden_lines.read(path.read_bytes(), "golden.jsonl")
    return found


def event(*outputs: Tensor) -> dict[str, Any]:
    """What a client gets for this response."""
    data = oip_generate.render_generate_event(InferenceResponse("m", "1", list(outputs))).removeprefix(b"data: ")
    return msgspec.json.decode(data, type=dict[str, Any])


@st.composite
def responses(draw: st.DrawFn) -> tuple[TensorSpec, list[Tensor]]:
    """An output with at most one free dimension, and values that JSON can hold."""
    dtype = draw(st.sampled_from(list(DType)))
    fixed = draw(st.lists(st.integers(1, 3), max_size=2))
    free = draw(st.none() | st.integers(0, len(fixed)))
    spec = TensorSpec("y", dtype, tuple(fixed) if free is None else (*fixed[:free], -1, *fixed[free:]))
    shapes = st.integers(0, 3).map(lambda size: tuple(size if dim == -1 else dim for dim in spec.shape))
    if dtype is DType.BYTES:
        elements: Any = st.text(max_size=5).map(str.encode)
        values = shapes.flatmap(lambda shape: arrays.arrays(object, shape, elements=elements))
    elif dtype is DType.BF16:
        values = shapes.flatmap(lambda shape: arrays.arrays(np.uint16, shape, elements=st.integers(0, 0x7F7F)))
    else:
        finite = {"allow_nan": False, "allow_infinity": False} if np.dtype(NUMPY_DTYPES[dtype]).kind == "f" else {}
        numbers = arrays.from_dtype(np.dtype(NUMPY_DTYPES[dtype]), **finite)
        values = shapes.flatmap(lambda shape: arrays.arrays(NUMPY_DTYPES[dtype], shape, elements=numbers))
    return spec, [Tensor("y", dtype, array) for array in draw(st.lists(values, max_size=3))]


@given(responses())
def test_what_a_model_streamed_is_recorded_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, streamed: tuple[TensorSpec, list[Tensor]]
) -> None:
    spec, wanted = streamed
    folder = tmp_path_factory.mktemp("recording")
    found = recorded(folder, *(event(tensor) for tensor in wanted), of=metadata(spec))
    assert len(found.answer) == len(wanted)
    for tensor, response in zip(wanted, found.answer, strict=True):
        assert compare([tensor], response, {"y": EXACT}).differences == ()


@pytest.mark.parametrize(
    ("of", "given", "says"),
    [
        (metadata(), INPUT, "does not declare its inputs and outputs"),
        (metadata(X, inputs=()), INPUT, "does not declare its inputs and outputs"),
        (
            metadata(TensorSpec("x", DType.FP32, (-1, -1))),
            INPUT,
            r"2 values may have several that fit output 'x' \[-1, -1\]; write the lines by hand",
        ),
        (
            metadata(X, inputs=(TensorSpec("x", DType.FP32, (-1, -1)),)),
            Tensor("x", DType.FP32, np.ones((2, 2), np.float32)),
            r"the server takes another one than \[2, 2\] for input 'x' \[-1, -1\]",
        ),
        (metadata(X, TensorSpec("z", DType.FP32, (-1,))), INPUT, "a response came without output 'z'"),
    ],
)
def test_what_a_stream_does_not_tell_is_not_guessed(
    tmp_path: Path, of: ModelMetadata, given: Tensor, says: str
) -> None:
    with pytest.raises(errors.Unsupported, match=says):
        recorded(tmp_path, {"x": [1.0, 2.0]}, of=of, given=given)
    assert list(tmp_path.iterdir()) == []
