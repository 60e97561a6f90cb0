"""Golden files: requests with the answers that a version must give, one JSON object a line. Sans-IO.

    {"name": "optional", "inputs": [...], "outputs": [...], "parameters": {...}, "tolerances": {"y": {"rtol": 1e-3}}}

``inputs`` and ``outputs`` are tensors as in the Open Inference Protocol: ``name``, ``datatype``, ``shape`` and ``data``
(flat or nested). Every datatype can be kept, so there is a little more than the protocol's JSON has: FP16 and BF16 are
numbers, "NaN", "Infinity" and "-Infinity" stand for what is no number, {"b64": "…"} for bytes that are no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NoReturn

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.comparison import DEFAULTS, Tolerance
from headrace.core.requests import Parameter
from headrace.core.tensors import Array, DType, Tensor, bf16_to_fp32, element_count
from headrace.protocols import json_elements, request_parameters

MAX_REQUESTS = 10_000
"""Of one file: a new version answers all of them before it gets traffic."""

EXAMPLE = (
    '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}],'
    ' "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.25]}]}'
)
"""A line as it should be, for messages."""

_FIELDS = "inputs, outputs and, if wanted, name, parameters, tolerances"
_NO_NUMBERS = Literal["NaN", "Infinity", "-Infinity"]
_Dimension = Annotated[int, msgspec.Meta(ge=0)]
_Bound = Annotated[float, msgspec.Meta(ge=0)] | msgspec.UnsetType


class GoldenRequest(msgspec.Struct, frozen=True):
    """A request and the answer that was recorded for it.

    tolerances  by output name; the others have the default of their datatype (``core/comparison.py``)
    line        where it stands in the file, from 1; 0 when it is not from a file"""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: dict[str, Parameter] = {}
    tolerances: dict[str, Tolerance] = {}
    name: str = ""
    line: int = 0

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or f"line {self.line}"


class _Tensor(msgspec.Struct):
    name: str
    datatype: DType
    shape: tuple[_Dimension, ...]
    data: Any


class _RawTensor(_Tensor):
    """As it is read: ``data`` is decoded when its datatype is known."""

    data: msgspec.Raw


class _Tolerance(msgspec.Struct, forbid_unknown_fields=True):
    rtol: _Bound = msgspec.UNSET
    atol: _Bound = msgspec.UNSET


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """``forbid_unknown_fields``: a tolerance under a misspelt name would silently be none."""

    inputs: list[_RawTensor]
    outputs: Annotated[list[_RawTensor], msgspec.Meta(min_length=1)]
    name: str = ""
    parameters: dict[str, Any] = {}
    tolerances: dict[str, _Tolerance] = {}


class _WrittenLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str = ""
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    parameters: dict[str, Parameter] = {}
    tolerances: dict[str, Tolerance] = {}


def _element(dtype: DType) -> Any:
    element = json_elements.ELEMENT[dtype]
    if dtype in json_elements.FLOATS:
        return element | _NO_NUMBERS
    return element | json_elements.Base64 if dtype is DType.BYTES else element


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_data = {dtype: msgspec.json.Decoder(json_elements.nested(_element(dtype))).decode for dtype in DType}
_encode = msgspec.json.Encoder().encode


# --- reading ------------------------------------------------------------------------------------------------------


def read(content: bytes, name: str) -> Iterator[GoldenRequest]:
    """The requests of a file, which errors call ``name``; empty lines are skipped.

    Raises InvalidInput that names the line and the field, what is wrong and what was expected."""
    count = 0
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        count += 1
        if count > MAX_REQUESTS:
            raise errors.InvalidInput(
                f"{name}, line {number}: there are more than {MAX_REQUESTS} golden requests; keep those that tell the"
                " most"
            )
        try:
            found = _request(line, number)
        except errors.InvalidInput as error:
            raise errors.InvalidInput(f"{name}, line {number}: {error.message}") from None
        yield found
    if not count:
        raise errors.InvalidInput(f"{name} holds no golden requests; a line is like {EXAMPLE}")


def check(content: bytes, name: str) -> None:
    """Raises InvalidInput, like ``read``, for the first line that is wrong."""
    for _ in read(content, name):
        pass


def _request(line: bytes, number: int) -> GoldenRequest:
    found = _parsed(line)
    inputs = _tensors(found.inputs, "inputs")
    outputs = _tensors(found.outputs, "outputs")
    tolerances = _tolerances(found.tolerances, outputs)
    parameters = request_parameters.scalars(found.parameters)
    return GoldenRequest(inputs, outputs, parameters, tolerances, found.name, number)


def _parsed(line: bytes) -> _Line:
    try:
        return _decode_line(line)
    except msgspec.ValidationError as error:
        _refuse(json_elements.problem(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = f"every line is a JSON object like {EXAMPLE}"
        if b"NaN" in line or b"Infinity" in line:
            hint = 'JSON has no NaN and infinity: write "NaN", "Infinity" or "-Infinity", in quotes'
        raise errors.InvalidInput(f"not valid JSON: {error}; {hint}") from None


def _refuse(problem: json_elements.Problem) -> NoReturn:
    where = problem.path.removeprefix(".")
    if where.endswith(".datatype"):
        expected = f"expected one of {', '.join(DType)}"
    elif where.startswith("tolerances"):
        expected = 'expected numbers that are not negative, {"rtol": 1e-3, "atol": 1e-6}, by the name of an output'
    elif "unknown field" in problem.what:
        expected = f"a line has {_FIELDS}, like {EXAMPLE}"
    else:
        expected = f"expected a line like {EXAMPLE}"
    raise errors.InvalidInput(f"{where}: {problem.what}; {expected}" if where else f"{problem.what}; {expected}")


def _tensors(found: list[_RawTensor], field: str) -> tuple[Tensor, ...]:
    names = [item.name for item in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise errors.InvalidInput(f"{field}: {twice!r} is given more than once")
    return tuple(
        Tensor(item.name, item.datatype, _array(item, f"{field}[{at}] {item.name!r}")) for at, item in enumerate(found)
    )


def _array(item: _RawTensor, where: str) -> Array:
    try:
        expected = element_count(item.shape)
        array = json_elements.to_array(item.datatype, _decode_data[item.datatype](item.data))
    except msgspec.ValidationError as error:
        problem = json_elements.problem(error)
        what = problem.what.replace(" or array", "") if problem.path else problem.what
        raise errors.InvalidInput(f"{where}: data{problem.path}: {what}; {_kind(item.datatype)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.InvalidInput(f"{where}: data cannot be read: {error}; {_kind(item.datatype)}") from None
    except OverflowError:
        raise errors.InvalidInput(f"{where}: data holds an integer out of range of {item.datatype}") from None
    except ValueError:
        raise errors.InvalidInput(f"{where}: the nested lists of data have different lengths") from None
    except errors.InvalidInput as error:
        raise errors.InvalidInput(f"{where}: {error.message}") from None
    if array.size != expected:
        raise errors.InvalidInput(f"{where}: shape {list(item.shape)} takes {expected} elements, data has {array.size}")
    return array.reshape(item.shape)


def _kind(dtype: DType) -> str:
    """What elements of this datatype look like."""
    if dtype is DType.BYTES:
        return 'expected strings like "US", or {"b64": "AP8="} for bytes that are no text'
    if dtype is DType.BOOL:
        return "expected true or false"
    if dtype in json_elements.FLOATS:
        return f'expected numbers in the range of {dtype} like 0.5, or "NaN", "Infinity", "-Infinity"'
    return f"expected whole numbers in the range of {dtype}"


def _tolerances(given: dict[str, _Tolerance], outputs: tuple[Tensor, ...]) -> dict[str, Tolerance]:
    """With the default of the output's datatype for what is not given."""
    dtypes = {tensor.name: tensor.dtype for tensor in outputs}
    found = {}
    for name, tolerance in given.items():
        if name not in dtypes:
            raise errors.InvalidInput(f"tolerances: {name!r} is none of the outputs {', '.join(map(repr, dtypes))}")
        default = DEFAULTS.get(dtypes[name])
        if default is None:
            raise errors.InvalidInput(
                f"tolerances: output {name!r} is {dtypes[name]}, which is equal or is not; only"
                f" {', '.join(DEFAULTS)} have tolerances"
            )
        found[name] = Tolerance(
            default.rtol if tolerance.rtol is msgspec.UNSET else tolerance.rtol,
            default.atol if tolerance.atol is msgspec.UNSET else tolerance.atol,
        )
    return found


