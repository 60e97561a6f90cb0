"""Reads what a pickle would import by following its opcodes on symbols. Nothing is ever unpickled or imported.

The opcode table is that of ``pickletools``. joblib writes the bytes of numpy arrays between the opcodes
(``joblib.numpy_pickle.NumpyArrayWrapper``), so the shape and dtype of those arrays are followed too, to step
over them. Everything is bounded: opcodes, memory, depth; past a bound the scan is ``complete=False``.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from headrace.core import errors

MAX_OPCODES = 400_000
MAX_TEXT = 1 << 16
"""Longest string kept; longer ones cannot be names of anything."""

_MAX_NESTED = 4
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_SIZED = {
    "BINSTRING": 4, "SHORT_BINSTRING": 1, "BINBYTES": 4, "SHORT_BINBYTES": 1, "BINBYTES8": 8, "BYTEARRAY8": 8,
    "BINUNICODE": 4, "SHORT_BINUNICODE": 1, "BINUNICODE8": 8, "LONG1": 1, "LONG4": 4,
}  # fmt: skip
"""Opcodes whose argument begins with its length in this many bytes."""
_TEXT = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"})
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_DTYPE_CODE = re.compile(r"[<>|=]?([a-zA-Z?])(\d*)\Z")


@dataclass(frozen=True, slots=True)
class Name:
    """Something that would be imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Made:
    """The result of calling a name: its arguments, and the state set on it later."""

    by: object
    arguments: object = None
    state: object = None


@dataclass(slots=True)
class Found:
    """``joblib``: arrays lie between the opcodes. ``complete``: every opcode was seen."""

    imports: set[str] = field(default_factory=set)
    joblib: bool = False
    complete: bool = True
    opcodes: int = 0


class BadPickle(Exception):
    """The bytes are not a whole pickle. The message says why."""


class LimitReached(Exception):
    """A bound was reached; a stream may raise it too, e.g. for a compressed file that grows without end."""


_MARK = object()
_ANY = object()


def scan(stream: BinaryIO) -> Found:
    """Scan one pickle, from the stream's position. Raises InvalidInput when it is damaged or cut off."""
    found = Found()
    try:
        _Scanner(stream, found, 0).run()
    except LimitReached:
        found.complete = False
    except BadPickle as error:
        raise errors.InvalidInput(f"this pickle is damaged: {error}") from error
    return found


