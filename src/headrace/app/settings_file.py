"""Reads ``headrace.yaml``: text → values by key, models and endpoints.

Every error names the file, the line and the full key path. Values are taken as they are written, so that
``batching: off`` is the word and not the boolean of YAML 1.1. Precedence is decided in ``settings_layers.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from headrace.app.model_sources import parse_source, rebase
from headrace.app.settings import ModelSource
from headrace.app.settings_keys import BY_NAME, KEYS, SHORTHANDS, Form, Key
from headrace.core import errors, names

FILE_NAME = "headrace.yaml"

Values = dict[str, Any]
"""Parsed values by the name of their key, ``batching.mode``."""

_LATER_ENDPOINT_KEYS = {
    "traffic": "traffic splits between deployments",
    "sticky": "sticky routing",
    "slo": "service-level objectives",
    "shadow": "shadow traffic",
    "rollout": "rollouts",
}
_SCALAR_NAMES = {"null": "nothing", "bool": "true/false", "int": "a whole number", "float": "a number", "str": "text"}


@dataclass(frozen=True, slots=True)
class EndpointEntry:
    """An endpoint of the file: where its model is and the settings that stand under it."""

    source: ModelSource
    values: Values
    where: str


@dataclass(slots=True)
class SettingsFile:
    """What a file says; ``path`` is for messages."""

    path: Path
    values: Values = field(default_factory=dict)
    models: list[ModelSource] = field(default_factory=list)
    endpoints: dict[str, EndpointEntry] = field(default_factory=dict)


def read_settings(path: Path) -> SettingsFile:
    """Read and parse a file. Raises BadSettings, also when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.BadSettings(f"{path}: cannot be read: {error}") from error
    return parse_settings(text, path)


def parse_settings(text: str, path: Path) -> SettingsFile:
    """Parse the text of a file; relative paths in it count from the folder of ``path``."""
    parsed = SettingsFile(path)
    root = _compose(text, path)
    if root is not None:
        _Reader(parsed).read_root(root)
    return parsed


