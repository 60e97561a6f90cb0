"""Golden files: requests with the answers that a version must give, one JSON object a line. Sans-IO.

    {"name": "optional", "inputs": [...], "outputs": [...], "parameters": {...}, "tolerances": {"y": {"rtol": 1e-3}}}
    {"inputs": [...], "responses": [[...], [...]]}

``inputs`` and ``outputs`` are lists of tensors (``golden_tensors.py``). A model that streams has ``responses`` in place
of ``outputs``: the outputs of each response, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NoReturn

import msgspec

from headrace.core import errors
from headrace.core.comparison import DEFAULTS, Tolerance
from headrace.core.requests import Parameter
from headrace.core.tensors import DType, Tensor
from headrace.protocols import golden_tensors, json_elements, request_parameters
from headrace.protocols.golden_tensors import RawTensor, WrittenTensor

MAX_REQUESTS = 10_000
"""Of one file: a new version answers all of them before it gets traffic."""

EXAMPLE = (
    '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}],'
    ' "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.25]}]}'
)
"""A line as it should be, for messages."""

_FIELDS = "inputs, outputs (or responses, of a stream) and, if wanted, name, parameters, tolerances"
_Bound = Annotated[float, msgspec.Meta(ge=0)] | msgspec.UnsetType
_Outputs = Annotated[list[RawTensor], msgspec.Meta(min_length=1)]


class GoldenRequest(msgspec.Struct, frozen=True):
    """A request and the answer that was recorded for it.

    outputs     of the one answer; empty when the answer was a stream
    responses   of a stream, in order, the outputs of each; None when there was one answer
    tolerances  by output name; the others have the default of their datatype (``core/comparison.py``)
    line        where it stands in the file, from 1; 0 when it is not from a file"""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...] = ()
    parameters: dict[str, Parameter] = {}
    tolerances: dict[str, Tolerance] = {}
    name: str = ""
    line: int = 0
    responses: tuple[tuple[Tensor, ...], ...] | None = None

    @property
    def streams(self) -> bool:
        """The answer was a stream."""
        return self.responses is not None

    @property
    def answer(self) -> tuple[tuple[Tensor, ...], ...]:
        """What was answered, in order: one response, or those of a stream."""
        return (self.outputs,) if self.responses is None else self.responses

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.name or f"line {self.line}"


class _Tolerance(msgspec.Struct, forbid_unknown_fields=True):
    rtol: _Bound = msgspec.UNSET
    atol: _Bound = msgspec.UNSET


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """``forbid_unknown_fields``: a tolerance under a misspelt name would silently be none."""

    inputs: list[RawTensor]
    outputs: _Outputs | msgspec.UnsetType = msgspec.UNSET
    responses: list[_Outputs] | msgspec.UnsetType = msgspec.UNSET
    name: str = ""
    parameters: dict[str, Any] = {}
    tolerances: dict[str, _Tolerance] = {}


class _WrittenLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str = ""
    inputs: list[WrittenTensor]
    outputs: list[WrittenTensor] | msgspec.UnsetType = msgspec.UNSET
    responses: list[list[WrittenTensor]] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Parameter] = {}
    tolerances: dict[str, Tolerance] = {}


_decode_line = msgspec.json.Decoder(_Line).decode
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
    inputs = golden_tensors.read(found.inputs, "inputs")
    outputs, responses = _answer(found)
    expected = [tensor for response in (outputs, *(responses or ())) for tensor in response]
    tolerances = _tolerances(found.tolerances, expected)
    parameters = request_parameters.scalars(found.parameters)
    return GoldenRequest(inputs, outputs, parameters, tolerances, found.name, number, responses)


def _answer(found: _Line) -> tuple[tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...] | None]:
    """Outputs of one answer, or the responses of a stream."""
    match found.outputs, found.responses:
        case msgspec.UNSET, msgspec.UNSET:
            raise errors.InvalidInput(
                "missing required field `outputs`, or `responses` of a model that streams; expected a line like"
                f" {EXAMPLE}"
            )
        case msgspec.UNSET, list(responses):
            read = (golden_tensors.read(outputs, f"responses[{at}]") for at, outputs in enumerate(responses))
            return (), tuple(read)
        case list(outputs), msgspec.UNSET:
            return golden_tensors.read(outputs, "outputs"), None
    raise errors.InvalidInput(
        "outputs and responses: a line has one of them, `outputs` of one answer or `responses` of a stream"
    )


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


def _tolerances(given: dict[str, _Tolerance], expected: Sequence[Tensor]) -> dict[str, Tolerance]:
    """With the default of the output's datatype for what is not given."""
    dtypes: dict[str, DType] = {}
    for tensor in expected:
        if dtypes.setdefault(tensor.name, tensor.dtype) != tensor.dtype and tensor.name in given:
            raise errors.InvalidInput(
                f"tolerances: output {tensor.name!r} is {dtypes[tensor.name]} in one response and {tensor.dtype} in"
                " another"
            )
    return {name: _tolerance(name, tolerance, dtypes) for name, tolerance in given.items()}


def _tolerance(name: str, given: _Tolerance, dtypes: Mapping[str, DType]) -> Tolerance:
    if name not in dtypes:
        raise errors.InvalidInput(f"tolerances: {name!r} is none of the outputs {', '.join(map(repr, dtypes))}")
    default = DEFAULTS.get(dtypes[name])
    if default is None:
        raise errors.InvalidInput(
            f"tolerances: output {name!r} is {dtypes[name]}, which is equal or is not; only"
            f" {', '.join(DEFAULTS)} have tolerances"
        )
    return Tolerance(
        default.rtol if given.rtol is msgspec.UNSET else given.rtol,
        default.atol if given.atol is msgspec.UNSET else given.atol,
    )


# --- writing ------------------------------------------------------------------------------------------------------


def write(request: GoldenRequest) -> bytes:
    """A request as a line of a file, with its newline; ``read`` gives the same values back, bit for bit but for the
    bits of NaN."""
    answer = [[golden_tensors.written(tensor) for tensor in response] for response in request.answer]
    line = _WrittenLine(
        name=request.name,
        inputs=[golden_tensors.written(tensor) for tensor in request.inputs],
        outputs=msgspec.UNSET if request.streams else answer[0],
        responses=answer if request.streams else msgspec.UNSET,
        parameters=request.parameters,
        tolerances=request.tolerances,
    )
    return _encode(line) + b"\n"
