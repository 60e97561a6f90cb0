"""Models written by users: every form of signature, honest results, streams, and errors that name the line."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

import headrace
from headrace.core import errors
from headrace.core.models import Artifact, Format, SlotKind
from headrace.core.tensors import DType
from headrace.runtimes import table, trust
from headrace.runtimes.runtime import LoadOptions, Runtime
from tests import models

Load = Callable[..., Runtime]
Write = Callable[[str, str], Path]


def _text(*values: str) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    out[:] = [value.encode() for value in values]
    return out


@pytest.fixture
def model(write: Write, load: Load) -> Callable[..., Runtime]:
    """A loaded model from the body of a class; ``headrace``, ``np`` and typing names are there."""

    def from_body(body: str, before: str = "", name: str = "model.py") -> Runtime:
        head = "import headrace\nimport numpy as np\nfrom typing import *\n" + before
        lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
        return load(write(name, f"{head}\nclass Mine(headrace.Model):\n{lines}\n"))

    return from_body


def test_columns_in_and_out(load: Load) -> None:
    runtime = load("python")
    signature = runtime.signature
    assert [(s.name, s.dtype, s.shape) for s in signature.inputs] == [
        ("sku", DType.BYTES, (-1,)),
        ("qty", DType.INT64, (-1,)),
    ]
    assert [(s.name, s.dtype, s.shape) for s in signature.outputs] == [("price", DType.FP32, (-1,))]
    assert signature.columns
    assert signature.batchable
    assert runtime.slots.kind is SlotKind.BATCH
    outputs = runtime.predict({"sku": _text("apple", "küche"), "qty": np.array([2, 1])}, {})
    np.testing.assert_array_equal(outputs["price"], np.array([3.0, 99.5], np.float32))
    assert outputs["price"].dtype == np.float32


def test_what_predict_raises_goes_through(load: Load) -> None:
    with pytest.raises(KeyError, match="plum"):
        load("python").predict({"sku": _text("plum"), "qty": np.array([1])}, {})


def test_strings_that_are_not_utf8_are_the_callers_error(load: Load) -> None:
    with pytest.raises(errors.InvalidInput, match="input 'sku' is not valid UTF-8"):
        load("python").predict({"sku": np.array([b"\xff"], dtype=object), "qty": np.array([1])}, {})


def test_one_output_is_called_output(model: Load) -> None:
    runtime = model("def predict(self, x: headrace.Float32) -> headrace.Float64: return x * 2")
    assert [s.name for s in runtime.signature.outputs] == ["output"]
    outputs = runtime.predict({"x": np.array([1.5], np.float32)}, {})
    assert outputs["output"].dtype == np.float64
    assert outputs["output"].tolist() == [3.0]


@pytest.mark.parametrize(
    ("annotation", "shape", "dtype"),
    [
        ("headrace.Float32[3, 224, 224]", (-1, 3, 224, 224), DType.FP32),
        ("headrace.UInt8[-1]", (-1, -1), DType.UINT8),
        ("Annotated[headrace.Float16, headrace.Shape(-1, 7)]", (-1, 7), DType.FP16),
        ("headrace.Bool", (-1,), DType.BOOL),
        ("headrace.Bytes", (-1,), DType.BYTES),
        ("headrace.BFloat16[2]", (-1, 2), DType.BF16),
    ],
)
@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
def test_shapes_and_dtypes(
    write: Write, load: Load, annotation: str, shape: tuple[int, ...], dtype: DType, future: str
) -> None:
    source = f"{future}\nfrom typing import Annotated\nimport headrace\nclass M(headrace.Model):\n"
    source += f"    def predict(self, x: {annotation}) -> {{'y': headrace.Int64}}: return {{'y': [0] * len(x)}}\n"
    spec = load(write("m.py", source)).signature.inputs[0]
    assert (spec.shape, spec.dtype) == (shape, dtype)


def test_results_may_be_declared_by_classes(model: Load) -> None:
    before = """
from dataclasses import dataclass
class Typed(TypedDict):
    a: headrace.Float32
    b: headrace.Strings
