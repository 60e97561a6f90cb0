"""From what is asked for to a rollout that can begin: which deployment, which new version, how, judged by what."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path

import msgspec

from headrace.app.endpoints import applying
from headrace.app.endpoints.manager import EndpointManager
from headrace.app.settings import file as settings_file
from headrace.app.state.location import Location
from headrace.control import rollout_state
from headrace.control.analysis.judge import judge
from headrace.control.rollout_plan import RolloutRequest, planned
from headrace.control.rollout_state import Phase
from headrace.control.rollout_story import Rollout, StoryLine, spec_of
from headrace.core import errors, names
from headrace.core.endpoint_records import Document, EndpointRecord, OwnerKind, entries, with_entry
from headrace.core.endpoints import DeploymentSpec

replace = msgspec.structs.replace


class Beginning:
    """Changes nothing; the caller holds the manager's lock."""

    def __init__(self, manager: EndpointManager, location: Location) -> None:
        self._manager = manager
        self._location = location

    async def rollout(self, wanted: RolloutRequest, record: EndpointRecord, who: str) -> tuple[Rollout, DeploymentSpec]:
        """A rollout of the endpoint with this record in its first state, and its new version, inspected.

        Raises Conflict when that version serves already, UnknownModel, BadSettings, LoadFailed."""
        plan = planned(wanted, settings_file.endpoint_of(record.name, record.document).settings.rollout)
        asked = spec_of(wanted.endpoint, plan, "", "")
        name, old = _chosen(record, wanted.deployment)
        document = _with_model(record.document, name, _target(record.document, name, wanted.to))
        after = await self._resolved(record, document)
        new = after.deployment(after.traffic.targets[name])
        if new is None or new.id == old.id:
            raise errors.Conflict(f"{wanted.to} is what deployment {name!r} of {wanted.endpoint!r} serves already")
        now = time.time()
        first = StoryLine(now, Phase.STARTING, -1, 0.0, f"{old.version} → {new.version}, started by {who}")
        rollout = Rollout(
            id=f"r{secrets.token_hex(4)}",
            endpoint=wanted.endpoint,
            deployment=name,
            spec=replace(asked, old=old.id, new=new.id),
            state=rollout_state.start(now),
            analysis=plan.analysis,
            judge=judge(plan.analysis, record.slo),
            story=(first,),
            who=who,
            started_at=now,
            document=after.document,
            before=replace(record, before=None),
        )
        return rollout, new

    async def _resolved(self, record: EndpointRecord, document: Document) -> EndpointRecord:
        """The record with another version under the name, inspected."""
        # What serves beside it was vouched for already.
        text = json.dumps({"trust": record.vouched, "endpoints": {record.name: document}})
        manager = self._manager
        path = Path(record.owner.name) if record.owner.kind is OwnerKind.FILE else Path.cwd() / "rollout"
        found = await applying.read(text, path, record.owner, manager.records, self._location, manager.state)
        return next(one for one in found if one.name == record.name)


def _chosen(record: EndpointRecord, deployment: str | None) -> tuple[str, DeploymentSpec]:
    """The deployment to roll: the one that is named, else the only one that takes traffic."""
    targets = record.traffic.targets
    name = deployment
    if name is None:
        taking = [n for n in targets if record.traffic.policy.weights.get(n, 0.0) > 0]
        if len(taking) != 1:
            raise errors.BadSettings(
                f"endpoint {record.name!r} has several deployments with traffic; say which is rolled:"
                f" --deployment {' | '.join(taking)}"
            )
        name = taking[0]
    return name, record.named(name)


def _target(document: Document, name: str, to: str) -> str:
    """What the new version's ``model`` is: ``8`` and ``champion`` are of the model that serves now."""
    model = str(entries(document)[name]["model"])
    if "@" in to or "/" in to or Path(to).exists():
        return to if "@" in to else str(Path(to).absolute())
    try:
        registered, choice = names.split_reference(model)
    except errors.BadSettings:
        registered, choice = "", None
    if choice is None:
        raise errors.BadSettings(
            f"{model} is no version of the registry, so {to!r} is none of its others; give MODEL@VERSION or a path"
        )
    return f"{registered}@{to}"


def _with_model(document: Document, name: str, model: str) -> Document:
    """The document with another model of a deployment, which brings its own version."""
    kept = {key: value for key, value in entries(document)[name].items() if key != "version"}
    return with_entry(document, name, kept | {"model": model})
