"""The documents of the management API. What is not here does not leave the server: tokens, file paths of workers."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from headrace.core.load import DeploymentLoad, LoadReport
from headrace.core.models import TensorSpec
from headrace.core.replicas import ReplicaState
from headrace.core.routes import DeploymentRoute, EndpointRoute, ReplicaRoute
from headrace.core.slo import Slo
from headrace.core.traffic import TrafficPolicy


class Tensor(BaseModel):
    """A typed input or output."""

    name: str
    datatype: str = Field(description="Datatype of the Open Inference Protocol.", examples=["FP32"])
    shape: list[int] = Field(description="-1: any size.", examples=[[-1, 30]])
    optional: bool = False

    @classmethod
    def of(cls, spec: TensorSpec) -> Tensor:
        return cls(name=spec.name, datatype=spec.dtype, shape=list(spec.shape), optional=spec.optional)


class Load(BaseModel):
    """What is going on at a deployment, summed over gateways."""

    queued_requests: int = Field(description="Requests that wait for a replica.")
    queued_rows: int = Field(description="Rows that wait for a replica.")
    in_flight: int = Field(description="Requests that replicas are working on.")
    requests: int = Field(description="Requests finished since the gateways started.")
    refused: int = Field(description="Requests turned away since the gateways started.")

    @classmethod
    def of(cls, deployment: str, reports: Iterable[LoadReport]) -> Load:
        loads = [load for _, load in loads_of(deployment, reports)]
        return cls(
            queued_requests=sum(load.queued_requests for load in loads),
            queued_rows=sum(load.queued_rows for load in loads),
            in_flight=sum(load.in_flight for load in loads),
            requests=sum(load.requests for load in loads),
            refused=sum(load.refused for load in loads),
        )


class Replica(BaseModel):
    """One loaded copy of a deployment."""

    id: str = Field(examples=["fraud@1#3"])
    deployment: str = Field(examples=["fraud@1"])
    endpoint: str = Field(examples=["fraud"])
    state: ReplicaState
    address: str = Field(description="Where its worker listens, for gateways.")
    unreachable_from: list[int] = Field(description="Gateways that have no connection to it.")

    @classmethod
    def of(
        cls, endpoint: EndpointRoute, deployment: DeploymentRoute, replica: ReplicaRoute, reports: Iterable[LoadReport]
    ) -> Replica:
        return cls(
            id=replica.id,
            deployment=deployment.id,
            endpoint=endpoint.name,
            state=replica.state,
            address=replica.address,
            unreachable_from=[report.gateway for report in reports if replica.id in report.unreachable],
        )


class Disagreement(BaseModel):
    """A request that the shadow answered otherwise."""

    request_id: str
    output: str = Field(description="The first output that differs.")
    live: str = Field(description="Shape and first values.")
    shadow: str = Field(description="Shape and first values.")


class ShadowResult(BaseModel):
    """Answers of a shadow beside the live ones, over all gateways, since each has known the shadow."""

    agreed: int
    disagreed: int
    failed: int = Field(description="The shadow answered with an error.")
    dropped: int = Field(description="No idle capacity, or requests that the shadow does not take.")
    agreement: float | None = Field(description="Share of compared answers that agree; null before the first.")
    max_absolute: float = Field(description="Greatest difference of a number.")
    max_relative: float = Field(description="Greatest difference of a number, as a share of the live one.")
    live_ms: float | None = Field(description="Mean time of the live batches of compared requests.")
    shadow_ms: float | None = Field(description="Mean time of the shadow's batches.")
    sample: list[Disagreement] = Field(description="Latest disagreements.")

    @classmethod
    def of(cls, deployment: str, reports: Iterable[LoadReport]) -> ShadowResult | None:
        seen = [load.shadow for _, load in loads_of(deployment, reports) if load.shadow is not None]
        if not seen:
            return None
        agreed, disagreed = sum(s.agreed for s in seen), sum(s.disagreed for s in seen)
        compared = agreed + disagreed
        return cls(
            agreed=agreed,
            disagreed=disagreed,
            failed=sum(s.failed for s in seen),
            dropped=sum(s.dropped for s in seen),
            agreement=agreed / compared if compared else None,
            max_absolute=max(s.max_absolute for s in seen),
            max_relative=max(s.max_relative for s in seen),
            live_ms=sum(s.live_ms for s in seen) / compared if compared else None,
            shadow_ms=sum(s.shadow_ms for s in seen) / compared if compared else None,
            sample=[
                Disagreement(request_id=d.request_id, output=d.output, live=d.live, shadow=d.shadow)
                for s in seen
                for d in s.sample
            ],
        )


class Deployment(BaseModel):
    """One version served under an endpoint."""

    id: str = Field(examples=["fraud@1"])
    version: str
    platform: str = Field(description="Model format, as in the Open Inference Protocol.", examples=["onnx_onnxv1"])
    ready: bool = Field(description="It can answer; so can a dormant one, whose first request waits for it.")
    dormant: bool = Field(description="Lazy, and no request has come yet.")
    reason: str = Field(description="Why it is not ready; empty when it is.")
    name: str = Field(description="Under its endpoint; empty for versions that are only addressed by number.")
    traffic: float = Field(description="Share of the endpoint's requests that it gets now, 0 to 1.")
    desired_replicas: int
    batchable: bool | None = Field(description="Rows of several requests may be joined; null until loaded.")
    inputs: list[Tensor] = Field(description="Empty until loaded.")
    outputs: list[Tensor] = Field(description="Empty until loaded.")
    replicas: list[Replica]
    load: Load
    shadow: ShadowResult | None = Field(description="What was compared, of a shadow; null for others.")

    @classmethod
    def of(cls, endpoint: EndpointRoute, deployment: DeploymentRoute, reports: list[LoadReport]) -> Deployment:
        signature = deployment.signature
        weights = sum(endpoint.traffic.values())
        ready = deployment.ready or deployment.dormant
        return cls(
            id=deployment.id,
            version=deployment.version,
            platform=deployment.platform,
            ready=ready,
            dormant=deployment.dormant,
            reason="" if ready else deployment.reason,
            name=deployment.name,
            traffic=endpoint.traffic.get(deployment.id, 0.0) / weights if weights else 0.0,
            desired_replicas=deployment.desired_replicas,
            batchable=signature.batchable if signature else None,
            inputs=[Tensor.of(spec) for spec in signature.inputs] if signature else [],
            outputs=[Tensor.of(spec) for spec in signature.outputs] if signature else [],
            replicas=[Replica.of(endpoint, deployment, replica, reports) for replica in deployment.replicas],
            load=Load.of(deployment.id, reports),
            shadow=ShadowResult.of(deployment.id, reports),
        )


class TrafficRule(BaseModel):
    """Requests with one of the values go to the deployment."""

    when: str = Field(description="Where the value stands.", examples=["header:x-plan"])
    values: list[str] = Field(description="Empty: any value.")
    deployment: str


class Traffic(BaseModel):
    """How an endpoint's requests were asked to be spread."""

    weights: dict[str, float] = Field(description="By deployment, in any unit.", examples=[{"champion": 95}])
    sticky: str | None = Field(description="Requests with the same value there go to the same deployment.")
    rules: list[TrafficRule]
    overrides: list[str] = Field(description="Headers in which a request may name its deployment.")
    shadow: dict[str, float] = Field(description="By deployment: percent of requests that it computes too.")

    @classmethod
    def of(cls, policy: TrafficPolicy) -> Traffic:
        return cls(
            weights=policy.weights,
            sticky=None if policy.sticky is None else str(policy.sticky),
            rules=[
                TrafficRule(when=str(rule.source), values=list(rule.values), deployment=rule.deployment)
                for rule in policy.rules
            ],
            overrides=list(policy.overrides),
            shadow={shadow.deployment: shadow.percent for shadow in policy.shadows},
        )