class Named(NamedTuple):
    a: headrace.Float32
    b: headrace.Strings
@dataclass
class Data:
    a: headrace.Float32
    b: headrace.Strings
"""
    for index, (returned, value) in enumerate(
        [("Typed", '{"b": ["x"], "a": [1]}'), ("Named", 'Named([1], ["x"])'), ("Data", 'Data([1], ["x"])')]
    ):
        body = f"def predict(self, x: headrace.Int64) -> {returned}: return {value}"
        outputs = model(body, before, f"m{index}.py").predict({"x": np.array([1])}, {})
        assert outputs["a"].dtype == np.float32
        assert outputs["b"].tolist() == [b"x"]


def test_optional_inputs(model: Load) -> None:
    runtime = model(
        """
def predict(
    self, x: headrace.Float32, bias: headrace.Float32 | None, scale: Optional[headrace.Float32] = None
) -> headrace.Float32:
    assert scale is None
    return x if bias is None else x + bias
"""
    )
    assert [s.optional for s in runtime.signature.inputs] == [False, True, True]
    x = np.array([1.0], np.float32)
    assert runtime.predict({"x": x}, {})["output"].tolist() == [1.0]
    assert runtime.predict({"x": x, "bias": x}, {})["output"].tolist() == [2.0]


def test_request_parameters(model: Load) -> None:
    runtime = model(
        """
parameters = ("mode",)
def predict(self, x: headrace.Float32, scale: float = 2.0, mode="plain") -> headrace.Float32:
    return x * scale + (100 if mode == "loud" else 0)
"""
    )
    assert sorted(runtime.signature.parameters) == ["mode", "scale"]
    x = {"x": np.array([1.0], np.float32)}
    assert runtime.predict(x, {})["output"].tolist() == [2.0]
    assert runtime.predict(x, {"scale": 3.0, "mode": "loud"})["output"].tolist() == [103.0]


def test_without_annotations_all_inputs_come_as_a_dict(model: Load) -> None:
    runtime = model(
        """
def predict(self, inputs):
    return {name + "_out": array for name, array in inputs.items()}
"""
    )
    assert runtime.signature.any_inputs
    assert runtime.signature.batchable
    assert not runtime.signature.columns
    outputs = runtime.predict({"a": np.array([1, 2]), "s": _text("x", "y")}, {})
    assert outputs["a_out"].tolist() == [1, 2]
    assert outputs["s_out"].tolist() == [b"x", b"y"]


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ("Float32", "[1, 2.5]", [1.0, 2.5]),
        ("Float32", "7", [7.0]),
        ("Int64", "np.array([1, 2], np.int8)", [1, 2]),
        ("UInt8", "[0, 255]", [0, 255]),
        ("Int64", "[True, False]", [1, 0]),
        ("Bool", "[True]", [True]),
        ("Strings", "['a', 'ü']", [b"a", "ü".encode()]),
        ("Strings", "'one'", [b"one"]),
        ("Strings", "np.array(['a', 'bc'])", [b"a", b"bc"]),
        ("Strings", "[b'z\\0']", [b"z\0"]),
        ("Bytes", "[b'\\xff']", [b"\xff"]),
        ("Strings", "[None, 1.5]", [b"", b"1.5"]),
        ("Float32", "[]", []),
    ],
)
def test_results_become_the_declared_dtype(model: Load, declared: str, value: str, expected: list[object]) -> None:
    runtime = model(f"def predict(self, x: headrace.Int64) -> headrace.{declared}: return {value}")
    output = runtime.predict({"x": np.array([1])}, {})["output"]
    assert output.tolist() == expected
    assert output.dtype == (object if declared in ("Strings", "Bytes") else getattr(np, declared.lower(), np.bool_))


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        ("headrace.Int64", "[1.5]", "output 'output' is declared INT64, predict returned float64"),
        ("headrace.UInt8", "[300]", "values outside UINT8"),
        ("headrace.Bool", "[2]", "declared BOOL"),
        ("headrace.Float32", "[[1], [2, 3]]", "not a rectangular array"),
        ("headrace.Float32", "['a']", "declared FP32"),
        ("{'a': headrace.Float32}", "{'b': [1]}", "predict returned 'b', its annotation declares 'a'"),
        ("{'a': headrace.Float32}", "{'a': [1], 'b': [1]}", "predict returned 'a', 'b'"),
        ("{'a': headrace.Float32}", "[1.0]", "predict returned list"),
        ("None", "np.array([1j])", "output 'output': numpy dtype complex128"),
    ],
)
def test_results_that_do_not_fit_say_why(model: Load, declared: str, value: str, message: str) -> None:
    runtime = model(f"def predict(self, x: headrace.Int64) -> {declared}: return {value}")
    with pytest.raises(errors.BadModelOutput, match=message):
        runtime.predict({"x": np.array([1])}, {})


def test_bf16_is_widened_for_the_user_and_narrowed_after(model: Load) -> None:
    runtime = model(
        """
