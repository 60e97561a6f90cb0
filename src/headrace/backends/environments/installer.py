"""Runs uv: finds it, passes its lines on, and turns what it says into errors that say what to do."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from headrace.core import errors

_SHOWN = 15
_NOISE = "Using Python "
"""uv begins with the path of the interpreter, which nobody asked for."""
_LINE_LIMIT = 1 << 20
"""Bytes: uv explains a conflict in one long line."""


class Killed(Exception):
    """uv was killed, by whomever: the same build may well succeed."""


def find_uv() -> str:
    """Path of uv: of the package that is installed with us, or on the PATH. Raises LoadFailed."""
    with contextlib.suppress(ImportError, FileNotFoundError):
        import uv

        return str(uv.find_uv_bin())
    found = shutil.which("uv")
    if found is None:
        raise errors.LoadFailed(
            "its environment cannot be built: uv, which builds environments, is not installed:"
            " pip install 'headrace[environments]'"
        )
    return found


async def run(
    command: Sequence[str | Path], directory: Path, variables: Mapping[str, str], on_line: Callable[[str], None]
) -> None:
    """Run a command in ``directory`` to its end; a cancelled caller ends it. ``on_line`` gets what it prints.

    Raises LoadFailed with the command's last lines when it fails, Killed when a signal ended it."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=directory,
        env=dict(variables),
        limit=_LINE_LIMIT,
    )
    tail: collections.deque[str] = collections.deque(maxlen=_SHOWN)
    try:
        assert process.stdout is not None
        while raw := await process.stdout.readline():
            line = raw.decode(errors="replace").rstrip()
            if line.startswith(_NOISE):
                continue
            tail.append(line)
            on_line(line)
        code = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if code < 0:
        raise Killed(signal.Signals(-code).name)
    if code:
        raise errors.LoadFailed("\n".join(tail).strip() or f"{command[0]} ended with code {code} and said nothing")


def explained(said: str, needs: Sequence[str], *, source_builds: bool) -> errors.LoadFailed:
    """What uv said, with what to do about it."""
    message = said.replace("error: ", "", 1) if said.startswith("error: ") else said
    return errors.LoadFailed(f"its environment could not be built: {message}\n{_advice(said, needs, source_builds)}")


def _advice(said: str, needs: Sequence[str], source_builds: bool) -> str:
    # Some releases of uv wrap and frame what they say.
    lowered = " ".join(said.replace("│", " ").lower().split())
    if not source_builds and ("no wheels" in lowered or "building source" in lowered or "no usable wheels" in lowered):
        return (
            "What to do: ask for a release that has a wheel for this Python and machine, or serve with"
            " --allow-source-builds, which runs the packages' own build code here"
        )
    if "was not found in the" in lowered or "there is no version of" in lowered:
        return (
            "What to do: check the name and the version in requirements.txt, and the index in the configuration of uv"
            " or pip on this machine; then push the model again with the new requirements.txt"
        )
    if "unsatisfiable" in lowered or "no solution found" in lowered:
        return (
            f"What to do: loosen what contradicts in requirements.txt and push the model again; beside it, the worker"
            f" itself needs {', '.join(needs)}"
        )
    if any(word in lowered for word in ("connect", "timed out", "dns error", "certificate", "failed to fetch")):
        return (
            "What to do: see that this machine reaches its package index (configuration of uv or pip), then start"
            " headrace serve again"
        )
    return "What to do: mend requirements.txt and push the model again, or start headrace serve again"
