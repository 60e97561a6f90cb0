"""Flags of ``headrace serve`` made from the table of settings, so that help, file and errors agree."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from headrace.app.settings.keys import GROUPS, KEYS, Form, Key


def with_setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command``, which takes ``**flags``, one keyword parameter per setting that has a flag."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    generated = [_parameter(key, group) for group, keys in GROUPS.items() for key in keys if key.flag]
    command.__signature__ = signature.replace(parameters=[*own, *generated])  # type: ignore[attr-defined]
    return command


def given_flags(flags: Mapping[str, Any]) -> dict[str, str | Sequence[str]]:
    """The flags that were typed, by the name of their key, as texts."""
    given: dict[str, str | Sequence[str]] = {}
    for key in KEYS:
        value = flags.get(_identifier(key))
        if value is None or value == []:
            continue
        given[key.name] = str(value).lower() if isinstance(value, bool) else value
    return given


def _identifier(key: Key) -> str:
    return "__".join(key.path)


def _parameter(key: Key, group: str) -> inspect.Parameter:
    assert key.flag is not None
    declaration = key.flag
    annotation: Any = str | None
    metavar: str | None = key.kind.metavar
    if key.kind.switch:
        annotation, metavar = bool | None, None
        if not declaration.startswith("--no-"):
            declaration = f"{declaration}/--no-{declaration.removeprefix('--')}"
    elif key.kind.form is not Form.SCALAR:
        annotation = list[str] | None
    default = "" if key.kind.switch else key.show_default()
    option = typer.Option(
        declaration,
        help=f"{key.help} Default: {default}." if default else key.help,
        metavar=metavar,
        show_default=False,  # every default is None, "not typed"; the text above has the true one
        rich_help_panel=group,
    )
    return inspect.Parameter(
        _identifier(key), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, option]
    )
