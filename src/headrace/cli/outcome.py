"""How a command ends: exit codes and the one way errors are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from headrace.core import errors


class ExitCode(IntEnum):
    """Exit codes of every command. 130 is an interrupt, as in shells."""

    OK = 0
    FAILURE = 1
    """A model or the server failed."""
    USAGE = 2
    """Wrong arguments, settings or input: the same command will fail again."""
    NOT_REACHABLE = 3
    """Nothing answers there, it is not ready, overloaded or too slow: the same command may work later."""


EXIT_CODES_HELP = (
    "Exit codes: 0 done; 1 the model or the server failed; 2 wrong arguments, settings or input;"
    " 3 not reachable, not ready or overloaded (the same command may work later); 130 interrupted."
)


def epilog(*examples: str, under: str = "", exit_codes: str = EXIT_CODES_HELP) -> str:
    """The end of a command's help: examples, without ``headrace`` and the group's name ``under``, and exit codes."""
    command = f"headrace {under}".rstrip()
    return "\n\n".join(("Examples:", *(f"  {command} {example}" for example in examples), exit_codes))


def exit_code(error: errors.HeadraceError) -> ExitCode:
    match error:
        case errors.CallerError():
            return ExitCode.USAGE
        case errors.NotReady() | errors.Overloaded() | errors.DeadlineExceeded() | errors.StateInUse():
            return ExitCode.NOT_REACHABLE
        case _:
            return ExitCode.FAILURE


@contextmanager
def reported(as_json: bool = False) -> Iterator[None]:
    """Turn a HeadraceError into a message on stderr (or a JSON object on stdout) and an exit code."""
    try:
        yield
    except errors.HeadraceError as error:
        if as_json:
            sys.stdout.write(json.dumps({"error": error.message, "code": error.code}) + "\n")
        else:
            typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
            typer.echo(error.message, err=True)
        raise typer.Exit(exit_code(error)) from error
