"""``headrace models``: the registry from the shell.

What a command needs is imported when it runs, so that its help is quick.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.outcome import ExitCode, epilog, reported
from headrace.core import errors

if TYPE_CHECKING:
    from headrace.app.registry.models_service import ModelsService

GROUP_EXAMPLES = """\
Examples:

  headrace models push fraud model.onnx --metric auc=0.93

  headrace models alias fraud champion 7

  headrace models push repository/ --state /srv/headrace

Each command has its own:  headrace models push --help
"""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    epilog=GROUP_EXAMPLES,
    help="Keep versions of models, with their files, aliases and where they came from.",
)

State = Annotated[
    str | None,
    typer.Option("--state", metavar="DIR", help="State directory; default: $HEADRACE_STATE or ~/.headrace."),
]
Database = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help="postgresql://… instead of SQLite in the state directory."),
]
Files = Annotated[
    str | None,
    typer.Option("--artifacts", metavar="PLACE", help="Folder or s3://, gs://, az:// URL for the versions' files."),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Management port of the server that owns the registry; default: $HEADRACE_SERVER, else whoever owns the"
        " state. Its key is read from $HEADRACE_API_KEY.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]
Reason = Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason, kept in the history.")]
Reference = Annotated[str, typer.Argument(metavar="MODEL[@VERSION|@ALIAS]", help="fraud@7, fraud@champion or fraud.")]


@contextmanager
def opened_models(
    state: str | None, database: str | None, files: str | None, server: str | None, as_json: bool
) -> Iterator[ModelsService]:
    """The registry, through the controller that owns it or directly; errors are reported."""
    with reported(as_json):
        from headrace.app.registry.models_place import open_models
        from headrace.app.state.registry_state import locate

        with open_models(locate(state, database, files, os.environ), server, os.environ) as models:
            yield models


def _epilog(*examples: str) -> str:
    return epilog(*examples, under="models")


@app.command(
    epilog=_epilog(
        "push fraud model.onnx",
        "push fraud s3://bucket/model.ubj --golden golden.jsonl --reference train.parquet --metric auc=0.93",
        "push pricer.py:Pricer --trust --alias champion",
        "push churn model.joblib --requirements requirements.txt --trust     (runs in an environment of its own)",
        "push fraud mlflow:/models:/fraud@champion --tracking-uri http://127.0.0.1:5000",
        "push fraud fraud.mar                    (a TorchServe archive; its handler is not run)",
        "push repository/            (every model and version of a Triton or TensorFlow Serving repository)",
    )
)
def push(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] SOURCE",
            help="File, folder, FILE.py:CLASS, s3://, gs:// or az:// URL, mlflow:/models:/NAME@ALIAS.",
        ),
    ],
    signature: Annotated[
        Path | None, typer.Option("--signature", metavar="FILE", help="Typed inputs and outputs.")
    ] = None,
    golden: Annotated[
        Path | None, typer.Option("--golden", metavar="FILE", help="Golden requests (JSON lines).")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="FILE", help="Training data to compare with (Parquet).")
    ] = None,
    requirements: Annotated[
        Path | None,
        typer.Option(
            "--requirements",
            metavar="FILE",
            help="requirements.txt: the version runs in an environment of its own with these packages. Default: the one"
            " beside the model in a folder that is pushed.",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="K=V", help="Anything; repeatable.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", metavar="K=NUMBER", help="Repeatable.")] = None,
    alias: Annotated[str, typer.Option("--alias", metavar="NAME", help="Point this alias at the new version.")] = "",
    trust: Annotated[bool, typer.Option("--trust", help="You vouch for the code that the model brings along.")] = False,
    tracking_uri: Annotated[
        str | None,
        typer.Option("--tracking-uri", metavar="URL", help="MLflow's server; default: $MLFLOW_TRACKING_URI."),
    ] = None,
    state: State = None,
    database: Database = None,
    files: Files = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Store a model as a new version.

    It is inspected in a process of its own, never loaded. Repositories keep their version numbers. Of a model in an
    MLflow registry the alias is resolved to a number, and its run's metrics, parameters, tags and commit are kept.
    """
    with opened_models(state, database, files, server, as_json) as models:
        from headrace.app.registry.pushing import PushRequest
        from headrace.cli.model_views import print_pushed
        from headrace.cli.transfer_bar import transfer_bar

        if len(what) > 2:
            raise errors.BadSettings(f"one SOURCE at a time, with or without a MODEL before it; {len(what)} were given")
        request = PushRequest(
            source=what[-1],
            model=what[0] if len(what) == 2 else None,
            signature=signature,
            golden=golden,
            reference=reference,
            requirements=requirements,
            metadata=dict(_pairs("--metadata", metadata)),
            metrics={name: _number(name, value) for name, value in _pairs("--metric", metric)},
            trusted=trust,
            alias=alias,
            tracking_uri=tracking_uri,
        )
        with transfer_bar("Storing", quiet=as_json) as progress:
            pushed = models.push(request, progress)
        print_pushed(pushed, as_json)


@app.command("list", epilog=_epilog("list", "list --json"))
def list_models(
    state: State = None, database: Database = None, files: Files = None, server: Server = None, as_json: AsJson = False
) -> None:
    """List the models, their newest versions and aliases."""
    with opened_models(state, database, files, server, as_json) as models:
        from headrace.cli.model_views import print_models

        print_models(models.models(), as_json)


