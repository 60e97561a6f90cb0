"""The application on the management port: FastAPI, served by the controller.

What is served is only read; the registry is changed, when this server owns one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from fastapi import APIRouter, FastAPI

from headrace.api import (
    aliases,
    artifacts,
    changes,
    collection,
    deployments,
    endpoint_changes,
    endpoints,
    events,
    experiment_routes,
    health,
    index,
    keys,
    metrics,
    models,
    problems,
    replicas,
    settings_schema,
    trust,
    versions,
)
from headrace.api.hosts import HostCheck
from headrace.api.idempotency import Requests
from headrace.api.key_check import KeyCheck
from headrace.api.long_work import LongWork
from headrace.api.ports import (
    ControllerView,
    EndpointCommands,
    ExperimentCommands,
    KeyAccess,
    RegistryAccess,
    RolloutCommands,
)
from headrace.api.request_checks import RequestChecks
from headrace.api.rollouts import router as rollout_router
from headrace.core import release
from headrace.pipeline.auth import Guard

_ABOUT = """What Headrace serves, how it fares, and why.

Models, versions, aliases and files are those of the registry, when the server was started with one. Single resources
have an ETag; what replaces one says which in `If-Match`. Lists come in pages: pass `next_cursor` as `cursor`. A POST
with an `Idempotency-Key` may be sent again.

Errors are problem documents (RFC 9457, `application/problem+json`) with a stable `code`.
Inference is on another port; its protocols are described by their own specifications.
"""


def create_app(
    view: ControllerView,
    *,
    metrics_directory: Path,
    allowed_hosts: Collection[str] = (),
    workers: Callable[[], Mapping[str, int]] | None = None,
    commands: EndpointCommands | None = None,
    rollouts: RolloutCommands | None = None,
    registry: RegistryAccess | None = None,
    guard: Guard | None = None,
    schema: Callable[[], str] | None = None,
    experiments: ExperimentCommands | None = None,
    key_access: KeyAccess | None = None,
) -> FastAPI:
    """The management application.

    metrics_directory   where all processes keep their pages (``telemetry/pages.py``)
    allowed_hosts       names that a Host header may have beside localhost and IP addresses: the host the port is
                        bound to, and what the operator allows (``api/hosts.py``)
    workers             name -> pid of further processes whose memory and CPU time belong in the metrics; called in
                        another thread
    commands            what can be done to endpoints; None: they are only read
    rollouts            what can be done to rollouts; None: there are none
    registry            None: this server owns none, and the routes of the registry say so
    experiments         None: there are none
    key_access          the keys of this server's state; None: they are not changed here
    guard               who may do what; None lets everybody in
    schema              the JSON Schema of headrace.yaml; None: it is not shown
    """
    app = FastAPI(
        title="Headrace management API",
        version=release.VERSION,
        description=_ABOUT,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    # What is added last sees a request first.
    app.add_middleware(RequestChecks)
    app.add_middleware(KeyCheck, guard=guard or Guard())
    app.add_middleware(HostCheck, allowed=allowed_hosts)
    app.include_router(
        index.router(view, registry=registry is not None, rollouts=rollouts is not None, keys=key_access is not None)
    )
    app.include_router(health.router(view))
    app.include_router(metrics.router(metrics_directory, workers))
    api = APIRouter(prefix="/api/v1")
    for noun in (endpoints, deployments, replicas, events):
        api.include_router(noun.router(view))
    requests, long_work = Requests(), LongWork()
    if commands is not None:
        api.include_router(endpoint_changes.router(commands, requests))
    if rollouts is not None:
        api.include_router(rollout_router(rollouts, requests))
    if schema is not None:
        api.include_router(settings_schema.router(schema))
    if experiments is not None:
        api.include_router(experiment_routes.router(experiments))
    if key_access is not None:
        api.include_router(keys.router(key_access, requests))
    # A model's name may have slashes in it: what follows it in a path comes before the model itself.
    api.include_router(trust.router(registry))
    api.include_router(versions.router(registry, requests, long_work))
    for noun_of_registry in (aliases, models, artifacts, changes):
        api.include_router(noun_of_registry.router(registry))
    api.include_router(collection.router(registry, requests, long_work))
    app.include_router(api)
    return app