# --- writing ------------------------------------------------------------------------------------------------------


def write(request: GoldenRequest) -> bytes:
    """A request as a line of a file, with its newline; ``read`` gives the same values back, bit for bit but for the
    bits of NaN."""
    line = _WrittenLine(
        name=request.name,
        inputs=[_written(tensor) for tensor in request.inputs],
        outputs=[_written(tensor) for tensor in request.outputs],
        parameters=request.parameters,
        tolerances=request.tolerances,
    )
    return _encode(line) + b"\n"


def _written(tensor: Tensor) -> _Tensor:
    array = tensor.array.ravel()
    if tensor.dtype is DType.BYTES:
        data: list[Any] = [_text(item) for item in array]
    elif tensor.dtype in json_elements.FLOATS:
        data = _numbers(bf16_to_fp32(array) if tensor.dtype is DType.BF16 else array)
    else:
        data = array.tolist()
    return _Tensor(tensor.name, tensor.dtype, tensor.shape, data)


def _text(item: bytes) -> str | json_elements.Base64:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return json_elements.Base64(item)


def _numbers(array: Array) -> list[Any]:
    """Short floats keep their own digits: 0.1, not 0.10000000149011612."""
    exact = array.astype(np.float64)
    # Rounded to its own digits, the largest number of a datatype is out of its range.
    short = np.where(np.abs(exact) < 1e38, array.astype(str).astype(np.float64), exact)
    values: list[Any] = short.tolist()
    if np.isfinite(exact).all():
        return values
    return [value if np.isfinite(value) else _NAMES[str(value)] for value in values]


_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
