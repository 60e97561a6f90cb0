"""``headrace environments``: the Python environments that versions with ``requirements.txt`` run in."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.models import AsJson, Database, Files, State
from headrace.cli.outcome import EXIT_CODES_HELP, ExitCode, reported

if TYPE_CHECKING:
    from headrace.app.unused_environments import Removed
    from headrace.backends.environments.folder import EnvironmentsFolder

GROUP_EXAMPLES = f"""\
Examples:

  headrace environments list

  headrace environments remove 2b6c555e48a2

  headrace environments gc --dry-run

They are built by headrace serve when a version needs one, and built again when they are missing.

{EXIT_CODES_HELP}
"""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    epilog=GROUP_EXAMPLES,
    help="Environments of versions that bring requirements.txt: look at them, remove them.",
)

Folder = Annotated[
    str | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        help="Where they are; default: $HEADRACE_ENVIRONMENTS__FOLDER, or environments in the state directory.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be removed.")]


@app.command("list", epilog="Example:  headrace environments list --json")
def list_environments(state: State = None, folder: Folder = None, as_json: AsJson = False) -> None:
    """List the environments that are built, oldest first, with what was asked for."""
    with reported(as_json):
        from headrace.app.settings.quantities import format_size

        opened = _folder(folder, state)
        rows = [(environment, opened.size(environment.spec.key)) for environment in opened.listing()]
        if as_json:
            return _json([{"path": str(opened.path(e.spec.key)), "bytes": size, "environment": e} for e, size in rows])
        for environment, size in rows:
            at = datetime.fromtimestamp(environment.at, UTC).strftime("%Y-%m-%d %H:%MZ")
            packages = ", ".join(environment.spec.requirements)
            typer.echo(f"{environment.spec.short}  {at}  {format_size(size):>8}  {packages}")
        if not rows:
            typer.echo(
                f"no environments in {opened.root}; headrace serve builds them for versions with requirements.txt"
            )
        return None


@app.command(epilog="Example:  headrace environments remove 2b6c555e48a2")
def remove(
    environments: Annotated[list[str], typer.Argument(metavar="ENVIRONMENT…", help="As the list shows them.")],
    state: State = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Remove environments; what a running server uses stays."""
    with reported(as_json):
        from headrace.app import unused_environments

        opened = _folder(folder, state)
        keys = [unused_environments.find(opened, prefix) for prefix in environments]
        removed = unused_environments.remove(opened, keys)
        _print_removed(removed, as_json, dry_run=False)
    if removed.kept:
        raise typer.Exit(ExitCode.FAILURE)


@app.command(epilog="Examples:  headrace environments gc --dry-run")
def gc(
    dry_run: DryRun = False,
    state: State = None,
    database: Database = None,
    files: Files = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Remove environments that no version of the registry asks for, and what killed builds left.

    What a running server uses stays.
    """
    with reported(as_json):
        from headrace.app import unused_environments
        from headrace.app.state.registry_state import locate, open_registry

        with open_registry(locate(state, database, files, os.environ)) as registry:
            removed = unused_environments.collect(registry, _folder(folder, state), dry_run=dry_run)
        _print_removed(removed, as_json, dry_run=dry_run)


def _folder(folder: str | None, state: str | None) -> EnvironmentsFolder:
    from headrace.app.state.directory import environments_folder
    from headrace.backends.environments.folder import EnvironmentsFolder

    setting = folder or os.environ.get("HEADRACE_ENVIRONMENTS__FOLDER")
    return EnvironmentsFolder(environments_folder(setting, state, os.environ))


def _print_removed(removed: Removed, as_json: bool, *, dry_run: bool) -> None:
    from headrace.app.settings.quantities import format_size

    if as_json:
        return _json({"removed": removed.keys, "in_use": removed.kept, "bytes": removed.size, "dry_run": dry_run})
    verb = "would be removed" if dry_run else "removed"
    typer.echo(f"{len(removed.keys)} environments, {format_size(removed.size)} {verb}")
    for key in removed.kept:
        typer.echo(f"{key[:12]} is used by a server; it stays")
    return None


def _json(document: Any) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
