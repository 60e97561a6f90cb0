"""What is declared about padding against what a model has: taken, or refused with what to say instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.core import errors
from headrace.core.models import Signature, SlotKind, Slots, TensorSpec
from headrace.core.padding import DEFAULT_BUCKETS, PaddedInput, PaddingRules, Value
from headrace.core.tensors import DType
from headrace.runtimes import declarations, onnx
from headrace.runtimes.inspect import inspect
from headrace.runtimes.model import Model
from headrace.runtimes.padding import resolve
from headrace.runtimes.runtime import LoadOptions, Runtime
from tests import models

IDS = TensorSpec("ids", DType.INT64, (-1, -1))
MASK = TensorSpec("mask", DType.INT64, (-1, -1))
SCORES = TensorSpec("scores", DType.FP32, (-1, -1))
MEAN = TensorSpec("mean", DType.FP32, (-1, 8))
TEXT = Signature((IDS, MASK), (SCORES, MEAN))
NAMES = {"ids": ("n", "t"), "mask": ("n", "t"), "scores": ("n", "t"), "mean": ("n", "")}
BOTH: dict[str, Value] = {"ids": 0, "mask": 0}


def test_equal_names_of_the_artifact_are_one_dimension() -> None:
    padding = resolve(TEXT, Slots(), NAMES, PaddingRules(BOTH))
    assert padding is not None
    assert (padding.dims, padding.buckets) == (("t",), DEFAULT_BUCKETS)
    assert padding.inputs == {name: PaddedInput(((0, 0),), 0) for name in ("ids", "mask")}
    assert padding.outputs == {"scores": ((0, 0),)}


def test_dimensions_without_names_are_named_by_declaration() -> None:
    rules = PaddingRules(BOTH, (32, 16, 16), {"scores": ("length",)})
    padding = resolve(TEXT, Slots(), {}, rules)
    assert padding is not None
    assert (padding.dims, padding.buckets) == (("length",), (16, 32))
    assert padding.outputs == {"scores": ((0, 0),)}


def test_an_output_may_be_declared_to_have_a_size_of_its_own() -> None:
    padding = resolve(TEXT, Slots(), {}, PaddingRules(BOTH, (), {"scores": ("classes",)}))
    assert padding is not None
    assert padding.outputs == {}


def test_an_output_that_follows_an_input_of_exact_size_is_left() -> None:
    signature = Signature((IDS, TensorSpec("prompt", DType.INT64, (-1, -1))), (SCORES,))
    names = {"ids": ("n", "t"), "prompt": ("n", "p"), "scores": ("n", "p")}
    padding = resolve(signature, Slots(), names, PaddingRules({"ids": 0}))
    assert padding is not None
    assert padding.outputs == {}


def test_nothing_is_padded_without_a_declaration() -> None:
    assert resolve(TEXT, Slots(), NAMES, PaddingRules()) is None


@pytest.mark.parametrize(
    ("names", "rules", "words"),
    [
        (NAMES, PaddingRules({}, (16,)), "pad names none"),
        (NAMES, PaddingRules({"ids": 0}), "dimension 1 of input 'mask' has 't', which is padded"),
        ({}, PaddingRules({"ids": 0}), "dimension 1 of input 'mask' has any size, and nothing names it"),
        (NAMES, PaddingRules({"idz": 0}), "pad names 'idz', which the model does not have; it has ids, mask"),
        (NAMES, PaddingRules(BOTH, (), {"nope": ("t",)}), "dims names 'nope'"),
        (NAMES, PaddingRules(BOTH, (), {"scores": ("t", "u")}), "dims names 2 dimensions of 'scores', which has 1"),
        (NAMES, PaddingRules(BOTH, (), {"scores": ("u",)}), "the model calls it 't', which is padded"),
        (NAMES, PaddingRules(BOTH, (0, 8)), "buckets are lengths of at least 1"),
        ({}, PaddingRules(BOTH), "dimension 1 of output 'scores' follows length: name it in dims"),
        (
            {**NAMES, "scores": ("n", "floor(t/2)")},
            PaddingRules(BOTH),
            r"dimension 1 of output 'scores' \(floor\(t/2\)\) follows t",
        ),
        (NAMES, PaddingRules({**BOTH, "ids": "x"}), "'x' is no value of input 'ids', which is INT64"),
        (NAMES, PaddingRules({**BOTH, "ids": 0.5}), r"0\.5 is no value"),
        (NAMES, PaddingRules({**BOTH, "ids": 1 << 64}), "is no value"),
    ],
)
def test_what_does_not_fit_or_is_not_enough_is_refused(
    names: dict[str, tuple[str, ...]], rules: PaddingRules, words: str
) -> None:
    with pytest.raises(errors.LoadFailed, match=words):
        resolve(TEXT, Slots(), names, rules)


@pytest.mark.parametrize(
    ("signature", "slots", "words"),
    [
        (Signature((IDS, MASK), (SCORES,), batchable=False), Slots(), "takes one at a time"),
        (TEXT, Slots(SlotKind.CONCURRENT, 4), "takes one at a time"),
        (Signature((IDS, MASK), ()), Slots(), "declared: this one's are not"),
        (Signature((), (), any_inputs=True), Slots(), "declared: this one's are not"),
        (Signature((TensorSpec("ids", DType.INT64, (-1, 7)), MASK), (MEAN,)), Slots(), "has no dimension of any size"),
        (Signature((TensorSpec("ids", DType.INT64, (-1, -1, -1)), MASK), (MEAN,)), Slots(), "name them in dims"),
    ],
)
def test_models_that_cannot_be_padded_are_refused(signature: Signature, slots: Slots, words: str) -> None:
    with pytest.raises(errors.LoadFailed, match=words):
        resolve(signature, slots, {}, PaddingRules(BOTH))


@pytest.mark.parametrize(
    ("dtype", "given", "value"),
    [
        (DType.INT64, "-1", -1),
        (DType.UINT8, 255, 255),
        (DType.FP32, "-inf", float("-inf")),
        (DType.FP16, "0.5", 0.5),
        (DType.BF16, "1", 0x3F80),
        (DType.BOOL, "false", False),
        (DType.BOOL, True, True),
        (DType.BYTES, "pad", "pad"),
        (DType.BYTES, 0, "0"),
        (DType.UINT8, 256, None),
        (DType.FP32, "nan", None),
        (DType.BOOL, "2", None),
    ],
)
def test_values_are_read_as_the_input_has_them(dtype: DType, given: Value, value: Value | None) -> None:
    signature = Signature((TensorSpec("x", dtype, (-1, -1)),), (MEAN,))
    if value is None:
        with pytest.raises(errors.LoadFailed, match="is no value of input 'x'"):
            resolve(signature, Slots(), {}, PaddingRules({"x": given}))
        return
    padding = resolve(signature, Slots(), {}, PaddingRules({"x": given}))
    assert padding is not None
    assert padding.inputs["x"].value == value
    assert type(padding.inputs["x"].value) is type(value)


def test_dimensions_of_onnx_have_names(tmp_path: Path) -> None:
    runtime = onnx.load(inspect(models.onnx_masked(tmp_path)), LoadOptions())
    names = ("batch", "sequence")
    assert runtime.dims() == {
        "input_ids": names,
        "attention_mask": names,
        "mean": ("batch", ""),
        "weights": names,
        "sums": names,
        "count": ("batch",),
    }
    padding = resolve(
        runtime.signature, runtime.slots, runtime.dims(), PaddingRules({"input_ids": 0, "attention_mask": 0})
    )
    assert padding is not None
    assert padding.outputs == {"weights": ((0, 0),), "sums": ((0, 0),)}
    runtime.close()


DECLARES = """
import headrace

