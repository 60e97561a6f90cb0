"""A driver of rollouts that moves only when it is told to: commands are decided as in a controller, nothing is served.

``python -m tests.rollout_driver DIRECTORY`` serves the management API over one, prints its URL, and takes moves as
lines of JSON (``["fraud", "step", 0, "why"]``) on stdin; each is answered by an empty line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from headrace.app.state.answer_memory import AnswerMemory
from headrace.control import rollout as rules
from headrace.control import rollout_state
from headrace.control.rollout import Command
from headrace.control.rollout_plan import RolloutPlan, RolloutRequest, planned
from headrace.control.rollout_state import Phase, RolloutState
from headrace.control.rollout_story import Rollout, StoryLine, spec_of
from headrace.core import errors
from headrace.core.answers import Answer, Answering

replace = msgspec.structs.replace


class FakeRollouts:
    """Implements RolloutCommands, in memory. ``asked`` are the starts; tests put rollouts and move them."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.kept: dict[str, Rollout] = {}
        self.asked: list[tuple[RolloutRequest, str]] = []
        self.measured_values: list[tuple[str, str, float]] = []
        self._clock = clock
        self._answers = AnswerMemory()

    async def earlier(self, key: str) -> Answer | None:
        return self._answers.of(key)

    def _answered(self, rollout: Rollout, answering: Answering[Rollout] | None) -> Rollout:
        if answering is not None:
            self._answers.keep(answering(rollout))
        return rollout

    async def start(self, wanted: RolloutRequest, *, who: str, answering: Answering[Rollout] | None = None) -> Rollout:
        version = wanted.to.rpartition("@")[2]
        plan = planned(wanted, RolloutPlan())
        spec = spec_of(wanted.endpoint, plan, f"{wanted.endpoint}@7", f"{wanted.endpoint}@{version}")
        if wanted.endpoint == "nobody":
            raise errors.UnknownModel("there is no endpoint 'nobody'")
        if any(not rollout.ended for rollout in await self.rollouts(wanted.endpoint, 1)):
            raise errors.Conflict(f"endpoint {wanted.endpoint!r}: a rollout is under way already")
        self.asked.append((wanted, who))
        now = self._clock()
        started = Rollout(
            f"r{len(self.kept)}",
            wanted.endpoint,
            wanted.deployment or "main",
            spec,
            rollout_state.start(now),
            plan.analysis,
            story=(StoryLine(now, Phase.STARTING, -1, 0.0, f"started by {who}"),),
            who=who,
            started_at=now,
        )
        self.put(started)
        return self._answered(started, answering)

    async def measured(
        self, endpoint: str, metric: str, value: float, *, answering: Answering[Rollout] | None = None
    ) -> Rollout:
        self.measured_values.append((endpoint, metric, value))
        return self._answered(await self.rollout(endpoint), answering)

    async def command(
        self, endpoint: str, said: Command, *, who: str, answering: Answering[Rollout] | None = None
    ) -> Rollout:
        found = await self.rollout(endpoint)
        decision = rules.command(found.spec, found.state, said, who, self._clock())
        if decision.refused:
            raise errors.Conflict(f"endpoint {endpoint!r}: {decision.refused}")
        return self._answered(self.moved(found, decision.state), answering)

    async def rollouts(self, endpoint: str | None, limit: int) -> list[Rollout]:
        newest = sorted(self.kept.values(), key=lambda rollout: rollout.started_at, reverse=True)
        return [rollout for rollout in newest if endpoint in (None, rollout.endpoint)][:limit]

    async def rollout(self, endpoint: str) -> Rollout:
        found = await self.rollouts(endpoint, 1)
        if not found:
            raise errors.UnknownModel(f"endpoint {endpoint!r} has had no rollout")
        return found[0]

    def put(self, rollout: Rollout) -> None:
        self.kept[rollout.id] = rollout

    def moved(self, rollout: Rollout, state: RolloutState) -> Rollout:
        """The rollout in this state, with a line in its story."""
        share = rollout_state.share(rollout.spec, state)
        line = StoryLine(state.since, state.phase, state.step, share, state.reason)
        found = replace(rollout, state=state, story=(*rollout.story, line))
        self.put(found)
        return found

    async def move(self, endpoint: str, phase: str, step: int, reason: str) -> None:
        found = await self.rollout(endpoint)
        was = found.state
        paused_in = was.phase if phase == Phase.PAUSED else None
        self.moved(found, RolloutState(Phase(phase), self._clock(), step, reason, paused_in))


class Driver:
    """A running server over a driver; ``url`` is that of its management port."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url = url
        self._process = process

    def move(self, endpoint: str, phase: str, step: int = -1, reason: str = "the test says so") -> None:
        """Returns when it has moved. ``step`` counts from 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([endpoint, phase, step, reason]) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "\n", "the server ended instead of moving"


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Driver]:
    """A server in a process of its own, while the block runs."""
    command = [sys.executable, "-m", "tests.rollout_driver", str(directory)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=Path(__file__).parents[1], **pipes) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, "the server ended before it served"
            yield Driver(process, url)
        finally:
            process.terminate()
            process.wait(30)


async def _serve(directory: Path) -> None:
    import h2corn

    from headrace.api.app import create_app
    from headrace.app import serving
    from tests.registry_server import _Idle

    driver = FakeRollouts()
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(_Idle(), metrics_directory=directory, rollouts=driver)
    config = h2corn.Config(
        bind=(f"fd://{listener.fileno()}",),
        access_log=False,
        lifespan="off",
        runtime_threads=1,
        timeout_graceful_shutdown=2.0,
    )
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    moving = asyncio.create_task(_follow(driver))
    await serving.server(app, config).serve()
    moving.cancel()


async def _follow(driver: FakeRollouts) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        move: list[Any] = msgspec.json.decode(line)
        await driver.move(*move)
        print(flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
