"""The management API of a server that goes by the keys of a state: for tests of the API and of its clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from headrace.api.app import create_app
from headrace.app.keys.access import StateKeys
from headrace.app.keys.following import KeyFollower
from headrace.app.state.location import Location
from headrace.pipeline.auth import Guard
from tests.gateways import QuietLog
from tests.registry_server import _Idle

NO_ENVIRON: Mapping[str, str] = {}


class KeyServer:
    """The application, and what follows the keys for it. Everything on one event loop."""

    def __init__(self, location: Location, metrics: Path) -> None:
        self.guard = Guard(closed=True)
        self.logged: list[str] = []
        self.follower = KeyFollower(location, self.guard.follow, QuietLog(self.logged))
        access = StateKeys(location, self.follower.look, NO_ENVIRON)
        self.app = create_app(_Idle(), metrics_directory=metrics, guard=self.guard, key_access=access)

    @contextlib.asynccontextmanager
    async def following(self) -> Any:
        task = asyncio.create_task(self.follower.run())
        try:
            await self.follower.look()
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def serving(location: Location, metrics: Path) -> Iterator[str]:
    """Its URL, on a port of its own, while the block runs."""
    listener = socket.create_server(("127.0.0.1", 0))
    started = threading.Event()
    held: list[uvicorn.Server] = []

    async def main() -> None:
        async with KeyServer(location, metrics).following() as server:
            held.append(uvicorn.Server(uvicorn.Config(server.app, log_level="warning", lifespan="off")))
            started.set()
            await held[0].serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="keys", daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        held[0].should_exit = True
        thread.join(30)
        listener.close()