def parse_value(key: Key, text: str, where: str) -> Any:
    """Read one value of ``key`` from text. Raises BadSettings that starts with ``where``."""
    try:
        return key.kind.parse(text)
    except ValueError:
        raise errors.BadSettings(f"{where}: {key.name}: expected {key.kind.expected}, got {text!r}") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """`` did you mean …?`` with the closest of ``known``, or all of them when they are few, or nothing."""
    options = list(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    if len(options) <= 12:
        return f"; valid here: {', '.join(options)}"
    return ""


def _compose(text: str, path: Path) -> MappingNode | None:
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None:
            _flatten(loader, root, path, set())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise errors.BadSettings(f"{path} line {line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise errors.BadSettings(f"{path}: not valid YAML: {error}") from error
    if root is None or (isinstance(root, ScalarNode) and _type_of(root) == "null"):
        return None
    if not isinstance(root, MappingNode):
        raise errors.BadSettings(f"{path} line {root.start_mark.line + 1}: expected keys with values at the top level")
    return root


def _flatten(loader: yaml.SafeLoader, node: Node, path: Path, seen: set[int]) -> None:
    """Resolve merge keys (``<<: *defaults``) everywhere below ``node``, and refuse keys that are given twice:
    after the merge a key that is overridden on purpose looks the same."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, MappingNode):
        given: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode) and key.value in given:
                raise errors.BadSettings(f"{path} line {key.start_mark.line + 1}: {key.value!r} is given twice")
            given.add(str(key.value))
        loader.flatten_mapping(node)
        for _, value in node.value:
            _flatten(loader, value, path, seen)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            _flatten(loader, item, path, seen)


def _type_of(node: Node) -> str:
    return str(node.tag).rpartition(":")[2]


def _describe(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "keys with values"
    if isinstance(node, SequenceNode):
        return "a list"
    kind = _type_of(node)
    return "nothing" if kind == "null" else f"{_SCALAR_NAMES.get(kind, kind)} {node.value!r}"


class _Reader:
    """Walks the nodes of one file and fills a SettingsFile."""

    def __init__(self, parsed: SettingsFile) -> None:
        self._parsed = parsed
        self._folder = parsed.path.parent

    def read_root(self, root: MappingNode) -> None:
        for name, key_node, node in self._items(root, ""):
            match name:
                case "models":
                    self._parsed.models.extend(self._models(node))
                case "endpoints":
                    self._endpoints(node)
                case _:
                    known = [*_children("", KEYS), "models", "endpoints"]
                    self._setting(name, "", key_node, node, KEYS, known, self._parsed.values)

    def _setting(
        self,
        name: str,
        prefix: str,
        key_node: Node,
        node: Node,
        keys: tuple[Key, ...],
        known: list[str],
        into: Values,
        parents: str = "",
    ) -> None:
        """One key: a value, or a section whose keys are read in turn. ``parents`` is the path that leads to the
        top of the settings, such as ``endpoints.fraud``; ``prefix`` the section within them."""
        full = f"{prefix}{name}"
        shown = f"{parents}{full}"
        key = BY_NAME.get(full)
        if key is not None and key in keys:
            into[full] = self._value(key, node, shown)
            return
        inner = _children(f"{full}.", keys)
        if not inner:
            self._refuse_unknown(shown, name, key_node, known, keys, full)
        shorthand = SHORTHANDS.get(full)
        if shorthand is not None and isinstance(node, ScalarNode) and _type_of(node) != "null":
            into[shorthand] = self._value(BY_NAME[shorthand], node, shown)
            return
        for child, child_key, child_node in self._items(node, shown):
            self._setting(child, f"{full}.", child_key, child_node, keys, inner, into, parents)

    def _refuse_unknown(
        self, shown: str, name: str, node: Node, known: list[str], keys: tuple[Key, ...], full: str
    ) -> NoReturn:
        hint = nearest(name, known)
        if "did you mean" not in hint:
            # The right key at the wrong depth: max_batch_size belongs under batching.
            deeper = [key.name for key in keys if key.path[-1] == name and key.name != full]
            elsewhere = [key.name for key in KEYS if key.name == full]
            if deeper:
                hint = f"; did you mean {deeper[0]!r}?"
            elif elsewhere:
                hint = f"; {elsewhere[0]!r} is a setting of the whole server: it belongs at the top level"
        raise errors.BadSettings(f"{self._at(node)}: unknown key {shown!r}{hint}")

    def _value(self, key: Key, node: Node, shown: str) -> Any:
        if isinstance(node, ScalarNode) and _type_of(node) == "null":
            if key.nullable:
                return None
            self._refuse(node, shown, key.kind.expected)
        match key.kind.form:
            case Form.SCALAR:
                if not isinstance(node, ScalarNode):
                    self._refuse(node, shown, key.kind.expected)
                value = self._scalar(key, node, shown)
                return str(self._rebase(value)) if key.kind.is_path else value
            case Form.LIST:
                return tuple(self._trusted(self._text(item, f"{shown}[{i}]")) for i, item in self._list(node, shown))
            case Form.MAP:
                return {name: self._text(item, f"{shown}.{name}") for name, _, item in self._items(node, shown)}

    def _scalar(self, key: Key, node: ScalarNode, shown: str) -> Any:
        try:
            return key.kind.parse(node.value)
        except ValueError:
            self._refuse(node, shown, key.kind.expected)

    def _rebase(self, path: str) -> str:
        return path if self._folder == Path() or Path(path).is_absolute() else str(self._folder / path)

    def _trusted(self, entry: str) -> str:
        return entry if entry.startswith("sha256:") else self._rebase(entry)

    def _models(self, node: Node) -> Iterator[ModelSource]:
        for index, item in self._list(node, "models"):
            text = self._text(item, f"models[{index}]")
            yield rebase(parse_source(text, where=f"{self._at(item)}: models[{index}]"), self._folder)

    def _endpoints(self, node: Node) -> None:
        for name, key_node, body in self._items(node, "endpoints"):
            try:
                names.check_endpoint(name)
            except errors.BadSettings as error:
                raise errors.BadSettings(f"{self._at(key_node)}: {error.message}") from None
            self._parsed.endpoints[name] = self._endpoint(name, key_node, body)

    def _endpoint(self, name: str, key_node: Node, body: Node) -> EndpointEntry:
        shown = f"endpoints.{name}"
        found = {child: (at, node) for child, at, node in self._items(body, shown)}
        for later, what in _LATER_ENDPOINT_KEYS.items():
            if later in found:
                at = self._at(found[later][0])
                raise errors.Unsupported(
                    f"{at}: {shown}.{later}: {what} are not supported yet; they come in a later release"
                )
        if "deployments" not in found:
            return self._deployment(name, shown, key_node, body)
        others = [child for child in found if child != "deployments"]
        if others:
            raise errors.BadSettings(
                f"{self._at(found[others[0]][0])}: {shown}.{others[0]} stands beside deployments;"
                f" move it under the deployment"
            )
        deployments = list(self._items(found["deployments"][1], f"{shown}.deployments"))
        if len(deployments) > 1:
            raise errors.Unsupported(
                f"{self._at(deployments[1][1])}: {shown}.deployments has {len(deployments)} deployments; several"
                " deployments under one endpoint come with traffic splits in a later release: keep one"
            )
        if not deployments:
            self._refuse(found["deployments"][1], f"{shown}.deployments", "one deployment, e.g. main: {model: PATH}")
        child, child_key, child_body = deployments[0]
        return self._deployment(name, f"{shown}.deployments.{child}", child_key, child_body)

    def _deployment(self, endpoint: str, shown: str, key_node: Node, body: Node) -> EndpointEntry:
        keys = tuple(key for key in KEYS if key.per_deployment)
        known = [*_children("", keys), "model"]
        values: Values = {}
        source: ModelSource | None = None
        for name, at, node in self._items(body, shown):
            if name == "model":
                text = self._text(node, f"{shown}.model")
                parsed = parse_source(text, name=endpoint, where=f"{self._at(node)}: {shown}.model")
                source = rebase(parsed, self._folder)
            elif name == "replicas" and isinstance(node, MappingNode):
                raise errors.Unsupported(
                    f"{self._at(node)}: {shown}.replicas: bounds (autoscaling) come in a later release; give a number"
                )
            else:
                self._setting(name, "", at, node, keys, known, values, f"{shown}.")
        if source is None:
            raise errors.BadSettings(f"{self._at(key_node)}: {shown} has no model; add model: PATH")
        return EndpointEntry(source, values, self._at(key_node))

    def _items(self, node: Node, shown: str) -> Iterator[tuple[str, Node, Node]]:
        if not isinstance(node, MappingNode):
            self._refuse(node, shown, "keys with values")
        found: dict[str, tuple[Node, Node]] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, ScalarNode):
                self._refuse(key_node, shown or "the top level", "plain keys")
            # What was merged in stands first, so the later one of a name is the mapping's own.
            found[str(key_node.value)] = key_node, value
        for name, (key_node, value) in found.items():
            yield name, key_node, value

    def _list(self, node: Node, shown: str) -> Iterator[tuple[int, Node]]:
        if not isinstance(node, SequenceNode):
            self._refuse(node, shown, "a list")
        yield from enumerate(node.value)

    def _text(self, node: Node, shown: str) -> str:
        if not isinstance(node, ScalarNode) or _type_of(node) == "null" or not node.value:
            self._refuse(node, shown, "a text")
        return str(node.value)

    def _at(self, node: Node) -> str:
        return f"{self._parsed.path} line {node.start_mark.line + 1}"

    def _refuse(self, node: Node, shown: str, expected: str) -> NoReturn:
        raise errors.BadSettings(f"{self._at(node)}: {shown}: expected {expected}, got {_describe(node)}")


def _children(prefix: str, keys: tuple[Key, ...]) -> list[str]:
    """Names one level below ``prefix``, in the order of the table."""
    found = (key.name[len(prefix) :].partition(".")[0] for key in keys if key.name.startswith(prefix))
    return list(dict.fromkeys(found))
