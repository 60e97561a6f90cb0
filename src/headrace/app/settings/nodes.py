"""Nodes of a YAML file as checked values; every refusal names the file, the line and the full key path.

Knows no key: what may stand where is said in ``app/settings/file.py`` and ``app/settings/traffic.py``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from headrace.core import errors

_MAX_CONSTANT_DEPTH = 32
"""Arrays of numpy have no more dimensions in every release."""

_MAX_VALUE_DEPTH = 64
"""Nothing that is read whole is nested as deep, but for what contains itself."""

EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")

_SCALAR_NAMES = {"null": "nothing", "bool": "true/false", "int": "a whole number", "float": "a number", "str": "text"}


def nearest(word: str, known: Iterable[str]) -> str:
    """`` did you mean …?`` with the closest of ``known``, or all of them when they are few, or nothing."""
    options = list(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    if len(options) <= 12:
        return f"; valid here: {', '.join(options)}"
    return ""


def type_of(node: Node) -> str:
    return str(node.tag).rpartition(":")[2]


def position(node: Node) -> str:
    """Where a node begins, for people."""
    return f"line {node.start_mark.line + 1} column {node.start_mark.column + 1}"


def place_after(text: str) -> str:
    """The same for what follows this text."""
    return f"line {text.count(chr(10)) + 1} column {len(text) - text.rfind(chr(10))}"


def place_of_depth(text: str, depth: int) -> str:
    """Where YAML is nested deeper than this for the first time; empty: nowhere."""
    open_nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes += 1
            if open_nodes > depth and event.start_mark is not None:
                return f"line {event.start_mark.line + 1} column {event.start_mark.column + 1}"
        elif isinstance(event, yaml.CollectionEndEvent):
            open_nodes -= 1
    return ""


def _describe(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "keys with values"
    if isinstance(node, SequenceNode):
        return "a list"
    kind = type_of(node)
    return "nothing" if kind == "null" else f"{_SCALAR_NAMES.get(kind, kind)} {node.value!r}"


class NodeReader:
    """Reads the nodes of one file. ``shown`` is the path of a node for messages, such as ``endpoints.fraud``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def items(self, node: Node, shown: str) -> Iterator[tuple[str, Node, Node]]:
        if not isinstance(node, MappingNode):
            self.refuse(node, shown, "keys with values")
        found: dict[str, tuple[Node, Node]] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, ScalarNode):
                self.refuse(key_node, shown or "the top level", "plain keys")
            # What was merged in stands first, so the later one of a name is the mapping's own.
            found[str(key_node.value)] = key_node, value
        for name, (key_node, value) in found.items():
            yield name, key_node, value

    def list_of(self, node: Node, shown: str) -> Iterator[tuple[int, Node]]:
        if not isinstance(node, SequenceNode):
            self.refuse(node, shown, "a list")
        yield from enumerate(node.value)

    def text(self, node: Node, shown: str) -> str:
        if not isinstance(node, ScalarNode) or type_of(node) == "null" or not node.value:
            self.refuse(node, shown, "a text")
        return str(node.value)

    def constant(self, node: Node, shown: str) -> Any:
        """A number, text or boolean, or nested lists of them, with the types of YAML."""
        if isinstance(node, SequenceNode):
            if shown.count("[") > _MAX_CONSTANT_DEPTH:
                # Also where a list contains itself, which YAML can say.
                self.refuse(node, shown, f"lists nested at most {_MAX_CONSTANT_DEPTH} deep")
            return [self.constant(item, f"{shown}[{index}]") for index, item in enumerate(node.value)]
        if not isinstance(node, ScalarNode) or type_of(node) not in ("bool", "int", "float", "str"):
            self.refuse(node, shown, "a number, a text, true or false, or a list of them")
        value = yaml.SafeLoader("").construct_object(node)
        if isinstance(value, float) and not math.isfinite(value):
            # The state and JSON answers have no word for it.
            self.refuse(node, shown, "a finite number")
        return value

    def value(self, node: Node, shown: str) -> Any:
        """Whatever stands there: mappings, lists, and scalars with the types of YAML. Numbers may have an exponent
        without a point, ``1e-3``, as in YAML 1.2 and JSON."""
        if shown.count(".") + shown.count("[") > _MAX_VALUE_DEPTH:
            self.refuse(node, shown, "less deeply nested values")
        if isinstance(node, MappingNode):
            return {name: self.value(inner, f"{shown}.{name}") for name, _, inner in self.items(node, shown)}
        if isinstance(node, SequenceNode):
            return [self.value(item, f"{shown}[{index}]") for index, item in enumerate(node.value)]
        kind = type_of(node)
        if kind in ("null", "bool", "int", "float"):
            try:
                return yaml.SafeLoader("").construct_object(node)
            except ValueError:  # 0x_ looks like a number
                self.refuse(node, shown, "a number or a text")
        plain = isinstance(node, ScalarNode) and node.style is None
        return float(node.value) if plain and EXPONENT.match(node.value) else str(node.value)

    def at(self, node: Node) -> str:
        return f"{self._path} {position(node)}"

    def refuse(self, node: Node, shown: str, expected: str) -> NoReturn:
        raise errors.BadSettings(f"{self.at(node)}: {shown}: expected {expected}, got {_describe(node)}")
