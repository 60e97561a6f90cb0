"""What the commands that are clients of the management port share: their options, and the connection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.outcome import reported

if TYPE_CHECKING:
    from headrace.client import Client

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Management port; default: $HEADRACE_SERVER, else whoever owns the state, else http://127.0.0.1:9000."
        " Its key is read from $HEADRACE_API_KEY.",
    ),
]
State = Annotated[
    str | None,
    typer.Option("--state", metavar="DIR", help="Ask the server that owns this state; default: $HEADRACE_STATE."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", show_default=False)]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over", help="Decide the traffic from now on, whoever decides it now: file, rollout or experiment."
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="Of the waiting.")]
Deployment = Annotated[
    str | None,
    typer.Option("--deployment", metavar="NAME", help="Which of the endpoint's; needed when it has several."),
]


@contextmanager
def connected(server: str | None, state: str | None, as_json: bool) -> Iterator[Client]:
    """A client of the management port of ``server``, else of whoever owns the state; errors are reported."""
    with reported(as_json):
        from headrace.app.registry.models_place import find_controller
        from headrace.app.state.location import locate
        from headrace.client import Client

        url = find_controller(locate(state, None, None, os.environ), server, os.environ)
        with Client(management_url=url) as client:
            yield client
