"""What can be done to endpoints while they are served: apply a file, deploy a version, set traffic, scale, restart,
pause, delete."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from headrace.app.endpoints import applying
from headrace.app.endpoints.documents import as_yaml, policy_document
from headrace.app.endpoints.manager import EndpointManager
from headrace.app.state.location import Location
from headrace.control.deploying import MAX_REPLICAS, Deploy, check_free, document_for
from headrace.control.endpoint_changes import (
    ChangeKind,
    EndpointChange,
    check_owner,
    differences,
    owned_by_another,
)
from headrace.core import errors
from headrace.core.answers import Answer, Answering
from headrace.core.endpoint_records import MANUAL, EndpointRecord, Owner, OwnerKind, entries, with_entry
from headrace.core.endpoints import DeploymentSpec
from headrace.core.traffic import MAIN, EndpointTraffic

replace = msgspec.structs.replace


async def _at_once() -> None:
    """Nobody has to hear of it."""


class EndpointOperations:
    """Every method that changes something keeps it in the state before it takes effect; ``who`` stands in its event,
    ``generation`` (None: any) is the one that the caller has seen. What ``answering`` makes of the result is kept with
    the change."""

    def __init__(
        self, manager: EndpointManager, location: Location, visible: Callable[[], Awaitable[None]] = _at_once
    ) -> None:
        """``visible`` waits until gateways go by what was changed."""
        self._manager = manager
        self._location = location
        self._visible = visible

    async def earlier(self, key: str) -> Answer | None:
        """What was answered to an idempotency key before. Raises StoreFailed."""
        return await self._manager.earlier(key)

    # --- files ---

    async def plan(self, text: str, path: str) -> tuple[EndpointChange, ...]:
        """What applying this file would change. Raises BadSettings, UnknownModel, LoadFailed."""
        changes, _ = await self._compare(text, path, Owner(OwnerKind.FILE, path))
        return changes

    async def apply(
        self,
        text: str,
        path: str,
        *,
        who: str,
        take_over: bool,
        answering: Answering[tuple[EndpointChange, ...]] | None = None,
    ) -> tuple[EndpointChange, ...]:
        """Make it so: all endpoints of the file, or none. Raises also Conflict when another decides the traffic."""
        manager = self._manager
        async with manager.lock:
            changes, records = await self._compare(text, path, Owner(OwnerKind.FILE, path))
            check_owner(changes, take_over=take_over)
            wanted = {c.endpoint for c in changes if c.kind in (ChangeKind.CREATE, ChangeKind.UPDATE)}
            gone = [c.endpoint for c in changes if c.kind is ChangeKind.DELETE]
            await manager.change(
                [record for record in records if record.name in wanted],
                deleted=gone,
                what="endpoint.apply",
                who=who,
                why=path,
                answering=None if answering is None else lambda _: answering(changes),
            )
        await self._visible()
        return changes

    async def _compare(
        self, text: str, path: str, owner: Owner
    ) -> tuple[tuple[EndpointChange, ...], list[EndpointRecord]]:
        manager = self._manager
        records = await applying.read(text, Path(path), owner, manager.records, self._location, manager.state)
        records = [manager.paused_still(record) for record in records]
        documents = {record.name: record.document for record in records}
        changes = differences(documents, manager.records, owner)
        return tuple(_with_content(c, records, manager.records) for c in changes), records

    async def deploy(self, wanted: Deploy, *, who: str, generation: int | None = None) -> EndpointChange:
        """Put a version of the registry under an endpoint, which is made when it is not there; what serves there goes
        on until the version is ready. Raises Conflict when another decides the traffic, UnknownModel, BadSettings,
        LoadFailed."""
        manager = self._manager
        async with manager.lock:
            there = manager.records.get(wanted.endpoint)
            if generation is not None:
                manager.require(wanted.endpoint, generation)
            check_free(wanted, there)
            # What serves beside it was vouched for already.
            trust = [] if there is None else there.vouched
            text = json.dumps({"trust": trust, "endpoints": {wanted.endpoint: document_for(wanted, there)}})
            (change,), records = await self._compare(text, "headrace deploy", MANUAL)
            if change.kind is not ChangeKind.NONE:
                await manager.change(records, what="endpoint.deploy", who=who, why=wanted.model)
        await self._visible()
        return change

    def export(self) -> str:
        """What runs, as the text of a ``headrace.yaml``, with the digests that are trusted here."""
        records = self._manager.records
        trust = sorted({digest for record in records.values() for digest in record.vouched})
        return as_yaml({name: record.document for name, record in sorted(records.items())}, trust)

    def wanted(self, endpoint: str) -> EndpointRecord:
        """Raises UnknownModel."""
        return self._manager.require(endpoint)

    # --- by hand ---

    async def set_traffic(
        self,
        endpoint: str,
        weights: Mapping[str, float],
        *,
        who: str,
        take_over: bool,
        generation: int | None = None,
        answering: Answering[EndpointRecord] | None = None,
    ) -> EndpointRecord:
        """Spread the requests by these weights; deployments that are not named get none."""

        def make(record: EndpointRecord) -> EndpointRecord:
            if record.owner != MANUAL and not take_over:
                raise owned_by_another(endpoint, record.owner)
            policy = replace(record.traffic.policy, weights=_checked(weights, record))
            document = {**record.document, **policy_document(policy)} if "deployments" in record.document else None
            return replace(
                record,
                traffic=EndpointTraffic(policy, record.traffic.targets),
                document=document or record.document,
                owner=MANUAL,
            )

        return await self._change(endpoint, generation, "traffic.set", who, make, answering=answering)

    async def scale(
        self, endpoint: str, deployment: str | None, replicas: int, *, who: str, generation: int | None = None
    ) -> EndpointRecord:
        """As many replicas of a deployment; 0 stops it."""
        if not 0 <= replicas <= MAX_REPLICAS:
            raise errors.BadSettings(f"replicas: expected a number from 0 to {MAX_REPLICAS}, got {replicas}")

        def make(record: EndpointRecord) -> EndpointRecord:
            name, spec = _chosen(record, deployment)
            entry = {**entries(record.document)[name], "replicas": replicas}
            document = with_entry(record.document, name, entry)
            return replace(_with_spec(record, replace(spec, replicas=replicas)), document=document)

        return await self._change(endpoint, generation, "deployment.scale", who, make, f"{replicas} replicas")

    async def restart(
        self,
        endpoint: str,
        deployment: str | None,
        *,
        who: str,
        generation: int | None = None,
        answering: Answering[EndpointRecord] | None = None,
    ) -> EndpointRecord:
        """Fresh replicas, one by one; the old ones serve until then."""

        def make(record: EndpointRecord) -> EndpointRecord:
            _, spec = _chosen(record, deployment)
            return _with_spec(record, replace(spec, restarts=spec.restarts + 1))

        return await self._change(endpoint, generation, "deployment.restart", who, make, answering=answering)

    async def drain(
        self,
        endpoint: str,
        deployment: str,
        *,
        who: str,
        take_over: bool,
        generation: int | None = None,
        answering: Answering[EndpointRecord] | None = None,
    ) -> EndpointRecord:
        """Its traffic goes to the others; it ends what it has, keeps its replicas and can be given traffic again."""
        record = self._manager.require(endpoint)
        name, _ = _chosen(record, deployment)
        weights = {n: w for n, w in record.traffic.policy.weights.items() if n != name}
        if not sum(weights.values()) > 0:
            raise errors.Conflict(
                f"no other deployment of endpoint {endpoint!r} takes traffic; give one a weight first, or pause the"
                f" endpoint: headrace pause {endpoint}"
            )
        return await self.set_traffic(
            endpoint,
            weights,
            who=who,
            take_over=take_over,
            generation=generation or record.generation,
            answering=answering,
        )

    async def pause(self, endpoint: str, why: str, *, who: str, generation: int | None = None) -> EndpointRecord:
        """Refuse new requests, with this reason; replicas stay ready."""
        reason = why or f"paused by {who}"
        return await self._change(
            endpoint, generation, "endpoint.pause", who, lambda record: replace(record, paused=reason), why
        )

    async def resume(self, endpoint: str, *, who: str, generation: int | None = None) -> EndpointRecord:
        return await self._change(
            endpoint, generation, "endpoint.resume", who, lambda record: replace(record, paused="")
        )

    async def delete(self, endpoint: str, *, who: str, take_over: bool, generation: int | None = None) -> None:
        """The endpoint and its replicas leave; what they compute is finished."""
        manager = self._manager
        async with manager.lock:
            record = manager.require(endpoint, generation)
            if record.owner != MANUAL and not take_over:
                raise owned_by_another(endpoint, record.owner)
            await manager.change([], deleted=[endpoint], what="endpoint.delete", who=who)
        await self._visible()

    async def _change(
        self,
        endpoint: str,
        generation: int | None,
        what: str,
        who: str,
        make: Callable[[EndpointRecord], EndpointRecord],
        why: str = "",
        *,
        answering: Answering[EndpointRecord] | None = None,
    ) -> EndpointRecord:
        manager = self._manager
        of_one = None if answering is None else lambda made: answering(made[0])
        async with manager.lock:
            record = manager.require(endpoint, generation)
            (made,) = await manager.change([make(record)], what=what, who=who, why=why, answering=of_one)
        await self._visible()
        return made


def _with_content(
    change: EndpointChange, records: list[EndpointRecord], there: Mapping[str, EndpointRecord]
) -> EndpointChange:
    """A file whose content changed is a change, though the document reads the same."""
    if change.kind is not ChangeKind.NONE:
        return change
    new = next(record for record in records if record.name == change.endpoint)
    if _by_id(new) == _by_id(there[change.endpoint]):
        return change
    return replace(change, kind=ChangeKind.UPDATE)


def _by_id(record: EndpointRecord) -> dict[str, DeploymentSpec]:
    """Without restarts, which are nobody's wish in a file."""
    return {spec.id: replace(spec, restarts=0) for spec in record.deployments}


