"""Serves the management port inside the controller. FastAPI is imported here, late: models start meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.app import roles
from headrace.app.controller.role import ControllerRole

if TYPE_CHECKING:
    from fastapi import FastAPI

    from headrace.api.ports import (
        ControllerView,
        EndpointCommands,
        ExperimentCommands,
        KeyAccess,
        RegistryAccess,
        RolloutCommands,
    )
    from headrace.pipeline.auth import Guard

_IMPORT_AFTER_S = 0.05


async def serve_management(
    view: ControllerView,
    commands: EndpointCommands,
    rollouts: RolloutCommands,
    registry: RegistryAccess | None,
    role: ControllerRole,
    guard: Guard,
    *,
    experiments: ExperimentCommands | None = None,
    key_access: KeyAccess | None = None,
) -> None:
    """Serve until cancelled. ``registry``: of the state that this server owns; None when it owns none."""

    def build() -> FastAPI:
        from headrace.api.app import create_app
        from headrace.app.settings import schema as settings_schema

        return create_app(
            view,
            metrics_directory=Path(roles.metrics_directory(role.directory)),
            allowed_hosts=(role.settings.management_host,),
            commands=commands,
            rollouts=rollouts,
            registry=registry,
            guard=guard,
            schema=settings_schema.document,
            experiments=experiments,
            key_access=key_access,
        )

    await asyncio.sleep(_IMPORT_AFTER_S)
    app = await asyncio.to_thread(build)
    import h2corn

    from headrace.app import serving

    config = h2corn.Config(
        bind=(f"fd://{role.management_fd}",),
        access_log=False,
        lifespan="off",
        runtime_threads=1,
        timeout_graceful_shutdown=2.0,
    )
    await serving.server(app, config).serve()
