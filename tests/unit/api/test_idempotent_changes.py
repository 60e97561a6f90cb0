"""``Idempotency-Key`` at what is served: restarts, drains, files. The answer is kept with the change or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.api.app import create_app
from headrace.app.state import answer_memory
from headrace.app.state.location import Location
from headrace.app.state.owned_state import OwnedState
from headrace.client.endpoints import AsyncEndpoints
from headrace.client.management import Management
from headrace.core import errors
from headrace.store.answers import Answers
from headrace.store.state import State
from tests.operated import ECHO, Operated

CONFIG = "endpoints: {m: {traffic: {a: 3, b: 1}, deployments: {a: {model: a.echo}, b: {model: b.echo}}}}\n"
KEY = {"Idempotency-Key": "b1946ac9"}


class Process:
    """A controller with its API, in process."""

    def __init__(self, folder: Path, state: OwnedState | None) -> None:
        self.operated = Operated(folder, state)
        self.state = state
        app = create_app(self.operated, metrics_directory=folder, commands=self.operated.operations)
        self.transport: httpx.AsyncBaseTransport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def __call__(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=self.transport, base_url="http://localhost:9000") as client:
            return await client.post(f"/api/v1{path}", json=body, headers={**KEY, **headers})

    async def apply(self, config: str = CONFIG, **headers: str) -> httpx.Response:
        path = str(self.operated.file(config))
        return await self("/apply", {"config": config, "path": path}, **headers)

    @property
    def generation(self) -> int:
        return self.operated.operations.wanted("m").generation

    def events(self) -> list[str]:
        """What the state tells, oldest first."""
        assert self.state is not None
        with State(self.state._database).reading() as transaction:
            return [event.what for event in transaction.events.latest(100)][::-1]


@contextmanager
def owned(folder: Path, url: str | None) -> Iterator[OwnedState | None]:
    """A state in SQLite, in PostgreSQL, or none."""
    if url is None:
        yield None
        return
    database = None if url.startswith("sqlite") else url
    state = OwnedState(Location(folder / "owned", database, str(folder / "artifacts")))
    try:
        yield state
    finally:
        state.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.echo").write_text(ECHO)
    return tmp_path


def run(folder: Path, url: str | None, test: Callable[[Process], Awaitable[None]]) -> None:
    async def main() -> None:
        with owned(folder, url) as state:
            process = Process(folder, state)
            await process.apply(**{"Idempotency-Key": "first"})
            await test(process)

    asyncio.run(main())


async def twice(process: Process) -> None:
    first = await process("/restart/m", {"deployment": "a"})
    again = await process("/restart/m", {"deployment": "a"})
    assert (first.status_code, first.headers["etag"], process.generation) == (200, '"2"', 2)
    assert (again.status_code, again.content, again.headers["etag"]) == (200, first.content, '"2"')
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = {"Idempotency-Key": "other"}
    drained = await process("/drain/m", {"deployment": "a", "take_over": True}, **other)
    assert drained.json()["weights"] == {"b": 1}
    assert (await process("/drain/m", {"deployment": "a", "take_over": True}, **other)).content == drained.content
    assert process.generation == 3


def test_the_same_request_happens_once(folder: Path, url: str) -> None:
    async def test(process: Process) -> None:
        await twice(process)
        assert process.events() == ["endpoint.apply", "deployment.restart", "traffic.set"]

    run(folder, url, test)


def test_without_a_state_the_process_remembers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, None, twice)
    monkeypatch.setattr(answer_memory, "MOST", 1)

    async def test(process: Process) -> None:
        await process("/restart/m", {"deployment": "a"})
        await process("/restart/m", {"deployment": "a"}, **{"Idempotency-Key": "another"})
        assert "idempotency-replayed" not in (await process("/restart/m", {"deployment": "a"})).headers

    run(folder, None, test)


def test_a_file_is_applied_once(folder: Path, url: str) -> None:
    """Sent again it would say that nothing changes."""

    async def test(process: Process) -> None:
        config = CONFIG.replace("b: 1", "b: 2")
        first = await process.apply(config)
        assert first.json()["changes"][0]["kind"] == "update"
        assert (await process.apply(config)).content == first.content
        assert (await process.apply(config, **{"Idempotency-Key": "new"})).json()["changes"][0]["kind"] == "none"

    run(folder, url, test)


def test_another_request_under_the_key_is_refused(folder: Path) -> None:
    async def test(process: Process) -> None:
        await process("/restart/m", {"deployment": "a"})
        for path, body, condition in (
            ("/restart/m", {"deployment": "b"}, {}),
            ("/drain/m", {"deployment": "a"}, {}),
            ("/restart/m", {"deployment": "a"}, {"If-Match": '"2"'}),
        ):
            refused = await process(path, body, **condition)
            assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
        whose = {"X-Headrace-User": "bob@x"}
        assert (await process("/restart/m", {"deployment": "b"}, **whose)).status_code == 200
        assert process.generation == 3, "keys belong to their callers"

    run(folder, None, test)


def test_two_at_once_happen_once(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, entered, go_on = OwnedState.change, threading.Event(), threading.Event()

    def slow(state: OwnedState, *arguments: Any) -> None:
        entered.set()
        assert go_on.wait(30)
        real(state, *arguments)

    async def test(process: Process) -> None:
        monkeypatch.setattr(OwnedState, "change", slow)
        first = asyncio.create_task(process("/restart/m", {"deployment": "a"}))
        await asyncio.to_thread(entered.wait, 30)
        second = await process("/restart/m", {"deployment": "a"})
        assert (second.status_code, second.json()["code"]) == (503, "state_in_use")
        assert second.headers["retry-after"] == "1"
        go_on.set()
        done = await first
        assert (await process("/restart/m", {"deployment": "a"})).content == done.content
        assert process.generation == 2

    run(folder, url, test)


def test_the_answer_is_kept_with_the_change_or_neither_is(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(process: Process) -> None:
        with monkeypatch.context() as broken:

            def fail(*_: Any) -> None:
                raise errors.StoreFailed("the disk is gone")

            broken.setattr(Answers, "keep", fail)
            failed = await process("/restart/m", {"deployment": "a"})
            assert failed.json()["code"] == "store_failed"
            assert process.generation == 1
            assert process.events() == ["endpoint.apply"]
        assert (await process("/restart/m", {"deployment": "a"})).json()["generation"] == 2

    run(folder, url, test)


def test_what_was_answered_outlives_the_process(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit is done, its outcome is lost, and the process dies: the next one answers as the first one would."""

    async def main() -> None:
        with owned(folder, url) as state:
            process = Process(folder, state)
            await process.apply(**{"Idempotency-Key": "first"})
            real = OwnedState.change

            def lossy(state: OwnedState, *arguments: Any) -> None:
                real(state, *arguments)
                raise errors.StoreFailed("the connection was lost")

            with monkeypatch.context() as broken:
                broken.setattr(OwnedState, "change", lossy)
                lost = await process("/restart/m", {"deployment": "a"})
            assert lost.json()["code"] == "store_failed"
        with owned(folder, url) as state:
            process = Process(folder, state)
            again = await process("/restart/m", {"deployment": "a"})
            assert (again.status_code, again.json()["generation"]) == (200, 2)
            assert again.headers["idempotency-replayed"] == "true"
            assert process.events() == ["endpoint.apply", "deployment.restart"]

    asyncio.run(main())


