"""Writes down what the next controller of this run must know, and goes on from it."""

from __future__ import annotations

from pathlib import Path

from headrace.app.controller import state as controller_state
from headrace.app.controller.named_models import NamedModels
from headrace.app.controller.role import ControllerRole
from headrace.app.controller.state import ControllerState, LoadFailure
from headrace.app.controller.switching import Switches
from headrace.app.endpoints.manager import EndpointManager
from headrace.app.rollouts.rollouts import Rollouts
from headrace.control.observed import Desired, Observed


class Memory:
    """What it goes on with is put into the given parts; what it writes down is read from them."""

    def __init__(
        self,
        role: ControllerRole,
        desired: Desired,
        observed: Observed,
        switches: Switches,
        endpoints: EndpointManager,
        rollouts: Rollouts,
        named: NamedModels,
    ) -> None:
        self._path = Path(role.directory) / "controller.state"
        self._began = role.began
        self._desired = desired
        self._observed = observed
        self._switches = switches
        self._endpoints = endpoints
        self._rollouts = rollouts
        self._named = named
        self._saved: ControllerState | None = None

    def restore(self) -> None:
        """Go on where a controller of this run ended; its artifacts are not looked at again."""
        state = controller_state.load(self._path, self._began)
        if state is None:
            return
        desired, endpoints = self._desired, self._endpoints
        desired.deployments = {spec.id: spec for spec in state.deployments}
        desired.traffic = dict(state.traffic)
        desired.failures = {(endpoint, version): reason for endpoint, version, reason in state.failures}
        self._switches.update({(switch.endpoint, switch.deployment): switch for switch in state.switches})
        endpoints.records = {record.name: record for record in state.records}
        self._rollouts.resume(list(state.rollouts))
        desired.paused = {record.name: record.paused for record in state.records if record.paused}
        desired.slos = {record.name: record.slo for record in state.records}
        for record in state.records:
            endpoints.log_requests(record)
        for deployment, failure in state.load_failures.items():
            restarts = self._observed.restarts_of(deployment)
            restarts.load_failure, restarts.log_tail = failure.reason, failure.log_tail
        self._named.resume(state.watched)

    def save(self) -> None:
        """Keep what has changed since the last time."""
        desired, restarts = self._desired, self._observed.restarts
        state = ControllerState(
            began=self._began,
            deployments=tuple(desired.deployments.values()),
            traffic=dict(desired.traffic),
            failures=tuple((*key, reason) for key, reason in desired.failures.items()),
            switches=tuple(self._switches.values()),
            load_failures={d: LoadFailure(r.load_failure, r.log_tail) for d, r in restarts.items() if r.load_failure},
            watched=self._named.watched,
            records=tuple(self._endpoints.records.values()),
            rollouts=tuple(self._rollouts.active.values()),
        )
        if state != self._saved:
            controller_state.save(self._path, state)
            self._saved = state
