"""``headrace plan``, ``apply``, ``export-config``, ``endpoints``, ``traffic``, ``scale``, ``restart``, ``drain``,
``pause`` and ``resume``: what a running server serves.

Each is a client of the management port; what a command needs is imported when it runs, so that its help is quick.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.endpoint_changes import show_changes, wait_for, write
from headrace.cli.management import AsJson, Deployment, Endpoint, Server, State, TakeOver, Timeout, connected
from headrace.cli.outcome import epilog
from headrace.core import errors

if TYPE_CHECKING:
    from headrace.client.endpoints import Endpoints, EndpointState

_SAME = "nothing changes: the file says what runs"

File = Annotated[Path, typer.Argument(metavar="[FILE]", help="A settings file with endpoints.", show_default=True)]


def _app(examples: Sequence[str]) -> tuple[typer.Typer, Callable[[Callable[..., None]], Callable[..., None]]]:
    """An application with one command, and the decorator that registers it."""
    app = typer.Typer(add_completion=False)
    return app, app.command(epilog=epilog(*examples))


@contextmanager
def _connected(server: str | None, state: str | None, as_json: bool) -> Iterator[Endpoints]:
    with connected(server, state, as_json) as client:
        yield client.endpoints


plan_app, _plan = _app(["plan", "plan production.yaml --json"])


@_plan
def plan(
    file: File = Path("headrace.yaml"), server: Server = None, state: State = None, as_json: AsJson = False
) -> None:
    """Show what applying a file would change. Nothing is changed."""
    with _connected(server, state, as_json) as endpoints:
        show_changes(endpoints.plan(file), as_json, "to {}", same=_SAME)


apply_app, _apply = _app(["apply", "apply production.yaml --take-over", "apply --no-wait --json"])


@_apply
def apply(
    file: File = Path("headrace.yaml"),
    take_over: TakeOver = False,
    wait: Annotated[bool, typer.Option(help="Wait until every endpoint of the file serves as asked.")] = True,
    timeout: Timeout = 300.0,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make what runs what a file says: all of it, or nothing. New versions take over when they are ready."""
    with _connected(server, state, as_json) as endpoints:
        changes = endpoints.apply(file, take_over=take_over)
        if wait:
            changed = [change.endpoint for change in changes if change.kind in ("create", "update")]
            wait_for(endpoints, changed, time.monotonic() + timeout)
        show_changes(changes, as_json, "{}d", same=_SAME)


export_app, _export = _app(["export-config > headrace.yaml"])


