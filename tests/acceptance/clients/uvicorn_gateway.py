"""One more gateway of a running server, with uvicorn in the place of h2corn: REST only, real workers.

``python uvicorn_gateway.py RUNTIME_DIR`` prints its address once it is ready, and ends when its stdin closes.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import msgspec
import uvicorn

from headrace.app import roles
from headrace.app.gateway import Gateway
from headrace.gateway.http import InferenceApp
from headrace.gateway.state import ServerState


class UvicornGateway(Gateway):
    """Composed like any gateway; only the server around the app is another."""

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(InferenceApp(self._services), log_level="warning", access_log=False, ws="none")
        server = uvicorn.Server(config)
        following = asyncio.create_task(self._follower.run())
        loop.call_later(0.01, self._tick)
        serving = asyncio.create_task(server.serve([listener]))
        while not (  # noqa: ASYNC110 - neither tells when it changes
            server.started and ServerState(self._services).ready()
        ):
            await asyncio.sleep(0.02)
        print("{}:{}".format(*listener.getsockname()), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await serving
        following.cancel()
        self._services.records.flush()
        self._follower.close()
        self._services.offload.close()


async def main(directory: str) -> None:
    role = msgspec.json.decode((Path(directory) / "gateway-0.json").read_bytes(), type=roles.GatewayRole)
    await UvicornGateway(msgspec.structs.replace(role, index=1, socket_fd=-1)).main()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
