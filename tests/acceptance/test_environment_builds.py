"""Builds of environments as a real server has them: seen while they go on, survived when something kills them.

Small wheels and an index that waits until it is told to answer make a build last as long as a test wants.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.load import ask, output
from tests.acceptance.processes import child
from tests.serving import Served, eventually, served
from tests.wheels import StubbornIndex, offline, stubborn_index, wheel, worker_wheels

MODEL = """\
import headrace
import tiny


class Uses(headrace.Model):
    def predict(self, x: headrace.Float32) -> {"y": headrace.Strings}:
        return {"y": [tiny.VERSION for _ in x]}
"""


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    worker_wheels(folder)
    wheel(folder, "tiny", "1.0")
    return folder


@pytest.fixture
def index() -> Iterator[StubbornIndex]:
    with stubborn_index() as served_index:
        yield served_index


def write(folder: Path, requirements: str = "tiny==1.0\n") -> Path:
    """A version folder: a model and what it needs."""
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text(requirements)
    (folder / "model.py").write_text(MODEL)
    return folder


@contextlib.contextmanager
def building(tmp_path: Path, wheels: Path, index: StubbornIndex) -> Iterator[Served]:
    """A server whose model ``uses`` waits for its environment, beside one that needs none."""
    write(tmp_path / "repository" / "uses" / "1")
    echo = tmp_path / "echo.txt"
    echo.write_text("headrace-echo 1\n")
    with served(
        *(tmp_path / "repository", f"echo={echo}", "--trust", tmp_path / "repository", "--state", tmp_path / "state"),
        directory=tmp_path / "run",
        environment=index.variables(wheels, tmp_path / "cache"),
        wait=False,
    ) as server:
        server.wait_event("EnvironmentBuilding")
        assert index.asked.wait(60)
        yield server


def finish(server: Served, index: StubbornIndex, tmp_path: Path) -> None:
    """The index answers: the build must come to its end, and the model to its traffic."""
    index.answer.set()
    serving = server.wait_event("Serving")
    server.url, server.management_url = serving["url"], serving["management_url"]
    assert output(ask(server.address, "uses", [1.0]).document) == ["1.0"]
    complete, leftovers = [], []
    for path in (tmp_path / "state" / "environments").iterdir():
        if path.is_dir():
            (leftovers if path.name.startswith(".") else complete).append(path)
    assert (len(complete), leftovers) == (1, [])


def uv_of(server: Served) -> psutil.Process | None:
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if process.name() == "uv":
                return process
    return None


def test_who_asks_meanwhile_reads_that_it_is_being_built(tmp_path: Path, wheels: Path, index: StubbornIndex) -> None:
    write(tmp_path / "repository" / "uses" / "1")
    port, management_port = free_ports()
    with served(
        *(tmp_path / "repository", "--trust", tmp_path / "repository", "--state", tmp_path / "state"),
        *("--port", str(port), "--management-port", str(management_port)),
        directory=tmp_path / "run",
        environment=index.variables(wheels, tmp_path / "cache"),
        wait=False,
    ) as server:
        server.wait_event("EnvironmentBuilding")
        words = "building its environment (looking for its packages)"
        management, address = f"http://127.0.0.1:{management_port}", f"http://127.0.0.1:{port}"
        assert eventually(lambda: words in text_of(f"{management}/api/v1/endpoints"))
        assert words in text_of(f"{management}/readyz")
        assert eventually(lambda: words in text_of(f"{address}/v1/models/uses"))
        assert httpx.get(f"{address}/v2/models/uses/ready").status_code == 503
        finish(server, index, tmp_path)
        assert httpx.get(f"{address}/v2/models/uses/ready").status_code == 200


def text_of(url: str) -> str:
    """What stands there; empty while nobody listens yet."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url).text
    return ""


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def test_a_killed_installer_is_started_again(tmp_path: Path, wheels: Path, index: StubbornIndex) -> None:
    with building(tmp_path, wheels, index) as server:
        installer = uv_of(server)
        assert installer is not None
        installer.kill()
        finish(server, index, tmp_path)
        assert "the build was killed by SIGKILL (attempt 1 of 3)" in server.log()


def test_a_killed_controller_begins_the_build_again(tmp_path: Path, wheels: Path, index: StubbornIndex) -> None:
    with building(tmp_path, wheels, index) as server:
        installer, controller = uv_of(server), child(server.process.pid, "app.controller")
        assert installer is not None
        assert controller is not None
        controller.kill()
        server.wait_event("EnvironmentBuilding")
        assert eventually(lambda: not installer.is_running()), "it ended with its controller"
        finish(server, index, tmp_path)


def test_a_server_that_stops_ends_its_build(tmp_path: Path, wheels: Path, index: StubbornIndex) -> None:
    with building(tmp_path, wheels, index) as server:
        installer = uv_of(server)
        assert installer is not None
        assert server.stop() == 0
        assert eventually(lambda: not installer.is_running())
        left = [path.name for path in (tmp_path / "state" / "environments").iterdir() if path.is_dir()]
        assert left == []


def test_a_new_version_that_cannot_be_built_leaves_the_old_one_serving(tmp_path: Path, wheels: Path) -> None:
    """--watch: and one that can be built takes over."""
    repository = tmp_path / "repository"
    (repository / "uses" / "1").mkdir(parents=True)
    (repository / "uses" / "1" / "model.py").write_text(
        MODEL.replace("import tiny\n", "").replace("tiny.VERSION", '"no"')
    )
    with served(
        *(repository, "--watch", "--trust", repository, "--state", tmp_path / "state"),
        directory=tmp_path / "run",
        environment=offline(wheels, tmp_path / "cache"),
    ) as server:
        write(tmp_path / "bad" / "2", "absent==1.0\n").rename(repository / "uses" / "2")
        failed = server.wait_event("ModelFailed")
        assert failed["version"] == "2"
        assert "absent was not found in" in failed["reason"]
        assert output(ask(server.address, "uses", [1.0]).document) == ["no"]
        write(tmp_path / "good" / "3").rename(repository / "uses" / "3")
        server.wait_event("VersionLoaded")
        assert output(ask(server.address, "uses", [1.0]).document) == ["1.0"]


def test_indexes_that_only_pip_knows_are_used(tmp_path: Path, wheels: Path) -> None:
    """uv does not read pip's configuration."""
    own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "XDG_CONFIG_HOME": str(tmp_path)}
    write(tmp_path / "uses")
    with served(
        *(tmp_path / "uses", "--trust", tmp_path / "uses", "--state", tmp_path / "state"),
        directory=tmp_path / "run",
        environment=own | {"UV_CACHE_DIR": str(tmp_path / "cache")},
    ) as server:
        assert output(ask(server.address, "uses", [1.0]).document) == ["1.0"]
