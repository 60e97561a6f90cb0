"""What ``headrace keys`` prints. A new key is alone on stdout, so that a script can take it; words go to stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from headrace.control.key_issuer import Issued
from headrace.core.keys import KeyRecord, KeyState, Scope, format_time
from headrace.core.versions import Event


def print_issued(issued: Issued, as_json: bool, older: Sequence[KeyRecord] = ()) -> None:
    record = issued.record
    if as_json:
        return _json({"key": issued.token, **_described(record, record.created)})
    typer.echo(issued.token)
    typer.secho("This key is shown once and kept nowhere: put it where its user finds it now.", err=True, fg="yellow")
    typer.echo(f"{record.name} ({record.id}) may {_rights(record)}; {_ends(record.expires)}", err=True)
    for old in older:
        typer.echo(f"{old.name} ({old.id}), the key before it, {_ends(old.expires)}", err=True)
    return None


def print_keys(records: Sequence[KeyRecord], now: float, *, every: bool, as_json: bool) -> None:
    shown = [record for record in records if every or record.state(now) is KeyState.LIVE]
    if as_json:
        return _json([_described(record, now) for record in shown])
    if not shown:
        typer.echo("no keys are live; headrace keys list --all" if records else "no keys; headrace keys bootstrap")
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "id", "state", "may", "made", "by", "ends"):
        table.add_column(column, overflow="fold")
    for record in shown:
        ends = record.revoked if record.revoked is not None else record.expires
        table.add_row(
            record.name,
            record.id,
            record.state(now).value,
            _rights(record),
            format_time(record.created),
            record.who,
            "never" if ends is None else format_time(ends),
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)
    return None


def print_story(records: Sequence[KeyRecord], events: Sequence[Event], now: float, as_json: bool) -> None:
    if as_json:
        return _json({"keys": [_described(record, now) for record in records], "events": list(events)})
    print_keys(records, now, every=True, as_json=False)
    typer.echo("")
    for event in events:
        after = msgspec.json.encode(event.after).decode() if event.after is not None else ""
        typer.echo(f"{format_time(event.at)}  {event.what:13}  {event.who}  {after}  {event.why}".rstrip())
    return None


def print_revoked(records: Sequence[KeyRecord], now: float, as_json: bool) -> None:
    if as_json:
        return _json([_described(record, now) for record in records])
    for record in records:
        typer.echo(f"{record.name} ({record.id}) is revoked; servers refuse it within a second or two")
    return None


def _rights(record: KeyRecord) -> str:
    where = f" with {', '.join(record.endpoints)}" if Scope.PREDICT in record.scopes else ""
    return ", ".join(f"{scope.value}{where if scope is Scope.PREDICT else ''}" for scope in record.scopes)


def _ends(expires: float | None) -> str:
    return "it does not expire" if expires is None else f"it ends {format_time(expires)}"


def _described(record: KeyRecord, now: float) -> dict[str, Any]:
    """Without the digest, which is of no use to anybody who reads this."""
    return {
        "id": record.id,
        "name": record.name,
        "state": record.state(now),
        "scopes": record.scopes,
        "endpoints": record.endpoints,
        "created": record.created,
        "who": record.who,
        "expires": record.expires,
        "revoked": record.revoked,
    }


def _json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