@app.command(epilog=_epilog("show fraud", "show fraud@champion --json"))
def show(
    reference: Reference,
    state: State = None,
    database: Database = None,
    files: Files = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Show a model with its history, or one version with its files and where it came from."""
    with opened_models(state, database, files, server, as_json) as models:
        from headrace.cli.model_views import print_model, print_version

        if "@" in reference:
            print_version(models.version(reference), as_json)
        else:
            print_model(*models.model(reference), as_json)


@app.command(epilog=_epilog("alias fraud champion 7", "alias fraud champion staging", "alias fraud staging --remove"))
def alias(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    name: Annotated[str, typer.Argument(metavar="ALIAS")],
    version: Annotated[str | None, typer.Argument(metavar="VERSION|ALIAS", show_default=False)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
    why: Reason = "",
    state: State = None,
    database: Database = None,
    files: Files = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias at a version. It moves at once or not at all, and its history is kept."""
    with opened_models(state, database, files, server, as_json) as models:
        from headrace.cli.model_views import print_alias

        if remove == (version is not None):
            raise errors.BadSettings(
                f"say where {name!r} points to (headrace models alias {model} {name} 7), or --remove"
            )
        moved = None
        if version is None:
            models.remove_alias(model, name, why)
        else:
            moved = models.move_alias(model, name, version, why)
        print_alias(model, name, moved, as_json)


@app.command(epilog=_epilog("trust fraud@7"))
def trust(
    reference: Reference,
    state: State = None,
    database: Database = None,
    files: Files = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Vouch for the code that a version brings along: it may be loaded from now on. Your name is kept."""
    with opened_models(state, database, files, server, as_json) as models:
        from headrace.cli.model_views import print_trust

        print_trust(*models.trust(reference), as_json)


@app.command(epilog=_epilog("verify", "verify fraud@7 churn"))
def verify(
    references: Annotated[list[str] | None, typer.Argument(metavar="[MODEL[@VERSION]]…", show_default=False)] = None,
    state: State = None,
    database: Database = None,
    files: Files = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Read every stored file and compare it with its digest; of everything when nothing is named."""
    with opened_models(state, database, files, server, as_json) as models:
        from headrace.cli.model_views import print_verdicts
        from headrace.cli.transfer_bar import transfer_bar

        with transfer_bar("Verifying", quiet=as_json) as progress:
            verdicts = models.verify(references or (), progress)
        print_verdicts(verdicts, as_json)
    if any(verdict.problems for verdict in verdicts):
        raise typer.Exit(ExitCode.FAILURE)


@app.command(epilog=_epilog("delete fraud@3", "delete fraud --all --why 'replaced by fraud2'"))
def delete(
    reference: Reference,
    every: Annotated[bool, typer.Option("--all", help="Delete every version of the model.")] = False,
    why: Reason = "",
    state: State = None,
    database: Database = None,
    files: Files = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Delete a version that no alias points to. Its number is not given again; gc removes its files."""
    with opened_models(state, database, files, server, as_json) as models:
        from headrace.cli.model_views import print_deleted

        model, separator, choice = reference.partition("@")
        if every == bool(separator):
            raise errors.BadSettings(f"say which version, e.g. {model}@3, or delete every one with: {model} --all")
        print_deleted(models.delete(model, choice or None, why), as_json)


@app.command(epilog=_epilog("pull fraud@champion", "pull fraud@7 ./fraud-7"))
def pull(
    reference: Reference,
    folder: Annotated[Path | None, typer.Argument(metavar="[FOLDER]", show_default=False)] = None,
    state: State = None,
    database: Database = None,
    files: Files = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Write the files of a version into a new folder (MODEL-VERSION), verified."""
    with opened_models(state, database, files, server, as_json) as models:
        from headrace.cli.model_views import print_pulled
        from headrace.cli.transfer_bar import transfer_bar

        with transfer_bar("Pulling", quiet=as_json) as progress:
            version, target = models.pull(reference, folder, progress)
        print_pulled(version, target, as_json)


@app.command(epilog=_epilog("gc --dry-run", "gc --grace 7d"))
def gc(
    grace: Annotated[
        str,
        typer.Option("--grace", metavar="TIME", help="Keep what was stored more recently: an upload may be under way."),
    ] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed.")] = False,
    state: State = None,
    database: Database = None,
    files: Files = None,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Remove stored files that no version refers to."""
    with opened_models(state, database, files, server, as_json) as models:
        from headrace.cli.model_views import print_collected

        print_collected(models.collect(_seconds("--grace", grace), dry_run=dry_run), dry_run, as_json)


def _pairs(option: str, texts: Iterable[str] | None) -> Iterator[tuple[str, str]]:
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise errors.BadSettings(f"{option} {text!r}: write {option} NAME=VALUE")
        yield name, value


def _seconds(option: str, text: str) -> float:
    from headrace.app.settings.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        raise errors.BadSettings(f"{option} {text!r} is no time: write 90s, 30m, 24h, 7d") from None


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise errors.BadSettings(f"--metric {name}={text}: {text!r} is no number; texts go to --metadata")
    return number