def predict(self, x: headrace.BFloat16) -> headrace.BFloat16:
    assert x.dtype == np.float32
    return x + x
"""
    )
    outputs = runtime.predict({"x": np.array([0x3F80], np.uint16)}, {})
    assert outputs["output"].tolist() == [0x4000]


def test_class_attributes(model: Load) -> None:
    runtime = model(
        """
batchable = False
idempotent = False
samples = {"x": [1.0, 2.0], "name": "joe"}
def predict(self, x: headrace.Float32, name: headrace.Strings) -> headrace.Float32: return x
"""
    )
    assert not runtime.signature.batchable
    assert runtime.metadata["idempotent"] == "no"
    samples = runtime.samples()
    assert samples is not None
    assert samples["x"].tolist() == [1.0]
    assert samples["name"].tolist() == [b"joe"]


def test_samples_of_shaped_rows_may_be_one_row_or_a_batch(model: Load) -> None:
    body = "samples = {'x': %s}\ndef predict(self, x: headrace.Float32[2]) -> headrace.Float32[2]: return x"
    for index, text in enumerate(("[1, 2]", "[[1, 2], [3, 4]]")):
        samples = model(body % text, name=f"s{index}.py").samples()
        assert samples is not None
        assert samples["x"].tolist() == [[1.0, 2.0]]


def test_concurrency_runs_requests_alone(model: Load) -> None:
    runtime = model("concurrency = 8\ndef predict(self, x: headrace.Float32) -> headrace.Float32: return x")
    assert (runtime.slots.kind, runtime.slots.count) == (SlotKind.CONCURRENT, 8)
    assert not runtime.signature.batchable


# --- streams ------------------------------------------------------------------------------------------------------


def test_a_generator_streams(load: Load) -> None:
    runtime = load("python-stream")
    assert runtime.signature.streaming
    assert (runtime.slots.kind, runtime.slots.count) == (SlotKind.CONCURRENT, 64)
    assert not runtime.signature.batchable
    chunks = list(runtime.stream({"prompt": _text("a bc")}, {"times": 2}))
    assert [chunk["text"].tolist() for chunk in chunks] == [[b"a"], [b"bc"]] * 2


@pytest.mark.parametrize(
    ("returned", "yielded", "expected"),
    [
        ("{'text': headrace.Strings, 'n': headrace.Int64}", "{'text': 'a', 'n': 1}", {"text": [b"a"], "n": [1]}),
        ("Iterator[{'text': headrace.Strings}]", "{'text': ['a', 'b']}", {"text": [b"a", b"b"]}),
        ("Iterator[headrace.Strings]", "'tok'", {"output": [b"tok"]}),
        ("None", "'tok'", {"output": [b"tok"]}),
        ("None", "{'a': 1.5}", {"a": [1.5]}),
    ],
)
def test_forms_of_chunks(model: Load, returned: str, yielded: str, expected: dict[str, list[object]]) -> None:
    runtime = model(f"def predict(self, x: headrace.Int64) -> {returned}:\n    yield {yielded}")
    chunks = list(runtime.stream({"x": np.array([1])}, {}))
    assert [{name: array.tolist() for name, array in chunk.items()} for chunk in chunks] == [expected]


def test_an_abandoned_stream_runs_the_models_finally(model: Load) -> None:
    runtime = model(
        """
