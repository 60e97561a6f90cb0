"""The models that the command or its file names: inspected when it starts, and watched if it says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from headrace.app import events, source_copies, sources, watching
from headrace.app.controller.role import ControllerRole
from headrace.app.endpoints.applying import records_of
from headrace.app.endpoints.manager import EndpointManager
from headrace.app.watching import Change, Watched, Watcher
from headrace.control.observed import Desired, Observed
from headrace.core.endpoint_records import MANUAL, Owner, OwnerKind
from headrace.core.endpoints import DeploymentSpec, deployment_id
from headrace.core.traffic import EndpointTraffic


class NamedModels:
    """On the controller's event loop."""

    def __init__(
        self,
        role: ControllerRole,
        desired: Desired,
        observed: Observed,
        endpoints: EndpointManager,
        changed: asyncio.Event,
        *,
        say: Callable[[events.Event], None],
    ) -> None:
        self.inspected = False
        """It is known what shall be served."""
        self.watched: Watched | None = None
        """What the watcher had seen when its last change was deployed."""
        self._directory = Path(role.directory)
        self._settings = role.settings
        self._desired = desired
        self._observed = observed
        self._endpoints = endpoints
        self._changed = changed
        self._say = say
        self._watcher: Watcher | None = None

    def resume(self, watched: Watched | None) -> None:
        """A controller before this one has inspected them."""
        self.inspected = True
        if watched is not None:
            self.watched = watched
            self._watcher = Watcher(self._settings, watched)

    async def inspect(self) -> None:
        """Find out what they are, and go for them."""
        candidates, failures = await asyncio.to_thread(sources.discover, self._settings)
        for failure in failures:
            self._fail(failure)
        if self._settings.watch:
            # Before inspection: what changes meanwhile must count as a change.
            self.watched = await asyncio.to_thread(watching.first_look, candidates)
            self._watcher = Watcher(self._settings, self.watched)
        results = await sources.inspect(candidates, self._settings.trust) if candidates else []
        records = records_of(candidates, results, self._settings, self._owner())
        wanted = {spec.id: record.at_work(spec) for record in records for spec in record.deployments}
        for candidate, result in zip(candidates, results, strict=True):
            self._want(candidate, result if isinstance(result, sources.Failure) else wanted[result.id])
            if candidate.served and self._serving(candidate.endpoint, candidate.deployment) is None:
                self._aim(candidate, result.version)
        await self._endpoints.begin(records)
        self.inspected = True
        self._changed.set()

    def _owner(self) -> Owner:
        """Of the traffic of what this command names."""
        return MANUAL if self._settings.file is None else Owner(OwnerKind.FILE, self._settings.file)

    def _want(self, candidate: sources.Candidate, result: DeploymentSpec | sources.Failure) -> None:
        if isinstance(result, sources.Failure):
            self._fail(result)
            return
        with contextlib.suppress(OSError):  # gone already: the worker will say so
            source_copies.keep(self._directory, result.artifact)
        self._desired.failures.pop((candidate.endpoint, candidate.version), None)
        self._desired.deployments[result.id] = result
        self._say(events.ModelInspected(result.endpoint, result.version, result.artifact))

    def _aim(self, candidate: sources.Candidate, version: str) -> None:
        """Requests for the candidate's deployment go to this version of it."""
        endpoint = candidate.endpoint
        known = self._desired.traffic.get(endpoint)
        traffic = known or EndpointTraffic(self._settings.endpoint(endpoint).policy)
        self._desired.traffic[endpoint] = traffic.aimed(candidate.deployment, deployment_id(endpoint, version))

    def _serving(self, endpoint: str, deployment: str) -> str | None:
        """Id of the version that serves under this name, or will when it is ready; None when there is none."""
        target = self._desired.traffic.get(endpoint, EndpointTraffic()).targets.get(deployment)
        return target if target in self._desired.deployments else None

    def _fail(self, failure: sources.Failure) -> None:
        self._desired.failures[failure.endpoint, failure.version] = failure.reason
        self._say(events.ModelFailed(failure.endpoint, failure.version, failure.reason))

    # --- --watch ---

    async def look(self) -> None:
        """Deploy what has changed since the last look."""
        if self._watcher is None:
            return
        for change in await asyncio.to_thread(self._watcher.changes):
            await self.deploy(change)
        self.watched = self._watcher.watched()

    async def deploy(self, change: Change) -> None:
        """Put a new version beside the old one; it takes over when it is ready."""
        (result,) = await sources.inspect([change.candidate], self._settings.trust)
        endpoint, name = change.candidate.endpoint, change.candidate.deployment
        serving = self._serving(endpoint, name)
        if change.replaces is not None:
            # Whatever kept the version before this one from being served is history.
            self._desired.failures.pop((endpoint, change.replaces), None)
        if isinstance(result, DeploymentSpec) and self._keeps(result):
            reason = (
                f"{result.artifact.path} or its requirements changed, but a version that is served does not change:"
                " put the new model into a new version folder"
            )
            result = sources.Failure(endpoint, result.version, reason)
        elif isinstance(result, sources.Failure) and serving is None:
            self._fail(result)
            self._aim(change.candidate, result.version)
            return
        if isinstance(result, sources.Failure):
            self._say(events.ModelFailed(result.endpoint, result.version, result.reason))
            return
        self._observed.restarts.pop(result.id, None)
        self._want(change.candidate, result)
        if endpoint not in self._endpoints.records:
            self._aim(change.candidate, result.version)
            await self._endpoints.begin(records_of([change.candidate], [result], self._settings, self._owner()))
            return
        aims = change.candidate.served or serving is None
        replaces = change.replaces is not None
        await self._endpoints.watched(endpoint, added=result, name=name if aims else None, replaces=replaces)

    def _keeps(self, changed: DeploymentSpec) -> bool:
        """A version of this number is deployed and works, or may yet: it is not replaced in place."""
        known = self._desired.deployments.get(changed.id)
        return (
            known is not None
            and (known.artifact.digest, known.environment) != (changed.artifact.digest, changed.environment)
            and not self._observed.restarts_of(changed.id).load_failure
        )
