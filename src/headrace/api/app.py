"""The application on the management port: FastAPI, served by the controller. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from fastapi import APIRouter, FastAPI

from headrace.api import deployments, endpoints, events, health, index, metrics, problems, replicas
from headrace.api.hosts import HostCheck
from headrace.api.key_check import KeyCheck
from headrace.api.ports import ControllerView
from headrace.core import release
from headrace.pipeline.auth import Guard

_ABOUT = """What Headrace serves, how it fares, and why.

Errors are problem documents (RFC 9457, `application/problem+json`) with a stable `code`.
Inference is on another port; its protocols are described by their own specifications.
"""


def create_app(
    view: ControllerView,
    *,
    metrics_directory: Path,
    allowed_hosts: Collection[str] = (),
    workers: Callable[[], Mapping[str, int]] | None = None,
    guard: Guard | None = None,
) -> FastAPI:
    """The management application.

    metrics_directory   where all processes keep their pages (``telemetry/pages.py``)
    allowed_hosts       names that a Host header may have beside localhost and IP addresses: the host the port is
                        bound to, and what the operator allows (``api/hosts.py``)
    workers             name -> pid of further processes whose memory and CPU time belong in the metrics; called in
                        another thread
    guard               who may do what; None lets everybody in
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
    app.add_middleware(KeyCheck, guard=guard or Guard())
    app.add_middleware(HostCheck, allowed=allowed_hosts)
    app.include_router(index.router(view))
    app.include_router(health.router(view))
    app.include_router(metrics.router(metrics_directory, workers))
    api = APIRouter(prefix="/api/v1")
    for noun in (endpoints, deployments, replicas, events):
        api.include_router(noun.router(view))
    app.include_router(api)
    return app
