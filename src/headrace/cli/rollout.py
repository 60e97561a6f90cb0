"""``headrace rollout``: move an endpoint to another version in judged steps, look at it, and have a word in it.

Each command is a client of the management port; what it needs is imported when it runs, so that its help is quick.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.management import AsJson, Deployment, Endpoint, Server, State, TakeOver, connected
from headrace.cli.outcome import EXIT_CODES_HELP, epilog
from headrace.core import errors

if TYPE_CHECKING:
    from headrace.client.rollout_status import RolloutStatus
    from headrace.client.rollouts import Rollouts

NOT_DONE = 1
"""Exit code of ``--wait``: it was rolled back, or aborted."""
PAUSED = 3
"""… it is paused: a person must decide."""

GROUP_EXAMPLES = """\
Examples:

  headrace rollout start fraud --to 8

  headrace rollout start fraud --to champion --linear 10/2m --shadow-first

  headrace rollout status fraud

  headrace rollout abort fraud

What is judged, and how: docs/rollouts.md
"""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    epilog=GROUP_EXAMPLES,
    help="Move endpoints to other versions, in judged steps.",
)


def _epilog(*examples: str, exit_codes: str = EXIT_CODES_HELP) -> str:
    return epilog(*examples, under="rollout", exit_codes=exit_codes)


@contextmanager
def _connected(server: str | None, state: str | None, as_json: bool) -> Iterator[Rollouts]:
    with connected(server, state, as_json) as client:
        yield client.rollouts


@app.command(
    epilog=_epilog(
        "start fraud --to 8",
        "start fraud --to 8 --canary 5,50 --bake 5m --wait",
        "start fraud --to champion --linear 10/2m --shadow-first",
        "start fraud --to 8 --blue-green --final-bake 1h --analysis strict.yaml",
        exit_codes=f"{EXIT_CODES_HELP} With --wait also: {NOT_DONE} rolled back or aborted; {PAUSED} paused: a person"
        " must decide.",
    )
)
def start(
    endpoint: Endpoint,
    to: Annotated[
        str, typer.Option("--to", metavar="VERSION", help="8, an alias, fraud@8, or a path on the server's machine.")
    ],
    deployment: Deployment = None,
    canary: Annotated[
        str, typer.Option("--canary", metavar="PERCENTS", help="Rising shares; 100 follows. Default: 1,5,25,50")
    ] = "",
    linear: Annotated[str, typer.Option("--linear", metavar="PERCENT/TIME", help="So much more each time: 10/2m")] = "",
    blue_green: Annotated[
        bool, typer.Option("--blue-green", help="All traffic at once; the old version stays warm to go back to.")
    ] = False,
    shadow_first: Annotated[
        bool | None,
        typer.Option("--shadow-first/--no-shadow-first", help="Mirrored requests before the first live one."),
    ] = None,
    bake: Annotated[str | None, typer.Option("--bake", metavar="TIME", help="Of each step, at least: 10m")] = None,
    final_bake: Annotated[
        str | None, typer.Option("--final-bake", metavar="TIME", help="With all traffic, before the old version stops.")
    ] = None,
    max_step: Annotated[
        str | None, typer.Option("--max-step", metavar="TIME", help="A step that is inconclusive then pauses it: 1h")
    ] = None,
    analysis: Annotated[
        Path | None, typer.Option("--analysis", metavar="FILE", help="YAML: how it is judged (docs/rollouts.md).")
    ] = None,
    take_over: TakeOver = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it has ended or is paused.")] = False,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Start a rollout. It goes on by itself: judged at each step, and rolled back when it does harm.

    What no option says is as the rollout: section of the endpoint in headrace.yaml says, else as the defaults do."""
    with _connected(server, state, as_json) as rollouts:
        started = rollouts.start(
            endpoint,
            _absolute(to),
            deployment=deployment,
            canary=canary,
            linear=linear,
            blue_green=blue_green,
            shadow_first=shadow_first,
            bake_s=_seconds("--bake", bake),
            final_bake_s=_seconds("--final-bake", final_bake),
            max_step_s=_seconds("--max-step", max_step),
            analysis=None if analysis is None else _analysis(analysis),
            take_over=take_over,
        )
        if not wait:
            _show(started, as_json)
            if not as_json:
                typer.echo(f"follow it with: headrace rollout status {endpoint}")
            return
        from headrace.cli.rollout_live import followed

        last = rollouts.wait(endpoint, id=started.id) if as_json else followed(rollouts, started)
        if as_json:
            _write(last)
        if last.phase != "done":
            raise typer.Exit(PAUSED if last.paused else NOT_DONE)


