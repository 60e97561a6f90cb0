"""The synchronous client: same results, from any thread, also where a loop is already running."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from headrace.client import Client
from headrace.core import errors

ROWS = {"amount": [1.0], "country": ["US"]}


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "headrace-client"]


def test_predict(fake_server: Any) -> None:
    with Client("http://test", transport=fake_server().transport) as client:
        assert client.predict("m", ROWS)["amount"].tolist() == [2.0]
        assert client.infer("m", ROWS, "4").version == "4"
        assert client.metadata("m").name == "m"
        assert client.models() == ["m", "team/n"]
        assert client.ready("m")
        client.wait_ready()


def test_a_client_that_nobody_keeps_lives_for_its_call(fake_server: Any) -> None:
    assert Client("http://test", transport=fake_server().transport).models() == ["m", "team/n"]
    models = Client("http://test", transport=fake_server().transport).models
    gc.collect()
    assert models() == ["m", "team/n"]
    del models
    gc.collect()
    assert client_threads() == []


def test_it_works_inside_a_running_loop(fake_server: Any) -> None:
    """As in a notebook."""

    async def cell() -> Any:
        with Client("http://test", transport=fake_server().transport) as client:
            return client.predict("m", ROWS)

    assert asyncio.run(cell())["amount"].tolist() == [2.0]


def test_it_is_shared_between_threads(fake_server: Any) -> None:
    with Client("http://test", transport=fake_server().transport) as client, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda n: client.predict("m", {"amount": [n], "country": ["a"]})["amount"][0], range(40))
        assert list(answers) == [2.0 * n for n in range(40)]


def test_streams(fake_server: Any) -> None:
    with Client("http://test", transport=fake_server().transport) as client:
        assert [chunk["country"] for chunk in client.stream("m", ROWS)] == ["US"] * 3


def test_leaving_a_stream_closes_it(fake_server: Any) -> None:
    closed = threading.Event()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                yield b'data: {"a": 1}\n\n'

        async def aclose(self) -> None:
            closed.set()

    def rule(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(200, stream=Endless()) if "stream" in request.url.path else None

    with Client("http://test", transport=fake_server(rule).transport) as client:
        chunks = client.stream("m", ROWS)
        assert next(chunks) == {"a": 1}
        chunks.close()  # type: ignore[attr-defined]
        assert closed.is_set()


def test_errors_are_raised_in_the_calling_thread(fake_server: Any) -> None:
    with (
        Client("http://test", transport=fake_server().transport) as client,
        pytest.raises(errors.UnknownModel),
    ):
        client.predict("absent", ROWS)


def test_a_closed_client_says_so_and_its_thread_has_ended(fake_server: Any) -> None:
    before = len(client_threads())
    client = Client("http://test", transport=fake_server().transport)
    client.ready()
    assert len(client_threads()) == before + 1
    client.close()
    client.close()
    assert len(client_threads()) == before
    with pytest.raises(errors.BadSettings, match="this client is closed"):
        client.ready()


def test_a_forgotten_client_cleans_up(fake_server: Any) -> None:
    before = len(client_threads())
    client = Client("http://test", transport=fake_server().transport)
    client.ready()
    del client
    gc.collect()
    assert len(client_threads()) == before


def test_closing_ends_the_calls_of_other_threads() -> None:
    asked = threading.Event()

    async def never(request: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    client = Client("http://test", transport=httpx.MockTransport(never))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.predict, "m", ROWS)
        assert asked.wait(10)
        client.close()
        assert waiting.exception(10) is not None


def _ask(client: Client, answers: Any) -> None:
    try:
        client.ready()
    except errors.HeadraceError as error:
        answers.put(error.message)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # forking with threads is what is tested
def test_a_client_from_before_a_fork_is_refused_instead_of_hanging(fake_server: Any) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    with Client("http://test", transport=fake_server().transport) as client:
        client.ready()
        child = context.Process(target=_ask, args=(client, answers))
        child.start()
        child.join(20)
        assert child.exitcode == 0
        assert "made before a fork" in answers.get()


def test_repr_names_the_server() -> None:
    assert repr(Client("localhost:1")) == "Client('http://localhost:1')"
