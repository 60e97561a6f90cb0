"""The endpoints of a server: ``client.endpoints``. Each method is one command: plan, apply, traffic, scale, pause …"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from headrace.client.management import Management, in_path
from headrace.client.running import Run
from headrace.core import errors, names

_INSPECTING_S = 1800.0
"""A server inspects every model of a file before it answers."""


class EndpointState(msgspec.Struct, frozen=True):
    """An endpoint as it shall be. ``versions``: by deployment; ``settled`` is False while a new version loads and the
    old one serves; ``paused`` says why requests are refused, if they are."""

    endpoint: str
    generation: int
    document: dict[str, Any]
    owner: str
    weights: dict[str, float]
    versions: dict[str, str]
    paused: str
    settled: bool
    changed_by: str
    changed_at: float


class FieldChange(msgspec.Struct, frozen=True):
    """A value of a document; None: it is not there."""

    path: str
    before: Any
    after: Any


class Change(msgspec.Struct, frozen=True):
    """What happens to an endpoint: ``create``, ``update``, ``delete`` or ``none``."""

    endpoint: str
    kind: str
    generation: int
    owner: str
    taken_from: str | None
    fields: tuple[FieldChange, ...]


class _Changes(msgspec.Struct):
    changes: list[Change]


class _Listed(msgspec.Struct):
    endpoints: list[dict[str, Any]]


class AsyncEndpoints:
    """What is served, and how. ``generation`` makes a change happen only to what the caller has seen: an endpoint that
    was changed meanwhile raises PreconditionFailed."""

    def __init__(self, management: Management) -> None:
        self._management = management

    async def list(self) -> builtins.list[dict[str, Any]]:
        """Every endpoint with its deployments, replicas and load, as the API shows them."""
        response = await self._management.get("/endpoints")
        return msgspec.json.decode(response.content, type=_Listed).endpoints

    async def show(self, endpoint: str) -> EndpointState:
        """Raises UnknownModel."""
        response = await self._management.get(f"/wanted/{in_path(endpoint)}")
        return msgspec.json.decode(response.content, type=EndpointState)

    async def plan(self, config: str | Path) -> builtins.list[Change]:
        """What applying a file would change. Raises BadSettings that names its line."""
        return await self._send("/plan", config, {})

    async def apply(self, config: str | Path, *, take_over: bool = False) -> builtins.list[Change]:
        """Make what runs what a file says: all of it, or nothing. Raises Conflict when somebody else decides the
        traffic of an endpoint, BadSettings, LoadFailed."""
        return await self._send("/apply", config, {"take_over": take_over})

    async def _send(self, path: str, config: str | Path, more: Mapping[str, Any]) -> builtins.list[Change]:
        body = {**_file(config), **more}
        response = await self._management.post(path, body, timeout_s=_INSPECTING_S)
        return msgspec.json.decode(response.content, type=_Changes).changes

    async def deploy(
        self,
        model: str,
        *,
        endpoint: str | None = None,
        deployment: str | None = None,
        replicas: int | None = None,
        lazy: bool | None = None,
        take_over: bool = False,
        generation: int | None = None,
    ) -> Change:
        """Put a version of the registry, ``"fraud@7"`` or ``"fraud@champion"``, under an endpoint without a file.

        endpoint    None: the name of the model; it is made when it is not there
        deployment  None: its only one; a new name stands beside the others and gets no requests yet
        replicas, lazy   None: as it is, or the default of what is new
        take_over   decide the traffic of an endpoint that another decides now

        Where something else serves, the version takes over when it is ready. Raises BadSettings, UnknownModel,
        LoadFailed, and Conflict when another decides the traffic."""
        name = names.split_reference(model)[0] if endpoint is None else endpoint
        body = {
            "model": model,
            "deployment": deployment,
            "replicas": replicas,
            "lazy": lazy,
            "take_over": take_over,
        }
        response = await self._management.call(
            "PUT",
            f"/deploy/{in_path(name)}",
            body=body,
            headers=_match(generation),
            timeout_s=_INSPECTING_S,
            repeatable=True,
        )
        return msgspec.json.decode(response.content, type=Change)

    async def export(self) -> str:
        """What runs, as the text of a ``headrace.yaml``."""
        return (await self._management.get("/config")).text

    async def set_traffic(
        self, endpoint: str, weights: Mapping[str, float], *, take_over: bool = False, generation: int | None = None
    ) -> EndpointState:
        """Spread the requests by these weights; a deployment that is not named gets none."""
        body = {"weights": dict(weights), "take_over": take_over}
        return await self._change("PUT", "traffic", endpoint, body, generation)

    async def scale(
        self, endpoint: str, replicas: int, *, deployment: str | None = None, generation: int | None = None
    ) -> EndpointState:
        """As many replicas; 0 stops a deployment."""
        body = {"replicas": replicas, "deployment": deployment}
        return await self._change("PUT", "scale", endpoint, body, generation)

    async def restart(
        self, endpoint: str, *, deployment: str | None = None, generation: int | None = None
    ) -> EndpointState:
        """Fresh replicas, one by one, without a gap."""
        return await self._change("POST", "restart", endpoint, {"deployment": deployment}, generation)

    async def drain(
        self, endpoint: str, deployment: str, *, take_over: bool = False, generation: int | None = None
    ) -> EndpointState:
        """Give the traffic of a deployment to the others."""
        body = {"deployment": deployment, "take_over": take_over}
        return await self._change("POST", "drain", endpoint, body, generation)

    async def pause(self, endpoint: str, why: str = "", *, generation: int | None = None) -> EndpointState:
        """Refuse new requests, with this reason, until ``resume``."""
        return await self._change("PUT", "pause", endpoint, {"why": why}, generation)

    async def resume(self, endpoint: str, *, generation: int | None = None) -> EndpointState:
        return await self._change("DELETE", "pause", endpoint, None, generation)

    async def delete(self, endpoint: str, *, take_over: bool = False, generation: int | None = None) -> None:
        """Serve it no longer; what it computes is finished."""
        await self._management.call(
            "DELETE",
            f"/endpoints/{in_path(endpoint)}",
            query={"take_over": "true" if take_over else None},
            headers=_match(generation),
        )

    async def _change(self, method: str, verb: str, endpoint: str, body: Any, generation: int | None) -> EndpointState:
        path, headers = f"/{verb}/{in_path(endpoint)}", _match(generation)
        if method == "POST":
            response = await self._management.post(path, body, headers=headers)
        else:  # twice the same is the same
            response = await self._management.call(method, path, body=body, headers=headers, repeatable=True)
        return msgspec.json.decode(response.content, type=EndpointState)


class Endpoints:
    """The same for the synchronous client; see ``AsyncEndpoints``."""

    def __init__(self, endpoints: AsyncEndpoints, run: Run) -> None:
        self._async = endpoints
        self._run = run

    def list(self) -> builtins.list[dict[str, Any]]:
        return self._run(self._async.list())

    def show(self, endpoint: str) -> EndpointState:
        return self._run(self._async.show(endpoint))

    def plan(self, config: str | Path) -> builtins.list[Change]:
        return self._run(self._async.plan(config))

    def apply(self, config: str | Path, *, take_over: bool = False) -> builtins.list[Change]:
        return self._run(self._async.apply(config, take_over=take_over))

    def deploy(
        self,
        model: str,
        *,
        endpoint: str | None = None,
        deployment: str | None = None,
        replicas: int | None = None,
        lazy: bool | None = None,
        take_over: bool = False,
        generation: int | None = None,
    ) -> Change:
        return self._run(
            self._async.deploy(
                model,
                endpoint=endpoint,
                deployment=deployment,
                replicas=replicas,
                lazy=lazy,
                take_over=take_over,
                generation=generation,
            )
        )

    def export(self) -> str:
        return self._run(self._async.export())

    def set_traffic(
        self, endpoint: str, weights: Mapping[str, float], *, take_over: bool = False, generation: int | None = None
    ) -> EndpointState:
        return self._run(self._async.set_traffic(endpoint, weights, take_over=take_over, generation=generation))

    def scale(
        self, endpoint: str, replicas: int, *, deployment: str | None = None, generation: int | None = None
    ) -> EndpointState:
        return self._run(self._async.scale(endpoint, replicas, deployment=deployment, generation=generation))

    def restart(self, endpoint: str, *, deployment: str | None = None, generation: int | None = None) -> EndpointState:
        return self._run(self._async.restart(endpoint, deployment=deployment, generation=generation))

    def drain(
        self, endpoint: str, deployment: str, *, take_over: bool = False, generation: int | None = None
    ) -> EndpointState:
        return self._run(self._async.drain(endpoint, deployment, take_over=take_over, generation=generation))

    def pause(self, endpoint: str, why: str = "", *, generation: int | None = None) -> EndpointState:
        return self._run(self._async.pause(endpoint, why, generation=generation))

    def resume(self, endpoint: str, *, generation: int | None = None) -> EndpointState:
        return self._run(self._async.resume(endpoint, generation=generation))

    def delete(self, endpoint: str, *, take_over: bool = False, generation: int | None = None) -> None:
        self._run(self._async.delete(endpoint, take_over=take_over, generation=generation))


def _file(config: str | Path) -> dict[str, str]:
    file = Path(config).absolute()
    try:
        return {"config": file.read_text(encoding="utf-8"), "path": str(file)}
    except (OSError, UnicodeDecodeError) as error:
        raise errors.BadSettings(f"{config}: cannot be read: {error}") from error


def _match(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"if-match": f'"{generation}"'}
