"""A progress bar for files on their way; on stderr, and only on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def transfer_bar(verb: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """``move(what, bytes, total)`` advances the bar of ``what``; a total of 0 means that it is not known."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def move(what: str, count: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(f"{verb} {what}", total=total or None)
            bars.advance(tasks[what], count)

        yield move
