"""Inspection of artifacts in a short-lived process: a hostile file can end that one only."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.core import errors
from headrace.core.models import Artifact

_INSPECT_TIMEOUT_S = 120.0


async def inspect_targets(targets: Sequence[str]) -> list[Artifact | errors.HeadraceError]:
    """What is at each of ``targets`` (``path`` or ``path.py:Class``), or why it cannot be served, in order."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace.runtimes.inspect",
        *targets,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), _INSPECT_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        if len(targets) == 1:
            return [errors.LoadFailed(f"inspection took longer than {_INSPECT_TIMEOUT_S:g} s")]
        out = b""
    results = _results(out)
    if len(results) == len(targets):
        return results
    if len(targets) == 1:
        tail = err.decode(errors="replace")[-2000:]
        return [errors.LoadFailed(f"inspection ended with code {process.returncode} and no result: {tail}")]
    # The inspector died or hung on one of them: look at each alone, so that the others are served.
    return [(await inspect_targets([target]))[0] for target in targets]


def _results(out: bytes) -> list[Artifact | errors.HeadraceError]:
    """None at all when something else wrote to the inspector's output as well."""
    try:
        return [_result(line) for line in out.splitlines() if line.strip()]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return []


def _result(line: bytes) -> Artifact | errors.HeadraceError:
    document: dict[str, Any] = msgspec.json.decode(line)
    if "ok" in document:
        return msgspec.convert(document["ok"], Artifact)
    error = document["error"]
    return errors.from_code(error["code"], error["message"])
