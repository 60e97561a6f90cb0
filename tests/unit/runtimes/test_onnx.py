"""ONNX: values equal the framework's, shapes decide about batches, every element type goes in and out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from headrace.core import errors, tensors
from headrace.core.models import Format, SlotKind
from headrace.core.tensors import DType
from headrace.runtimes import table
from headrace.runtimes.inspect import inspect
from headrace.runtimes.runtime import LoadOptions, Runtime
from tests import models

Load = Callable[..., Runtime]


def test_values_are_those_of_the_framework_and_of_the_trained_model(load: Load) -> None:
    inputs = models.inputs("onnx", 20)
    outputs = load("onnx").predict(inputs, {})
    session = onnxruntime.InferenceSession(models.build("onnx"), providers=["CPUExecutionProvider"])
    for name, expected in zip(("label", "probabilities"), session.run(None, inputs), strict=True):
        np.testing.assert_array_equal(outputs[name], expected)
    trained = models._cancer_classifier().predict(inputs["X"].astype(np.float64))
    np.testing.assert_array_equal(outputs["label"], trained)


def test_zipmap_becomes_a_matrix_with_labels(load: Load) -> None:
    inputs = models.inputs("onnx", 7)
    runtime = load("onnx-zipmap")
    outputs = runtime.predict(inputs, {})
    np.testing.assert_array_equal(outputs["output_probability"], load("onnx").predict(inputs, {})["probabilities"])
    spec = {s.name: s for s in runtime.signature.outputs}["output_probability"]
    assert (spec.shape, spec.labels, runtime.signature.batchable) == ((-1, 2), ("0", "1"), True)


def test_zipmap_of_no_rows_keeps_its_width(load: Load) -> None:
    outputs = load("onnx-zipmap").predict({"X": np.zeros((0, 30), np.float32)}, {})
    assert outputs["output_probability"].shape == (0, 2)


def test_string_inputs_and_labels(load: Load) -> None:
    inputs = models.inputs("onnx-strings", 40)
    outputs = load("onnx-strings").predict(inputs, {})
    columns = {n: a.ravel() for n, a in inputs.items()}
    frame = {n: [v.decode() for v in a] if a.dtype == object else a.astype(np.float64) for n, a in columns.items()}
    import pandas as pd

    expected = models.mixed_pipeline().predict(pd.DataFrame(frame))
    assert [label.decode() for label in outputs["label"]] == list(expected)
    assert {b"fraud", b"fine"} == set(outputs["label"])


def test_a_string_that_is_not_utf8_is_the_callers_error(load: Load) -> None:
    inputs = models.inputs("onnx-strings", 1)
    inputs["country"] = np.array([[b"\xff\xfe"]], dtype=object)
    with pytest.raises(errors.InvalidInput, match="input 'country' is not valid UTF-8"):
        load("onnx-strings").predict(inputs, {})


def test_bf16_is_exact(load: Load) -> None:
    values = np.array([[0.5, -1.0, 3.0, 2.0**100], [np.inf, -np.inf, 0.0, 1.0]], np.float32)
    runtime = load("onnx-bf16")
    outputs = runtime.predict({"X": tensors.fp32_to_bf16(values)}, {})
    np.testing.assert_array_equal(tensors.bf16_to_fp32(outputs["Y"]), values + values)
    assert [s.dtype for s in runtime.signature.inputs + runtime.signature.outputs] == [DType.BF16, DType.BF16]


def test_fp16_and_int64(load: Load) -> None:
    half = np.array([[1.5, -2.0, 0.0, 100.0]], np.float16)
    np.testing.assert_array_equal(load("onnx-fp16").predict({"X": half}, {})["Y"], half + half)
    inputs = {"A": np.array([[2**62, 1, 2]]), "B": np.array([[-1, 5, 2]])}
    outputs = load("onnx-int64").predict(inputs, {})
    np.testing.assert_array_equal(outputs["SUM"], inputs["A"] + inputs["B"])
    np.testing.assert_array_equal(outputs["DIFFERENCE"], inputs["A"] - inputs["B"])


def test_a_fixed_batch_is_served_singly(load: Load) -> None:
    runtime = load("onnx-fixed-batch")
    assert not runtime.signature.batchable
    assert runtime.signature.inputs[0].shape == (1, 4)
    assert runtime.slots.kind is SlotKind.BATCH
    assert not load("onnx-fixed-batch", batchable="yes").signature.batchable


def test_an_option_overrides_what_the_shapes_say(load: Load) -> None:
    assert not load("onnx-int64", batchable="no").signature.batchable
    assert load("onnx-count-varies", batchable="yes").signature.batchable


def _graph(path: Path, op: str, inputs: list[list[object]], outputs: list[list[object]], **attributes: object) -> Path:
    names = [f"i{k}" for k in range(len(inputs))]
    made = [f"o{k}" for k in range(len(outputs))]
    float_type = TensorProto.FLOAT
    return models.write_graph(
        path,
        [helper.make_node(op, names, made, **attributes)],
        [(name, float_type, list(shape)) for name, shape in zip(names, inputs, strict=True)],
        [(name, float_type, list(shape)) for name, shape in zip(made, outputs, strict=True)],
    )


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "batchable"),
    [
        ("Identity", [["N", 3]], [["N", 3]], True),
        ("Identity", [["N", 3]], [["other", 3]], True),  # a doubt, but the rows follow
        ("Add", [["N", 3], ["N", 3]], [["N", 3]], True),
        ("Add", [["N", 3], ["N", 3]], [[None, 3]], True),
        ("Add", [["N", 3], [3]], [["N", 3]], False),  # a weight among the inputs
        ("Identity", [[]], [[]], False),  # no rows at all
        ("Identity", [[2, 3]], [[2, 3]], False),
    ],
)
def test_which_shapes_are_batchable(
    tmp_path: Path, load: Load, op: str, inputs: list[list[object]], outputs: list[list[object]], batchable: bool
) -> None:
    assert load(_graph(tmp_path / "m.onnx", op, inputs, outputs)).signature.batchable is batchable


def test_a_model_that_adds_its_rows_up_is_found_out(tmp_path: Path, load: Load) -> None:
    path = _graph(tmp_path / "m.onnx", "ReduceSum", [["N", 3]], [["M", 3]], keepdims=1)
    # Reduced over everything: one row comes out, whatever goes in.
    assert not load(path).signature.batchable


def test_several_inputs_with_different_row_names_are_tried(tmp_path: Path, load: Load) -> None:
    path = _graph(tmp_path / "m.onnx", "MatMul", [["N", "K"], ["K", 4]], [["N", 4]])
    assert not load(path).signature.batchable


def test_weights_in_a_second_file_are_loaded_and_hashed(tmp_path: Path, load: Load) -> None:
    path = models.build("onnx-external-data", tmp_path)
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(load(path).predict({"X": x}, {})["Y"], [[12, 16], [12, 16]])
    before = inspect(path).digest
    data = tmp_path / "external.onnx.data"
    data.write_bytes(bytes(len(data.read_bytes())))
    assert inspect(path).digest != before


def test_a_missing_second_file_is_named(tmp_path: Path) -> None:
    path = models.build("onnx-external-data", tmp_path)
    (tmp_path / "external.onnx.data").unlink()
    with pytest.raises(errors.InvalidInput, match=r"weights are in 'external.onnx.data', which is missing"):
        inspect(path)


def test_an_operator_nobody_knows_fails_the_load_with_its_name(tmp_path: Path, load: Load) -> None:
    graph = helper.make_graph(
        [helper.make_node("Teleport", ["X"], ["Y"], domain="acme")],
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["N"])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=9), str(tmp_path / "m.onnx"))
    with pytest.raises(errors.LoadFailed, match="Teleport"):
        load(tmp_path / "m.onnx")


def test_outputs_that_no_answer_can_carry_fail_the_load(tmp_path: Path, load: Load) -> None:
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["X", "X"], ["Y"])],
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_sequence_value_info("Y", TensorProto.FLOAT, ["N"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, str(tmp_path / "m.onnx"))
    with pytest.raises(errors.LoadFailed, match="output 'Y' is a seq"):
        load(tmp_path / "m.onnx")


def test_options_are_checked(load: Load) -> None:
    with pytest.raises(errors.BadSettings, match="did you mean 'batchable'"):
        load("onnx", batchabel="no")
    with pytest.raises(errors.LoadFailed, match=r"no provider 'TPUExecutionProvider'; it has .*CPU"):
        load("onnx", providers="TPUExecutionProvider")


def test_threads_are_bounded() -> None:
    artifact = inspect(models.build("onnx"))
    runtime = table.load(artifact, LoadOptions(threads=2))
    settings = runtime._session.get_session_options()  # type: ignore[attr-defined]
    assert (settings.intra_op_num_threads, settings.inter_op_num_threads) == (2, 1)
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_closed_model_says_so(load: Load) -> None:
    runtime = load("onnx")
    runtime.close()
    with pytest.raises(errors.Bug, match="closed"):
        runtime.predict(models.inputs("onnx"), {})


def test_a_truncated_file_never_reaches_the_framework(tmp_path: Path) -> None:
    whole = models.build("onnx").read_bytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[:-100])
    with pytest.raises(errors.InvalidInput, match=r"ends too early: at least [1-9][0-9]? bytes are missing"):
        inspect(path)


def test_artifact_of_a_model_without_code() -> None:
    artifact = inspect(models.build("onnx"))
    assert (artifact.format, artifact.runtime, artifact.code_bearing) == (Format.ONNX, "onnx", False)
