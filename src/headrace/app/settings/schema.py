"""The JSON Schema (2020-12) of ``headrace.yaml``, for editors and other tools, from the table of settings.

``python -m headrace.app.settings.schema > docs/headrace.schema.json``. The reader (``app/settings/file.py``) does not
use it: its errors say more. A test holds both together: the schema accepts whatever the reader accepts.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from headrace.app.settings import rollout_schema as settings_rollout_schema
from headrace.app.settings import slo as settings_slo
from headrace.app.settings import value_schemas
from headrace.app.settings.keys import BY_NAME, KEYS, SHORTHANDS, Form, Key
from headrace.app.settings.value_schemas import TEXT, Schema
from headrace.core import names
from headrace.core.endpoint_records import OF_ENDPOINT
from headrace.core.traffic import OVERRIDES

_MAX_WEIGHT = 1e9

Tree = dict[str, "Key | Tree"]
"""Settings as they are nested in the file."""


@functools.cache
def document() -> str:
    """The schema as JSON, for files and answers."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def schema() -> Schema:
    per_deployment = _tree(key for key in KEYS if key.per_deployment)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "headrace.schema.json",
        "title": "headrace.yaml",
        "description": "Settings of `headrace serve` and the endpoints that it serves.",
        "type": ["object", "null"],
        "properties": {
            **_settings(_tree(KEYS), shared=per_deployment),
            "models": {**value_schemas.TEXTS, "description": "More models: PATH, NAME=PATH, MODEL@VERSION."},
            "endpoints": {
                "type": "object",
                "description": "By name.",
                "propertyNames": {"$ref": "#/$defs/endpoint_name"},
                "additionalProperties": {"$ref": "#/$defs/endpoint"},
            },
        },
        "additionalProperties": False,
        "$defs": {
            **{_shared(name): _setting(name, below) for name, below in per_deployment.items()},
            **_names(),
            **_endpoints(list(per_deployment)),
            **_policies(),
            **settings_rollout_schema.definitions(),
            "slo": settings_slo.definition(),
        },
    }


# --- settings ---


def _tree(keys: Iterable[Key]) -> Tree:
    tree: Tree = {}
    for key in keys:
        *sections, last = key.path
        branch = tree
        for section in sections:
            below = branch.setdefault(section, {})
            assert isinstance(below, dict), key.name
            branch = below
        branch[last] = key
    return tree


def _shared(name: str) -> str:
    return f"setting.{name}"


def _settings(tree: Tree, *, shared: Mapping[str, Any] | Iterable[str] = (), path: str = "") -> dict[str, Schema]:
    return {
        name: {"$ref": f"#/$defs/{_shared(name)}"} if name in shared else _setting(f"{path}{name}", below)
        for name, below in tree.items()
    }


def _setting(path: str, below: Key | Tree) -> Schema:
    if isinstance(below, Key):
        return _value(below)
    section = {
        "type": "object",
        "properties": _settings(below, path=f"{path}."),
        "additionalProperties": False,
    }
    if path not in SHORTHANDS:
        return section
    return {"anyOf": [_value(BY_NAME[SHORTHANDS[path]]), section]}


def _value(key: Key) -> Schema:
    made = dict(key.kind.schema)
    if key.nullable:
        made = value_schemas.or_null(made)
    described: Schema = {"description": key.help, **made}
    if key.kind.form is Form.SCALAR and (shown := key.show_default()):
        whole = isinstance(key.default, (bool, int)) and shown.lower() == str(key.default).lower()
        described["default"] = key.default if whole else shown
    return described


# --- endpoints ---


def _names() -> dict[str, Schema]:
    inner = "|".join(sorted(names.RESERVED_SEGMENTS))
    return {
        "endpoint_name": {
            "maxLength": names.MAX_ENDPOINT,
            "pattern": f"^(?!.*/(?:{inner})(?:/|$)){names.ENDPOINT_PATTERN}$",
            "not": {"enum": sorted(names.RESERVED_ENDPOINTS)},
        },
        "deployment_name": {"pattern": f"^{names.VERSION_PATTERN}$"},
        "version": {
            "description": "Of the model, for one that brings none; of a folder with several, the one to serve.",
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "boolean"},
                {"type": "string", "pattern": f"^{names.VERSION_PATTERN}$"},
            ],
        },
        "model": {
            **TEXT,
            "description": "A file or folder, `file.py:Class`, or a version of the registry: `fraud@7`,"
            " `fraud@champion`. Relative paths count from the folder of this file.",
        },
    }


