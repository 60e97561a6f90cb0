"""What ``headrace keys`` prints. A new key is alone on stdout, so that a script can take it; words go to stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from headrace.core.key_views import IssuedKey, KeyStory, KeyView
from headrace.core.keys import KeyState, Scope, format_time


def print_issued(issued: IssuedKey, as_json: bool) -> None:
    if as_json:
        return _json(issued)
    typer.echo(issued.key)
    typer.secho("This key is shown once and kept nowhere: put it where its user finds it now.", err=True, fg="yellow")
    typer.echo(f"{issued.name} ({issued.id}) may {_rights(issued)}; {_ends(issued.expires)}", err=True)
    if (old := issued.before) is not None:
        typer.echo(f"{old.name} ({old.id}), the key before it, {_ends(old.expires)}", err=True)
    return None


def print_keys(keys: Sequence[KeyView], *, every: bool, as_json: bool) -> None:
    shown = [key for key in keys if every or key.state is KeyState.LIVE]
    if as_json:
        return _json(shown)
    if not shown:
        typer.echo("no keys are live; headrace keys list --all" if keys else "no keys; headrace keys bootstrap")
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "id", "state", "may", "made", "by", "ends"):
        table.add_column(column, overflow="fold")
    for key in shown:
        ends = key.revoked if key.revoked is not None else key.expires
        table.add_row(
            key.name,
            key.id,
            key.state.value,
            _rights(key),
            format_time(key.created),
            key.who,
            "never" if ends is None else format_time(ends),
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)
    return None


def print_story(story: KeyStory, as_json: bool) -> None:
    if as_json:
        return _json(story)
    print_keys(story.keys, every=True, as_json=False)
    typer.echo("")
    for event in story.events:
        after = msgspec.json.encode(event.after).decode() if event.after is not None else ""
        typer.echo(f"{format_time(event.at)}  {event.what:13}  {event.who}  {after}  {event.why}".rstrip())
    return None


def print_revoked(keys: Sequence[KeyView], as_json: bool) -> None:
    if as_json:
        return _json(keys)
    for key in keys:
        typer.echo(f"{key.name} ({key.id}) is revoked; servers refuse it within a second or two")
    return None


def _rights(key: KeyView) -> str:
    where = f" with {', '.join(key.endpoints)}" if Scope.PREDICT in key.scopes else ""
    return ", ".join(f"{scope.value}{where if scope is Scope.PREDICT else ''}" for scope in key.scopes)


def _ends(expires: float | None) -> str:
    return "it does not expire" if expires is None else f"it ends {format_time(expires)}"


def _json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
