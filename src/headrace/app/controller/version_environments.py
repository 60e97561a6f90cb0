"""The environments of versions as the controller has them: builds what is asked for, tells how it goes.

Each is built once however many ask; the data plane and other deployments go on meanwhile. What is known lives in
``Observed``, so that the plan can go by it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

from headrace.app import events
from headrace.backends.environments.building import provide
from headrace.backends.environments.folder import EnvironmentsFolder, Lease
from headrace.backends.environments.progress import Progress
from headrace.control.observed import Observed, ObservedEnvironment
from headrace.core import errors
from headrace.core.environments import EnvironmentSpec
from headrace.telemetry import logging

BUILDS_AT_ONCE = 2
"""A build downloads and unpacks in parallel by itself; more of them would take the machine from what is served."""
_TAIL_LINES = 40
_LISTED = (" + ", "Prepared ")
"""How uv begins what it installed."""


class Watcher(Protocol):
    """Who wants to know; called on the event loop."""

    def changed(self) -> None:
        """``Observed`` has news."""

    def deployments_in(self, key: str) -> tuple[str, ...]:
        """Ids of the deployments that want this environment now."""

    def environment_failed(self, key: str, reason: str, log_tail: str) -> None:
        """It cannot be built."""


class VersionEnvironments:
    """Everything runs on one event loop."""

    def __init__(self, folder: Path, observed: Observed, watcher: Watcher, say: Callable[[events.Event], None]) -> None:
        self._folder = EnvironmentsFolder(folder)
        self._observed = observed
        self._watcher = watcher
        self._say = say
        self._log = logging.Log("headrace.environments")
        self._leases: dict[str, Lease] = {}
        """Of those in use: ``headrace environments gc`` leaves them alone."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.turns = asyncio.Semaphore(BUILDS_AT_ONCE)

    def ensure(self, spec: EnvironmentSpec) -> None:
        """Begin to find or build an environment, unless that is under way."""
        if spec.key in self._tasks:
            return
        self._observed.environments[spec.key] = ObservedEnvironment(reason=str(Progress()))
        self._tasks[spec.key] = asyncio.get_running_loop().create_task(self._provide(spec))

    def python(self, spec: EnvironmentSpec) -> str | None:
        """The interpreter to start a worker with; None when it has gone, and the environment must be built again."""
        python = self._observed.environments[spec.key].python
        if python and Path(python).exists():
            return python
        del self._observed.environments[spec.key]
        self._watcher.changed()
        return None

    def keep_only(self, keys: set[str]) -> None:
        """Let go of environments that no deployment wants any more."""
        for key in self._leases.keys() - keys:
            self._leases.pop(key).release()
            self._observed.environments.pop(key, None)

    async def _provide(self, spec: EnvironmentSpec) -> None:
        began = time.monotonic()
        build = _Build(self, spec)
        try:
            provided = await provide(self._folder, spec, os.environ, build, build.turn)
        except errors.HeadraceError as error:
            self._fail(spec, began, error.message, build)
        except Exception as error:  # the boundary of a task: the deployment must not wait for ever
            self._log.error("building an environment failed", action="environment_failed", exception=error)
            self._fail(spec, began, f"its environment could not be built: {type(error).__name__}: {error}", build)
        else:
            if (earlier := self._leases.pop(spec.key, None)) is not None:
                earlier.release()
            self._leases[spec.key] = provided.lease
            self._observed.environments[spec.key] = ObservedEnvironment(python=provided.python)
            self._tell_end(spec, "built" if provided.built else "reused", began)
        finally:
            del self._tasks[spec.key]
        self._watcher.changed()

    def _fail(self, spec: EnvironmentSpec, began: float, reason: str, build: _Build) -> None:
        self._observed.environments.pop(spec.key, None)
        self._tell_end(spec, "failed", began)
        self._watcher.environment_failed(spec.key, reason, "\n".join(build.tail))

    def _tell_end(self, spec: EnvironmentSpec, outcome: str, began: float) -> None:
        deployments = self._watcher.deployments_in(spec.key)
        self._say(events.EnvironmentDone(spec.short, deployments, outcome, time.monotonic() - began))

    # --- what a build says ---

    def begins(self, spec: EnvironmentSpec) -> None:
        self._observed.environments[spec.key] = ObservedEnvironment(reason=str(Progress()))
        self._watcher.changed()
        self._say(events.EnvironmentBuilding(spec.short, self._watcher.deployments_in(spec.key), spec.requirements))

    def printed(self, spec: EnvironmentSpec, line: str) -> None:
        """Something else than progress: lists of packages are long, the rest is worth a look."""
        deployments = ", ".join(self._watcher.deployments_in(spec.key))
        log = self._log.debug if line.startswith(_LISTED) else self._log.info
        log(f"environment {spec.short}: {line}", action="environment_build", deployment=deployments)

    def progressed(self, spec: EnvironmentSpec, progress: str) -> None:
        self._observed.environments[spec.key] = ObservedEnvironment(reason=progress)
        self._say(events.EnvironmentProgress(spec.short, self._watcher.deployments_in(spec.key), progress))
        self._watcher.changed()


class _Build:
    """Follows one build. An environment that is there is not told as begun."""

    def __init__(self, environments: VersionEnvironments, spec: EnvironmentSpec) -> None:
        self._environments = environments
        self._spec = spec
        self._progress = Progress()
        self.tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait, and say so, while as many are built as may be."""
        turns = self._environments.turns
        if turns.locked():
            waits = f"its environment waits for its turn: {BUILDS_AT_ONCE} are built at a time"
            self._environments.progressed(self._spec, waits)
        async with turns:
            yield

    def build_begins(self) -> None:
        self._environments.begins(self._spec)

    def on_line(self, line: str) -> None:
        self.tail.append(line)
        if self._progress.feed(line):
            self._environments.progressed(self._spec, str(self._progress))
        else:
            self._environments.printed(self._spec, line)