@app.command(epilog=_epilog("status fraud", "status fraud --json"))
def status(endpoint: Endpoint, server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """Show the rollout of an endpoint, or its last one: live on a terminal, until it ends or you press Ctrl-C."""
    with _connected(server, state, as_json) as rollouts:
        found = rollouts.status(endpoint)
        if found.ended or as_json or not sys.stdout.isatty():
            _show(found, as_json, full=True)
            return
        from headrace.cli.rollout_live import watch

        watch(rollouts, found, until_paused=False)


@app.command("list", epilog=_epilog("list", "list fraud --limit 5 --json"))
def list_rollouts(
    endpoint: Annotated[str | None, typer.Argument(metavar="[ENDPOINT]", help="Only of this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="At most so many.")] = 20,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """List rollouts, newest first."""
    with _connected(server, state, as_json) as rollouts:
        found = rollouts.list(endpoint, limit=limit)
        if as_json:
            _write({"rollouts": found})
        elif not found:
            typer.echo("no rollouts yet; headrace rollout start ENDPOINT --to VERSION")
        else:
            from headrace.cli.rollout_views import print_list

            print_list(found)


@app.command(epilog=_epilog("pause fraud"))
def pause(endpoint: Endpoint, server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """Keep the traffic as it is until somebody resumes. What is proven bad is still rolled back."""
    with _connected(server, state, as_json) as rollouts:
        _show(rollouts.pause(endpoint), as_json)


@app.command(epilog=_epilog("resume fraud"))
def resume(endpoint: Endpoint, server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """Go on where it was paused; the time of the step starts anew."""
    with _connected(server, state, as_json) as rollouts:
        _show(rollouts.resume(endpoint), as_json)


@app.command(epilog=_epilog("promote fraud"))
def promote(endpoint: Endpoint, server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """Take the next step now, without waiting for the checks."""
    with _connected(server, state, as_json) as rollouts:
        _show(rollouts.promote(endpoint), as_json)


@app.command(epilog=_epilog("abort fraud"))
def abort(endpoint: Endpoint, server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """Back to the old version, at once."""
    with _connected(server, state, as_json) as rollouts:
        _show(rollouts.abort(endpoint), as_json)


@app.command(epilog=_epilog("measure fraud chargebacks 0.02"))
def measure(
    endpoint: Endpoint,
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="As the analysis names it.", show_default=False)],
    value: Annotated[float, typer.Argument(metavar="VALUE", show_default=False)],
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Post a metric that the rollout is judged by."""
    with _connected(server, state, as_json) as rollouts:
        _show(rollouts.measure(endpoint, metric, value), as_json)


# --- what is read ---


def _absolute(version: str) -> str:
    """A path that counts from here is told so that it counts from anywhere: no version begins like one."""
    return str(Path(version).expanduser().absolute()) if version.startswith((".", "~")) else version


def _seconds(option: str, text: str | None) -> float | None:
    from headrace.app.settings.quantities import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError:
        raise errors.BadSettings(f"{option} {text!r} is no time: write 90s, 10m, 1h") from None


def _analysis(file: Path) -> dict[str, Any]:
    """What a file says about the judgement, checked before anybody is asked. Raises BadSettings."""
    import yaml

    from headrace.control.analysis.documents import settings_of

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise errors.BadSettings(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise errors.BadSettings(f"{file}: is not YAML: {error}") from error
    settings_of(document, str(file))
    return document or {}


# --- what people and machines read ---


def _show(found: RolloutStatus, as_json: bool, *, full: bool = False) -> None:
    if as_json:
        _write(found)
        return
    from headrace.cli.rollout_views import console, lines, summary

    out = console()
    for line in (lines if full else summary)(found, time.time()):
        out.print(line)


def _write(document: Any) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
