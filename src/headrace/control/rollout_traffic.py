"""The record of an endpoint at each moment of a rollout. Pure.

It is made from the record as it is, so that what is changed by hand meanwhile (replicas, a pause) stays.
"""

from __future__ import annotations

import msgspec

from headrace.control import rollout_state
from headrace.control.rollout_state import Phase
from headrace.control.rollout_story import Rollout
from headrace.core import errors
from headrace.core.endpoint_records import EndpointRecord, Owner, OwnerKind
from headrace.core.endpoints import DeploymentSpec
from headrace.core.shadows import Shadow
from headrace.core.tallies import baseline_fraction
from headrace.core.traffic import EndpointTraffic
from headrace.core.trials import Trial

replace = msgspec.structs.replace


def next_name(deployment: str) -> str:
    """Name of the new version while it stands beside the one that it is to replace."""
    return f"{deployment}-next"


def owner_of(rollout: Rollout) -> Owner:
    return Owner(OwnerKind.ROLLOUT, rollout.id)


def record_of(rollout: Rollout, current: EndpointRecord, new: DeploymentSpec) -> EndpointRecord:
    """What the endpoint shall be in this state of the rollout."""
    before = rollout.before
    if before is None:
        raise errors.Bug("a rollout has nothing to go back to")
    others = tuple(spec for spec in current.deployments if spec.id != new.id)
    base = replace(current, deployments=others, traffic=before.traffic, owner=before.owner)
    match rollout.state.phase:
        case Phase.ROLLED_BACK | Phase.ABORTED:
            return base
        case Phase.DONE:
            return _done(rollout, base, new)
        case _:
            return _beside(rollout, base, new)


def _beside(rollout: Rollout, base: EndpointRecord, new: DeploymentSpec) -> EndpointRecord:
    name, policy = next_name(rollout.deployment), base.traffic.policy
    share = rollout_state.share(rollout.spec, rollout.state)
    mirrored = rollout_state.shadow(rollout.spec, rollout.state)
    weight = policy.weights.get(rollout.deployment, 0.0)
    weights = {**policy.weights, rollout.deployment: weight * (1 - share)}
    if share:
        weights[name] = weight * share
    shadows = (*policy.shadows, Shadow(name, 100 * mirrored)) if mirrored else policy.shadows
    return replace(
        base,
        deployments=(*base.deployments, new),
        traffic=EndpointTraffic(
            replace(policy, weights=weights, shadows=shadows), {**base.traffic.targets, name: new.id}
        ),
        owner=owner_of(rollout),
    )


def _done(rollout: Rollout, base: EndpointRecord, new: DeploymentSpec) -> EndpointRecord:
    others = tuple(spec for spec in base.deployments if spec.id != rollout.spec.old)
    traffic = base.traffic.aimed(rollout.deployment, new.id)
    return replace(base, deployments=(*others, new), traffic=traffic, document=rollout.document)


def trial_of(rollout: Rollout) -> Trial:
    """What gateways count in this state."""
    share = rollout_state.share(rollout.spec, rollout.state)
    return Trial(rollout.spec.old, rollout.spec.new, baseline_fraction(share) if share else 1.0)
