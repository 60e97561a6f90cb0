"""Provides the environment of a version: the one that is there, or a new one, built beside its place and then moved.

Several servers may ask at once: one builds, the others wait for it. A build that is killed leaves a folder that nobody
uses and the next build removes.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import msgspec

from headrace.backends.environments import indexes, installer, isolation, own_wheel
from headrace.backends.environments.folder import Environment, EnvironmentsFolder, Lease
from headrace.core import errors
from headrace.core.environments import EnvironmentSpec

_POLL_S = 0.2
_ATTEMPTS = 3
"""Builds of one environment when something kills them."""
_WORK = "build"
"""Folder of the build's own files; its empty uv.toml keeps uv from taking settings of a project above it."""

OnLine = Callable[[str], None]


class Watcher(Protocol):
    """Who follows a build; called on the event loop."""

    def build_begins(self) -> None:
        """The environment is not there: this process builds it."""

    def on_line(self, line: str) -> None:
        """What the build prints, and what became of it."""


class Provided(msgspec.Struct, frozen=True):
    """An environment to run workers in. ``built`` False: it was there. ``lease`` keeps it from being removed."""

    python: str
    built: bool
    lease: Lease


async def provide(
    folder: EnvironmentsFolder,
    spec: EnvironmentSpec,
    environ: Mapping[str, str],
    watcher: Watcher,
    turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> Provided:
    """Find the environment or build it; ``environ`` is that of the server. Safe to cancel.

    ``turn`` is held while it is built: entering it may wait for other builds.

    Raises LoadFailed that says why it cannot be built and what to do, StoreFailed when its folder cannot be used."""
    waits = built = False
    while True:
        lease = folder.use(spec.key)
        if lease is not None:
            if folder.complete(spec.key):
                return Provided(str(folder.python(spec.key)), built, lease)
            lease.release()
        owned = folder.own(spec.key)
        if owned is None:
            if not waits:
                watcher.on_line("another process is building this environment; waiting for it")
                waits = True
            await asyncio.sleep(_POLL_S)
            continue
        try:
            if not folder.complete(spec.key):
                async with turn():
                    watcher.build_begins()
                    await _build_in_spite_of_kills(folder, spec, environ, watcher.on_line)
                built = True
        finally:
            owned.release()


async def _build_in_spite_of_kills(
    folder: EnvironmentsFolder, spec: EnvironmentSpec, environ: Mapping[str, str], on_line: OnLine
) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await _build(folder, spec, environ, on_line)
        except installer.Killed as killed:
            on_line(f"the build was killed by {killed} (attempt {attempt} of {_ATTEMPTS})")
    raise errors.LoadFailed(
        f"its environment could not be built: the build was killed {_ATTEMPTS} times; is there enough memory?"
        " Start headrace serve again to try again"
    )


async def _build(
    folder: EnvironmentsFolder, spec: EnvironmentSpec, environ: Mapping[str, str], on_line: OnLine
) -> None:
    began = time.monotonic()
    uv = installer.find_uv()
    try:
        built = await asyncio.to_thread(folder.begin, spec.key)
        try:
            await _install(uv, built, spec, environ, on_line)
            packages = await _check(uv, built, environ)
            environment = Environment(spec, packages, sys.version.split()[0], time.time(), time.monotonic() - began)
            folder.finish(built, environment)
        except BaseException:
            shutil.rmtree(built, ignore_errors=True)
            raise
    except OSError as error:
        raise errors.StoreFailed(
            f"its environment could not be built in {folder.root}: {error.strerror or error}; make room or give another"
            " place with environments.folder"
        ) from error


async def _install(uv: str, built: Path, spec: EnvironmentSpec, environ: Mapping[str, str], on_line: OnLine) -> None:
    variables = isolation.installer_variables(environ)
    handed = await indexes.settings_from_pip(variables)
    variables |= handed.variables
    work = _work_folder(built, spec)
    python = built / "bin" / "python"
    # Relocatable: it is moved to its place when it is complete.
    venv = (uv, "venv", "--relocatable", "--no-project", "--allow-existing", "--python", sys.executable, built)
    install = (uv, "pip", "install", "--python", python)
    wheels = () if spec.source_builds else ("--only-binary", ":all:")
    files = ("--overrides", "overrides.txt", "-r", "requirements.txt", "-r", "needs.txt")
    try:
        await installer.run(venv, work, variables, lambda _: None)
        await installer.run((*install, *wheels, *handed.arguments, *files), work, variables, on_line)
        wheel = await asyncio.to_thread(own_wheel.write, work)
        ours = (*install, "--no-deps", "--no-index", "--offline", wheel)
        await installer.run(ours, work, variables, lambda _: None)
    except errors.LoadFailed as error:
        raise installer.explained(error.message, spec.needs, source_builds=spec.source_builds) from error
    shutil.rmtree(work)


def _work_folder(built: Path, spec: EnvironmentSpec) -> Path:
    work = built / _WORK
    work.mkdir()
    (work / "uv.toml").touch()
    (work / "requirements.txt").write_text("".join(f"{line}\n" for line in spec.requirements), encoding="utf-8")
    (work / "needs.txt").write_text("".join(f"{line}\n" for line in spec.needs), encoding="utf-8")
    # Whoever asks for headrace gets the running build, which is installed afterwards, and no other.
    (work / "overrides.txt").write_text("headrace ; python_version < '3'\n", encoding="utf-8")
    return work


async def _check(uv: str, built: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Make sure that a worker starts in it, before anybody waits for one. Returns what is installed."""
    python = built / "bin" / "python"
    variables = isolation.variables(environ, built)
    try:
        await installer.run((python, "-c", "import headrace.replica.worker"), built, variables, lambda _: None)
    except errors.LoadFailed as error:
        raise errors.LoadFailed(
            f"a worker does not start in its environment: {error.message}\nWhat to do: ask for releases of msgspec and"
            " numpy in requirements.txt that work with the others, and push the model again"
        ) from error
    lines: list[str] = []
    variables = isolation.installer_variables(environ)
    listing = (uv, "pip", "list", "--offline", "--format", "freeze", "--python", python)
    await installer.run(listing, built, variables, lines.append)
    return {name: version for name, equals, version in (line.partition("==") for line in lines) if equals}
