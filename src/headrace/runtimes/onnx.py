"""ONNX models, run by onnxruntime.

The signature is the session's. Rows of requests may be joined when dimension 0 of every input and output is
symbolic; where the names of those dimensions leave a doubt (a detector has as many output rows as it finds),
the model is tried with two and three rows. Sequences of maps (skl2onnx's ZipMap) become a matrix.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from headrace.core import errors
from headrace.core.models import Artifact, Signature, Slots, TensorSpec
from headrace.core.requests import Parameter
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, as_bytes_elements
from headrace.runtimes import options as text_options
from headrace.runtimes.runtime import Arrays, LoadOptions, Runtime

OPTIONS = {
    "providers": "onnxruntime execution providers, by comma; default CPUExecutionProvider",
    "batchable": "yes or no, when the shapes of the model do not tell the truth",
}

_DTYPES = {
    "bool": DType.BOOL,
    "uint8": DType.UINT8,
    "uint16": DType.UINT16,
    "uint32": DType.UINT32,
    "uint64": DType.UINT64,
    "int8": DType.INT8,
    "int16": DType.INT16,
    "int32": DType.INT32,
    "int64": DType.INT64,
    "float16": DType.FP16,
    "bfloat16": DType.BF16,
    "float": DType.FP32,
    "double": DType.FP64,
    "string": DType.BYTES,
}
_TENSOR = re.compile(r"tensor\((\w+)\)\Z")
_MAPS = re.compile(r"seq\(map\((string|int64),tensor\((float|double)\)\)\)\Z")
_BFLOAT16 = 16  # TensorProto.DataType

_LOG_ERRORS = 3
_CLOSED = "predict was called on a closed model"


class OnnxRuntime(Runtime):
    """A session and what has to be converted on the way in and out."""

    def __init__(self, session: onnxruntime.InferenceSession, batchable: bool | None) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._run = session.run
        self._names = [output.name for output in session.get_outputs()]
        self._kinds = [_output_kind(output) for output in session.get_outputs()]
        self._maps = [i for i, output in enumerate(session.get_outputs()) if _MAPS.match(output.type)]
        inputs = tuple(TensorSpec(i.name, _input_dtype(i), _dims(i.shape)) for i in session.get_inputs())
        self._strings = [spec.name for spec in inputs if spec.dtype is DType.BYTES]
        self._encoded = [i for i, kind in enumerate(self._kinds) if kind is DType.BYTES]
        self._bf16 = any(spec.dtype is DType.BF16 for spec in inputs) or DType.BF16 in self._kinds
        self._plain = not self._strings and not self._encoded and not self._maps and not self._bf16
        self._labels: dict[int, int] = {}
        self.platform = "onnx_onnxv1"
        self.slots = Slots()
        self.metadata = _metadata(session)
        self.signature = self._signature(session, inputs, batchable)

    def predict(self, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter]) -> Arrays:
        if self._plain:
            return dict(zip(self._names, self._run(self._names, inputs), strict=True))
        feed = dict(inputs)
        for name in self._strings:
            feed[name] = _decoded(name, feed[name])
        values = self._run_bf16(feed) if self._bf16 else self._run(self._names, feed)
        for index in self._encoded:
            values[index] = as_bytes_elements(values[index])
        for index in self._maps:
            values[index] = self._matrix(index, values[index])
        return dict(zip(self._names, values, strict=True))

    def dims(self) -> dict[str, tuple[str, ...]]:
        if self._session is None:
            raise errors.Bug(_CLOSED)
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        return {
            tensor.name: tuple(_dim_name(dim) for dim in tensor.shape)
            for tensor in tensors
            if _TENSOR.match(tensor.type)
        }

    def close(self) -> None:
        self._session = None
        self._run = _closed

    # --- conversions ------------------------------------------------------------------------------------------

    def _matrix(self, index: int, rows: list[dict[Any, float]]) -> Array:
        """A row per map. onnxruntime keeps maps sorted by key, so all rows have the same order."""
        width = len(rows[0]) if rows else self._labels.get(index, 0)
        dtype = NUMPY_DTYPES[self._kinds[index]]
        return np.array([list(row.values()) for row in rows], dtype=dtype).reshape(len(rows), width)

    def _run_bf16(self, feed: dict[str, Array]) -> list[Any]:
        """numpy has no BF16, so its bit patterns go in and out through OrtValue."""
        if self._session is None:
            raise errors.Bug(_CLOSED)
        values = {}
        for argument in self._session.get_inputs():
            array = np.ascontiguousarray(feed[argument.name])
            if _input_dtype(argument) is DType.BF16:
                values[argument.name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
            else:
                values[argument.name] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        outputs = self._session.run_with_ort_values(self._names, values)
        return [
            _bits(value) if kind is DType.BF16 else value.numpy()
            for kind, value in zip(self._kinds, outputs, strict=True)
        ]

    # --- the signature ----------------------------------------------------------------------------------------

    def _signature(
        self, session: onnxruntime.InferenceSession, inputs: tuple[TensorSpec, ...], batchable: bool | None
    ) -> Signature:
        outputs = session.get_outputs()
        shapes = [None if index in self._maps else _dims(output.shape) for index, output in enumerate(outputs)]
        # Shape inference gives up on some operators and reports no dimensions at all: () is unknown, not a scalar.
        possible = bool(inputs) and all(spec.shape[:1] == (-1,) for spec in inputs)
        possible = possible and all(shape is None or shape[:1] in ((), (-1,)) for shape in shapes)
        sure = possible and () not in shapes and _same_rows(session, self._maps)
        labels: dict[int, tuple[str, ...]] = {}
        if self._maps or () in shapes or (possible and not sure and batchable is None):
            tried = self._try(session, inputs)
            if tried is not None:
                shapes = [(-1,) * tried.ranks[i] if shape == () else shape for i, shape in enumerate(shapes)]
                labels = tried.labels
                sure = sure or (possible and tried.rows_follow)
        self._labels = {index: len(found) for index, found in labels.items()}
        full = [(-1, self._labels.get(i) or -1) if shape is None else shape for i, shape in enumerate(shapes)]
        specs = tuple(
            TensorSpec(output.name, kind, shape, labels=labels.get(i))
            for i, (output, kind, shape) in enumerate(zip(outputs, self._kinds, full, strict=True))
        )
        rowed = sure if batchable is None else batchable and possible
        columns = rowed and all(spec.shape == (-1,) for spec in inputs)
        return Signature(inputs, specs, batchable=rowed, columns=columns)

    def _try(self, session: onnxruntime.InferenceSession, inputs: tuple[TensorSpec, ...]) -> _Tried | None:
        """Run two and three rows of zeros and see what comes. None when the model does not run on zeros."""
        tried = _Tried([], True, {})
        for rows in (2, 3):
            feed = {spec.name: _zeros(spec, rows) for spec in inputs}
            for name in self._strings:
                feed[name] = _decoded(name, feed[name])
            try:
                values = self._run_bf16(feed) if self._bf16 else session.run(self._names, feed)
            except Exception as error:  # zeros are not valid input for every model; the framework's errors vary
                self.metadata["tried"] = f"zeros as input fail: {error}"[:300]
                return None
            tried.ranks = [2 if index in self._maps else value.ndim for index, value in enumerate(values)]
            for index, value in enumerate(values):
                if index in self._maps:
                    tried.labels[index] = tuple(str(key) for key in value[0]) if value else ()
                follows = len(value) == rows if index in self._maps else value.shape[:1] == (rows,)
                tried.rows_follow = tried.rows_follow and follows
        return tried


@dataclass(slots=True)
class _Tried:
    """What a trial shows: ranks of the outputs, whether their rows follow those of the inputs, class names of maps."""

    ranks: list[int]
    rows_follow: bool
    labels: dict[int, tuple[str, ...]]


def _zeros(spec: TensorSpec, rows: int) -> Array:
    shape = tuple(dim if dim >= 0 else rows if axis == 0 else 1 for axis, dim in enumerate(spec.shape))
    return np.full(shape, b"", object) if spec.dtype is DType.BYTES else np.zeros(shape, NUMPY_DTYPES[spec.dtype])


def _same_rows(session: onnxruntime.InferenceSession, maps: list[int]) -> bool:
    """All first dimensions have one name, or none: they are the rows of the batch."""
    inputs = {argument.shape[0] for argument in session.get_inputs() if argument.shape}
    outputs = {o.shape[0] for i, o in enumerate(session.get_outputs()) if o.shape and i not in maps}
    named = {name for name in inputs if isinstance(name, str) and not name.startswith("unk__")}
    return len(named) <= 1 and all(
        not isinstance(name, str) or name.startswith("unk__") or name in named for name in outputs
    )


def _dims(shape: list[Any]) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in shape)


def _dim_name(dim: Any) -> str:
    # onnxruntime gives dimensions that have no name, or whose size it cannot infer, names like unk__7.
    return dim if isinstance(dim, str) and not dim.startswith("unk__") else ""


def _input_dtype(argument: Any) -> DType:
    parsed = _TENSOR.match(argument.type)
    dtype = _DTYPES.get(parsed.group(1)) if parsed else None
    if dtype is None:
        raise errors.LoadFailed(f"input {argument.name!r} is a {argument.type}, which cannot be sent in a request")
    return dtype


def _output_kind(argument: Any) -> DType:
    maps = _MAPS.match(argument.type)
    if maps:
        return _DTYPES[maps.group(2)]
    parsed = _TENSOR.match(argument.type)
    dtype = _DTYPES.get(parsed.group(1)) if parsed else None
    if dtype is None:
        raise errors.LoadFailed(f"output {argument.name!r} is a {argument.type}, which cannot be sent in an answer")
    return dtype


def _decoded(name: str, array: Array) -> Array:
    """onnxruntime takes text, and would show bytes as ``b'…'``."""
    out = np.empty(array.shape, dtype=object)
    try:
        out.ravel()[:] = [item.decode() for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise errors.InvalidInput(f"input {name!r} is not valid UTF-8: {error.reason}") from error
    return out


def _bits(value: Any) -> Array:
    """Bit patterns of a BF16 value, copied out of onnxruntime's memory."""
    shape = tuple(value.shape())
    count = int(np.prod(shape))
    out = np.empty(count, dtype=np.uint16)
    ctypes.memmove(out.ctypes.data, value.data_ptr(), count * 2)
    return out.reshape(shape)