class Declares(headrace.Model):
    pad = {"tokens": 0}
    buckets = (8, 16)
    dims = {"scores": "length", "pairs": ("length", "length")}

    def predict(self, tokens: headrace.Int64[-1]) -> {"scores": headrace.Int64[-1], "pairs": headrace.Int64[-1, -1]}:
        return {"scores": tokens, "pairs": tokens[:, :, None] * tokens[:, None, :]}
"""


def test_a_class_declares_beside_batchable(load: Callable[..., Runtime], tmp_path: Path) -> None:
    (tmp_path / "declares.py").write_text(DECLARES)
    runtime = load(tmp_path / "declares.py")
    rules = runtime.padding()
    assert rules == PaddingRules({"tokens": 0}, (8, 16), {"scores": ("length",), "pairs": ("length", "length")})
    padding = resolve(runtime.signature, runtime.slots, runtime.dims(), rules)
    assert padding is not None
    assert padding.outputs == {"scores": ((0, 0),), "pairs": ((0, 0), (1, 0))}
    assert declarations.padding_rules(Model()) == PaddingRules()


@pytest.mark.parametrize(
    ("attributes", "words"),
    [({"pad": ["tokens"]}, r"pad is no mapping; write e.g. pad = "), ({"pad": {"tokens": None}}, "is no number")],
)
def test_a_class_that_declares_nonsense_is_refused(attributes: dict[str, Any], words: str) -> None:
    model = type("Wrong", (Model,), attributes)()
    with pytest.raises(errors.LoadFailed, match=words):
        declarations.padding_rules(model)