def _endpoints(settings: list[str]) -> dict[str, Schema]:
    deployment = {
        "model": {"$ref": "#/$defs/model"},
        **{name: {"$ref": f"#/$defs/{_shared(name)}"} for name in settings},
    }
    policy = {name: {"$ref": f"#/$defs/{name}"} for name in ("traffic", "sticky", "rules", "overrides", "shadow")}
    shared = {name: {"$ref": f"#/$defs/{name}"} for name in OF_ENDPOINT}
    return {
        "endpoint": {
            "type": "object",
            "if": {"required": ["deployments"]},
            "then": {"$ref": "#/$defs/endpoint_with_deployments"},
            "else": {"$ref": "#/$defs/endpoint_with_one_model"},
        },
        "endpoint_with_one_model": _closed({**deployment, **shared}, ["model"]),
        "endpoint_with_deployments": {
            **_closed({"deployments": {"$ref": "#/$defs/deployments"}, **policy, **shared}, ["deployments"]),
            "if": {"properties": {"deployments": {"type": "object", "minProperties": 2}}},
            "then": {"required": ["traffic"]},
        },
        "deployments": {
            "description": "Models that share the requests of the endpoint, by name.",
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"$ref": "#/$defs/deployment_name"},
            "additionalProperties": {"$ref": "#/$defs/deployment"},
        },
        "deployment": _closed({**deployment, "version": {"$ref": "#/$defs/version"}}, ["model"]),
    }


def _closed(properties: Mapping[str, Schema], required: list[str]) -> Schema:
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


# --- traffic ---


def _policies() -> dict[str, Schema]:
    return {
        "traffic": {
            "description": "Weights of deployments, in any unit; one that is not named gets no requests.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": value_schemas.number(minimum=0, maximum=_MAX_WEIGHT),
        },
        "source": {
            "description": "Where in a request a value stands: header:NAME, body:FIELD, or key.",
            "type": "string",
            "pattern": r"^(?:key$|(?:header|body):[\s\S]*\S)",
        },
        "sticky": {
            "description": "Requests with the same value go to the same deployment.",
            "$ref": "#/$defs/source",
        },
        "rules": {
            "description": "The first rule that fits decides; without equals or in any value fits.",
            "type": "array",
            "items": {"$ref": "#/$defs/rule"},
        },
        "rule": {
            **_closed(
                {
                    "when": {"$ref": "#/$defs/source"},
                    "equals": TEXT,
                    "in": {**value_schemas.TEXTS, "minItems": 1},
                    "deployment": TEXT,
                },
                ["when", "deployment"],
            ),
            "not": {"required": ["equals", "in"]},
        },
        "overrides": {
            "description": "Headers in which a request may name its deployment.",
            "type": "array",
            "items": value_schemas.words(OVERRIDES),
        },
        "fallback": {
            "description": "What answers when the chosen deployment fails, is late or refuses; tried in order.",
            "type": "array",
            "items": {
                "anyOf": [
                    _closed({"deployment": TEXT}, ["deployment"]),
                    _closed({"constant": {"$ref": "#/$defs/outputs"}}, ["constant"]),
                ]
            },
        },
        "outputs": {
            "description": "Output to its value, for every row.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"$ref": "#/$defs/constant"},
        },
        "constant": {
            "type": ["number", "string", "boolean", "array"],
            "items": {"$ref": "#/$defs/constant"},
        },
        "shadow": {
            "description": "Percent of the answered requests that a deployment without traffic computes again.",
            "type": "object",
            "additionalProperties": value_schemas.number(above=0, maximum=100),
        },
    }


if __name__ == "__main__":
    sys.stdout.write(document())
