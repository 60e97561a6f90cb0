"""The rollouts of a server: ``client.rollouts``. Start one, follow it, pause, resume, promote, abort."""

from __future__ import annotations

import builtins
import math
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from headrace.client.management import Management, in_path
from headrace.client.rollout_status import RolloutStatus
from headrace.client.running import Run
from headrace.core import errors

LOOK_EVERY_S = 1.0
_PATIENCE_S = 60.0
"""A server that is away for longer is called away: a rollout outlives the process that drives it."""
_STARTING_S = 1800.0
"""A server inspects a new version before it answers."""


class _Listed(msgspec.Struct):
    rollouts: list[RolloutStatus]


class AsyncRollouts:
    """Moves of endpoints to other versions, in judged steps. Commands that do nothing now raise Conflict, which says
    why."""

    def __init__(self, management: Management) -> None:
        self._management = management

    async def start(
        self,
        endpoint: str,
        to: str | int,
        *,
        deployment: str | None = None,
        canary: str = "",
        linear: str = "",
        blue_green: bool = False,
        shadow_first: bool | None = None,
        bake_s: float | None = None,
        final_bake_s: float | None = None,
        max_step_s: float | None = None,
        analysis: Mapping[str, Any] | None = None,
        take_over: bool = False,
    ) -> RolloutStatus:
        """Move an endpoint to another version; answers when it has begun. What is left out is as the ``rollout`` of the
        endpoint in ``headrace.yaml`` says, or has its default.

        to            ``"8"``, an alias, ``"fraud@8"``, or a path on the server's machine
        deployment    name under the endpoint; may be left out when there is only one
        canary        percents, ``"1,5,25,50"`` (the default); or ``linear``, ``"10/2m"``; or ``blue_green``
        shadow_first  mirrored requests before the first live one
        bake_s        of each step, at least; ``final_bake_s`` with all traffic
        max_step_s    a step that is still inconclusive then is paused
        analysis      how it is judged, by setting, in place of what the endpoint says
        take_over     decide the traffic of an endpoint that another decides now

        Raises BadSettings, UnknownModel, LoadFailed, and Conflict when a rollout is under way or another decides."""
        body = {
            "endpoint": endpoint,
            "to": str(to),
            "deployment": deployment,
            "canary": canary,
            "linear": linear,
            "blue_green": blue_green,
            "shadow_first": shadow_first,
            "bake_s": bake_s,
            "final_bake_s": final_bake_s,
            "max_step_s": max_step_s,
            "analysis": None if analysis is None else dict(analysis),
            "take_over": take_over,
        }
        response = await self._management.post("/rollouts", body, timeout_s=_STARTING_S)
        return _status(response.content)

    async def status(self, endpoint: str) -> RolloutStatus:
        """The one that is under way, else the latest. Raises UnknownModel when there was none."""
        return _status((await self._management.get(f"/rollouts/of/{in_path(endpoint)}")).content)

    async def list(self, endpoint: str | None = None, *, limit: int = 100) -> builtins.list[RolloutStatus]:
        """The latest, newest first; of all endpoints or of one."""
        response = await self._management.get("/rollouts", {"endpoint": endpoint, "limit": limit})
        return msgspec.json.decode(response.content, type=_Listed).rollouts

    async def pause(self, endpoint: str) -> RolloutStatus:
        """Nothing moves until somebody resumes; what is proven bad is still rolled back."""
        return await self._say("pause", endpoint)

    async def resume(self, endpoint: str) -> RolloutStatus:
        """Go on where it was paused."""
        return await self._say("resume", endpoint)

    async def promote(self, endpoint: str) -> RolloutStatus:
        """Take the next step now, whatever the checks say."""
        return await self._say("promote", endpoint)

    async def abort(self, endpoint: str) -> RolloutStatus:
        """Back to the old version, at once."""
        return await self._say("abort", endpoint)

    async def measure(self, endpoint: str, metric: str, value: float) -> RolloutStatus:
        """Post a metric that the rollout is judged by. Raises UnknownModel when it is not."""
        body = {"metric": metric, "value": value}
        response = await self._management.post(f"/rollouts/measure/{in_path(endpoint)}", body)
        return _status(response.content)

    async def _say(self, verb: str, endpoint: str) -> RolloutStatus:
        return _status((await self._management.post(f"/rollouts/{verb}/{in_path(endpoint)}")).content)

    async def follow(self, endpoint: str, *, id: str | None = None) -> AsyncGenerator[RolloutStatus, None]:
        """The rollout as it is, once a second, until it has ended. ``id``: this one, not a later one of the endpoint.

        A server that is away (it is started again) is waited for. Raises NotReady when it does not come back."""
        async with aclosing(self._follow(endpoint, id, _PATIENCE_S)) as looks:
            async for looked in looks:
                yield looked

    async def _follow(self, endpoint: str, id: str | None, patience_s: float) -> AsyncGenerator[RolloutStatus, None]:
        away_since: float | None = None
        while True:
            try:
                looked = await self._look(endpoint, id)
            except (errors.NotReady, errors.ReplicaDied, errors.StoreFailed) as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > patience_s:
                    raise errors.NotReady(f"the rollout of {endpoint!r} cannot be followed: {error.message}") from error
            else:
                away_since, id = None, looked.id
                yield looked
                if looked.ended:
                    return
            await self._management.sleep(LOOK_EVERY_S)

    async def _look(self, endpoint: str, id: str | None) -> RolloutStatus:
        looked = await self.status(endpoint)
        if id is None or looked.id == id:
            return looked
        for other in await self.list(endpoint):
            if other.id == id:
                return other
        raise errors.UnknownModel(f"endpoint {endpoint!r} has no rollout {id}")

    async def wait(
        self,
        endpoint: str,
        timeout: float | None = None,  # noqa: ASYNC109 - one that is over says where the rollout is
        *,
        id: str | None = None,
    ) -> RolloutStatus:
        """The rollout once it has ended or is paused for a person. ``timeout`` in seconds; None: however long it takes.

        Raises DeadlineExceeded, NotReady when the server went away and does not come back."""
        limit = math.inf if timeout is None else timeout
        ends = time.monotonic() + limit
        async with aclosing(self._follow(endpoint, id, min(limit, _PATIENCE_S))) as looks:
            async for looked in looks:
                if looked.ended or looked.paused:
                    return looked
                if time.monotonic() >= ends:
                    state = f"it is in phase {looked.phase} ({looked.reason})"
                    raise errors.DeadlineExceeded(f"the rollout of {endpoint!r} goes on after {limit:g} s: {state}")
        raise errors.Bug("a rollout was followed to its end, which did not come")


