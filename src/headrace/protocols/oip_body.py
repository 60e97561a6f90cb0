"""Typed JSON bodies of the Open Inference Protocol, decoded in one pass.

An input is a tagged union on ``datatype``: msgspec checks every element against its datatype while it parses, so
the hot path has no Python loop over values and no second parser exists for error messages.
"""

from __future__ import annotations

import re
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, NoReturn, cast

import msgspec
import numpy as np

from headrace.core import errors
from headrace.core.tensors import NUMPY_DTYPES, DType
from headrace.protocols import json_elements

_Dimension = Annotated[int, msgspec.Meta(ge=0)]


class InputTensor(msgspec.Struct, gc=False, tag_field="datatype"):
    """One input; the class is chosen by ``datatype``, which narrows ``data``."""

    dtype: ClassVar[DType]
    numeric: ClassVar[np.dtype[Any] | None]
    """The numpy dtype when numpy alone makes the array from ``data``."""
    name: str
    shape: list[_Dimension]
    data: Any = None
    parameters: dict[str, Any] | None = None


def _input_type(dtype: DType) -> type[InputTensor]:
    # FP16 and BF16 have no JSON form.
    data = None if dtype in (DType.FP16, DType.BF16) else json_elements.nested(json_elements.ELEMENT[dtype]) | None
    made = msgspec.defstruct(
        f"Input{dtype}",
        [("data", data, None)],
        bases=(InputTensor,),
        namespace={"dtype": dtype, "numeric": None if dtype is DType.BYTES else NUMPY_DTYPES[dtype]},
        tag=str(dtype),
        gc=False,
    )
    return cast(type[InputTensor], made)


_Input: Any = reduce(or_, [_input_type(dtype) for dtype in DType])


class RequestedOutput(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class InferBody(msgspec.Struct, gc=False):
    """The JSON part of an infer request; unknown fields are skipped, null means absent."""

    inputs: list[InputTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


_decoder: msgspec.json.Decoder[InferBody] = msgspec.json.Decoder(
    msgspec.defstruct("InferBody", [("inputs", list[_Input])], bases=(InferBody,), gc=False)
)


def decode(body: bytes | memoryview) -> InferBody:
    """Parse the JSON part of a request. Raises InvalidInput that names the input and what was expected."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        _refuse(error, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if re.search(rb"NaN|Infinity", body):
            raise errors.InvalidInput(
                "the body is not valid JSON: NaN and Infinity have no JSON form, send that tensor as binary data"
                f" ({error})"
            ) from None
        json_elements.refuse_malformed(error, body)


_INPUT_PATH = re.compile(r"(?s)\.inputs\[(\d+)\]\.?(.*)\Z")


def _refuse(error: msgspec.ValidationError, body: bytes | memoryview) -> NoReturn:
    problem = json_elements.problem(error)
    found = _INPUT_PATH.match(problem.path)
    if found is None:
        where = problem.path.removeprefix(".")
        raise errors.InvalidInput(f"{where}: {problem.what}" if where else f"the body is not valid: {problem.what}")
    index, field = int(found[1]), found[2]
    raw = _raw_input(body, index)
    name, dtype = raw.get("name"), raw.get("datatype")
    where = f"input {name!r}" if isinstance(name, str) else f"inputs[{index}]"
    if field == "datatype" or "`datatype`" in problem.what:
        got = f"datatype {dtype!r} is unknown" if "datatype" in raw else "the datatype is missing"
        raise errors.InvalidInput(f"{where}: {got}; expected one of {', '.join(DType)}")
    if field.startswith("data") and dtype in (DType.FP16, DType.BF16):
        raise errors.InvalidInput(
            f"{where}: {dtype} has no JSON form; send it as binary data (parameters.binary_data_size and the header"
            " Inference-Header-Content-Length)"
        )
    what = problem.what.replace(" or array", "") if field.startswith("data[") else problem.what
    shown = f" {dtype}" if isinstance(dtype, str) else ""
    raise errors.InvalidInput(f"{where}{shown}: {field}: {what}" if field else f"{where}{shown}: {what}")


def _raw_input(body: bytes | memoryview, index: int) -> dict[str, Any]:
    """The untyped input at ``index``, to name it in an error; empty when even that cannot be read."""
    try:
        found = msgspec.json.decode(body)["inputs"][index]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
