"""The registry behind a real server: clients that die in the middle, servers that do, and two who write at once."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import headrace
from headrace.core import errors
from tests import models, postgres, registry_server
from tests.acceptance import saboteurs
from tests.serving import eventually

CONTENT = b"headrace-echo 1\n" + random.Random(3).randbytes(30_000_000)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"

HALFWAY = """
import os, signal, sys
from headrace.client import transfers
send, sent = transfers._send_piece, 0
async def dies(*arguments):
    global sent
    if sent == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    sent += 1
    return await send(*arguments)
transfers._send_piece = dies
from headrace.cli.main import main
main()
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.echo"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[registry_server.RegistryServer]:
    with registry_server.owning(tmp_path / "state") as server:
        yield server


def command(*arguments: str | Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    program = ["-m", "headrace.cli.main"] if code is None else ["-c", code]
    given = [sys.executable, *program, "models", *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, timeout=120)


def received(url: str) -> int:
    headers = {"content-range": f"bytes */{len(CONTENT)}"}
    answer = httpx.put(f"{url}/api/v1/artifacts/{DIGEST}", headers=headers)
    return int(answer.json()["received"])


def test_a_push_that_is_killed_halfway_is_continued(
    server: registry_server.RegistryServer, large: Path, tmp_path: Path
) -> None:
    state = ("--state", tmp_path / "state")
    killed = command("push", "m", large, *state, code=HALFWAY)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert httpx.get(f"{server.url}/api/v1/models").json()["models"] == []
    there = received(server.url)
    assert 0 < there < len(CONTENT)
    moved: list[int] = []
    with headrace.Client(management_url=server.url) as client:
        [pushed] = client.models.push(large, "m", progress=lambda what, count, total: moved.append(count))
    assert moved[0] == there, "what had arrived was not sent again"
    assert sum(moved) == len(CONTENT)
    assert pushed.version.ref == "m@1"
    assert command("verify", *state).returncode == 0


def test_a_server_that_dies_halfway_goes_on_where_it_was(large: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with registry_server.owning(state) as first:
        killed = command("push", "m", large, "--state", state, code=HALFWAY)
        assert killed.returncode == -signal.SIGKILL
        there = received(first.url)
        first.process.kill()
        first.process.wait()
    with registry_server.owning(state) as second:
        assert received(second.url) == there
        assert command("push", "m", large, "--state", state).returncode == 0
        assert received(second.url) == len(CONTENT)


def test_what_arrived_before_the_line_was_cut_is_kept(server: registry_server.RegistryServer) -> None:
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        head = (
            f"PUT /api/v1/artifacts/{DIGEST} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n"
            f"Content-Range: bytes 0-19999999/{len(CONTENT)}\r\n\r\n"
        )
        connection.sendall(head.encode() + CONTENT[:9_000_000])
        eventually(lambda: received(server.url) > 4_000_000)
    there = eventually(lambda: _free(server.url))
    assert 4_000_000 < there <= 9_000_000
    rest = CONTENT[there:]
    span = f"bytes {there}-{len(CONTENT) - 1}/{len(CONTENT)}"
    done = httpx.put(f"{server.url}/api/v1/artifacts/{DIGEST}", content=rest, headers={"content-range": span})
    assert done.status_code == 201, done.text
    assert httpx.get(f"{server.url}/api/v1/artifacts/{DIGEST}").content == CONTENT


def _free(url: str) -> int:
    """What has arrived, once nobody writes any more: an empty piece at a wrong place is refused for its place then."""
    span = f"bytes {len(CONTENT) - 1}-{len(CONTENT) - 1}/{len(CONTENT)}"
    answer = httpx.put(f"{url}/api/v1/artifacts/{DIGEST}", content=b"x", headers={"content-range": span})
    return received(url) if answer.json()["code"] == "wrong_offset" else 0


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """None: SQLite in the state directory."""
    if request.param == "sqlite":
        yield None
        return
    with postgres.shared_server(tmp_path / "postgres") as running, running.database("registry") as url:
        yield url


MOVES = """
import httpx, sys
url, tag, version = sys.argv[1:]
sys.stdin.readline()
headers = {"if-match": tag}
print(httpx.put(f"{url}/api/v1/models/m/aliases/a", json={"version": version}, headers=headers).status_code)
"""


def test_two_processes_move_an_alias_and_one_is_told(database: str | None, tmp_path: Path) -> None:
    path = tmp_path / "m.echo"
    path.write_bytes(b"headrace-echo 1\n")
    with registry_server.owning(tmp_path / "state", database) as server:
        with headrace.Client(management_url=server.url) as client:
            for _ in range(3):
                client.models.push(path, "m")
            client.models.alias("m", "a", 1)
        for _ in range(5):
            seen = httpx.get(f"{server.url}/api/v1/models/m/aliases/a")
            elsewhere = {1, 2, 3} - {seen.json()["version"]}
            writers = [_writer(server.url, seen.headers["etag"], version) for version in elsewhere]
            for writer in writers:
                assert writer.stdin is not None
                writer.stdin.write("go\n")
                writer.stdin.flush()
            assert sorted(writer.communicate()[0].strip() for writer in writers) == ["200", "412"]


def _writer(url: str, tag: str, version: int) -> subprocess.Popen[str]:
    given = [sys.executable, "-c", MOVES, url, tag, str(version)]
    return subprocess.Popen(given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_code_of_a_hostile_file_ends_in_a_process_of_its_own(
    server: registry_server.RegistryServer, tmp_path: Path
) -> None:
    """The server inspects what it was sent, says what it found, and lives."""
    with headrace.Client(management_url=server.url) as client:
        [pushed] = client.models.push(saboteurs.write(tmp_path, saboteurs.DOUBLE), "calc")
        assert not pushed.runnable
        assert pushed.version.draft.artifact.code_bearing
        damaged = tmp_path / "broken.onnx"
        damaged.write_bytes(models.build("onnx", tmp_path).read_bytes()[:-100])
        with pytest.raises((errors.InvalidInput, errors.Unsupported)):
            client.models.push(damaged, "broken")
        assert [line.name for line in client.models.list()] == ["calc"]


def test_many_clients_push_at_once(server: registry_server.RegistryServer, tmp_path: Path) -> None:
    path = tmp_path / "m.echo"
    path.write_bytes(CONTENT[:5_000_000])

    async def main() -> list[Any]:
        async with headrace.AsyncClient(management_url=server.url, retries=10) as client:
            return await asyncio.gather(*(client.models.push(path, "m") for _ in range(4)))

    assert sorted(pushed.version.number for [pushed] in asyncio.run(main())) == [1, 2, 3, 4]
