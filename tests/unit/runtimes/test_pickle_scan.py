"""What a pickle would import, found without unpickling: every protocol, joblib's arrays, and every trick bounded."""

from __future__ import annotations

import collections
import contextlib
import datetime
import io
import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core import errors
from headrace.runtimes import pickle_scan
from tests import models


class Evil:
    def __init__(self, what: Any, *arguments: Any) -> None:
        self.reduced = what, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def _scan(data: bytes) -> pickle_scan.Found:
    return pickle_scan.scan(io.BytesIO(data))


def _expected(data: bytes) -> set[str]:
    """The globals a pickle asks for, as the real unpickler sees them."""
    asked: set[str] = set()

    class Spy(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            asked.add(f"{module}.{name}")
            return super().find_class(module, name)

    Spy(io.BytesIO(data)).load()
    return asked


@pytest.mark.parametrize("protocol", range(6))
def test_imports_are_those_of_the_real_unpickler(protocol: int) -> None:
    for value in (
        models.mixed_pipeline(),
        collections.OrderedDict(a=datetime.date(2020, 1, 1), b=[{1, 2}, frozenset({3}), b"x", 1 << 80, None, 1.5]),
        [models.breast_cancer, len, np.float32(1), np.array(["a", None], dtype=object)],
    ):
        data = pickle.dumps(value, protocol)
        found = _scan(data)
        assert found.complete
        assert found.imports == _expected(data)


@pytest.mark.parametrize("protocol", range(6))
def test_evil_is_named(protocol: int) -> None:
    import os

    data = pickle.dumps({"weights": [1, 2, Evil(os.system, "true")]}, protocol)
    assert any(name.endswith(".system") for name in _scan(data).imports)


@pytest.mark.parametrize("compress", [0, 3])
def test_joblib_arrays_are_stepped_over(tmp_path: Path, compress: int) -> None:
    value = {
        "big": np.arange(100_000, dtype=np.float64).reshape(100, -1),
        "fortran": np.asfortranarray(np.ones((7, 5), np.float32)),
        "text": np.array(["a", "bcd"]),
        "objects": np.array([{"k": datetime.date(2020, 1, 1)}, "x"], dtype=object),
        "records": np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
        "empty": np.zeros((0, 4)),
        "after": collections.OrderedDict(),
    }
    joblib.dump(value, tmp_path / "m.joblib")
    with (tmp_path / "m.joblib").open("rb") as file:
        found = pickle_scan.scan(file)
    assert found.joblib
    assert found.complete
    assert {"datetime.date", "collections.OrderedDict", "joblib.numpy_pickle.NumpyArrayWrapper"} <= found.imports


def test_real_forest_in_joblib() -> None:
    with models.build("sklearn-forest").open("rb") as file:
        found = pickle_scan.scan(file)
    assert found.joblib
    assert found.complete
    assert "sklearn.tree._tree.Tree" in found.imports
    assert "sklearn.ensemble._forest.RandomForestClassifier" in found.imports


def test_code_hidden_behind_an_array_is_found(tmp_path: Path) -> None:
    import os

    joblib.dump([np.arange(1000.0), Evil(os.system, "true")], tmp_path / "m.joblib")
    with (tmp_path / "m.joblib").open("rb") as file:
        assert any(name.endswith(".system") for name in pickle_scan.scan(file).imports)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04", "ends before its last opcode"),
        (b"\x80\x04\x8c\x05abc", "cut off"),
        (b"\x80\x04X\xff\xff\xff\xffabc", "cut off|ends before"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62), "cut off"),
        (b"\x80\x04\xff.", "no opcode"),
        (b"\x80\x04.", "needs more than there is"),
        (b"\x80\x04t.", "a mark that is not there"),
        (b"\x80\x04h\x05.", "memo entry 5 is not there"),
        (b"I" + b"9" * 10_000 + b"\n.", "INT"),
        (b"cos\n", "a name has no end"),
    ],
)
def test_damage_is_described(data: bytes, message: str) -> None:
    with pytest.raises(errors.InvalidInput, match=message):
        _scan(data)


def test_names_computed_at_run_time_are_reported() -> None:
    # os.system with its name joined from an opaque value: STACK_GLOBAL on something that is no text
    data = b"\x80\x04\x8c\x02osN\x93."
    assert _scan(data).imports == {"<a name computed while loading>"}


def test_names_are_read_as_the_unpickler_reads_them() -> None:
    """pickletools undoes escapes in names and the unpickler does not: a way to show one name and import another."""
    assert _scan(b"cos\nsys\\x74em\n.").imports == {"os.sys\\x74em"}
    assert _scan("cmodül\nfünf\n.".encode()).imports == {"modül.fünf"}


def test_texts_with_escapes_cannot_hide_a_name() -> None:
    assert _scan(b"S'os'\nS'sys\\x74em'\n\x93.").imports == {"<a name computed while loading>"}
    assert _scan(b"S'os'\nS'system'\n\x93.").imports == {"os.system"}


def test_extension_codes_are_reported() -> None:
    assert _scan(b"\x80\x02\x82\x05.").imports == {"<copyreg extension 5>"}


def test_the_scan_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_scan, "MAX_OPCODES", 1000)
    found = _scan(b"\x80\x04" + b"N0" * 600 + b"N.")
    assert not found.complete


def test_depth_costs_nothing() -> None:
    found = _scan(b"\x80\x04" + b"(" * 100_000 + b"N" + b"t" * 100_000 + b".")
    assert found.complete
    wide = _scan(b"\x80\x04N" + b"\x85" * 100_000 + b".")
    assert wide.complete


def test_the_array_of_a_hostile_file_cannot_claim_more_than_there_is(tmp_path: Path) -> None:
    joblib.dump([np.arange(1000.0)], tmp_path / "m.joblib")
    data = (tmp_path / "m.joblib").read_bytes()
    with pytest.raises(errors.InvalidInput, match=r"ends before|cut off"):
        _scan(data[:2000])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_result_or_a_refusal(data: bytes) -> None:
    for start in (b"", b"\x80\x04", b"\x80\x02("):
        with contextlib.suppress(errors.InvalidInput):
            assert _scan(start + data).opcodes > 0


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_real_pickle_never_surprises(data: st.DataObject) -> None:
    whole = bytearray(models.build("sklearn-joblib").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(errors.InvalidInput):
        assert _scan(bytes(whole)).opcodes > 0


def test_every_opcode_is_understood() -> None:
    """The table of this Python has no opcode whose argument or effect the scan could not follow."""
    for opcode in pickletools.opcodes:
        assert opcode.arg is None or opcode.arg.reader is not None or opcode.name in pickle_scan._SIZED
