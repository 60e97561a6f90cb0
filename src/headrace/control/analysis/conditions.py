"""Conditions on a number, as people write them: ``<= 0.2``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from headrace.core import errors

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_CONDITION = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*\Z")


@dataclass(frozen=True, slots=True)
class Condition:
    text: str
    compare: Callable[[float, float], bool]
    bound: float

    def holds(self, value: float) -> bool:
        return self.compare(value, self.bound)


def parse(text: str) -> Condition:
    """Raises BadSettings that shows the form when ``text`` is not a condition."""
    found = _CONDITION.match(text)
    if found is None:
        raise errors.BadSettings(f"condition {text!r} is not valid: write a comparison with a number, e.g. '<= 0.2'")
    return Condition(text.strip(), _OPERATORS[found[1]], float(found[2]))
