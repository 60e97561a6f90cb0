"""Runs batches on a runtime: joins, checks outputs, isolates failing calls. Knows frames' values, no sockets."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.models import Signature
from headrace.core.padding import Padding
from headrace.core.requests import Parameter
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, as_bytes_elements, dtype_of
from headrace.replica.messages import CallFailure
from headrace.runtimes.runtime import Arrays, Runtime

_CARRIED = frozenset(dtype for dtype in NUMPY_DTYPES.values() if dtype != np.dtype(object))

Raised = BaseException
"""What a model may raise and only its caller hears of: everything. ``sys.exit()``, a cancelled task or the panic of an
extension ends a request, not the worker. A KeyboardInterrupt is the model's own too: workers ignore SIGINT."""


class Computed(msgspec.Struct, gc=False):
    """Outputs of a batch: rows of the calls that succeeded, in order. ``compute`` in nanoseconds."""

    outputs: Arrays
    failures: list[CallFailure]
    compute: int


def run_batch(
    runtime: Runtime,
    inputs: Mapping[str, Array],
    rows: Sequence[int],
    parameters: Mapping[str, Parameter],
    *,
    idempotent: bool,
) -> Computed:
    """Run all calls at once; when that fails and calls may be re-run, run them one by one so that only the
    culprits fail. Never raises for what a model does."""
    started = time.monotonic_ns()
    try:
        outputs = _predict(runtime, inputs, parameters, sum(rows))
    except Raised as error:
        if len(rows) == 1 or not idempotent:
            failures = [failure(index, error) for index in range(len(rows))]
            return Computed({}, failures, time.monotonic_ns() - started)
        return _one_by_one(runtime, inputs, rows, parameters, started)
    return Computed(outputs, [], time.monotonic_ns() - started)


def run_others(
    runtime: Runtime,
    inputs: Mapping[str, Array],
    rows: Sequence[int],
    gone: Collection[int],
    parameters: Mapping[str, Parameter],
    *,
    idempotent: bool,
) -> Computed:
    """``run_batch`` without the calls that nobody waits for any more; these count as failed."""
    ends = list(itertools.accumulate(rows))
    kept = [index for index in range(len(rows)) if index not in gone]
    failures = [failure(index, errors.Cancelled()) for index in range(len(rows)) if index in gone]
    if not kept:
        return Computed({}, failures, 0)
    try:
        parts = {name: np.concatenate([a[ends[i] - rows[i] : ends[i]] for i in kept]) for name, a in inputs.items()}
    except MemoryError as error:
        failures += [failure(index, error) for index in kept]
        return Computed({}, sorted(failures, key=lambda f: f.index), 0)
    computed = run_batch(runtime, parts, [rows[i] for i in kept], parameters, idempotent=idempotent)
    failures += [CallFailure(kept[f.index], f.code, f.message) for f in computed.failures]
    return Computed(computed.outputs, sorted(failures, key=lambda f: f.index), computed.compute)


def of_sizes(computed: Computed, padding: Padding, sizes: Sequence[int], calls: int) -> Computed:
    """What was computed of a padded batch, when its outputs can be cut back; else all its calls fail."""
    wrong = padding.misfit(computed.outputs, sizes)
    if wrong is None:
        return computed
    error = errors.BadModelOutput(wrong)
    return Computed({}, [failure(index, error) for index in range(calls)], computed.compute)


def _one_by_one(
    runtime: Runtime,
    inputs: Mapping[str, Array],
    rows: Sequence[int],
    parameters: Mapping[str, Parameter],
    started: int,
) -> Computed:
    blocks: list[Arrays] = []
    failures: list[CallFailure] = []
    at = 0
    for index, count in enumerate(rows):
        part = {name: array[at : at + count] for name, array in inputs.items()}
        at += count
        try:
            blocks.append(_predict(runtime, part, parameters, count))
        except Raised as error:
            failures.append(failure(index, error))
    if not blocks:
        return Computed({}, failures, time.monotonic_ns() - started)
    try:
        joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    except (KeyError, ValueError) as error:
        lie = errors.BadModelOutput(f"outputs of calls of one batch do not fit together: {error}")
        return Computed({}, [failure(i, lie) for i in range(len(rows))], time.monotonic_ns() - started)
    except MemoryError as error:
        return Computed({}, [failure(i, error) for i in range(len(rows))], time.monotonic_ns() - started)
    return Computed(joined, failures, time.monotonic_ns() - started)


