"""``headrace deploy``: a version of the registry under an endpoint of a running server, without a file."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from headrace.cli.endpoint_changes import show_changes, wait_for
from headrace.cli.management import AsJson, Server, State, TakeOver, Timeout, connected
from headrace.cli.outcome import epilog

app = typer.Typer(add_completion=False)


@app.command(
    epilog=epilog(
        "deploy fraud@7",
        "deploy fraud@champion --endpoint fraud-eu --replicas 2",
        "deploy fraud@8 --deployment challenger    # beside the others; then: headrace traffic",
        "rollout start fraud --to 8                # instead: judged, step by step",
    )
)
def deploy(
    model: Annotated[
        str, typer.Argument(metavar="MODEL@VERSION", help="fraud@7, or an alias: fraud@champion.", show_default=False)
    ],
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="NAME", help="Made when it is not there. Default: the model's.")
    ] = None,
    deployment: Annotated[
        str | None,
        typer.Option(
            "--deployment",
            metavar="NAME",
            help="Which of the endpoint's; needed when it has several. A new one gets no requests yet.",
        ),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option("--replicas", metavar="N", min=0, help="Default: as it is, else 1.")
    ] = None,
    lazy: Annotated[
        bool | None, typer.Option("--lazy/--no-lazy", help="Start it on its first request, which waits for it.")
    ] = None,
    take_over: TakeOver = False,
    wait: Annotated[bool, typer.Option(help="Wait until the version serves.")] = True,
    timeout: Timeout = 300.0,
    server: Server = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Put a version of the registry under an endpoint. What serves there goes on until the version is ready.

    All requests move at once then. headrace rollout start moves them in judged steps, and back when it does harm."""
    with connected(server, state, as_json) as client:
        change = client.endpoints.deploy(
            model, endpoint=endpoint, deployment=deployment, replicas=replicas, lazy=lazy, take_over=take_over
        )
        if wait and change.kind != "none":
            wait_for(client.endpoints, [change.endpoint], time.monotonic() + timeout, deployment=deployment)
        show_changes([change], as_json, "{}d", same=f"nothing changes: {change.endpoint} serves it already")
