"""``headrace serve``: settings from flags, environment and file, then the supervisor until it ends."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from headrace.app.keys import exposure
from headrace.app.keys.exposure import bootstrap_command
from headrace.app.settings.layers import load_settings, nothing_to_serve
from headrace.app.settings.model_sources import check_sources, check_trust, is_reference
from headrace.app.settings.serve_settings import ServeSettings
from headrace.app.state.location import is_named, locate_for_server
from headrace.cli.outcome import reported
from headrace.cli.screen import let_go_of_closed_output, make_screen
from headrace.cli.setting_flags import given_flags, with_setting_flags
from headrace.core import errors

EXAMPLES = """\
Examples:

  headrace serve fraud.onnx
  headrace serve fraud.onnx churn=churn.ubj img/ --replicas 2
  headrace serve pricer.py:Pricer --watch
  headrace serve model.pkl --trust model.pkl
  headrace serve fraud@champion churn@7
  headrace serve fraud@champion --state /srv/headrace     (kept there)
  headrace serve --state /srv/headrace                    (restores what was running)
  headrace serve --config production.yaml --port 80 --host 0.0.0.0

Settings: flags win over the environment (HEADRACE_PORT, HEADRACE_REPLICAS, HEADRACE_BATCHING__MAX_BATCH_SIZE),
which wins over headrace.yaml. docs/settings.md lists them all. TIME: 30, 500ms, 2m. SIZE: 64MiB, 1GB.

Exit codes: 0 stopped by SIGTERM or Ctrl-C, accepted requests finished; 1 failed; 2 wrong arguments or settings.
"""

app = typer.Typer(add_completion=False)


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]PATH…",
            help="Model files, MLflow or repository folders, FILE.py:CLASS, or MODEL@VERSION and MODEL@ALIAS of the"
            " registry. Default: those of headrace.yaml; else what the state says was running.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings file; default: headrace.yaml, if there is one."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="DIR",
            help="State directory: what is served is kept there, beside registry, keys and environments, and restored"
            " when nothing is named. Default: $HEADRACE_STATE; else ~/.headrace for restoring, MODEL@VERSION and keys.",
        ),
    ] = None,
    database: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="The state's database, if it is postgresql://…")
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option("--artifacts", metavar="PLACE", help="Where the registry keeps files, if not in its DIR."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per event, for machines.")] = False,
    for_parent: Annotated[Path | None, typer.Option("--for-parent", metavar="FOLDER", hidden=True)] = None,
    **flags: Any,
) -> None:
    """Serve models over REST and gRPC on one port.

    Formats are found from the content: ONNX, scikit-learn (skops, joblib, pickle),
    XGBoost, LightGBM, MLflow folders, Python classes, folders NAME/VERSION/file.
    """
    with reported(as_json):
        settings = load_settings(models or (), given_flags(flags), environ=os.environ, config=config, required=False)
        settings = _with_state(settings, (state, database, artifacts), config)
        if any(map(is_reference, settings.models)):
            settings = _with_registered(settings, quiet=quiet or as_json)
        if settings.environments_folder is None and settings.location is not None:
            folder = settings.location.directory / "environments"
            settings = msgspec.structs.replace(settings, environments_folder=str(folder))
        if for_parent is not None:
            # A server for a notebook is its own process's: it goes by no state, and no keys, that others share.
            settings = msgspec.structs.replace(settings, location=None)
        if not settings.gateway.no_auth:
            _check_exposure(settings, None if for_parent is not None else bootstrap_command(state, database))
        check_sources(settings.models)
        check_trust(settings.trust)
        orphaned = threading.Event()
        if for_parent is not None:
            threading.Thread(target=_stop_with_parent, args=[orphaned], name="parent-watch", daemon=True).start()
        # The supervisor is imported last: a wrong flag should not wait for the whole server to be imported.
        from headrace.app.supervisor import run

        code = run(settings, make_screen(as_json=as_json, quiet=quiet))
        let_go_of_closed_output()
        if for_parent is not None and orphaned.is_set():
            # The parent, which would have removed its folder, was killed.
            shutil.rmtree(for_parent, ignore_errors=True)
    raise typer.Exit(code)


def _with_state(
    settings: ServeSettings, place: tuple[str | None, str | None, str | None], config: Path | None
) -> ServeSettings:
    """Models that are named are served for as long as the command runs, unless a state is named as well; without
    models, what was running is restored from the state."""
    location = locate_for_server(*place, os.environ)
    named = is_named(place[0], place[1], os.environ)
    if not named and not settings.models and not (location is not None and location.exists):
        raise nothing_to_serve(config, Path())
    if location is not None and (named or not settings.models):
        # Imported only when there is a state to keep: the rest needs no database.
        from headrace.app.state.owned_state import probe

        if not probe(location) and not named and not settings.models:
            raise nothing_to_serve(config, Path())
    return msgspec.structs.replace(settings, location=location, owns_state=named or not settings.models)


def _with_registered(settings: ServeSettings, *, quiet: bool) -> ServeSettings:
    from headrace.app.registry.registered_models import with_registered
    from headrace.cli.transfer_bar import transfer_bar

    if settings.location is None:
        raise errors.BadSettings("there is no home directory with a registry to look into; name one with --state")
    with transfer_bar("Fetching", quiet=quiet) as progress:
        return with_registered(settings, settings.location, progress)


def _check_exposure(settings: ServeSettings, bootstrap: str | None) -> None:
    """Others reach a port: there must be a key to ask for. ``bootstrap`` is the command that makes the first one; None
    for servers that go by no state. Raises BadSettings."""
    found = exposure.exposed(settings)
    if found is None:
        return
    if bootstrap is None:
        key, host = found
        raise errors.BadSettings(
            f"{key} {host!r} can be reached from other machines, and headrace.serve knows no keys; use 127.0.0.1 or the"
            f" command headrace serve, or {exposure.PASSING_OVER}"
        )
    state = settings.location
    if state is None:
        raise exposure.without_keys(*found, "any state (name one with --state)", bootstrap)
    from headrace.app.keys.key_state import read_ring

    if not read_ring(state).keys:
        raise exposure.without_keys(*found, "the database" if state.database else str(state.directory), bootstrap)


def _stop_with_parent(orphaned: threading.Event) -> None:
    """End as by SIGTERM when the process that started this one has gone (its end of the pipe closes)."""
    # The descriptor itself: a thread that waits in sys.stdin would hold its lock when the interpreter ends.
    while os.read(0, 4096):
        pass
    orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)


app.command(epilog=EXAMPLES)(with_setting_flags(serve))
