"""What ``headrace rollout`` shows: one rollout in lines, many as a table. Times are told from ``now`` on."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.client.rollout_status import RolloutLine, RolloutNext, RolloutStatus, RolloutVerdict
from headrace.core.keys import format_time

_LABEL = 10
"""Width of the column of labels."""
_FINDINGS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}
_PHASES = {"done": "green", "rolled_back": "bold red", "aborted": "red", "paused": "yellow"}
_WORDS = {
    "starting": "starting its first replica",
    "warming": "a replica loads and warms up",
    "golden": "golden requests",
    "promoted": "all traffic, the old version stays warm",
    "rolled_back": "rolled back",
}


def console() -> Console:
    """Of stdout: the lines of a pipe are as long as they are."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)


def summary(status: RolloutStatus, now: float) -> list[Text]:
    """Where a rollout is, why, and what comes next."""
    shown = [headline(status, now)]
    if status.reason:
        shown.append(_labelled("because", status.reason))
    if status.next.what:
        shown.append(_labelled("next", describe_next(status.next, now)))
    return shown


def lines(status: RolloutStatus, now: float, *, latest: int | None = None) -> list[Text]:
    """The same, with what was checked, and its story. ``latest``: only so many lines of it."""
    shown = summary(status, now)
    if status.golden is not None:
        golden = f"golden requests: {status.golden.reason}"
        shown.append(_labelled("checks", golden, status.golden.finding))
    if status.verdict is not None:
        shown += _verdict(status.verdict)
    story = status.story if latest is None else status.story[-latest:]
    shown += [_labelled("" if number else "story", story_line(line)) for number, line in enumerate(story)]
    return shown


def headline(status: RolloutStatus, now: float) -> Text:
    """``fraud: fraud@7 → fraud@8, step 2 of 4, 5 % of the requests, for 3 min 12 s``."""
    name = status.endpoint if status.deployment == "main" else f"{status.endpoint} ({status.deployment})"
    parts = [describe_phase(status)]
    if not status.ended:
        parts.append(f"for {lasting(now - status.since)}")
    return Text.assemble(
        (_clean(name), "bold"),
        _clean(f": {status.old} → {status.new}, "),
        (", ".join(parts), _PHASES.get(status.phase, "cyan")),
    )


def describe_phase(status: RolloutStatus) -> str:
    if status.phase == "paused":
        return f"paused in {_traffic(status.paused_in or '', status)}"
    if status.phase in ("done", "rolled_back", "aborted"):
        return _WORDS.get(status.phase, status.phase)
    return _traffic(status.phase, status)


def _traffic(phase: str, status: RolloutStatus) -> str:
    if phase != "step":
        return _WORDS.get(phase, phase)
    parts = [f"step {status.step} of {len(status.steps)}"]
    parts += [f"{percent(status.share)} of the requests"] if status.share else []
    parts += [f"{percent(status.shadow)} mirrored"] if status.shadow else []
    return ", ".join(parts)


def describe_next(coming: RolloutNext, now: float) -> str:
    text = f"{coming.what}, when {coming.when}"
    if coming.earliest is not None and coming.earliest > now:
        text += f", in {lasting(coming.earliest - now)} at the earliest"
    if coming.otherwise and coming.latest is not None:
        text += f"; else {coming.otherwise} in {lasting(coming.latest - now)}"
    return text


def story_line(line: RolloutLine) -> str:
    where = f"step {line.step}" if line.phase == "step" else line.phase.replace("_", " ")
    return f"{format_time(line.at)}  {where:<11}  {percent(line.share):>6}  {line.reason}"


def _verdict(verdict: RolloutVerdict) -> list[Text]:
    found = [_labelled("verdict", verdict.reason, verdict.finding)]
    width = max((len(check.check) for check in verdict.checks), default=0)
    for check in verdict.checks:
        role = "" if check.gate else " (warns)"
        found.append(_labelled("", f"{check.check:<{width}}  {check.reason}{role}", check.finding))
    return found


def _labelled(label: str, text: str, finding: str = "") -> Text:
    found = (f"{finding:<13} ", _FINDINGS.get(finding, "")) if finding else ""
    return Text.assemble((f"  {label:<{_LABEL}}", "dim"), found, _clean(text))


def percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def lasting(seconds: float) -> str:
    """``45 s``, ``3 min 12 s``, ``2 h 5 min``."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def print_list(found: Sequence[RolloutStatus]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("started", "endpoint", "rollout", "phase", "share", "by", "because"):
        table.add_column(column, overflow="fold")
    for one in found:
        table.add_row(
            format_time(one.started_at),
            Text(_clean(one.endpoint)),
            Text(_clean(f"{one.old} → {one.new}")),
            Text(f"step {one.step} of {len(one.steps)}" if one.phase == "step" else one.phase.replace("_", " ")),
            percent(one.share),
            Text(_clean(one.who)),
            Text(_clean(one.reason)),
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)


def _clean(text: str) -> str:
    """Reasons quote what models and clients say: no control character of theirs reaches the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