def test_a_change_whose_caller_is_gone_is_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may end the work of a request whose connection broke; its commit goes on in a thread."""

    async def test(process: Process) -> None:
        entered, go_on = threading.Event(), threading.Event()
        real = OwnedState.change

        def slow(state: OwnedState, *arguments: Any) -> None:
            entered.set()
            assert go_on.wait(30)
            real(state, *arguments)

        monkeypatch.setattr(OwnedState, "change", slow)
        asked = asyncio.create_task(process("/restart/m", {"deployment": "a"}))
        await asyncio.to_thread(entered.wait, 30)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        go_on.set()
        assert process.operated.manager.doubtful

    run(folder, "sqlite", test)


class Losing(httpx.AsyncBaseTransport):
    """The connection breaks after the server has answered, so many times."""

    def __init__(self, inner: httpx.AsyncBaseTransport, times: int) -> None:
        self._inner = inner
        self._times = times
        self.sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        self.sent += 1
        if self.sent <= self._times:
            raise httpx.ReadError("reset by peer")
        return response


def test_the_client_asks_again_when_an_answer_is_lost(folder: Path, url: str) -> None:
    async def no_time(_: float) -> None:
        return

    async def test(process: Process) -> None:
        losing = Losing(process.transport, 2)
        endpoints = AsyncEndpoints(Management("http://localhost:9000", transport=losing, sleep=no_time))
        restarted = await endpoints.restart("m", deployment="a", generation=1)
        assert (restarted.generation, losing.sent, process.generation) == (2, 3, 2)
        assert (await endpoints.restart("m", deployment="a")).generation == 3, "another call is another restart"

    run(folder, url, test)


def test_keys_are_described(folder: Path) -> None:
    app = create_app(Operated(folder), metrics_directory=folder, commands=Operated(folder).operations)
    paths = app.openapi()["paths"]
    for path in ("/api/v1/apply", "/api/v1/restart/{name}", "/api/v1/drain/{name}"):
        named = [parameter["name"] for parameter in paths[path]["post"]["parameters"]]
        assert "Idempotency-Key" in named