def _closed(*_: Any) -> Any:
    raise errors.Bug(_CLOSED)


def _metadata(session: onnxruntime.InferenceSession) -> dict[str, str]:
    meta = session.get_modelmeta()
    found = {"producer": meta.producer_name, "graph": meta.graph_name, "domain": meta.domain}
    return {"framework": f"onnxruntime {onnxruntime.__version__}"} | {key: text for key, text in found.items() if text}


def load(artifact: Artifact, options: LoadOptions) -> OnnxRuntime:
    text_options.check("onnx", options.options, OPTIONS)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _LOG_ERRORS
    # Spinning threads take the CPU from the other processes of the machine between two batches.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    named = options.options.get("providers", "CPUExecutionProvider")
    providers = [name.strip() for name in named.split(",") if name.strip()]
    unknown = [name for name in providers if name not in onnxruntime.get_available_providers()]
    if unknown:
        available = ", ".join(onnxruntime.get_available_providers())
        raise errors.LoadFailed(f"this onnxruntime has no provider {unknown[0]!r}; it has {available}")
    return start(lambda: onnxruntime.InferenceSession(artifact.path, settings, providers=providers), options)


def start(make: Callable[[], onnxruntime.InferenceSession], options: LoadOptions) -> OnnxRuntime:
    try:
        session = make()
    except Exception as error:  # onnxruntime raises a class of its own per status
        raise errors.LoadFailed(f"onnxruntime cannot load it: {error}") from error
    batchable = text_options.flag(options.options, "batchable", True) if "batchable" in options.options else None
    return OnnxRuntime(session, batchable)