class Objectives(BaseModel):
    """What callers of an endpoint are promised."""

    p99_ms: float | None = Field(description="99 % of the requests take at most so many milliseconds; null: not said.")
    error_rate: float | None = Field(description="At most this share of the requests fails, 0 to 1; null: not said.")

    @classmethod
    def of(cls, slo: Slo) -> Objectives | None:
        return None if slo == Slo() else cls(p99_ms=slo.p99_ms, error_rate=slo.error_rate)


class Endpoint(BaseModel):
    """A stable name that clients call."""

    name: str = Field(examples=["fraud"])
    ready: bool = Field(description="Some deployment that gets traffic can answer.")
    traffic: Traffic
    waiting: list[str] = Field(description="Deployments whose share others take, because they are not ready.")
    slo: Objectives | None = Field(description="null: nothing is promised.")
    deployments: list[Deployment]

    @classmethod
    def of(cls, endpoint: EndpointRoute, reports: list[LoadReport]) -> Endpoint:
        deployments = [Deployment.of(endpoint, deployment, reports) for deployment in endpoint.deployments]
        return cls(
            name=endpoint.name,
            ready=any(deployment.ready and deployment.traffic > 0 for deployment in deployments),
            traffic=Traffic.of(endpoint.policy),
            waiting=list(endpoint.waiting),
            slo=Objectives.of(endpoint.slo),
            deployments=deployments,
        )


