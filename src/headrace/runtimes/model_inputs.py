"""The inputs that a model's file tells without being loaded: names and counts of features, or typed tensors.

ONNX, XGBoost and LightGBM files do; what a pickle takes is known only to the object in it. Nothing here fails on a file
that says nothing, and what is found is compared, never trusted.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.core.models import Artifact, Format
from headrace.runtimes import onnx_file

_LIGHTGBM_HEAD = 4 << 20
_MAX_FEATURES = 1 << 20

# XGBoost's UBJSON: a key or text is L and its length in 8 bytes, an array begins with its count.
_UBJ_NAMES = b"L" + (13).to_bytes(8, "big") + b"feature_names[#L"
_UBJ_COUNT = b"L" + (11).to_bytes(8, "big") + b"num_featureSL"

_ONNX_DTYPES = (
    *("", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "str", "bool"),
    *("float16", "float64", "uint32", "uint64"),
)
"""TensorProto.DataType by number, with numpy's names."""


class Features(msgspec.Struct, frozen=True):
    """Columns of a table. ``names`` is None when the file has none; ``count`` None when it is not told."""

    names: tuple[str, ...] | None
    count: int | None


class TensorInput(msgspec.Struct, frozen=True):
    """``dtype`` is numpy's name, empty when it is another type; -1 in ``shape`` is any size, None: any rank."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None


def read(artifact: Artifact) -> Features | tuple[TensorInput, ...] | None:
    """What the file of an inspected artifact says; None when it does not say."""
    try:
        return _read(Path(artifact.path), artifact.format)
    except (msgspec.DecodeError, onnx_file.Malformed, onnx_file.Truncated, IndexError, ValueError):
        return None  # the file is damaged, which loading it will tell better


def _read(path: Path, kind: Format) -> Features | tuple[TensorInput, ...] | None:
    match kind:
        case Format.ONNX:
            return tuple(_onnx(path))
        case Format.XGBOOST_JSON:
            return _xgboost_json(path)
        case Format.XGBOOST_UBJ:
            return _xgboost_ubj(path)
        case Format.LIGHTGBM:
            return _lightgbm(path)
    return None


# --- tables -------------------------------------------------------------------------------------------------------


class _Learner(msgspec.Struct):
    learner_model_param: dict[str, str]
    feature_names: list[str] = []


class _XGBoost(msgspec.Struct):
    learner: _Learner


def _xgboost_json(path: Path) -> Features:
    learner = msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), type=_XGBoost).learner
    return _features(learner.feature_names, learner.learner_model_param.get("num_feature", ""))


def _xgboost_ubj(path: Path) -> Features:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        names: list[str] = []
        at = buffer.find(_UBJ_NAMES)
        if at >= 0:
            at += len(_UBJ_NAMES)
            count = int.from_bytes(buffer[at : at + 8], "big")
            names = list(_ubj_texts(buffer, at + 8, count)) if count <= _MAX_FEATURES else []
            names = names if len(names) == count else []
        at = buffer.find(_UBJ_COUNT)
        number = next(_ubj_texts(buffer, at + len(_UBJ_COUNT) - 2, 1), "") if at >= 0 else ""
    return _features(names, number)


def _ubj_texts(buffer: mmap.mmap, at: int, count: int) -> Iterator[str]:
    """Up to ``count`` texts from ``at`` on; fewer when something else is there."""
    for _ in range(count):
        if buffer[at : at + 2] != b"SL":
            return
        size = int.from_bytes(buffer[at + 2 : at + 10], "big")
        if size > len(buffer):
            return
        yield buffer[at + 10 : at + 10 + size].decode("utf-8", "replace")
        at += 10 + size


def _lightgbm(path: Path) -> Features:
    with path.open("rb") as file:
        head = file.read(_LIGHTGBM_HEAD).decode("utf-8", "replace")
    named = re.search(r"^feature_names=(.*)$", head, re.MULTILINE)
    last = re.search(r"^max_feature_idx=(\d{1,9})$", head, re.MULTILINE)
    names = named[1].split(" ") if named else []
    if all(re.fullmatch(r"Column_\d+", name) for name in names):  # LightGBM's own, for tables without names
        names = []
    return _features(names, str(int(last[1]) + 1) if last else "")


def _features(names: list[str], count: str) -> Features:
    if names:
        return Features(tuple(names), len(names))
    return Features(None, int(count) if count.isdecimal() else None)


# --- tensors ------------------------------------------------------------------------------------------------------


def _onnx(path: Path) -> Iterator[TensorInput]:
    """Inputs of the graph that are no weights. Field numbers are those of onnx.proto."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as buffer,
    ):
        for _, start, end in _messages(buffer, 0, len(buffer), 7):
            weights = {_text(buffer, at, stop, 8) for _, at, stop in _messages(buffer, start, end, 5)}
            for _, at, stop in _messages(buffer, start, end, 11):
                name = _text(buffer, at, stop, 1)
                if name not in weights:
                    yield _value_info(buffer, at, stop, name)


def _value_info(buffer: memoryview, start: int, end: int, name: str) -> TensorInput:
    for _, at, stop in _messages(buffer, start, end, 2):  # TypeProto
        for _, inner, last in _messages(buffer, at, stop, 1):  # tensor_type
            kind = next((_number(buffer, a) for _, a, _ in _messages(buffer, inner, last, 1)), 0)
            shapes = list(_messages(buffer, inner, last, 2))
            shape = tuple(_dimensions(buffer, shapes[0][1], shapes[0][2])) if shapes else None
            return TensorInput(name, _ONNX_DTYPES[kind] if kind < len(_ONNX_DTYPES) else "", shape)
    return TensorInput(name, "", None)


def _dimensions(buffer: memoryview, start: int, end: int) -> Iterator[int]:
    for _, at, stop in _messages(buffer, start, end, 1):
        yield next((_number(buffer, a) for _, a, _ in _messages(buffer, at, stop, 1)), -1)


def _messages(buffer: memoryview, start: int, end: int, field: int) -> Iterator[tuple[int, int, int]]:
    """(field, start, end) of every field with this number."""
    for number, _, at, stop in onnx_file.fields(buffer, start, end):
        if number == field:
            yield number, at, stop


def _text(buffer: memoryview, start: int, end: int, field: int) -> str:
    found = next(((at, stop) for _, at, stop in _messages(buffer, start, end, field)), None)
    return "" if found is None else bytes(buffer[found[0] : found[1]]).decode("utf-8", "replace")


def _number(buffer: memoryview, at: int) -> int:
    """A varint; negative ones (sizes that are not known) become -1."""
    value = 0
    for index in range(10):
        byte = buffer[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value if value < 1 << 63 else -1
    raise onnx_file.Malformed
