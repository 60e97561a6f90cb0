"""``headrace version``."""

from __future__ import annotations

import json
import platform
from typing import Annotated

import typer

from headrace import __version__

app = typer.Typer(add_completion=False)


@app.command(epilog="Example:\n\n  headrace version --json")
def version(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Print the version."""
    if as_json:
        typer.echo(json.dumps({"headrace": __version__, "python": platform.python_version()}))
    else:
        typer.echo(f"headrace {__version__}")
