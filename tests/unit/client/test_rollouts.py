"""``client.rollouts`` against a real server over a driver that moves when the test says so."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import headrace
from headrace.client.management import Management
from headrace.client.rollout_status import RolloutStatus
from headrace.client.rollouts import AsyncRollouts, Rollouts
from headrace.core import errors
from tests import rollout_driver
from tests.rollout_driver import Driver


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    with rollout_driver.running(tmp_path) as found:
        yield found


@pytest.fixture
def client(driver: Driver) -> Iterator[headrace.Client]:
    with headrace.Client(management_url=driver.url) as client:
        yield client


def test_a_rollout_from_start_to_end(client: headrace.Client, driver: Driver) -> None:
    rollouts = client.rollouts
    analysis = {"latency": {"margin": 1.1}}
    started = rollouts.start("org/fraud", 8, canary="5,50", shadow_first=True, bake_s=60, analysis=analysis)
    assert (started.old, started.new, started.phase, started.ended) == (
        "org/fraud@7",
        "org/fraud@8",
        "starting",
        False,
    )
    assert [(step.traffic, step.shadow) for step in started.steps] == [(0.0, 0.1), (0.05, 0.0), (0.5, 0.0)]
    assert started.analysis["latency"]["margin"] == 1.1
    assert started.next.what == "golden requests"
    assert rollouts.status("org/fraud") == started
    with pytest.raises(errors.Conflict, match="under way already"):
        rollouts.start("org/fraud", "9")
    driver.move("org/fraud", "step", 1)
    assert rollouts.pause("org/fraud").paused
    with pytest.raises(errors.Conflict, match="paused already"):
        rollouts.pause("org/fraud")
    assert rollouts.resume("org/fraud").share == 0.05
    assert rollouts.promote("org/fraud").step == 3
    aborted = rollouts.abort("org/fraud")
    assert (aborted.phase, aborted.ended, aborted.share) == ("aborted", True, 0.0)
    assert [line.phase for line in aborted.story] == ["starting", "step", "paused", "step", "step", "aborted"]
    again = rollouts.start("org/fraud", "9", blue_green=True)
    assert [found.id for found in rollouts.list("org/fraud")] == [again.id, started.id]
    assert [found.id for found in rollouts.list(limit=1)] == [again.id]
    assert rollouts.list("nobody") == []
    with pytest.raises(errors.UnknownModel):
        rollouts.status("nobody")


@pytest.mark.parametrize("phase", ["done", "rolled_back", "paused"])
def test_waiting_ends_with_the_rollout_and_when_a_person_is_asked(
    client: headrace.Client, driver: Driver, phase: str
) -> None:
    started = client.rollouts.start("fraud", "8")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.rollouts.wait, "fraud", 30.0, id=started.id)
        driver.move("fraud", "step", 0)
        driver.move("fraud", phase, 0, "so it is")
        found = waiting.result(30)
    assert (found.phase, found.reason, found.paused) == (phase, "so it is", phase == "paused")


def test_waiting_has_its_time(client: headrace.Client) -> None:
    client.rollouts.start("fraud", "8")
    with pytest.raises(errors.DeadlineExceeded, match=r"'fraud' goes on after 0 s: it is in phase starting"):
        client.rollouts.wait("fraud", 0.0)


def test_what_was_waited_for_is_found_when_a_later_one_began(client: headrace.Client) -> None:
    first = client.rollouts.start("fraud", "8")
    client.rollouts.abort("fraud")
    second = client.rollouts.start("fraud", "9")
    assert client.rollouts.wait("fraud", 30.0, id=first.id).phase == "aborted"
    client.rollouts.abort("fraud")
    assert client.rollouts.wait("fraud", 30.0).id == second.id
    with pytest.raises(errors.UnknownModel, match="no rollout nothing"):
        client.rollouts.wait("fraud", 30.0, id="nothing")


def test_following_shows_every_look_until_the_end(client: headrace.Client, driver: Driver) -> None:
    client.rollouts.start("fraud", "8")
    looks = client.rollouts.follow("fraud")
    assert next(looks).phase == "starting"
    driver.move("fraud", "paused", -1)
    assert next(looks).phase == "paused"
    driver.move("fraud", "done", 4)
    assert [look.phase for look in looks] == ["done"]
    left = client.rollouts.follow("fraud")
    assert next(left).ended
    left.close()


class Server:
    """Answers like a server, or is away. ``looks``: a phase, or a status of a refusal."""

    def __init__(self, *looks: str | int, document: RolloutStatus) -> None:
        import msgspec

        self.looks = list(looks)
        self.waits: list[float] = []
        self._document: Any = msgspec.to_builtins(document)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, int):
            return httpx.Response(look)
        return httpx.Response(200, json={**self._document, "phase": look, "ended": look == "done"})

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def rollouts(self) -> AsyncRollouts:
        transport = httpx.MockTransport(self.answer)
        return AsyncRollouts(Management("http://here", transport=transport, sleep=self.sleep, retries=0))


def test_a_server_that_is_started_again_is_waited_for(client: headrace.Client) -> None:
    server = Server("step", 502, 502, "step", "done", document=client.rollouts.start("fraud", "8"))
    found = asyncio.run(server.rollouts().wait("fraud", 30.0))
    assert found.phase == "done"
    assert server.waits == [1.0] * 4


def test_a_server_that_stays_away_is_called_away(client: headrace.Client) -> None:
    server = Server("step", 502, document=client.rollouts.start("fraud", "8"))
    with pytest.raises(errors.NotReady, match="the rollout of 'fraud' cannot be followed"):
        asyncio.run(server.rollouts().wait("fraud", 0.01))


def test_a_command_whose_answer_is_lost_is_sent_again_and_happens_once(driver: Driver) -> None:
    """Two promotions would be two steps, and a second start a conflict."""

    class Losing(httpx.AsyncHTTPTransport):
        """The first answer to each request is lost."""

        def __init__(self) -> None:
            super().__init__()
            self.seen: set[str] = set()

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            if (key := request.headers["idempotency-key"]) not in self.seen:
                self.seen.add(key)
                raise httpx.ReadError("gone")
            return response

    async def calls() -> list[RolloutStatus]:
        async def no_time(_: float) -> None:
            return

        management = Management(driver.url, transport=Losing(), sleep=no_time)
        rollouts = AsyncRollouts(management)
        found = [await rollouts.start("org/fraud", "8", canary="5,50")]
        driver.move("org/fraud", "step", 0)
        found.append(await rollouts.promote("org/fraud"))
        await management.close()
        return found

    started, promoted = asyncio.run(calls())
    assert (started.phase, started.step) == ("starting", 0)
    assert [(line.phase, line.step) for line in promoted.story] == [("starting", 0), ("step", 1), ("step", 2)]


def test_an_interrupt_ends_following(client: headrace.Client, driver: Driver) -> None:
    """Ctrl-C in the middle of a wait; the client still works."""
    client.rollouts.start("fraud", "8")
    # A shell that runs the tests in the background has its children ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def interrupted(_: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    management = Management(driver.url, sleep=interrupted)
    looks = Rollouts(AsyncRollouts(management), client._loop.run).follow("fraud")
    assert next(looks).phase == "starting"
    try:
        with pytest.raises(KeyboardInterrupt):
            next(looks)
    finally:
        signal.signal(signal.SIGINT, before)
    client._loop.run(management.close())
    assert client.rollouts.abort("fraud").ended
