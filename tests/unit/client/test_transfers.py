"""Files on their way over connections that break, to and from servers that answer as they please."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.client import transfers
from headrace.client.management import Management
from headrace.core import errors
from headrace.core.versions import StoredFile

CONTENT = random.Random(5).randbytes(300_000)
FILE = StoredFile("model/m", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", len(CONTENT))


class Store:
    """A server that keeps one file; ``breaks`` says at which of its requests the connection breaks, and after how many
    bytes."""

    def __init__(self, *, received: bytes = b"", breaks: dict[int, int] | None = None) -> None:
        self.received = bytearray(received)
        self.breaks = breaks or {}
        self.requests = 0
        self.sent = CONTENT

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        number, self.requests = self.requests, self.requests + 1
        return await (self._put if request.method == "PUT" else self._get)(request, self.breaks.get(number))

    async def _put(self, request: httpx.Request, breaks: int | None) -> httpx.Response:
        span, _, size = request.headers["content-range"].removeprefix("bytes ").partition("/")
        body = await request.aread()
        if span != "*":
            start = int(span.partition("-")[0])
            if start not in (0, len(self.received)):
                return self._problem(409, "wrong_offset")
            self.received[start:] = body if breaks is None else body[:breaks]
        if breaks is not None:
            raise httpx.ReadError("reset")
        done = len(self.received) == int(size)
        if done and bytes(self.received) != CONTENT:
            self.received.clear()
            return self._problem(422, "wrong_digest")
        return httpx.Response(202, json={"received": len(self.received), "complete": done})

    async def _get(self, request: httpx.Request, breaks: int | None) -> httpx.Response:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])

        async def body() -> AsyncIterator[bytes]:
            rest = self.sent[start:]
            yield rest if breaks is None else rest[:breaks]
            if breaks is not None:
                raise httpx.ReadError("reset")

        return httpx.Response(206 if start else 200, content=body())

    def _problem(self, status: int, code: str) -> httpx.Response:
        return httpx.Response(status, headers={"content-type": "application/problem+json"}, json={"code": code})


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "PIECE", 100_000)


def run(store: Store, call: Callable[[Management], Any]) -> None:
    async def nothing(_: float) -> None:
        return

    async def main() -> None:
        management = Management("http://x", transport=httpx.MockTransport(store), sleep=nothing)
        try:
            await call(management)
        finally:
            await management.close()

    asyncio.run(main())


def send(store: Store, folder: Path, content: bytes = CONTENT) -> int:
    """Send a file; the bytes that its bar was told of."""
    source = folder / "m"
    source.write_bytes(content)
    moved: list[int] = []
    run(store, lambda management: transfers.send(management, source, FILE, moved.append))
    assert all(count >= 0 for count in moved)
    return sum(moved)


@pytest.mark.parametrize(
    "breaks", [{}, {0: 0}, {1: 50_000}, {1: 0}, {1: 100_000}, {1: 5, 3: 5, 5: 5, 7: 5}, {3: 100_000}, {2: 7, 3: 0}]
)
def test_an_upload_goes_on_after_breaks(tmp_path: Path, breaks: dict[int, int]) -> None:
    store = Store(breaks=breaks)
    assert send(store, tmp_path) == len(CONTENT)
    assert bytes(store.received) == CONTENT


def test_an_upload_goes_on_where_another_process_stopped(tmp_path: Path) -> None:
    store = Store(received=CONTENT[:250_000])
    assert send(store, tmp_path) == len(CONTENT)
    assert store.requests == 2


def test_a_beginning_of_something_else_is_replaced(tmp_path: Path) -> None:
    store = Store(received=b"?" * 150_000)
    send(store, tmp_path)
    assert bytes(store.received) == CONTENT


@pytest.mark.parametrize("content", [b"!" * len(CONTENT), CONTENT[:50_000]])
def test_a_file_that_changed_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(errors.InvalidInput, match="changed while it was pushed"):
        send(Store(), tmp_path, content)


def test_a_line_that_keeps_breaking_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(errors.ReplicaDied):
        send(Store(breaks={number: 0 for number in range(1, 99)}), tmp_path)


@pytest.mark.parametrize("breaks", [{}, {0: 100}, {0: 0, 1: 5}, {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1}])
def test_a_download_goes_on_after_breaks(tmp_path: Path, breaks: dict[int, int]) -> None:
    moved: list[int] = []
    target = tmp_path / "m"
    run(Store(breaks=breaks), lambda management: transfers.receive(management, FILE, target, moved.append))
    assert target.read_bytes() == CONTENT
    assert sum(moved) == len(CONTENT)


@pytest.mark.parametrize("sent", [b"?" * len(CONTENT), CONTENT + b"more"])
def test_what_a_server_sends_is_compared(tmp_path: Path, sent: bytes) -> None:
    store = Store()
    store.sent = sent
    with pytest.raises(errors.Corrupted):
        run(store, lambda management: transfers.receive(management, FILE, tmp_path / "m", lambda _: None))


def test_a_server_that_sends_too_little(tmp_path: Path) -> None:
    store = Store()
    store.sent = CONTENT[:10]
    with pytest.raises(errors.ReplicaDied, match="sent 10 of 300000 bytes"):
        run(store, lambda management: transfers.receive(management, FILE, tmp_path / "m", lambda _: None))
