"""What an experiment makes of an endpoint's record, from its start to its end. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from headrace.app.endpoints.documents import policy_document
from headrace.control.endpoint_changes import owned_by_another
from headrace.core import errors
from headrace.core.endpoint_records import MANUAL, EndpointRecord, Owner, OwnerKind
from headrace.core.experiments import BanditSettings, Experiment
from headrace.core.traffic import EndpointTraffic

MAX_ARMS = 20

replace = msgspec.structs.replace


def started(
    record: EndpointRecord, experiment: Experiment, weights: Mapping[str, float] | None, *, take_over: bool
) -> EndpointRecord:
    """The endpoint when the experiment begins; without ``weights`` every arm has the same share.

    Raises Conflict when somebody else decides its traffic, BadSettings for arms that cannot be compared."""
    if record.owner != MANUAL and not take_over:
        raise owned_by_another(record.name, record.owner)
    _check_arms(record, experiment.arms)
    _check_settings(experiment)
    given = weights or dict.fromkeys(experiment.arms, 1.0)
    if given.keys() != set(experiment.arms) or not all(math.isfinite(w) and w > 0 for w in given.values()):
        raise errors.BadSettings("weights: expected one above 0 for every arm and for nothing else, e.g. champion=90")
    total = sum(given.values())
    return reweighted(record, {arm: given[arm] / total for arm in experiment.arms}, owner(experiment))


def stopped(record: EndpointRecord) -> EndpointRecord:
    """The shares stay as they are, and are whoever's who gives commands."""
    return replace(record, owner=MANUAL)


def owner(experiment: Experiment) -> Owner:
    return Owner(OwnerKind.EXPERIMENT, experiment.id)


def owns(experiment: Experiment, record: EndpointRecord | None) -> bool:
    return record is not None and record.owner == owner(experiment)


def reweighted(record: EndpointRecord, shares: Mapping[str, float], by: Owner) -> EndpointRecord:
    """The same with these shares, as percent; deployments that are not named get nothing."""
    policy = replace(record.traffic.policy, weights={arm: round(100 * share, 2) for arm, share in shares.items()})
    return replace(
        record,
        traffic=EndpointTraffic(policy, record.traffic.targets),
        document={**record.document, **policy_document(policy)},
        owner=by,
    )


def shares(record: EndpointRecord) -> dict[str, float]:
    """What every deployment is to get, in all 1."""
    weights = record.traffic.policy.weights
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _check_arms(record: EndpointRecord, arms: tuple[str, ...]) -> None:
    there = ", ".join(record.traffic.targets)
    if not 2 <= len(arms) <= MAX_ARMS or len(set(arms)) != len(arms):
        raise errors.BadSettings(
            f"arms: expected from 2 to {MAX_ARMS} different deployments, the control first; endpoint {record.name!r}"
            f" has: {there}"
        )
    policy = record.traffic.policy
    for arm in arms:
        if arm not in record.traffic.targets:
            raise errors.BadSettings(f"endpoint {record.name!r} has no deployment {arm!r}; it has: {there}")
        if any(shadow.deployment == arm for shadow in policy.shadows):
            raise errors.BadSettings(f"{arm} is a shadow, and a shadow takes no traffic; apply a file that says so")
    if policy.rules:
        raise errors.BadSettings(
            f"endpoint {record.name!r} has rules: where they decide chance does not, and arms cannot be compared; apply"
            " a file without rules first"
        )


def _check_settings(experiment: Experiment) -> None:
    if not 0.5 <= experiment.confidence < 1:
        raise errors.BadSettings(f"confidence: expected from 0.5 to below 1, e.g. 0.95, got {experiment.confidence:g}")
    bandit = experiment.bandit
    if bandit is not None:
        _check_bandit(bandit, len(experiment.arms))


def _check_bandit(bandit: BanditSettings, arms: int) -> None:
    if not 0 < bandit.floor * arms <= 1:
        raise errors.BadSettings(
            f"floor: expected a share above 0 that {arms} arms can have at once (up to {100 / arms:.4g} %), got"
            f" {100 * bandit.floor:g} %"
        )
    if bandit.minimum < 1 or not bandit.every_s >= 0.1 or not 0 <= bandit.least_move < 1:
        raise errors.BadSettings(
            "bandit: expected minimum of at least 1, every_s of at least 0.1 and least_move from 0 to below 1"
        )