def _chosen(record: EndpointRecord, deployment: str | None) -> tuple[str, DeploymentSpec]:
    """The deployment of this name, or the only one."""
    targets = record.traffic.targets
    if deployment is None and len(targets) != 1:
        raise errors.BadSettings(f"endpoint {record.name!r} has several deployments; say which: {', '.join(targets)}")
    name = deployment or next(iter(targets))
    return name, record.named(name)


def _with_spec(record: EndpointRecord, changed: DeploymentSpec) -> EndpointRecord:
    return replace(record, deployments=tuple(changed if s.id == changed.id else s for s in record.deployments))


def _checked(weights: Mapping[str, float], record: EndpointRecord) -> dict[str, float]:
    for name, weight in weights.items():
        if name not in record.traffic.targets:
            raise errors.BadSettings(
                f"endpoint {record.name!r} has no deployment {name!r}; it has: {', '.join(record.traffic.targets)}"
            )
        if not 0 <= weight <= 1e9:
            raise errors.BadSettings(f"{name}: expected a weight of at least 0, e.g. 5, got {weight:g}")
        if weight > 0 and any(shadow.deployment == name for shadow in record.traffic.policy.shadows):
            raise errors.BadSettings(f"{name} is a shadow, and a shadow takes no traffic; apply a file that says so")
    if not sum(weights.values()) > 0:
        raise errors.BadSettings(
            f"no deployment has a weight above 0; e.g. {next(iter(record.traffic.targets), MAIN)}=1"
        )
    return dict(weights)
