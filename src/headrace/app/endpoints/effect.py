"""Puts the records of endpoints into effect: what the reconcile loop works for follows from them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import quote

from headrace.app import source_copies
from headrace.app.controller.state import Switch
from headrace.control.observed import Desired, Observed
from headrace.control.plan import is_dormant
from headrace.core.endpoint_records import EndpointRecord, OwnerKind
from headrace.core.endpoints import DeploymentSpec, endpoint_and_version
from headrace.core.routes import RequestLogRoute
from headrace.core.traffic import EndpointTraffic


class Effect:
    """On the controller's event loop. ``desired`` and ``switches`` are the controller's own."""

    def __init__(
        self,
        directory: Path,
        experiments: Path,
        desired: Desired,
        observed: Observed,
        switches: dict[tuple[str, str], Switch],
    ) -> None:
        """``directory``: of this run; ``experiments``: where requests of endpoints with an experiment are written."""
        self._directory = directory
        self._experiments = experiments
        self._desired = desired
        self._observed = observed
        self._switches = switches

    def put(self, record: EndpointRecord) -> None:
        """Work for this record from now on; what serves goes on until what replaces it is ready. Safe to repeat."""
        name, desired = record.name, self._desired
        if record.before is not None and name not in desired.traffic:
            # Nothing serves yet: begin with what is known to work.
            self.put(record.before)
        for spec in record.deployments:
            self._deploy(record.at_work(spec))
        live = desired.traffic.get(name, EndpointTraffic())
        targets = {n: self._aim(record, n, target, live) for n, target in record.traffic.targets.items()}
        for n, target in live.targets.items():
            if n not in targets and endpoint_and_version(target) in desired.failures:
                targets[n] = target  # it could not be inspected: whoever asks for it reads why
        for key in [key for key in self._switches if key[0] == name and key[1] not in targets]:
            del self._switches[key]
        desired.traffic[name] = EndpointTraffic(record.traffic.policy, targets)
        kept = {spec.id for spec in record.deployments} | set(targets.values())
        for deployment in self._deployments(name):
            if deployment not in kept:
                del desired.deployments[deployment]
        self._pause(name, record.paused)
        desired.slos[name] = record.slo
        self.log_requests(record)

    def _deploy(self, spec: DeploymentSpec) -> None:
        known = self._desired.deployments.get(spec.id)
        if known is None or known.load_key != spec.load_key:
            # What kept it from loading may not hold any more.
            self._observed.restarts.pop(spec.id, None)
            with contextlib.suppress(OSError):  # gone already: the worker will say so
                source_copies.keep(self._directory, spec.artifact)
        self._desired.deployments[spec.id] = spec

    def _aim(self, record: EndpointRecord, name: str, target: str, live: EndpointTraffic) -> str:
        """Who takes the requests of a deployment now: the one before, until the new one is ready."""
        key = record.name, name
        self._switches.pop(key, None)
        current = live.targets.get(name)
        if current is None or current == target or current not in self._desired.deployments:
            return target
        if is_dormant(self._desired.deployments[current], self._desired, self._observed):
            return target  # nobody has asked for either yet
        self._desired.awake.add(target)
        old = None if record.deployment(current) is not None else current
        self._switches[key] = Switch(record.name, name, target, old)
        return current

    def _pause(self, name: str, why: str) -> None:
        self._desired.paused.pop(name, None)
        if why:
            self._desired.paused[name] = why

    def log_requests(self, record: EndpointRecord) -> None:
        """An experiment owns the traffic: every answered request is written down, for as long as it does."""
        self._desired.logs.pop(record.name, None)
        if record.owner.kind is OwnerKind.EXPERIMENT:
            folder = request_index_folder(self._experiments, record.name)
            self._desired.logs[record.name] = RequestLogRoute(record.owner.name, str(folder))

    def remove(self, name: str) -> None:
        """The endpoint leaves."""
        desired = self._desired
        desired.traffic.pop(name, None)
        desired.logs.pop(name, None)
        desired.slos.pop(name, None)
        self._pause(name, "")
        for deployment in self._deployments(name):
            del desired.deployments[deployment]
            self._observed.restarts.pop(deployment, None)
        for key in [key for key in self._switches if key[0] == name]:
            del self._switches[key]
        self.forget_failures(name)

    def forget_failures(self, endpoint: str) -> None:
        """Whatever could not be inspected has been named anew."""
        for key in [key for key in self._desired.failures if key[0] == endpoint]:
            del self._desired.failures[key]

    def _deployments(self, endpoint: str) -> list[str]:
        return [id for id, spec in self._desired.deployments.items() if spec.endpoint == endpoint]


def request_index_folder(experiments: Path, endpoint: str) -> Path:
    """Where answered requests of an endpoint are written down and indexed; its name may have slashes in it."""
    return experiments / quote(endpoint, safe="")
