"""``headrace schema``: the JSON Schema of headrace.yaml, for editors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Example:\n\n  headrace schema > headrace.schema.json\n\nA headrace.yaml beside it that begins with"
    "\n\n  # yaml-language-server: $schema=headrace.schema.json\n\nis completed and checked by editors."
)
def schema(
    as_json: Annotated[
        bool, typer.Option("--json", help="The schema is JSON with this option and without it.")
    ] = False,
) -> None:
    """Print the JSON Schema (2020-12) of headrace.yaml: every key with its help, default and values."""
    from headrace.app.settings import schema as settings_schema

    sys.stdout.write(settings_schema.document())