class Endpoints(BaseModel):
    """All endpoints."""

    route_version: int = Field(description="Version of the route table that this was read from.")
    endpoints: list[Endpoint]


class Replicas(BaseModel):
    """All replicas."""

    replicas: list[Replica]


class GatewayBatching(BaseModel):
    """What one gateway has learned: a call of n rows takes `fixed_ms + per_row_ms * n`."""

    gateway: int
    explanation: str = Field(description="Why batches have the size they have.")
    fixed_ms: float | None = Field(description="Cost of a call, whatever its size; null until learned.")
    per_row_ms: float | None = Field(description="Cost of one more row; null until learned.")
    limit: int = Field(description="Rows that a batch may have now.")
    queued_requests: int
    queued_rows: int

    @classmethod
    def of(cls, gateway: int, load: DeploymentLoad) -> GatewayBatching:
        return cls(
            gateway=gateway,
            explanation=load.explanation,
            fixed_ms=load.latency_a_ms,
            per_row_ms=load.latency_b_ms,
            limit=load.batch_limit,
            queued_requests=load.queued_requests,
            queued_rows=load.queued_rows,
        )


class Batching(BaseModel):
    """How a deployment's requests are batched, and why."""

    deployment: str
    mode: str = Field(description="As set: auto, always, exact or off.")
    batchable: bool | None = Field(description="The model can take several rows at once; null until loaded.")
    max_batch_size: int = Field(description="As set: rows.")
    max_batch_cost: float | None = Field(description="As set: in units of `cost`; null: only rows count.")
    cost: str
    max_queue_delay_ms: float
    padded: list[str] = Field(
        description="Inputs that are padded, so that requests of different lengths share batches."
    )
    buckets: list[int] = Field(description="Lengths up to which they do; empty: only equal shapes share a batch.")
    gateways: list[GatewayBatching] = Field(description="Gateways that have served this deployment.")

    @classmethod
    def of(cls, deployment: DeploymentRoute, reports: Iterable[LoadReport]) -> Batching:
        settings = deployment.batching
        padding = deployment.signature.padding if deployment.signature else None
        return cls(
            deployment=deployment.id,
            mode=settings.mode,
            batchable=deployment.signature.batchable if deployment.signature else None,
            max_batch_size=settings.max_batch_size,
            max_batch_cost=settings.max_batch_cost,
            cost=settings.cost,
            max_queue_delay_ms=settings.max_queue_delay_ms,
            padded=list(padding.inputs) if padding else [],
            buckets=list(padding.buckets) if padding else [],
            gateways=[GatewayBatching.of(gateway, load) for gateway, load in loads_of(deployment.id, reports)],
        )


class Event(BaseModel):
    """Something that happened. Beside these, an event has the fields of its type."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["ReplicaRestarted"])
    at: float | None = Field(None, description="Unix time, seconds.")


class Events(BaseModel):
    """The latest events, newest first."""

    events: list[Event]


class Readiness(BaseModel):
    """Everything that should answer does."""

    ready: bool


class Liveness(BaseModel):
    """The controller runs."""

    live: bool


class Index(BaseModel):
    """Where things are on this port."""

    name: str
    version: str
    ready: bool
    links: dict[str, str] = Field(description="What it is -> path.")


def loads_of(deployment: str, reports: Iterable[LoadReport]) -> list[tuple[int, DeploymentLoad]]:
    """``(gateway, load)`` of a deployment, for every gateway that reports it."""
    return [
        (report.gateway, load) for report in reports for load in report.deployments if load.deployment == deployment
    ]
