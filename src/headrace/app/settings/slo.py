"""``slo`` of an endpoint in ``headrace.yaml`` ↔ its Slo."""

from __future__ import annotations

from decimal import Decimal

from yaml.nodes import Node

from headrace.app.settings.keys import SHARE, TIME_MS
from headrace.app.settings.nodes import NodeReader, nearest
from headrace.app.settings.value_schemas import Schema
from headrace.core import errors
from headrace.core.endpoint_records import Document
from headrace.core.slo import Slo

_KINDS = {"p99_ms": TIME_MS, "error_rate": SHARE}
_HELP = {
    "p99_ms": "99 % of the requests take at most so long: 50 (milliseconds), 50ms or 1s.",
    "error_rate": "At most this share of the requests fails, e.g. 0.001.",
}


def read_slo(nodes: NodeReader, node: Node, shown: str) -> Slo:
    """The objectives of the section at ``shown``. Raises BadSettings."""
    found: dict[str, float] = {}
    for name, key, value in nodes.items(node, shown):
        kind = _KINDS.get(name)
        if kind is None:
            raise errors.BadSettings(f"{nodes.at(key)}: unknown key '{shown}.{name}'{nearest(name, _KINDS)}")
        text = nodes.text(value, f"{shown}.{name}")
        try:
            found[name] = kind.parse(text)
        except ValueError:
            nodes.refuse(value, f"{shown}.{name}", kind.expected)
    if not found:
        nodes.refuse(node, shown, "p99_ms, error_rate, or both")
    return Slo(**found)


def slo_document(slo: Slo) -> Document:
    """What stands in the file for these objectives; empty when there are none."""
    values = {"p99_ms": slo.p99_ms, "error_rate": slo.error_rate}
    return {name: _number(value) for name, value in values.items() if value is not None}


def _number(value: float) -> float | int | str:
    """As one would write it; durations are read without an exponent."""
    if value == int(value):
        return int(value)
    return format(Decimal(str(value)), "f") if "e" in repr(value) else value


def definition() -> Schema:
    """Its JSON Schema."""
    values = {name: {"description": _HELP[name], **kind.schema} for name, kind in _KINDS.items()}
    return {
        "description": "What callers of the endpoint are promised. Rollouts are judged by it, and metrics show it.",
        "type": "object",
        "properties": values,
        "minProperties": 1,
        "additionalProperties": False,
    }
