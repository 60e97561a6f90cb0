"""JSON Schemas of single values in ``headrace.yaml``, one for each way in which ``app/settings/keys.py`` reads a text.

The reader takes the text of a scalar, whatever YAML makes of it: ``8080`` and ``"8080"`` are the same port. A schema
accepts all that the reader accepts; what is no pattern (the range of a number in quotes) only the reader checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]

_SIGN = r"[+-]?"
_DIGITS = r"\d+(?:_\d+)*"
_FLOAT = rf"(?:{_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?"
_QUANTITY = r"(?:\d+(?:[._]\d+)*|\.\d+)"
_NOT_ZERO = r"(?!(?:\D|0)*$)"
"""Some digit is another than 0."""

TEXT: Schema = {"type": ["string", "number", "boolean"], "minLength": 1}
"""Any scalar but null; numbers and booleans are taken as they are written."""

FOLLOW: Schema = {"type": "string", "pattern": r"^rollout(?::.+)?$"}

TEXTS: Schema = {"type": "array", "items": TEXT}

PAIRS: Schema = {"type": "object", "additionalProperties": TEXT}

NUMBER: Schema = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": rf"^\s*\+?{_FLOAT}\s*$"},
    ]
}

SIZE: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {
            "type": "string",
            "pattern": rf"^{_NOT_ZERO}\s*{_QUANTITY}\s*(?:[bB]|[kKmMgGtT](?:[iI]?[bB]|[iI])?)?\s*$",
        },
    ]
}


SHARE: Schema = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "string", "pattern": rf"^\s*\+?{_FLOAT}\s*$"},
    ]
}

PERCENTS: Schema = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100},
        {"type": "string", "pattern": rf"^\s*\+?{_FLOAT}\s*(?:,\s*\+?{_FLOAT}\s*)*$"},
    ]
}
"""1,5,25,50"""

RISE: Schema = {"type": "string", "pattern": rf"^\s*\+?{_FLOAT}\s*/\s*\d+(?:\.\d+)?\s*[smh]\s*$"}
"""10/2m"""


def whole(minimum: int, maximum: int | None = None) -> Schema:
    bounds = {"minimum": minimum} if maximum is None else {"minimum": minimum, "maximum": maximum}
    return {
        "anyOf": [
            {"type": "integer", **bounds},
            {"type": "string", "pattern": rf"^\s*{_SIGN}{_DIGITS}\s*$"},
        ]
    }


COUNTS: Schema = {"type": "array", "items": whole(1)}


def duration(*, zero: bool) -> Schema:
    bound = "minimum" if zero else "exclusiveMinimum"
    not_zero = "" if zero else _NOT_ZERO
    return {
        "anyOf": [
            {"type": "number", bound: 0},
            {
                "type": "string",
                "pattern": rf"^{not_zero}\s*{_QUANTITY}\s*(?:us|µs|μs|ms|s|m|min|h|d)?\s*$",
            },
        ]
    }


def number(*, above: float | None = None, minimum: float | None = None, maximum: float) -> Schema:
    """From ``minimum`` on, or above ``above``."""
    bounds = {"exclusiveMinimum": above, "minimum": minimum, "maximum": maximum}
    return {
        "anyOf": [
            {"type": "number", **{name: bound for name, bound in bounds.items() if bound is not None}},
            {"type": "string", "pattern": rf"^\s*{_SIGN}{_FLOAT}\s*$"},
        ]
    }


def choice(values: Iterable[str]) -> Schema:
    return {"enum": [str(value) for value in values]}


def switch(yes: Iterable[str], no: Iterable[str]) -> Schema:
    """true, false, and these words: YAML 1.2 reads ``yes`` and ``off`` as texts."""
    return {"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}, words([*yes, *no])]}


def words(values: Iterable[str]) -> Schema:
    """These texts, in capitals or not."""
    listed = sorted(values)
    return {"anyOf": [{"enum": listed}, {"type": "string", "pattern": f"^(?:{'|'.join(map(any_case, listed))})$"}]}


def any_case(text: str) -> str:
    """A pattern that fits the text in capitals and small letters."""
    return "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in text)


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