log: ClassVar[list] = []
def predict(self, x: headrace.Int64) -> {"n": headrace.Int64}:
    try:
        for n in range(1000):
            yield n
    finally:
        self.log.append("closed")
"""
    )
    chunks = runtime.stream({"x": np.array([1])}, {})
    assert next(iter(chunks))["n"].tolist() == [0]
    chunks.close()  # type: ignore[attr-defined]
    assert runtime._model.log == ["closed"]  # type: ignore[attr-defined]


# --- loading ------------------------------------------------------------------------------------------------------


def test_load_and_close_run_once_and_the_path_is_the_folder(write: Write, load: Load) -> None:
    write("table.txt", "42")
    runtime = load(
        write(
            "m.py",
            """
import headrace, helper_of_m
class M(headrace.Model):
    calls = []
    def load(self): self.calls.append("load"); self.answer = float((self.path / "table.txt").read_text())
    def close(self): self.calls.append("close")
    def predict(self, x: headrace.Int64) -> headrace.Float32: return [self.answer + helper_of_m.ONE] * len(x)
""",
        )
        if write("helper_of_m.py", "ONE = 1")
        else Path()
    )
    assert runtime.predict({"x": np.array([1, 2])}, {})["output"].tolist() == [43.0, 43.0]
    runtime.close()
    assert runtime._model.calls == ["load", "close"]  # type: ignore[attr-defined]


def test_two_versions_of_one_file_live_side_by_side(tmp_path: Path, write: Write, load: Load) -> None:
    source = "import headrace\nclass M(headrace.Model):\n    def predict(self, x: headrace.Int64): return x + {}\n"
    first = load(write("1/m.py", source.format(10)))
    second = load(write("2/m.py", source.format(20)))
    x = {"x": np.array([1])}
    assert first.predict(x, {})["output"].tolist() == [11]
    assert second.predict(x, {})["output"].tolist() == [21]


def test_a_class_or_an_object_can_be_named(write: Write, load: Load) -> None:
    source = """
import headrace
class Adder(headrace.Model):
    def __init__(self, n=1): self.n = n
    def predict(self, x: headrace.Int64): return x + self.n
class Times(headrace.Model):
    def predict(self, x: headrace.Int64): return x * 2