class Rollouts:
    """The same for the synchronous client; see ``AsyncRollouts``."""

    def __init__(self, rollouts: AsyncRollouts, run: Run) -> None:
        self._async = rollouts
        self._run = run

    def start(
        self,
        endpoint: str,
        to: str | int,
        *,
        deployment: str | None = None,
        canary: str = "",
        linear: str = "",
        blue_green: bool = False,
        shadow_first: bool | None = None,
        bake_s: float | None = None,
        final_bake_s: float | None = None,
        max_step_s: float | None = None,
        analysis: Mapping[str, Any] | None = None,
        take_over: bool = False,
    ) -> RolloutStatus:
        return self._run(
            self._async.start(
                endpoint,
                to,
                deployment=deployment,
                canary=canary,
                linear=linear,
                blue_green=blue_green,
                shadow_first=shadow_first,
                bake_s=bake_s,
                final_bake_s=final_bake_s,
                max_step_s=max_step_s,
                analysis=analysis,
                take_over=take_over,
            )
        )

    def status(self, endpoint: str) -> RolloutStatus:
        return self._run(self._async.status(endpoint))

    def list(self, endpoint: str | None = None, *, limit: int = 100) -> builtins.list[RolloutStatus]:
        return self._run(self._async.list(endpoint, limit=limit))

    def pause(self, endpoint: str) -> RolloutStatus:
        return self._run(self._async.pause(endpoint))

    def resume(self, endpoint: str) -> RolloutStatus:
        return self._run(self._async.resume(endpoint))

    def promote(self, endpoint: str) -> RolloutStatus:
        return self._run(self._async.promote(endpoint))

    def abort(self, endpoint: str) -> RolloutStatus:
        return self._run(self._async.abort(endpoint))

    def measure(self, endpoint: str, metric: str, value: float) -> RolloutStatus:
        return self._run(self._async.measure(endpoint, metric, value))

    def follow(self, endpoint: str, *, id: str | None = None) -> Iterator[RolloutStatus]:
        looks = self._async.follow(endpoint, id=id)

        async def following() -> RolloutStatus | None:
            return await anext(looks, None)

        try:
            while (looked := self._run(following())) is not None:
                yield looked
        except GeneratorExit:  # the caller has left the loop; what ends a look has closed it by itself
            self._run(looks.aclose())
            raise

    def wait(self, endpoint: str, timeout: float | None = None, *, id: str | None = None) -> RolloutStatus:
        return self._run(self._async.wait(endpoint, timeout, id=id))


def _status(content: bytes) -> RolloutStatus:
    return msgspec.json.decode(content, type=RolloutStatus)