class _Scanner:
    """One pickle stream: a stack and a memo of symbols."""

    def __init__(self, stream: BinaryIO, found: Found, depth: int) -> None:
        self.stream = stream
        self.found = found
        self.depth = depth
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> None:
        while True:
            code = self.stream.read(1)
            if not code:
                raise BadPickle("it ends before its last opcode")
            opcode = _OPCODES.get(code[0])
            if opcode is None:
                raise BadPickle(f"there is no opcode {code!r}")
            self.found.opcodes += 1
            if self.found.opcodes > MAX_OPCODES:
                raise LimitReached
            if opcode.name == "STOP":
                self.pop()
                return
            self.step(opcode, self.argument(opcode))

    def argument(self, opcode: pickletools.OpcodeInfo) -> Any:
        if opcode.arg is None:
            return None
        if opcode.name in ("GLOBAL", "INST"):
            # Not by pickletools, which undoes escapes: the unpickler takes these names as they are.
            return self.line(), self.line()
        if opcode.name == "PERSID":
            return self.line()
        if opcode.name == "STRING":
            text = self.line()
            # With escapes it counts as computed: a name has none unless it is to be hidden.
            return text[1:-1] if isinstance(text, str) and text.isascii() and "\\" not in text else _ANY
        width = _SIZED.get(opcode.name)
        if width is not None:
            return self.sized(opcode.name, width)
        try:
            return opcode.arg.reader(_Lines(self.stream))  # type: ignore[arg-type]
        except (ValueError, EOFError, OverflowError) as error:
            raise BadPickle(f"{opcode.name}: {error}") from error

    def sized(self, name: str, width: int) -> Any:
        size = int.from_bytes(self.exactly(width), "little")
        if name == "LONG1":
            return int.from_bytes(self.exactly(size), "little", signed=True)
        if size > MAX_TEXT or name not in _TEXT:
            self.skip(size)
            return _ANY
        try:
            return self.exactly(size).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return _ANY

    def line(self) -> object:
        data = self.stream.readline(MAX_TEXT)
        if not data.endswith(b"\n"):
            raise BadPickle("a name has no end")
        try:
            return data[:-1].decode()
        except UnicodeDecodeError:
            return _ANY

    def exactly(self, size: int) -> bytes:
        data = self.stream.read(size)
        if len(data) != size:
            raise BadPickle("it is cut off")
        return data

    def skip(self, size: int) -> None:
        if size > 1 << 50:
            raise BadPickle("it is cut off")
        if self.stream.seekable():
            # Past the end the next read finds nothing, and STOP is always still to come.
            self.stream.seek(size, 1)
            return
        while size > 0:
            chunk = self.stream.read(min(size, 1 << 20))
            if not chunk:
                raise BadPickle("it is cut off")
            size -= len(chunk)

    # --- the stack --------------------------------------------------------------------------------------------

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise BadPickle("an opcode needs more than there is")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if item is _MARK:
                items.reverse()
                return items
            items.append(item)
        raise BadPickle("an opcode needs a mark that is not there")

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise BadPickle("an opcode needs more than there is")
        return self.stack[-1]

    def imported(self, module: object, name: object) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            # Computed names are how a pickle hides what it does; say so rather than nothing.
            self.found.imports.add("<a name computed while loading>")
            return _ANY
        made = Name(module, name)
        self.found.imports.add(str(made))
        return made

    # --- opcodes ----------------------------------------------------------------------------------------------

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        stack = self.stack
        match opcode.name:
            case "MARK":
                stack.append(_MARK)
            case "POP":
                if not stack:
                    raise BadPickle("an opcode needs more than there is")
                stack.pop()
            case "POP_MARK":
                self.pop_to_mark()
            case "DUP":
                stack.append(self.top())
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "BINGET" | "LONG_BINGET" | "GET":
                if argument not in self.memo:
                    raise BadPickle(f"memo entry {argument} is not there")
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self.imported(*argument))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                stack.append(self.imported(module, name))
            case "INST":
                arguments = self.pop_to_mark()
                stack.append(Made(self.imported(*argument), tuple(arguments)))
            case "OBJ":
                items = self.pop_to_mark()
                stack.append(Made(items[0] if items else _ANY, tuple(items[1:])))
            case "REDUCE" | "NEWOBJ":
                arguments, by = self.pop(), self.pop()
                stack.append(Made(by, arguments))
            case "NEWOBJ_EX":
                _, arguments, by = self.pop(), self.pop(), self.pop()
                stack.append(Made(by, arguments))
            case "BUILD":
                self.build(self.pop())
            case _:
                self.plain(opcode, argument)

    def plain(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Opcodes that only make or fill values."""
        stack = self.stack
        match opcode.name:
            case "TUPLE":
                stack.append(tuple(self.pop_to_mark()))
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1":
                stack.append((self.pop(),))
            case "TUPLE2":
                second, first = self.pop(), self.pop()
                stack.append((first, second))
            case "TUPLE3":
                third, second, first = self.pop(), self.pop(), self.pop()
                stack.append((first, second, third))
            case "EMPTY_DICT":
                stack.append({})
            case "DICT":
                stack.append(_pairs(self.pop_to_mark()))
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self.update([key, value])
            case "SETITEMS":
                self.update(self.pop_to_mark())
            case "NONE":
                stack.append(None)
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "UNICODE" | "STRING":
                stack.append(argument)
            case "EXT1" | "EXT2" | "EXT4":
                self.found.imports.add(f"<copyreg extension {argument}>")
                stack.append(_ANY)
            case name if name in _SIZED:
                stack.append(argument)
            case _:
                self.by_table(opcode)

    def by_table(self, opcode: pickletools.OpcodeInfo) -> None:
        """Whatever is left has no meaning for the scan: only keep the stack right."""
        before = opcode.stack_before
        if pickletools.markobject in before:
            self.pop_to_mark()
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self.pop()
        self.stack.extend([_ANY] * len(opcode.stack_after))

    def update(self, items: list[Any]) -> None:
        target = self.top()
        if isinstance(target, dict):
            target.update(_pairs(items))

    def build(self, state: Any) -> None:
        target = self.top()
        if not isinstance(target, Made):
            return
        target.state = state
        if isinstance(target.by, Name) and str(target.by) == _WRAPPER:
            self.found.joblib = True
            self.array(state)

    # --- joblib's arrays --------------------------------------------------------------------------------------

    def array(self, state: Any) -> None:
        """Step over the data of an array, which follows its description."""
        if not isinstance(state, dict):
            raise LimitReached
        itemsize = _itemsize(state.get("dtype"))
        if itemsize is None:
            raise LimitReached
        if itemsize < 0:
            if self.depth >= _MAX_NESTED:
                raise BadPickle("arrays of objects are nested too deeply")
            _Scanner(self.stream, self.found, self.depth + 1).run()
            return
        shape = state.get("shape")
        if not isinstance(shape, tuple) or not all(isinstance(dim, int) and 0 <= dim < 1 << 48 for dim in shape):
            raise LimitReached
        if state.get("numpy_array_alignment_bytes") is not None:
            self.skip(self.exactly(1)[0])
        self.skip(math.prod(shape) * itemsize)


def _itemsize(dtype: Any) -> int | None:
    """Bytes of one element; -1 for objects, None when the scan does not know."""
    if not isinstance(dtype, Made) or str(dtype.by) != "numpy.dtype" or not isinstance(dtype.arguments, tuple):
        return None
    code = dtype.arguments[0] if dtype.arguments else None
    parsed = _DTYPE_CODE.match(code) if isinstance(code, str) else None
    if parsed is None:
        return None
    kind, size = parsed.group(1), parsed.group(2)
    if kind == "O":
        return -1
    if not size or len(size) > 9:
        return None
    if kind == "V" and _has_objects(dtype.state):
        return -1
    return int(size) * (4 if kind == "U" else 1)


def _has_objects(state: Any) -> bool:
    """Whether a structured dtype holds objects: bit 0x01 of its flags (numpy's NPY_ITEM_REFCOUNT)."""
    flags = state[7] if isinstance(state, tuple) and len(state) > 7 else 0
    return isinstance(flags, int) and bool(flags & 1)


def _pairs(items: list[Any]) -> dict[str, Any]:
    """Entries with text keys: states of objects are dicts of attributes."""
    return {key: value for key, value in zip(items[::2], items[1::2], strict=False) if isinstance(key, str)}


class _Lines:
    """A stream whose lines are bounded: opcodes of protocol 0 have arguments that end with a newline."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        self._readline = stream.readline

    def readline(self) -> bytes:
        return self._readline(MAX_TEXT)