ten = Adder(10)
number = 3
"""
    path = write("m.py", source)
    x = {"x": np.array([5])}
    assert load(path, "Adder").predict(x, {})["output"].tolist() == [6]
    assert load(path, "Times").predict(x, {})["output"].tolist() == [10]
    assert load(path, "ten").predict(x, {})["output"].tolist() == [15]
    with pytest.raises(errors.LoadFailed, match=r"is not a headrace.Model: number"):
        load(path, "number")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise ValueError('no luck')", r"m.py line 2: ValueError: no luck"),
        ("import sys; sys.exit('bye')", r"m.py line 2: SystemExit: bye"),
        (
            "import no_such_package.inner",
            r"needs 'no_such_package', which is not installed: pip install",
        ),
    ],
)
def test_a_file_that_fails_says_where(write: Write, load: Load, source: str, message: str) -> None:
    path = write("m.py", f"import headrace\n{source}\nclass M(headrace.Model):\n    pass\n")
    before = set(sys.modules)
    with pytest.raises(errors.LoadFailed, match=message):
        load(path)
    assert not [name for name in set(sys.modules) - before if name.startswith("headrace_model")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def load(self): return 1 / 0\ndef predict(self, x: headrace.Int64): return x", "line 6: ZeroDivisionError"),
        ("def __init__(self): self.x = {}['a']\ndef predict(self, x: headrace.Int64): return x", "line 6: KeyError"),
        ("async def predict(self, x: headrace.Int64): return x", "predict is async"),
        ("def predict(self): return 1", "takes no inputs"),
        ("def predict(self, x: float): return x", "'x' is annotated float; annotate an input with a column type"),
        ("def predict(self, x: headrace.Int64, y): return x", "argument 'y' has no column type"),
        ("def predict(self, x: headrace.Int64, /): return x", "positional-only"),
        ("def predict(self, x: nonsense): return x", "name 'nonsense' is not defined"),
        ("def predict(self, x: headrace.Float32[0]): return x", "a dimension is a positive int"),
        ("def predict(self, x: headrace.Int64) -> {'y': float}: return x", "output 'y' is annotated"),
        (
            "parameters = ('k',)\ndef predict(self, x: headrace.Int64): return x",
            "'k', which predict does not take",
        ),
        ("parameters = ('k',)\ndef predict(self, x: headrace.Int64, k): return x", "'k' needs a default"),
        ("samples = {'z': 1}\ndef predict(self, x: headrace.Int64): return x", "samples has 'z'"),
        (
            "def predict(self, x: Annotated[headrace.Int64, headrace.Shape(1, 3)]): return x",
            r"'x' has shape \[1, 3\].*batchable = False",
        ),
    ],
)
def test_signatures_that_make_no_sense_say_what_to_write(model: Load, body: str, message: str) -> None:
    with pytest.raises(errors.LoadFailed, match=message):
        model(body)


def test_a_pickled_model_object_and_class(tmp_path: Path, load: Load) -> None:
    class Notebook(headrace.Model):
        def __init__(self, n: int = 3) -> None:
            self.n = n

        def predict(self, x: headrace.Int64) -> {"y": headrace.Int64}:  # type: ignore[syntax]  # noqa: F821, UP037
            return {"y": x + self.n}

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        (tmp_path / "object.pkl").write_bytes(cloudpickle.dumps(Notebook(5)))
        (tmp_path / "class.pkl").write_bytes(cloudpickle.dumps(Notebook))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    x = {"x": np.array([1])}
    assert load(tmp_path / "object.pkl").predict(x, {})["y"].tolist() == [6]
    assert load(tmp_path / "class.pkl").predict(x, {})["y"].tolist() == [4]


def test_the_types_are_exported() -> None:
    from headrace.runtimes import model as types

    for name in types.TYPE_NAMES:
        assert getattr(headrace, name) is getattr(types, name)
    assert repr(headrace.Float32) == "headrace.Float32"
    with pytest.raises(TypeError, match="only be combined with None"):
        headrace.Float32 | int  # type: ignore[operator]


def test_the_python_kind_is_the_one_of_the_readme() -> None:
    assert "class Pricer(headrace.Model)" in models.build("python").read_text()


def test_a_change_of_the_same_size_within_a_second_is_seen(write: Write, load: Load) -> None:
    """Cached bytecode would not tell."""
    text = (
        "import headrace\n\nclass M(headrace.Model):\n    def predict(self, x: headrace.Int64):\n        return x * 2\n"
    )
    inputs = {"x": np.array([3])}
    assert load(write("m.py", text)).predict(inputs, {})["output"].tolist() == [6]
    assert load(write("m.py", text.replace("* 2", "* 3"))).predict(inputs, {})["output"].tolist() == [9]


def test_a_copy_of_the_source_is_run_under_the_name_of_the_original(tmp_path: Path) -> None:
    body = "    def predict(self, x: headrace.Int64):\n        raise ValueError(f'{__file__} {self.path}')\n"
    text = f"import headrace\n\nclass M(headrace.Model):\n{body}"
    original, copy = tmp_path / "original" / "m.py", tmp_path / "copy.py"
    original.parent.mkdir()
    original.write_text("this is not Python any more")
    copy.write_text(text)
    artifact = Artifact(str(original), Format.PYTHON, "python", "sha256:01", code_bearing=True, attribute="M")
    options = LoadOptions(options={trust.OPTION: "yes"}, source=str(copy))
    with pytest.raises(ValueError, match=re.escape(f"{original} {original.parent}")):
        table.load(artifact, options).predict({"x": np.array([1])}, {})
