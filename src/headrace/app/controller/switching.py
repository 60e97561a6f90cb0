"""Moves the traffic of deployments to new versions once they are ready, or tells that they cannot be."""

from __future__ import annotations

from collections.abc import Callable

from headrace.app import events
from headrace.app.controller.state import Switch
from headrace.control.observed import Desired, Observed
from headrace.core.endpoints import DeploymentSpec, endpoint_and_version

Switches = dict[tuple[str, str], Switch]
"""By endpoint and name of the deployment."""


def move_when_ready(
    desired: Desired,
    observed: Observed,
    switches: Switches,
    *,
    reachable: Callable[[DeploymentSpec], bool],
    ended: Callable[[str, str], None],
) -> list[events.VersionLoaded]:
    """One pass; what has moved. ``reachable``: traffic that moves there now meets no gap. ``ended`` is called with the
    endpoint of every switch that is over, and with why it cannot be done or nothing."""
    moved: list[events.VersionLoaded] = []
    for key, switch in list(switches.items()):
        if switches.get(key) is not switch:
            continue  # another one of its endpoint failed, and all are taken back
        spec = desired.deployments.get(switch.new)
        failure = observed.restarts_of(switch.new).load_failure
        if spec is None or failure:
            del switches[key]
            desired.deployments.pop(switch.new, None)
            ended(switch.endpoint, failure or "it is not deployed any more")
            continue
        if not reachable(spec):
            continue
        endpoint, traffic = switch.endpoint, desired.traffic[switch.endpoint]
        old = traffic.targets.get(switch.deployment, "")
        desired.traffic[endpoint] = traffic.aimed(switch.deployment, switch.new)
        if switch.old is not None:
            desired.deployments.pop(switch.old, None)
        del switches[key]
        moved.append(events.VersionLoaded(endpoint, spec.version, endpoint_and_version(old)[1]))
        ended(endpoint, "")
    return moved
