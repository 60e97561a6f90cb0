"""``headrace doctor``: checks what serving needs on this machine and says how to mend what is missing."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from headrace.cli.checks import Check, Status, run_checks
from headrace.cli.outcome import ExitCode

EXAMPLES = """\
Examples:

  headrace doctor
  headrace doctor --port 8080 --json

Exit codes: 0 everything that is needed works (warnings may be printed); 1 something that serving needs does not work.
"""

_MARKS = {Status.OK: ("✓", "green"), Status.WARNING: ("!", "yellow"), Status.FAILED: ("✗", "red")}

app = typer.Typer(add_completion=False)


@app.command(epilog=EXAMPLES)
def doctor(
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="Inference port to check.")] = 8000,
    management_port: Annotated[
        int, typer.Option("--management-port", metavar="PORT", help="Management port to check.")
    ] = 9000,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="For importing one runtime.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Check this machine: Python, resources, runtimes, ports.

    Every runtime is really imported, in a process of its own.
    """
    checks = []
    for check in run_checks(port=port, management_port=management_port, import_timeout=timeout):
        checks.append(check)
        if not as_json:
            _print(check)
    failed = [check for check in checks if check.status is Status.FAILED]
    if as_json:
        sys.stdout.write(msgspec.json.encode({"ok": not failed, "checks": checks}).decode() + "\n")
    elif failed:
        typer.secho(f"{len(failed)} of {len(checks)} checks failed", fg="red", err=True)
    raise typer.Exit(ExitCode.FAILURE if failed else ExitCode.OK)


def _print(check: Check) -> None:
    mark, color = _MARKS[check.status]
    typer.secho(f"{mark} ", fg=color, nl=False)
    typer.echo(f"{check.name}: {check.found}")
    if check.fix:
        typer.echo(f"    {check.fix}")
