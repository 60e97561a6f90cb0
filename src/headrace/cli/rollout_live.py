"""A rollout while it goes on: in view on a terminal, a line for each move elsewhere."""

from __future__ import annotations

import sys
import time

import typer
from rich.console import Group
from rich.live import Live

from headrace.cli.rollout_views import console, lines, story_line
from headrace.client.rollout_status import RolloutStatus
from headrace.client.rollouts import Rollouts

_STORY_LINES = 8
"""Of the story, in a view that must fit on a screen."""


def followed(rollouts: Rollouts, started: RolloutStatus) -> RolloutStatus:
    """The rollout once it has ended or is paused."""
    if sys.stdout.isatty():
        return watch(rollouts, started, until_paused=True)
    told, last = 0, started
    for last in rollouts.follow(started.endpoint, id=started.id):
        for line in last.story[told:]:
            typer.echo(story_line(line))
        told = len(last.story)
        if last.paused:
            break
    return last


def watch(rollouts: Rollouts, first: RolloutStatus, *, until_paused: bool) -> RolloutStatus:
    """The live view, until the rollout has ended; the time in it runs between two looks."""
    last = first
    try:
        with Live(
            get_renderable=lambda: Group(*lines(last, time.time(), latest=_STORY_LINES)),
            console=console(),
            refresh_per_second=2,
            vertical_overflow="ellipsis",
        ) as live:
            for last in rollouts.follow(first.endpoint, id=first.id):
                live.refresh()
                if until_paused and last.paused:
                    break
    except KeyboardInterrupt:
        typer.echo("the rollout goes on without you", err=True)
        raise typer.Exit(130) from None
    return last
