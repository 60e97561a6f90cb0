"""What the commands that change what is served share: waiting until it serves, and what people and machines read."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from headrace.core import errors

if TYPE_CHECKING:
    from headrace.client.endpoints import Change, Endpoints

_LOOK_EVERY_S = 0.25


def wait_for(endpoints: Endpoints, names: list[str], ends: float, *, deployment: str | None = None) -> None:
    """Until each has settled and serves, and its ``deployment`` is ready.

    Raises LoadFailed when a new version could not be loaded, DeadlineExceeded."""
    asked = {name: endpoints.show(name) for name in names}
    while True:
        ready = {found["name"] for found in endpoints.list() if _serves(found, deployment)}
        waiting = []
        for name, first in asked.items():
            now = endpoints.show(name)
            if now.versions != first.versions:
                raise errors.LoadFailed(
                    f"endpoint {name!r}: the new version could not be loaded; version"
                    f" {', '.join(now.versions.values())} serves on. The reason: headrace events --model {name}"
                )
            if not now.settled or (name not in ready and not now.paused):
                waiting.append(name)
        if not waiting:
            return
        if time.monotonic() > ends:
            raise errors.DeadlineExceeded(f"not ready yet: {', '.join(waiting)}; headrace endpoints says why")
        time.sleep(_LOOK_EVERY_S)


def _serves(endpoint: dict[str, Any], deployment: str | None) -> bool:
    """As asked: one whose deployments shall have no replicas serves nothing."""
    named = [d for d in endpoint["deployments"] if d["name"] == deployment]
    if not all(d["ready"] or d["desired_replicas"] == 0 for d in named):
        return False
    stopped = all(d["desired_replicas"] == 0 for d in endpoint["deployments"] if d["traffic"] > 0)
    return stopped or bool(endpoint["ready"] and not endpoint["waiting"])


def write(document: Any) -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")


def show_changes(changes: Sequence[Change], as_json: bool, done: str, *, same: str) -> None:
    """``done``: ``{}d`` of ``create``; ``same``: what is said when nothing changes."""
    if as_json:
        write({"changes": changes})
        return
    marks = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
    counted = dict.fromkeys(marks, 0)
    for change in changes:
        if change.kind not in marks:
            continue
        counted[change.kind] += 1
        mark, color = marks[change.kind]
        taken = f" (taken over from {change.taken_from})" if change.taken_from else ""
        typer.secho(f"{mark} {change.endpoint}{taken}", fg=color)
        for field in change.fields:
            typer.echo(f"    {field.path}: {_side(field.before, field.after)}")
        if change.kind == "update" and not change.fields and not change.taken_from:
            typer.echo("    the content of its models")
    if not any(counted.values()):
        typer.echo(same)
        return
    typer.echo(", ".join(f"{count} {done.format(kind)}" for kind, count in counted.items() if count))


def _side(before: Any, after: Any) -> str:
    if before is None:
        return f"{after}"
    return f"{before} → {'(default)' if after is None else after}"