def _predict(runtime: Runtime, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter], rows: int) -> Arrays:
    signature = runtime.signature
    if not rows and signature.batchable:
        # Many models refuse an input without rows, but beside other requests in a batch they would never see it.
        empty = no_rows(signature)
        if empty is not None:
            return empty
    return checked(signature, runtime.predict(inputs, parameters), rows)


def no_rows(signature: Signature) -> Arrays | None:
    """The outputs for no rows at all, when the signature tells their shapes."""
    if not signature.outputs or any(-1 in spec.shape[1:] for spec in signature.outputs):
        return None
    return {spec.name: np.empty((0, *spec.shape[1:]), NUMPY_DTYPES[spec.dtype]) for spec in signature.outputs}


def checked(signature: Signature, outputs: Arrays, rows: int) -> Arrays:
    """Outputs as the wire can carry them; raises BadModelOutput when they break what the model declared."""
    if not outputs:
        raise errors.BadModelOutput("the model returned no outputs")
    result: Arrays = {}
    batchable = signature.batchable
    for name, value in outputs.items():
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
        if array.dtype not in _CARRIED:
            array = _carried(name, array)
        shape = array.shape
        if batchable and (not shape or shape[0] != rows):
            raise errors.BadModelOutput(
                f"output {name!r} has shape {list(array.shape)} for {rows} rows: dimension 0 must be the rows"
                " (set batchable = False when the model takes one request at a time)"
            )
        result[name] = array
    return result


def _carried(name: str, array: Array) -> Array:
    """The same values with a dtype that frames carry: little-endian numbers, or bytes."""
    if array.dtype.kind in "OUS":
        return as_bytes_elements(array)
    native = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if native.dtype in _CARRIED:
        return native
    raise errors.BadModelOutput(
        f"output {name!r} has the numpy dtype {array.dtype}, which has no Open Inference datatype"
    )


def failure(index: int, error: BaseException) -> CallFailure:
    """What the caller of one call gets to read about an exception of the model."""
    if isinstance(error, errors.HeadraceError):
        return CallFailure(index, error.code, error.message)
    if isinstance(error, MemoryError):
        return CallFailure(index, errors.ModelRaised.code, "the model ran out of memory (MemoryError)")
    where = _place(error)
    text = _text(error)
    return CallFailure(index, errors.ModelRaised.code, f"the model raised {type(error).__name__}: {text[:2000]}{where}")


def _text(error: BaseException) -> str:
    try:
        return str(error) or "no message"
    except Raised as broken:  # it is the model's class
        return f"no message, its __str__ raised {type(broken).__name__}"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    return f" (in {last.name}, {last.filename.rsplit('/', 1)[-1]}:{last.lineno})"


def wire_dtype(array: Array, declared: DType | None) -> str:
    """Datatype under which an output travels: the declared one when memory agrees (BF16 lives in uint16)."""
    if declared is not None and NUMPY_DTYPES[declared] == array.dtype:
        return declared
    return dtype_of(array)


def zeros(signature: Signature, rows: int) -> Arrays:
    """Warm-up input made from a signature: zeros, empty strings; free dimensions are 1."""
    made: Arrays = {}
    for spec in signature.inputs:
        shape = tuple(
            rows if signature.batchable and axis == 0 else 1 if dim < 0 else dim for axis, dim in enumerate(spec.shape)
        )
        array = np.zeros(shape, NUMPY_DTYPES[spec.dtype])
        if spec.dtype is DType.BYTES:
            array[...] = b""
        made[spec.name] = array
    return made
