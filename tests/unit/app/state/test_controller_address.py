"""Where a controller answers: believed when its process lives and its port answers."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from headrace.app.state import controller_address
from headrace.app.state.controller_address import FILE, Address
from headrace.core import errors


class _Healthy(BaseHTTPRequestHandler):
    body = b'{"live": true}'

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        return


class _Other(_Healthy):
    body = b"<html>another server took the port"


def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def healthy() -> Iterator[str]:
    yield from serving(_Healthy)


@pytest.fixture
def other() -> Iterator[str]:
    yield from serving(_Other)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write(folder: Path, url: str, pid: int) -> None:
    (folder / FILE).write_text(json.dumps({"url": url, "pid": pid}))


def test_what_is_announced_is_found_until_it_is_withdrawn(tmp_path: Path, healthy: str) -> None:
    assert controller_address.find(tmp_path) is None
    controller_address.announce(tmp_path, f"{healthy}/")
    assert controller_address.find(tmp_path) == Address(healthy, os.getpid())
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    controller_address.withdraw(tmp_path)
    assert controller_address.find(tmp_path) is None
    controller_address.withdraw(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_successor_is_not_withdrawn(tmp_path: Path, healthy: str) -> None:
    write(tmp_path, healthy, os.getppid())
    controller_address.withdraw(tmp_path)
    assert controller_address.find(tmp_path) == Address(healthy, os.getppid())


def test_who_is_gone_or_silent_or_another_is_not_believed(tmp_path: Path, healthy: str, other: str) -> None:
    write(tmp_path, healthy, dead_pid())
    assert controller_address.find(tmp_path) is None
    write(tmp_path, "http://127.0.0.1:1", os.getpid())
    assert controller_address.find(tmp_path) is None
    write(tmp_path, other, os.getpid())
    assert controller_address.find(tmp_path) is None


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(errors.StoreFailed, match=r"controller\.json cannot be read.*remove it"):
        controller_address.find(tmp_path)


def test_the_holder_of_a_lease_says_where_it_answers(healthy: str) -> None:
    holder = controller_address.in_holder("ada@host (headrace serve)", healthy)
    assert holder == f"ada@host (headrace serve) at {healthy}"
    assert controller_address.of_holder(holder) == healthy
    assert controller_address.of_holder("ada@host (headrace serve) at http://127.0.0.1:1") is None
    assert controller_address.of_holder("ada@host (headrace models gc)") is None
