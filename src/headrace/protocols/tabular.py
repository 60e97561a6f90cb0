"""Rows and columns of plain JSON as tensors of a signature.

For every signature msgspec types are made once: a row is a struct with a field per input, so a row of thirty columns
is checked and decoded in C, and columns of one datatype become one numpy block. Dialect-independent: it knows
neither bodies nor the keys around the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

import msgspec
import numpy as np

from headrace.core import binding, errors
from headrace.core.models import Signature, TensorSpec
from headrace.core.tensors import NUMPY_DTYPES, Array, DType, Tensor, fp32_to_bf16
from headrace.protocols import json_elements, untyped
from headrace.protocols.json_sources import Source, Typed

_as_tuple = msgspec.structs.astuple


class _Block(NamedTuple):
    """Inputs that become one numpy block: scalar columns of one datatype, or one input alone."""

    dtype: DType
    names: tuple[str, ...]
    pick: Callable[[tuple[Any, ...]], Any] | None
    """From the tuple of a row to this block's values; None: the whole tuple."""
    scalar: bool
    optional: bool


class Table:
    """Converters for one signature. Methods raise InvalidInput, and msgspec's own errors for what is no JSON."""

    def __init__(self, signature: Signature, literals: bool) -> None:
        """``literals``: values come from a body with NaN or Infinity, so floats are unbounded."""
        self.signature = signature
        self._specs = signature.inputs
        self._elements = [_element(spec.dtype, literals) for spec in self._specs]
        # msgspec cannot use every name as a key (quotes, control characters): those get a stand-in.
        self._aliases = {
            spec.name: f"input #{at}" for at, spec in enumerate(self._specs) if _UNNAMEABLE.search(spec.name)
        }

    def rows(self, source: Source) -> list[Tensor]:
        """A list of rows: objects by input name, or bare values when there is one input."""
        if self.signature.any_inputs:
            return untyped.guess_rows(self.signature, source.value())
        if len(self._specs) == 1 and not (source.holds_objects() and self._is_named(source)):
            return [self._stacked(source)]
        if self._aliases:
            source = source.renamed(self._aliases)
        try:
            return self._from_rows(self._rows_type.take(source))
        except msgspec.ValidationError as error:
            self._refuse_row(error)

    def columns(self, source: Source) -> list[Tensor]:
        """An object of tensors by input name, or one bare tensor when there is one input."""
        if self.signature.any_inputs:
            return untyped.guess_columns(self.signature, source.value())
        if len(self._specs) == 1 and not (source.is_object() and self._is_named(source)):
            return [self._bare(source)]
        if self._aliases:
            source = source.renamed(self._aliases)
        try:
            found = self._columns_type.take(source)
        except msgspec.ValidationError as error:
            self._refuse_column(error)
        return [
            Tensor(spec.name, spec.dtype, self._array(spec, value))
            for spec, value in zip(self._specs, _as_tuple(found), strict=True)
            if value is not msgspec.UNSET
        ]

    # Types, made when first needed.

    @cached_property
    def _rows_type(self) -> Typed:
        kinds = [
            element if len(spec.shape) <= 1 else element | json_elements.nested(element)
            for spec, element in zip(self._specs, self._elements, strict=True)
        ]
        return Typed(list[self._struct("Row", kinds)])  # type: ignore[misc]

    @cached_property
    def _columns_type(self) -> Typed:
        return Typed(self._struct("Columns", [element | json_elements.nested(element) for element in self._elements]))

    @cached_property
    def _list_type(self) -> Typed:
        return Typed(json_elements.nested(self._elements[0]))

    @cached_property
    def _bare_type(self) -> Typed:
        return Typed(self._elements[0] | json_elements.nested(self._elements[0]))

    def _struct(self, name: str, kinds: list[Any]) -> type[msgspec.Struct]:
        fields: list[Any] = [
            (f"f{at}", kind | msgspec.UnsetType, msgspec.UNSET) if spec.optional else (f"f{at}", kind)
            for at, (spec, kind) in enumerate(zip(self._specs, kinds, strict=True))
        ]
        keys = {f"f{at}": self._aliases.get(spec.name, spec.name) for at, spec in enumerate(self._specs)}
        # kw_only lets optional fields stand before required ones.
        return msgspec.defstruct(name, fields, rename=keys, forbid_unknown_fields=True, kw_only=True, gc=False)

    @cached_property
    def _blocks(self) -> list[_Block]:
        alone: list[_Block] = []
        together: dict[DType, list[int]] = {}
        for at, spec in enumerate(self._specs):
            scalar = len(spec.shape) <= 1
            if scalar and not spec.optional:
                together.setdefault(spec.dtype, []).append(at)
            else:
                alone.append(_Block(spec.dtype, (spec.name,), itemgetter(at), scalar, spec.optional))
        if not alone and len(together) == 1:
            dtype = self._specs[0].dtype
            return [_Block(dtype, tuple(spec.name for spec in self._specs), None, True, False)]
        return alone + [
            _Block(dtype, tuple(self._specs[at].name for at in group), itemgetter(*group), True, False)
            for dtype, group in together.items()
        ]

    # Rows.

    def _from_rows(self, rows: list[msgspec.Struct]) -> list[Tensor]:
        if not rows:
            raise errors.InvalidInput("instances is empty; at least one row is needed")
        tuples = list(map(_as_tuple, rows))
        found: list[Tensor] = []
        for block in self._blocks:
            picked = tuples if block.pick is None else list(map(block.pick, tuples))
            if block.optional:
                if all(value is msgspec.UNSET or value is None for value in picked):
                    continue
                picked = self._without_gaps(block, picked)
            if len(block.names) == 1:
                if block.pick is None:
                    picked = [value for (value,) in tuples]
                found.append(Tensor(block.names[0], block.dtype, self._stack(block, picked)))
            else:
                found += map(Tensor, block.names, [block.dtype] * len(block.names), self._columns_of(block, picked))
        return found

    def _columns_of(self, block: _Block, picked: list[tuple[Any, ...]]) -> Array:
        """Contiguous columns, [columns, rows]."""
        dtype = block.dtype
        if dtype is DType.BYTES:
            flat = json_elements.to_array(dtype, list(chain.from_iterable(picked)))
            return np.ascontiguousarray(flat.reshape(len(picked), len(block.names)).T)
        try:
            table = np.array(picked, np.float32 if dtype is DType.BF16 else NUMPY_DTYPES[dtype])
        except OverflowError:
            self._refuse_overflow(block, picked)
        columns = np.ascontiguousarray(table.T)
        return fp32_to_bf16(columns) if dtype is DType.BF16 else columns

    def _stack(self, block: _Block, values: list[Any]) -> Array:
        try:
            return json_elements.to_array(block.dtype, values)
        except OverflowError:
            self._refuse_overflow(block, [(value,) for value in values])
        except ValueError:
            name = block.names[0]
            raise errors.InvalidInput(f"input {name!r}: the rows have different shapes") from None

    def _without_gaps(self, block: _Block, values: list[Any]) -> list[Any]:
        """Values of an optional input that some rows leave out: NaN for numbers, refused otherwise."""
        gaps = [at for at, value in enumerate(values) if value is msgspec.UNSET or value is None]
        if gaps and not (block.scalar and block.dtype in json_elements.FLOATS):
            raise errors.InvalidInput(
                f"instances[{gaps[0]}]: column {block.names[0]!r} is missing, but other rows have it"
            )
        return [None if value is msgspec.UNSET else value for value in values]

    def _stacked(self, source: Source) -> Tensor:
        """A list of bare values for the only input."""
        spec = self._specs[0]
        try:
            values = self._list_type.take(source)
        except msgspec.ValidationError as error:
            self._refuse_value(error, "instances")
        if not values:
            raise errors.InvalidInput("instances is empty; at least one row is needed")
        array = self._array(spec, values)
        return Tensor(spec.name, spec.dtype, array.reshape(()) if not spec.shape and array.size == 1 else array)

    def _bare(self, source: Source) -> Tensor:
        spec = self._specs[0]
        try:
            value = self._bare_type.take(source)
        except msgspec.ValidationError as error:
            self._refuse_value(error, "inputs")
        return Tensor(spec.name, spec.dtype, self._array(spec, value))

    def _array(self, spec: TensorSpec, value: Any) -> Array:
        try:
            return json_elements.to_array(spec.dtype, value)
        except OverflowError:
            raise errors.InvalidInput(f"input {spec.name!r}: an integer is out of range of {spec.dtype}") from None
        except ValueError:
            raise errors.InvalidInput(f"input {spec.name!r}: the nested lists have different lengths") from None

    def _is_named(self, source: Source) -> bool:
        """Whether objects are rows or columns by name, and not ``{"b64": …}`` values of a BYTES input."""
        if self._specs[0].dtype is not DType.BYTES:
            return True
        value = source.value()
        first = value[0] if isinstance(value, list) else value
        return not (isinstance(first, dict) and first.keys() == {"b64"})

    # Errors: msgspec's, in words of rows, columns and inputs.

    def _refuse_row(self, error: msgspec.ValidationError) -> NoReturn:
        problem = json_elements.problem(error)
        found = re.match(r"(?s)\[(\d+)\]\.?(.*)", problem.path)
        if found is None:
            raise errors.InvalidInput(f"instances: {problem.what}") from None
        where = f"instances[{found[1]}]"
        if not found[2] and problem.what.startswith("expected object"):
            raise errors.InvalidInput(
                f"{where}: {problem.what}; this model takes several inputs, so a row is an object with"
                f" {binding.describe(self._specs)}"
            ) from None
        self._refuse_field(where, found[2], problem.what)

    def _refuse_column(self, error: msgspec.ValidationError) -> NoReturn:
        problem = json_elements.problem(error)
        if not problem.path and problem.what.startswith("expected object"):
            raise errors.InvalidInput(
                f"inputs: {problem.what}; this model takes several inputs: {binding.describe(self._specs)}"
            ) from None
        self._refuse_field("inputs", problem.path.removeprefix("."), problem.what)

    def _refuse_field(self, where: str, field: str, what: str) -> NoReturn:
        """``field`` is a column and maybe indices inside it; ``what`` may name a column that is missing or unknown."""
        names = {alias: name for name, alias in self._aliases.items()}
        missing = re.match(r"(?s)object missing required field `(.*)`", what)
        unknown = re.match(r"(?s)object contains unknown field `(.*)`", what)
        if not field and (missing or unknown):
            named = missing or unknown
            key = names.get(named[1], named[1]) if named else ""
            state = "is missing" if missing else "is unknown"
            raise errors.InvalidInput(
                f"{where}: column {key!r} {state}; the model takes {binding.describe(self._specs)}"
            ) from None
        keys = {self._aliases.get(spec.name, spec.name): spec for spec in self._specs}
        key = max((key for key in keys if field.startswith(key)), key=len, default="")
        if not key:
            raise errors.InvalidInput(f"{where}: {what}") from None
        spec = keys[key]
        at = field.removeprefix(key)
        raise errors.InvalidInput(f"{where}: column {spec.name!r} {spec.dtype}{at and ' at ' + at}: {what}") from None

    def _refuse_value(self, error: msgspec.ValidationError, form: str) -> NoReturn:
        problem = json_elements.problem(error)
        spec = self._specs[0]
        raise errors.InvalidInput(f"{form}{problem.path}: input {spec.name!r} {spec.dtype}: {problem.what}") from None

    def _refuse_overflow(self, block: _Block, picked: list[tuple[Any, ...]]) -> NoReturn:
        limits = np.iinfo(NUMPY_DTYPES[block.dtype])
        for row, values in enumerate(picked):
            for name, value in zip(block.names, values, strict=True):
                if not all(limits.min <= item <= limits.max for item in untyped.flatten(value)):
                    raise errors.InvalidInput(
                        f"instances[{row}]: column {name!r}: {value!r:.40} is out of range of {block.dtype}"
                    ) from None
        raise errors.Bug(f"no value of {block.names} is out of range of {block.dtype}")


_UNNAMEABLE = re.compile(r'["\\\x00-\x1f]')


def _element(dtype: DType, literals: bool) -> Any:
    """What one value of a column may be: null among floats means NaN, BYTES may be base64."""
    if dtype is DType.BYTES:
        return str | json_elements.Base64
    if dtype in json_elements.FLOATS:
        return (float if literals else json_elements.ELEMENT[dtype]) | None
    return json_elements.ELEMENT[dtype]


_MAX_TABLES = 256
_tables: dict[tuple[int, bool], Table] = {}


def table(signature: Signature, literals: bool = False) -> Table:
    """The converters of a signature, remembered by identity: hashing a signature costs more than a request.

    A remembered table keeps its signature alive, so an identity is never reused while it is in the memo."""
    found = _tables.get((id(signature), literals))
    if found is None:
        if len(_tables) >= _MAX_TABLES:
            _tables.clear()
        found = _tables[id(signature), literals] = Table(signature, literals)
    return found
