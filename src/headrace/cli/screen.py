"""What ``headrace serve`` prints: events of the supervisor as one screen, as plain lines, or as JSON.

A renderer is called with each event on the supervisor's loop: it must not block for long, and it never raises,
because whoever read the output may have gone while the server stays. Failures go to stderr, the rest to stdout.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import msgspec

from headrace.app import events
from headrace.cli import wording
from headrace.core.routes import EndpointRoute

Renderer = Callable[[events.Event], None]

_COLORS = {"ready": "green", "loading": "yellow", "failed": "red", "stopped": "dim"}


def make_screen(
    *, as_json: bool = False, quiet: bool = False, out: TextIO | None = None, err: TextIO | None = None
) -> Renderer:
    """The renderer for these streams: drawn on a terminal, plain lines otherwise, JSON when asked."""
    out, err = out or sys.stdout, err or sys.stderr
    for stream in (out, err):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode is no reason to fail
    if as_json:
        return _safe(JsonScreen(out))
    if not quiet and out.isatty():
        return _safe(RichScreen(out, err))
    return _safe(PlainScreen(out, err, quiet=quiet))


def _safe(render: Renderer) -> Renderer:
    """A closed pipe or terminal silences the renderer; it does not end the server."""
    silent = False

    def rendered(event: events.Event) -> None:
        nonlocal silent
        if not silent:
            try:
                render(event)
            except (OSError, ValueError) as error:
                # ValueError: "I/O operation on closed file". Anything else of that class is our own mistake.
                if isinstance(error, ValueError) and "closed file" not in str(error):
                    raise
                silent = True

    return rendered


def let_go_of_closed_output() -> None:
    """What could not be written waits in a buffer, and Python would fail to write it at the end, with an exit code of
    its own (120): where the reader has left it is dropped."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):  # closed, or no file of the system
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


class JsonScreen:
    """One JSON object per event and line; ``type`` names the event."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def __call__(self, event: events.Event) -> None:
        self._out.write(self._encode(_without_secrets(event)).decode() + "\n")
        self._out.flush()


def _without_secrets(event: events.Event) -> events.Event:
    """Route tables carry the tokens that open a worker's socket; output is no place for them."""
    if not isinstance(event, events.Serving):
        return event
    replace = msgspec.structs.replace

    def cleaned(endpoint: EndpointRoute) -> EndpointRoute:
        deployments = tuple(
            replace(deployment, replicas=tuple(replace(replica, token="") for replica in deployment.replicas))
            for deployment in endpoint.deployments
        )
        return replace(endpoint, deployments=deployments)

    return replace(event, endpoints=tuple(map(cleaned, event.endpoints)))


class PlainScreen:
    """Lines without colours or drawing, for files and pipes."""

    def __init__(self, out: TextIO, err: TextIO, *, quiet: bool = False) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet

    def __call__(self, event: events.Event) -> None:
        line = wording.one_line(event)
        if wording.is_failure(event):
            self._write(self._err, [line, *wording.log_tail(event)])
        elif not self._quiet:
            self._write(self._out, wording.serving_lines(event) if isinstance(event, events.Serving) else [line])

    def _write(self, stream: TextIO, lines: list[str]) -> None:
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()


class RichScreen:
    """The screen on a terminal."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        # rich takes a tenth of a second on a small machine: imported when there is something to draw.
        from rich.console import Console

        self._out = Console(file=out, highlight=False)
        self._err = Console(file=err, highlight=False)

    def __call__(self, event: events.Event) -> None:
        from rich.markup import escape

        line = escape(wording.one_line(event))
        if isinstance(event, events.Serving):
            self._draw(event)
        elif wording.is_failure(event):
            self._err.print(f"[bold red]✗[/] [red]{line}[/]", soft_wrap=True)
            for tail in wording.log_tail(event):
                self._err.print(f"  [dim]{escape(tail)}[/]", soft_wrap=True)
        elif isinstance(event, events.VersionLoaded):
            self._out.print(f"[green]✓[/] {line}")
        else:
            self._out.print(f"[dim]{line}[/]")

    def _draw(self, event: events.Serving) -> None:
        from rich.markup import escape

        out = self._out
        out.print()
        out.print(self._endpoints(event.endpoints))
        out.print()
        for label, value in wording.addresses(event):
            out.print(f"  [bold]{label:<11}[/] {escape(value)}", soft_wrap=True)
        examples = wording.examples(event)
        if examples:
            out.print()
            for example in examples:
                # never wrapped: it is there to be copied
                out.print(f"  [cyan]{escape(example)}[/]", soft_wrap=True)
        out.print()
        out.print(f"  [dim]{escape(wording.started(event))}; Ctrl-C stops[/]")
        out.print()

    def _endpoints(self, endpoints: tuple[EndpointRoute, ...]) -> Any:
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("endpoint", "version", "runtime", "replicas", "state", "inputs"):
            table.add_column(title, overflow="fold", ratio=1 if title == "inputs" else None)
        for row in wording.endpoint_rows(endpoints):
            color = _COLORS.get(row.state, "yellow")
            state = f"[{color}]{row.state}[/]"
            table.add_row(
                f"[bold]{escape(row.endpoint)}[/]",
                escape(row.version),
                escape(row.runtime),
                row.replicas,
                state,
                escape(row.inputs) if not row.reason else f"[{color}]{escape(row.reason)}[/]",
            )
        return table
