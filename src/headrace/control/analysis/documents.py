"""Settings of the judgement from a document of keys and values (YAML, JSON). Pure."""

from __future__ import annotations

import difflib
import math
import typing
from typing import Any

import msgspec

from headrace.control.analysis.settings import AnalysisSettings
from headrace.core import errors


def settings_of(document: object, where: str = "analysis") -> AnalysisSettings:
    """The settings that a document asks for; what it leaves out has its default, an empty one leaves out everything.

    ``where`` says in messages whose document it is. Raises BadSettings that names the key, and the nearest one that
    exists."""
    if document is None:
        return AnalysisSettings()
    _check_keys(document, AnalysisSettings, where, "")
    try:
        return msgspec.convert(document, AnalysisSettings)
    except msgspec.ValidationError as error:
        raise errors.BadSettings(f"{where}: {_shown(str(error))}") from None
    except errors.BadSettings as error:
        raise errors.BadSettings(f"{where}: {error.message}") from None


def _check_keys(value: object, kind: type[msgspec.Struct], where: str, path: str) -> None:
    """Raise for the first unknown key of a mapping or of one below it; other values are left to ``convert``."""
    if not isinstance(value, dict):
        return
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for key, below in value.items():
        shown = f"{path}.{key}" if path else f"{key}"
        if key not in fields:
            raise errors.BadSettings(f"{where}: there is no setting {shown!r}{_nearest(str(key), list(fields))}")
        _check_below(below, fields[key], where, shown)


def _check_below(value: object, kind: Any, where: str, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        # Nothing is larger than infinity, and JSON, in which settings are kept, has no such number.
        raise errors.BadSettings(f"{where}: {path}: expected a finite number, got {value}")
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        _check_keys(value, kind, where, path)
    elif typing.get_origin(kind) is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            _check_below(item, typing.get_args(kind)[0], where, f"{path}[{index}]")


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; valid here: {', '.join(known)}"


def _shown(message: str) -> str:
    """``Expected `float`, got `str` - at `$.latency.margin```, with the key first."""
    what, _, path = message.partition(" - at ")
    key = path.strip("`").removeprefix("$").removeprefix(".")
    return f"{key}: {what[0].lower()}{what[1:]}" if key else f"{what[0].lower()}{what[1:]}"


def document_of(settings: msgspec.Struct) -> dict[str, Any]:
    """The way back: what differs from the defaults. ``settings_of`` makes the same settings of it."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            found[field.name] = _shown_value(value)
    return found


def _shown_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_shown_value(item) for item in value]
    return document_of(value) if isinstance(value, msgspec.Struct) else value
