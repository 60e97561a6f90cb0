"""``headrace events``: who changed what in the registry, when and why."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from headrace.cli.models import AsJson, Database, Server, State, opened_models
from headrace.cli.outcome import EXIT_CODES_HELP

EXAMPLES = f"""\
Examples:

  headrace events

  headrace events --model fraud --limit 20 --json

{EXIT_CODES_HELP}
"""

app = typer.Typer(add_completion=False)


@app.command(epilog=EXAMPLES)
def events(
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Only what happened to this one.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 50,
    state: State = None,
    database: Database = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Show the latest changes, newest first: who did what and why, and what it was before and after."""
    with opened_models(state, database, None, server, as_json) as models:
        import msgspec

        found = models.changes(limit, model)
        if as_json:
            sys.stdout.write(msgspec.json.encode({"events": found}).decode() + "\n")
            return
        for event in found:
            at = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
            sides = [msgspec.json.encode(side).decode() for side in (event.before, event.after) if side is not None]
            typer.echo(
                f"{at}  {event.what:14}  {event.subject}  {event.who}  {' → '.join(sides)}  {event.why}".rstrip()
            )