@_export
def export_config(server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """Write what runs as a settings file."""
    with _connected(server, state, as_json) as endpoints:
        text = endpoints.export()
        if as_json:
            import yaml

            write(yaml.safe_load(text))
            return
        sys.stdout.write(text)


endpoints_app, _endpoints = _app(["endpoints", "endpoints fraud --json"])


@_endpoints
def endpoints(
    endpoint: Annotated[str | None, typer.Argument(metavar="[ENDPOINT]", help="Only this one, in full.")] = None,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """List what is served: versions, shares, replicas, and who decides the traffic."""
    with _connected(server, state, as_json) as served:
        if endpoint is not None:
            _show_state(served.show(endpoint), as_json, full=True)
            return
        found = served.list()
        if as_json:
            write({"endpoints": found})
            return
        for one in found:
            typer.echo(_line(one))


traffic_app, _traffic = _app(["traffic fraud champion=90 challenger=10", "traffic fraud challenger=100 --take-over"])


@_traffic
def traffic(
    endpoint: Endpoint,
    weights: Annotated[list[str], typer.Argument(metavar="DEPLOYMENT=WEIGHT…", show_default=False)],
    take_over: TakeOver = False,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Spread the requests of an endpoint by hand; a deployment that is not named gets none."""
    with _connected(server, state, as_json) as served:
        _show_state(served.set_traffic(endpoint, parse_weights(weights), take_over=take_over), as_json)


def parse_weights(texts: Sequence[str]) -> dict[str, float]:
    """``champion=90`` … by name. Raises BadSettings."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, weight = text.partition("=")
        try:
            found[name] = float(weight)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise errors.BadSettings(f"expected DEPLOYMENT=WEIGHT, e.g. champion=90, got {text!r}")
    return found


scale_app, _scale = _app(["scale fraud 3", "scale fraud 0 --deployment challenger"])


@_scale
def scale(
    endpoint: Endpoint,
    replicas: Annotated[int, typer.Argument(metavar="REPLICAS", min=0, show_default=False)],
    deployment: Deployment = None,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Change the number of replicas of a deployment; 0 stops it."""
    with _connected(server, state, as_json) as served:
        _show_state(served.scale(endpoint, replicas, deployment=deployment), as_json)


restart_app, _restart = _app(["restart fraud", "restart fraud --deployment champion"])


@_restart
def restart(
    endpoint: Endpoint,
    deployment: Deployment = None,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Replace the replicas of a deployment by fresh ones, one by one, without a gap."""
    with _connected(server, state, as_json) as served:
        _show_state(served.restart(endpoint, deployment=deployment), as_json)


drain_app, _drain = _app(["drain fraud challenger"])


@_drain
def drain(
    endpoint: Endpoint,
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", show_default=False)],
    take_over: TakeOver = False,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Give the traffic of a deployment to the others; its replicas finish what they have and stay."""
    with _connected(server, state, as_json) as served:
        _show_state(served.drain(endpoint, deployment, take_over=take_over), as_json)


pause_app, _pause = _app(['pause fraud --why "maintenance until noon"'])


@_pause
def pause(
    endpoint: Endpoint,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Callers read it in the refusals.")] = "",
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Refuse new requests of an endpoint; its replicas stay ready."""
    with _connected(server, state, as_json) as served:
        _show_state(served.pause(endpoint, why), as_json)


resume_app, _resume = _app(["resume fraud"])


@_resume
def resume(endpoint: Endpoint, server: Server = None, state: State = None, as_json: AsJson = False) -> None:
    """Take requests of a paused endpoint again."""
    with _connected(server, state, as_json) as served:
        _show_state(served.resume(endpoint), as_json)


# --- what people and machines read ---


def _show_state(state: EndpointState, as_json: bool, *, full: bool = False) -> None:
    if as_json:
        write(state)
        return
    total = sum(state.weights.values())
    shares = ", ".join(
        f"{name} (version {version}) {100 * state.weights.get(name, 0.0) / total:.4g} %"
        for name, version in state.versions.items()
    )
    paused = f"; paused: {state.paused}" if state.paused else ""
    loading = "" if state.settled else "; a new version is loading, the old one serves"
    typer.echo(f"{state.endpoint}: {shares}; traffic decided by {state.owner}{paused}{loading}")
    if full:
        import yaml

        typer.echo(yaml.safe_dump({state.endpoint: state.document}, sort_keys=False, allow_unicode=True).rstrip())


def _line(endpoint: dict[str, Any]) -> str:
    shown = []
    for deployment in endpoint["deployments"]:
        ready = sum(replica["state"] == "ready" for replica in deployment["replicas"])
        name = f"{deployment['name']} " if deployment.get("name") else ""
        reason = f" ({deployment['reason']})" if deployment.get("reason") else ""
        share = f"{100 * deployment['traffic']:.4g} %"
        replicas = "starts on its first request" if deployment.get("dormant") else f"{ready} replicas ready"
        shown.append(f"{name}version {deployment['version']}: {share}, {replicas}{reason}")
    state = "ready" if endpoint["ready"] else "not ready"
    return f"{endpoint['name']}: {state}; {'; '.join(shown)}{_objectives(endpoint.get('slo'))}"


def _objectives(slo: dict[str, Any] | None) -> str:
    """``; slo: p99 50 ms, 0.1 % errors``."""
    promised = []
    if slo is not None and slo["p99_ms"] is not None:
        promised.append(f"p99 {slo['p99_ms']:g} ms")
    if slo is not None and slo["error_rate"] is not None:
        promised.append(f"{100 * slo['error_rate']:.4g} % errors")
    return f"; slo: {', '.join(promised)}" if promised else ""
