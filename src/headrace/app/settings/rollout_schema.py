"""The JSON Schema of ``rollout`` of an endpoint; its ``analysis`` is made from the structs that it is read into."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.app.settings import rollout as settings_rollout
from headrace.app.settings import value_schemas
from headrace.app.settings.value_schemas import Schema
from headrace.control.analysis.settings import AnalysisSettings
from headrace.control.rollout_plan import DEFAULT_CANARY

_HELP: dict[str, tuple[str, Schema]] = {
    "canary": (f"Rising shares in percent; 100 follows. Default: {DEFAULT_CANARY}", value_schemas.PERCENTS),
    "linear": ("So much more each time: 10/2m.", value_schemas.RISE),
    "blue_green": ("All traffic at once; the old version stays warm to go back to.", {}),
    "shadow_first": ("Mirrored requests before the first live one.", {}),
    "bake": ("Of each step, at least.", {}),
    "final_bake": ("With all traffic, before the old version stops.", {}),
    "max_step": ("A step that is inconclusive then pauses the rollout.", {}),
}
"""Description, and the schema where it says more than that of the kind."""


def definitions() -> dict[str, Schema]:
    """``rollout``, and what it refers to."""
    values: dict[str, Schema] = {
        name: {"description": _HELP[name][0], **(_HELP[name][1] or kind.schema)}
        for name, (_, kind) in settings_rollout.VALUES.items()
    }
    return {
        "rollout": {
            "description": "How rollouts of the endpoint go when nothing else is said.",
            "type": "object",
            "properties": {**values, "analysis": {"$ref": "#/$defs/AnalysisSettings"}},
            "additionalProperties": False,
        },
        **_analysis(),
    }


def _analysis() -> dict[str, Schema]:
    _, found = msgspec.json.schema_components([AnalysisSettings], ref_template="#/$defs/{name}")
    # As it reads: defaults that are tuples are lists there.
    as_json: dict[str, Schema] = msgspec.json.decode(msgspec.json.encode(found))
    return {name: _plain(schema) for name, schema in as_json.items()}


def _plain(schema: dict[str, Any]) -> Schema:
    """Without what says nothing."""
    return {key: value for key, value in schema.items() if key != "title" and not (key == "required" and not value)}
