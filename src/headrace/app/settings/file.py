"""Reads ``headrace.yaml``: text → values by key, models and endpoints.

Every error names the file, the line and the full key path. Values are taken as they are written, so that
``batching: off`` is the word and not the boolean of YAML 1.1. Precedence is decided in ``app/settings/layers.py``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from headrace.app.settings import traffic as settings_traffic
from headrace.app.settings.keys import BY_NAME, KEYS, SHORTHANDS, TEXTS, Form, Key
from headrace.app.settings.model_sources import parse_source, rebase
from headrace.app.settings.nodes import NodeReader, nearest, place_after, place_of_depth, position, type_of
from headrace.app.settings.rollout import read_plan
from headrace.app.settings.serve_settings import EndpointSettings, ModelSource
from headrace.app.settings.slo import read_slo
from headrace.app.settings.traffic import TrafficReader
from headrace.control.rollout_plan import RolloutPlan
from headrace.core import errors, names
from headrace.core.endpoint_records import OF_ENDPOINT, Document
from headrace.core.slo import Slo
from headrace.core.traffic import MAIN

FILE_NAME = "headrace.yaml"

Values = dict[str, Any]
"""Parsed values by the name of their key, ``batching.mode``."""

_MAX_DEPTH = 100
"""Nothing that means anything is nested as deep."""


@dataclass(frozen=True, slots=True)
class DeploymentEntry:
    """Where the model of a deployment is, and the settings that stand under it. ``where``: file and line."""

    source: ModelSource
    values: Values
    where: str


@dataclass(frozen=True, slots=True)
class EndpointEntry:
    """An endpoint of the file, with one deployment or several and what is said of all of them."""

    deployments: tuple[DeploymentEntry, ...]
    settings: EndpointSettings = field(default_factory=EndpointSettings)


@dataclass(slots=True)
class SettingsFile:
    """What a file says; ``path`` is for messages."""

    path: Path
    values: Values = field(default_factory=dict)
    models: list[ModelSource] = field(default_factory=list)
    endpoints: dict[str, EndpointEntry] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """File, line and column of each of ``values``, for messages."""


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


def endpoint_of(name: str, document: Document) -> EndpointEntry:
    """The endpoint that a document of the state means. Raises BadSettings."""
    text = json.dumps({"endpoints": {name: document}})
    return parse_settings(text, Path(f"the document of {name!r}")).endpoints[name]


def parse_value(key: Key, text: str, where: str) -> Any:
    """Read one value of ``key`` from text. Raises BadSettings that starts with ``where``."""
    try:
        return key.kind.parse(text)
    except ValueError:
        raise errors.BadSettings(f"{where}: {key.name}: expected {key.kind.expected}, got {text!r}") from None


def _compose(text: str, path: Path) -> MappingNode | None:
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is not None:
            _flatten(loader, root, path, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1} column {mark.column + 1}" if mark else "line 1"
        raise errors.BadSettings(f"{path} {where}: not valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        # A character; this error has no mark, only how many stand before it.
        where = place_after(text[: error.position])
        raise errors.BadSettings(f"{path} {where}: not valid YAML: {error.reason}: {error.character!r}") from error
    except RecursionError:
        where = place_of_depth(text, _MAX_DEPTH) or "line 1 column 1"
        raise errors.BadSettings(f"{path} {where}: nested too deeply") from None
    if root is None or (isinstance(root, ScalarNode) and type_of(root) == "null"):
        return None
    if not isinstance(root, MappingNode):
        raise errors.BadSettings(f"{path} {position(root)}: expected keys with values at the top level")
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
                raise errors.BadSettings(f"{path} {position(key)}: {key.value!r} is given twice")
            given.add(str(key.value))
        loader.flatten_mapping(node)
        for _, value in node.value:
            _flatten(loader, value, path, seen)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            _flatten(loader, item, path, seen)


class _Reader(NodeReader):
    """Walks the nodes of one file and fills a SettingsFile."""

    def __init__(self, parsed: SettingsFile) -> None:
        super().__init__(parsed.path)
        self._parsed = parsed
        self._folder = parsed.path.parent

    def read_root(self, root: MappingNode) -> None:
        for name, key_node, node in self.items(root, ""):
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
            if into is self._parsed.values:
                self._parsed.places[full] = self.at(key_node)
            return
        inner = _children(f"{full}.", keys)
        if not inner:
            self._refuse_unknown(shown, name, key_node, known, keys, full)
        shorthand = SHORTHANDS.get(full)
        if shorthand is not None and isinstance(node, ScalarNode) and type_of(node) != "null":
            into[shorthand] = self._value(BY_NAME[shorthand], node, shown)
            return
        for child, child_key, child_node in self.items(node, shown):
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
        raise errors.BadSettings(f"{self.at(node)}: unknown key {shown!r}{hint}")

    def _value(self, key: Key, node: Node, shown: str) -> Any:
        if isinstance(node, ScalarNode) and type_of(node) == "null":
            if key.nullable:
                return None
            self.refuse(node, shown, key.kind.expected)
        match key.kind.form:
            case Form.SCALAR:
                if not isinstance(node, ScalarNode):
                    self.refuse(node, shown, key.kind.expected)
                value = self._scalar(key, node, shown)
                return str(self._rebase(value)) if key.kind.is_path else value
            case Form.LIST:
                return tuple(self._item(key, item, f"{shown}[{i}]") for i, item in self.list_of(node, shown))
            case Form.MAP:
                return {name: self.text(item, f"{shown}.{name}") for name, _, item in self.items(node, shown)}

    def _item(self, key: Key, node: Node, shown: str) -> Any:
        text = self.text(node, shown)
        if key.kind is TEXTS:
            return self._trusted(text)
        try:
            return key.kind.parse(text)
        except ValueError:
            self.refuse(node, shown, key.kind.expected)

    def _scalar(self, key: Key, node: ScalarNode, shown: str) -> Any:
        try:
            return key.kind.parse(node.value)
        except ValueError:
            self.refuse(node, shown, key.kind.expected)

    def _rebase(self, path: str) -> str:
        return path if self._folder == Path() or Path(path).is_absolute() else str(self._folder / path)

    def _trusted(self, entry: str) -> str:
        return entry if entry.startswith("sha256:") else self._rebase(entry)

    def _models(self, node: Node) -> Iterator[ModelSource]:
        for index, item in self.list_of(node, "models"):
            text = self.text(item, f"models[{index}]")
            source = rebase(parse_source(text, where=f"{self.at(item)}: models[{index}]"), self._folder)
            yield msgspec.structs.replace(source, where=self.at(item))

    def _endpoints(self, node: Node) -> None:
        for name, key_node, body in self.items(node, "endpoints"):
            try:
                names.check_endpoint(name)
            except errors.BadSettings as error:
                raise errors.BadSettings(f"{self.at(key_node)}: {error.message}") from None
            self._parsed.endpoints[name] = self._endpoint(name, key_node, body)

    def _endpoint(self, name: str, key_node: Node, body: Node) -> EndpointEntry:
        shown = f"endpoints.{name}"
        found = {child: (at, node) for child, at, node in self.items(body, shown)}
        if "deployments" in found:
            return self._with_deployments(name, shown, found)
        for policy_key in settings_traffic.KEYS:
            if policy_key in found and policy_key not in OF_ENDPOINT:
                raise errors.BadSettings(
                    f"{self.at(found[policy_key][0])}: {shown}.{policy_key} needs deployments to choose from;"
                    f" write deployments: {{main: {{model: PATH}}}}"
                )
        own = {k: v for k, v in found.items() if k in OF_ENDPOINT}
        return EndpointEntry(
            (self._deployment(name, shown, key_node, body, skip=OF_ENDPOINT),), self._settings(shown, [MAIN], own)
        )

    def _settings(self, shown: str, deployments: list[str], found: dict[str, tuple[Node, Node]]) -> EndpointSettings:
        policy = TrafficReader(self, shown, deployments).read(found)
        rollout = found.get("rollout")
        plan = RolloutPlan() if rollout is None else read_plan(self, rollout[1], f"{shown}.rollout")
        slo = found.get("slo")
        objectives = Slo() if slo is None else read_slo(self, slo[1], f"{shown}.slo")
        return EndpointSettings(policy, plan, objectives)

    def _with_deployments(self, name: str, shown: str, found: dict[str, tuple[Node, Node]]) -> EndpointEntry:
        others = [child for child in found if child not in ("deployments", *settings_traffic.KEYS, *OF_ENDPOINT)]
        if others:
            raise errors.BadSettings(
                f"{self.at(found[others[0]][0])}: {shown}.{others[0]} stands beside deployments;"
                f" move it under the deployment"
            )
        node = found["deployments"][1]
        deployments: dict[str, DeploymentEntry] = {}
        for child, child_key, child_body in self.items(node, f"{shown}.deployments"):
            try:
                names.check_deployment(child)
            except errors.BadSettings as error:
                raise errors.BadSettings(f"{self.at(child_key)}: {shown}.deployments: {error.message}") from None
            deployments[child] = self._deployment(
                name, f"{shown}.deployments.{child}", child_key, child_body, deployment=child
            )
        if not deployments:
            self.refuse(node, f"{shown}.deployments", "one deployment, e.g. main: {model: PATH}")
        settings = self._settings(shown, list(deployments), found)
        return EndpointEntry(self._numbered(shown, list(deployments.values())), settings)

    def _numbered(self, shown: str, deployments: list[DeploymentEntry]) -> tuple[DeploymentEntry, ...]:
        """Every deployment has a version of its own, for models that bring none: the first free number."""
        taken: dict[str, str] = {}
        for entry in deployments:
            version = entry.source.version
            if version is not None and version in taken:
                raise errors.BadSettings(
                    f"{entry.where}: {shown}.deployments.{entry.source.deployment}.version: {taken[version]!r} has"
                    f" version {version} already; versions of an endpoint differ"
                )
            if version is not None:
                taken[version] = entry.source.deployment or ""
        free = (str(number) for number in itertools.count(1) if str(number) not in taken)
        return tuple(
            entry
            if entry.source.version is not None
            else replace(entry, source=msgspec.structs.replace(entry.source, default_version=next(free)))
            for entry in deployments
        )

    def _deployment(
        self,
        endpoint: str,
        shown: str,
        key_node: Node,
        body: Node,
        *,
        deployment: str | None = None,
        skip: tuple[str, ...] = (),
    ) -> DeploymentEntry:
        keys = tuple(key for key in KEYS if key.per_deployment)
        known = [*_children("", keys), "model", *(["version"] if deployment else [])]
        values: Values = {}
        source: ModelSource | None = None
        version: str | None = None
        for name, at, node in self.items(body, shown):
            if name in skip:
                continue
            if name == "model":
                text = self.text(node, f"{shown}.model")
                parsed = parse_source(text, name=endpoint, where=f"{self.at(node)}: {shown}.model")
                source = msgspec.structs.replace(rebase(parsed, self._folder), where=self.at(node))
            elif name == "version" and deployment:
                version = self._version(node, f"{shown}.version")
            elif name == "replicas" and isinstance(node, MappingNode):
                raise errors.Unsupported(
                    f"{self.at(node)}: {shown}.replicas: bounds (autoscaling) come in a later release; give a number"
                )
            else:
                self._setting(name, "", at, node, keys, known, values, f"{shown}.")
        if source is None:
            raise errors.BadSettings(f"{self.at(key_node)}: {shown} has no model; add model: PATH")
        source = msgspec.structs.replace(source, deployment=deployment, version=version)
        return DeploymentEntry(source, values, self.at(key_node))

    def _version(self, node: Node, shown: str) -> str:
        text = self.text(node, shown)
        try:
            return names.check_version(text)
        except errors.BadSettings as error:
            raise errors.BadSettings(f"{self.at(node)}: {shown}: {error.message}") from None


def _children(prefix: str, keys: tuple[Key, ...]) -> list[str]:
    """Names one level below ``prefix``, in the order of the table."""
    found = (key.name[len(prefix) :].partition(".")[0] for key in keys if key.name.startswith(prefix))
    return list(dict.fromkeys(found))
