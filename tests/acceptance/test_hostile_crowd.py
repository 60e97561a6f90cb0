"""Thousands of connections that do nothing, and many large bodies at once: the server keeps answering, its memory stays
bounded. Descriptors are raised as far as the machine allows; with fewer the crowd is smaller, and the test says so."""

from __future__ import annotations

import gzip
import resource
import socket
import statistics
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from tests import models
from tests.acceptance.clients.wire import Answer, Wire, ask
from tests.acceptance.conftest import no_bugs
from tests.serving import Served, eventually, served

pytestmark = pytest.mark.xdist_group("hostile")

CROWD = 10_000
MAX_BODY = 64 << 20
MAX_BODIES = 1 << 30
"""The defaults."""

SPARE = 500
"""Descriptors that the processes need for everything else."""
BODY = b'{"inputs":[{"name":"x","shape":[2],"datatype":"INT64","data":[1,2]}]}'
ECHO = "/v2/models/echo/infer"


@pytest.fixture(scope="module")
def descriptors() -> Iterator[int]:
    """As many as may be; the server inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield 1 << 20 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def server(descriptors: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(f"echo={models.build('echo')}", directory=tmp_path_factory.mktemp("crowd")) as running:
        yield running
        no_bugs(running.log())


def gateway_memory(server: Served) -> int:
    (gateway,) = server.children("app.gateway")
    return int(gateway.memory_info().rss)


def median_latency(port: int, requests: int = 50) -> float:
    """Seconds, each on a connection of its own."""
    taken = []
    for _ in range(requests):
        started = time.perf_counter()
        assert ask(port, ECHO, BODY).status == 200
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def test_ten_thousand_idle_connections(server: Served, descriptors: int) -> None:
    count = min(CROWD, descriptors - SPARE)
    if count < CROWD:
        warnings.warn(
            f"only {count} connections: the limit of open files is {descriptors}", ResourceWarning, stacklevel=1
        )
    before, quiet = gateway_memory(server), median_latency(server.port)
    crowd: list[socket.socket] = []
    try:
        for at in range(count):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            crowd.append(connection)
            if at % 3 == 1:
                connection.sendall(b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\n")
        (gateway,) = server.children("app.gateway")
        eventually(lambda: gateway.num_fds() > count)
        assert median_latency(server.port) < quiet + 0.02
        # None was hung up on to make room for others, and none costs much.
        for connection in crowd[::300]:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert (gateway_memory(server) - before) / count < 20_000
    finally:
        for connection in crowd:
            connection.close()
    eventually(lambda: gateway.num_fds() < SPARE)
    assert ask(server.port, ECHO, BODY).status == 200


def test_idle_connections_can_still_be_used(server: Served) -> None:
    wires = [Wire(server.port) for _ in range(300)]
    for wire in wires:
        wire.post(ECHO, BODY)
    for wire in reversed(wires):
        assert wire.must_answer().status == 200
        wire.socket.close()


def test_large_bodies_in_small_parcels(server: Served) -> None:
    """Forty requests of 60 MB, each 60 kB as gzip, which take seconds to decode: more than the gateway may hold and
    more than it can do in time. Each is refused, late or answered within its deadline; memory stays within the budget
    of all bodies; small requests are answered at once meanwhile."""
    values = b"[" + b"1," * (30 << 20) + b"1]"
    # One element more in the shape than there are: refused at the end, after all the work of decoding.
    body = b'{"inputs":[{"name":"x","shape":[%d],"datatype":"INT8","data":%b}]}' % ((30 << 20) + 2, values)
    packed = gzip.compress(body, 1)
    assert len(packed) < MAX_BODY / 100
    before = gateway_memory(server)
    answers: list[Answer] = []

    def attack() -> None:
        answers.append(ask(server.port, ECHO, packed, "Content-Encoding: gzip", "X-Request-Timeout-Ms: 4000"))

    threads = [threading.Thread(target=attack) for _ in range(40)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    peak, taken = before, []
    while any(thread.is_alive() for thread in threads):
        began = time.perf_counter()
        assert ask(server.port, ECHO, BODY).status == 200
        taken.append(time.perf_counter() - began)
        peak = max(peak, gateway_memory(server))
    assert time.monotonic() - started < 25
    assert len(answers) == 40
    assert {answer.status for answer in answers} <= {400, 503, 504}
    assert all(answer.error for answer in answers)
    assert peak - before < MAX_BODIES + (400 << 20)
    assert statistics.median(taken) < 0.1
    assert max(taken) < 8
    # What was given up is not decoded any more: a large body that comes now has its turn.
    small = b'{"inputs":[{"name":"x","shape":[200000],"datatype":"INT8","data":[%b1]}]}' % (b"1," * 199_999)
    assert ask(server.port, ECHO, small).status == 200
