"""A process that owns a registry and serves the management API, as a controller does: for tests of its clients.

``python -m tests.registry_server DIRECTORY [DATABASE]`` prints its URL and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class RegistryServer:
    """A running server; ``url`` is that of its management port."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url


@contextlib.contextmanager
def owning(
    directory: Path, database: str | None = None, *, environment: Mapping[str, str] | None = None, port: int = 0
) -> Iterator[RegistryServer]:
    """A server that owns the state in ``directory`` (or in ``database``) while the block runs."""
    command = [sys.executable, "-m", "tests.registry_server", str(directory), database or "", str(port)]
    environ = {**os.environ, **(environment or {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "the server ended before it served"
            yield RegistryServer(process, url)
        finally:
            process.terminate()
            process.wait(30)


class _Idle:
    """A controller that serves nothing; implements ControllerView."""

    def routes(self) -> Any:
        from headrace.core.routes import RouteTable

        return RouteTable(version=1, epoch=1, endpoints=())

    def loads(self) -> list[Any]:
        return []

    def events(self, limit: int) -> list[dict[str, Any]]:
        return []

    def log_tail(self, replica: str) -> str:
        raise KeyError(replica)

    def ready(self) -> bool:
        return True


def main(directory: Path, database: str | None, port: int) -> None:
    from headrace.api.app import create_app
    from headrace.app.registry.access import OwnedRegistry
    from headrace.app.state import controller_address
    from headrace.app.state.registry_state import LEASE, Location, open_registry
    from headrace.control.registry import Registry
    from headrace.store import lease
    from headrace.store.database import open_database
    from headrace.store.state import State

    listener = socket.create_server(("127.0.0.1", port))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    artifacts = os.environ.get("HEADRACE_ARTIFACTS") or str(directory / "artifacts")
    with open_registry(Location(directory, database, artifacts)) as state, contextlib.ExitStack() as owned:
        if database is None:
            registry = owned.enter_context(state.changing("headrace serve"))
            controller_address.announce(directory, url)
            owned.callback(controller_address.withdraw, directory)
        else:
            holder = controller_address.in_holder("test@here (headrace serve)", url)
            held = lease.acquire(open_database(database), LEASE, holder, ttl_s=3600, clock=time.time)
            owned.callback(held.release)
            registry = Registry(State(held.database), time.time, "test@here")
        app = create_app(
            _Idle(), metrics_directory=directory, registry=OwnedRegistry(state, lambda: nullcontext(registry))
        )
        asyncio.run(_serve(app, listener, url))


async def _serve(app: Any, listener: socket.socket, url: str) -> None:
    import h2corn

    from headrace.app import serving

    config = h2corn.Config(
        bind=(f"fd://{listener.fileno()}",),
        access_log=False,
        lifespan="off",
        runtime_threads=1,
        timeout_graceful_shutdown=2.0,
    )
    print(url, flush=True)
    await serving.server(app, config).serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] or None, int(sys.argv[3]))
