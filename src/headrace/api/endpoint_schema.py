"""The documents of endpoints as they shall be, of plans, and of what is done by hand."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from headrace.control import deploying
from headrace.control.endpoint_changes import ChangeKind, EndpointChange
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.endpoints import endpoint_and_version


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Applied(_Request):
    """The text of a `headrace.yaml`."""

    config: str = Field(
        max_length=4 << 20, description="YAML, or JSON.", examples=["endpoints: {fraud: {model: fraud@7}}"]
    )
    path: str = Field(
        "headrace.yaml",
        max_length=4096,
        description="Where it stands: absolute, on the server's machine. Relative paths in it count from there, errors"
        " name it, and it owns the traffic of its endpoints.",
    )
    take_over: bool = Field(False, description="Decide the traffic of endpoints that others decide now.")


class FieldChange(BaseModel):
    path: str = Field(examples=["deployments.champion.replicas"])
    before: Any = Field(description="null: it is not there.")
    after: Any


class Change(BaseModel):
    """What happens to an endpoint."""

    endpoint: str
    kind: ChangeKind
    generation: int = Field(description="Of the endpoint before; 0: there is none.")
    owner: str = Field(description="Who decides its traffic afterwards.")
    taken_from: str | None = Field(description="Who decides it now, if another.")
    fields: list[FieldChange]

    @classmethod
    def of(cls, change: EndpointChange) -> Change:
        return cls(
            endpoint=change.endpoint,
            kind=change.kind,
            generation=change.generation,
            owner=str(change.owner),
            taken_from=None if change.taken_from is None else str(change.taken_from),
            fields=[FieldChange(path=f.path, before=f.before, after=f.after) for f in change.fields],
        )


class Changes(BaseModel):
    changes: list[Change]


class Wanted(BaseModel):
    """An endpoint as it shall be."""

    endpoint: str
    generation: int = Field(description="Grows with every change.")
    document: dict[str, Any] = Field(description="As under `endpoints` of headrace.yaml.")
    owner: str = Field(description="Who decides its traffic: manual, file, rollout or experiment, and which.")
    weights: dict[str, float]
    versions: dict[str, str] = Field(description="Deployment to the version that it shall serve.")
    paused: str = Field(description="Why it refuses requests; empty: it does not.")
    settled: bool = Field(description="False while replicas of a new version load and the old one serves.")
    changed_by: str
    changed_at: float = Field(description="Seconds since 1970 (UTC).")

    @classmethod
    def of(cls, record: EndpointRecord) -> Wanted:
        return cls(
            endpoint=record.name,
            generation=record.generation,
            document=record.document,
            owner=str(record.owner),
            weights=record.traffic.policy.weights,
            versions={name: endpoint_and_version(target)[1] for name, target in record.traffic.targets.items()},
            paused=record.paused,
            settled=record.before is None,
            changed_by=record.who,
            changed_at=record.at,
        )


class Deploy(_Request):
    """A version of the registry under an endpoint."""

    model: str = Field(max_length=512, description="MODEL@VERSION or MODEL@ALIAS.", examples=["fraud@7"])
    deployment: str | None = Field(
        None, max_length=128, description="Its only one, else `main`. A new one beside others gets no requests yet."
    )
    replicas: int | None = Field(None, ge=0, le=1024, description="null: as it is, else 1.")
    lazy: bool | None = Field(None, description="Start on the first request. null: as it is, else false.")
    take_over: bool = Field(False, description="Decide the traffic of an endpoint that another decides now.")

    def wanted(self, endpoint: str) -> deploying.Deploy:
        """Raises BadSettings."""
        return deploying.Deploy(endpoint, **self.model_dump())


class Weights(_Request):
    weights: dict[str, float] = Field(examples=[{"champion": 90, "challenger": 10}])
    take_over: bool = False


class Scale(_Request):
    replicas: int = Field(ge=0, le=1024)
    deployment: str | None = Field(None, description="May be left out when there is only one.")


class Restart(_Request):
    deployment: str | None = Field(None, description="May be left out when there is only one.")


class Drain(_Request):
    deployment: str
    take_over: bool = False


class Pause(_Request):
    why: str = Field("", max_length=1000, description="Callers read it in the refusals.")
