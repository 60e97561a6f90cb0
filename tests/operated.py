"""The management API over real operations on endpoints, without workers: a new version counts as ready as soon as it is
asked for, unless a test says that it cannot load. For tests of operations, of the API, and of its clients."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from headrace.api.app import create_app
from headrace.app.controller.state import Switch
from headrace.app.controller.switching import move_when_ready
from headrace.app.endpoints.manager import EndpointManager
from headrace.app.endpoints.operations import EndpointOperations
from headrace.app.state.location import Location
from headrace.app.state.owned_state import OwnedState
from headrace.app.state.registry_state import open_registry
from headrace.control.observed import Desired, Observed
from headrace.core.models import Artifact, Format
from headrace.core.routes import RouteTable
from headrace.core.versions import Draft, Provenance, StoredFile
from headrace.pipeline.auth import Guard

ECHO = "headrace-echo 1\n"
"""A model that needs no framework."""


class Operated:
    """The manager, its operations, and what stands around them in the controller."""

    def __init__(self, folder: Path, state: OwnedState | None = None) -> None:
        self.folder = folder
        self.location = Location(folder / "state", None, str(folder / "state" / "artifacts"))
        self.desired, self.observed = Desired(), Observed()
        self.switches: dict[tuple[str, str], Switch] = {}
        self.said: list[Any] = []
        self.manager = EndpointManager(
            folder, self.desired, self.observed, self.switches, say=self.said.append, changed=asyncio.Event()
        )
        self.manager.state = state
        self.operations = EndpointOperations(self.manager, self.location)

    def register(self, model: str, text: str = ECHO) -> int:
        """One more version in the registry; its number."""
        path = self.folder / "pushed.echo"
        path.write_text(text)
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        artifact = Artifact("model/pushed.echo", Format.ECHO, "echo", digest)
        files = (StoredFile(artifact.path, digest, len(text)),)
        with open_registry(self.location) as opened:
            opened.artifacts.put(path, digest, lambda _: None)
            draft = Draft(model, artifact, files, Provenance("ada", 1.0, str(path)))
            return opened.registry.register(draft).number

    async def settle(self, *failing: str) -> None:
        """New versions are ready now; those of ``failing`` (ids) cannot load."""
        for deployment in failing:
            self.observed.restarts_of(deployment).load_failure = "it has no weights"
        move_when_ready(
            self.desired,
            self.observed,
            self.switches,
            reachable=lambda spec: True,
            ended=self.manager.switched,
        )
        await self.manager.settle()

    def file(self, text: str, name: str = "headrace.yaml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    async def apply(self, text: str, *, take_over: bool = False) -> list[str]:
        """What happened, as ``create m``."""
        path = str(self.file(text))
        changes = await self.operations.apply(text, path, who="ada", take_over=take_over)
        return [f"{change.kind} {change.endpoint}" for change in changes]

    # --- ControllerView ---

    def routes(self) -> RouteTable:
        return RouteTable(version=1, epoch=1, endpoints=())

    def loads(self) -> list[Any]:
        return []

    def events(self, limit: int) -> list[dict[str, Any]]:
        return []

    def log_tail(self, replica: str) -> str:
        raise KeyError(replica)

    def ready(self) -> bool:
        return True


@contextlib.contextmanager
def serving(
    folder: Path, guard: Guard | None = None
) -> Iterator[tuple[str, Callable[[Callable[[Operated], Any]], Any]]]:
    """The URL of the API on a port of its own, and a function that runs a coroutine function of the Operated there."""
    listener = socket.create_server(("127.0.0.1", 0))
    started = threading.Event()
    held: list[tuple[asyncio.AbstractEventLoop, Operated, uvicorn.Server]] = []

    async def main() -> None:
        operated = Operated(folder)
        app = create_app(operated, metrics_directory=folder, commands=operated.operations, guard=guard)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        held.append((asyncio.get_running_loop(), operated, server))
        started.set()
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="operated", daemon=True)
    thread.start()
    assert started.wait(30)
    loop, operated, server = held[0]

    def run(make: Callable[[Operated], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(make(operated), loop).result(30)

    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", run
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
