"""ONNX files are told by their protobuf fields; weights outside are found wherever they hide."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from headrace.core import errors
from headrace.runtimes import onnx_file
from tests import models

ONNX_KINDS = [kind for kind in models.KINDS if kind.startswith("onnx")]


@pytest.mark.parametrize("kind", models.KINDS)
def test_only_onnx_is_onnx(kind: str) -> None:
    path = models.build(kind)
    if path.is_file():
        assert onnx_file.is_onnx(memoryview(path.read_bytes())) is (kind in ONNX_KINDS)


def _tensor(location: str) -> onnx.TensorProto:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], np.zeros(1, np.float32).tobytes(), raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def _model(location: str, where: str) -> memoryview:
    tensor = _tensor(location)
    inner = helper.make_graph([], "inner", [], [], [tensor] if where == "branch" else [])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tensor) if where == "constant" else
        helper.make_node("If", ["x"], ["c"], then_branch=inner, else_branch=inner)
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [], [], [tensor] if where == "initializer" else [])
    return memoryview(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
def test_files_of_weights_are_found(where: str) -> None:
    assert onnx_file.external_files(_model("sub/weights.bin", where)) == ["sub/weights.bin"]


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../b", "..\\b", "\\share"])
def test_weights_must_stay_in_the_folder(location: str) -> None:
    with pytest.raises(errors.InvalidInput, match="outside its folder"):
        onnx_file.external_files(_model(location, "initializer"))


def test_models_with_their_weights_inside_name_no_files() -> None:
    assert onnx_file.external_files(memoryview(models.build("onnx-cnn").read_bytes())) == []


@settings(max_examples=60, deadline=None)
@given(st.floats(0.02, 0.999))
def test_a_cut_off_file_is_never_taken_for_whole(fraction: float) -> None:
    whole = models.build("onnx-cnn").read_bytes()
    part = memoryview(whole[: int(len(whole) * fraction)])
    with contextlib.suppress(errors.InvalidInput):
        assert not onnx_file.is_onnx(part)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_end_in_an_answer(data: bytes) -> None:
    for start in (b"", b"\x08\x07"):
        with contextlib.suppress(errors.InvalidInput):
            assert onnx_file.is_onnx(memoryview(start + data)) in (True, False)


def test_the_walk_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_file, "_MAX_FIELDS", 5)
    with pytest.raises(errors.InvalidInput, match="too many parts"):
        onnx_file.external_files(_model("w.bin", "initializer"))
    monkeypatch.setattr(onnx_file, "_MAX_TOP_FIELDS", 3)
    assert not onnx_file.is_onnx(memoryview(b"\x08\x07" * 10))
