"""``rollout`` of an endpoint in ``headrace.yaml`` ↔ its RolloutPlan: the vocabulary of ``headrace rollout start``."""

from __future__ import annotations

from typing import Any

from yaml.nodes import Node, ScalarNode

from headrace.app.settings.keys import SWITCH, TEXT, TIME_OR_ZERO, Kind
from headrace.app.settings.nodes import NodeReader, nearest
from headrace.control.analysis import documents
from headrace.control.analysis.settings import AnalysisSettings
from headrace.control.rollout_plan import RolloutPlan, steps_of
from headrace.core import errors
from headrace.core.endpoint_records import Document

VALUES: dict[str, tuple[str, Kind]] = {
    "canary": ("canary", TEXT),
    "linear": ("linear", TEXT),
    "blue_green": ("blue_green", SWITCH),
    "shadow_first": ("shadow_first", SWITCH),
    "bake": ("bake_s", TIME_OR_ZERO),
    "final_bake": ("final_bake_s", TIME_OR_ZERO),
    "max_step": ("max_step_s", TIME_OR_ZERO),
}
"""Key in the file → field of the plan, and how its text is read."""

_KEYS = (*VALUES, "analysis")


def read_plan(nodes: NodeReader, node: Node, shown: str) -> RolloutPlan:
    """The plan of the section at ``shown``. Raises BadSettings."""
    found: dict[str, Any] = {}
    for name, key, value in nodes.items(node, shown):
        if name == "analysis":
            found[name] = _analysis(nodes, value, f"{shown}.{name}")
        elif name in VALUES:
            field, kind = VALUES[name]
            found[field] = _value(nodes, kind, value, f"{shown}.{name}")
        else:
            raise errors.BadSettings(f"{nodes.at(key)}: unknown key '{shown}.{name}'{nearest(name, _KEYS)}")
    plan = RolloutPlan(**found)
    try:
        steps_of(plan)
    except errors.BadSettings as error:
        raise errors.BadSettings(f"{nodes.at(node)}: {shown}: {error.message}") from None
    return plan


def _value(nodes: NodeReader, kind: Kind, node: Node, shown: str) -> Any:
    text = nodes.text(node, shown)
    try:
        return kind.parse(text)
    except ValueError:
        nodes.refuse(node, shown, kind.expected)


def _analysis(nodes: NodeReader, node: Node, shown: str) -> AnalysisSettings:
    if isinstance(node, ScalarNode):
        nodes.refuse(node, shown, "keys with values")
    return documents.settings_of(nodes.value(node, shown), f"{nodes.at(node)}: {shown}")


def plan_document(plan: RolloutPlan) -> Document:
    """What stands in the file for this plan; empty when everything has its default."""
    default = RolloutPlan()
    document: Document = {}
    for name, (field, kind) in VALUES.items():
        value = getattr(plan, field)
        if value != getattr(default, field):
            document[name] = kind.written(value)
    if plan.analysis != default.analysis:
        document["analysis"] = documents.document_of(plan.analysis)
    return document
