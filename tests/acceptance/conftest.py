"""Servers that several acceptance modules share. A server lives as long as its session; modules that use the same one
carry the same ``xdist_group``, so that a parallel run starts it once."""

from __future__ import annotations

import functools
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

# `tests` is a namespace package of the repository; pytest's importlib mode does not put the root on the path.
_ROOT = str(Path(__file__).parents[2])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from headrace.runtimes import table, trust  # noqa: E402
from headrace.runtimes.inspect import inspect  # noqa: E402
from headrace.runtimes.runtime import LoadOptions, Runtime  # noqa: E402
from tests import models, postgres  # noqa: E402
from tests.acceptance.clients.callers import Callers  # noqa: E402
from tests.serving import Served, served  # noqa: E402

TALKER = '''\
from pathlib import Path

import headrace


class Talker(headrace.Model):
    """Streams the words of a prompt, ``times`` times over; the word "boom" raises. Leaves ``mark`` when it ends."""

    def predict(self, prompt: headrace.Strings, times: int = 1, mark: str = "") -> {"text": headrace.Strings}:
        try:
            for _ in range(times):
                for word in prompt[0].split():
                    if word == "boom":
                        raise ValueError("boom was asked for")
                    yield word
        finally:
            if mark:
                Path(mark).touch()
'''

MAX_BODY = 4 << 20
"""Body limit of ``clients_server``."""

SLOW_S = 0.4
"""Time that the model ``slow`` takes for a batch."""


class Rest(NamedTuple):
    """A REST port under test: headrace's own, or the same app under uvicorn."""

    name: str
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"


def no_bugs(log: str) -> None:
    """Whatever clients did, no request ended in an internal error or in a traceback of ours."""
    bad = [line for line in log.splitlines() if '"bug"' in line or "Traceback" in line or "Exception in ASGI" in line]
    assert not bad, log


@pytest.fixture(scope="session")
def clients_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Models that real clients talk to: echo, slow and late (echoes), cancer, org/cancer, mixed (named columns) and
    talker (a stream)."""
    directory = tmp_path_factory.mktemp("clients")
    talker = directory / "talker.py"
    talker.write_text(TALKER)
    slow = directory / "slow.txt"
    slow.write_text(f"headrace-echo 1\ndelay_ms={SLOW_S * 1000:g}\nfail_on=13\n")
    cancer = models.build("onnx")
    with served(
        f"echo={models.build('echo')}",
        f"slow={slow}",
        f"late={slow}",  # asked only once, so that its latency is not known: nothing is refused as predicted late
        f"cancer={cancer}",
        f"org/cancer={cancer}",
        f"mixed={models.build('sklearn-skops')}",
        f"{talker}:Talker",
        "--max-body",
        "4MiB",
        directory=directory,
        environment={"HEADRACE_RUNTIME_DIR": str(directory / "run")},
    ) as server:
        yield server
        no_bugs(server.log())


@pytest.fixture(scope="session")
def under_uvicorn(clients_server: Served) -> Iterator[str]:
    """``host:port`` of a second gateway of ``clients_server``, which runs the ASGI app under uvicorn."""
    script = Path(__file__).with_name("clients") / "uvicorn_gateway.py"
    log = clients_server.log_path.with_name("uvicorn.log")
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, script, clients_server.log_path.parent / "run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, log.read_text()
        yield address
        # The script ends when its stdin closes.
        process.communicate(timeout=30)
    assert process.returncode == 0, log.read_text()
    no_bugs(log.read_text())


@pytest.fixture(scope="session", params=["h2corn", "uvicorn"])
def rest(request: pytest.FixtureRequest, clients_server: Served) -> Rest:
    """The REST contract holds under both."""
    if request.param == "h2corn":
        return Rest("h2corn", clients_server.address)
    return Rest("uvicorn", request.getfixturevalue("under_uvicorn"))


ZOO = tuple(kind for kind in models.KINDS if kind != "onnx-cnn")
"""Kinds that ``zoo`` serves under their own names (the network's images are too large for JSON)."""

ZOO_BATCH = 16
"""Batch limit of ``zoo``: small, so that requests of a few dozen rows are split and joined again."""

TRUSTED = ("sklearn-joblib", "sklearn-joblib-compressed", "sklearn-pickle", "sklearn-forest", "mlflow-sklearn")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Every kind of artifact, in as few workers as can be; batches form even when callers are slow."""
    names = [f"{kind}={models.build(kind)}" for kind in ZOO]
    trust = [flag for kind in TRUSTED for flag in ("--trust", models.build(kind))]
    batching = ["--batching", "always", "--max-batch-size", ZOO_BATCH, "--max-queue-delay-ms", "10"]
    with served(
        *names, *trust, *map(str, batching), "--isolation", "packed", directory=tmp_path_factory.mktemp("zoo")
    ) as server:
        yield server
        no_bugs(server.log())


@pytest.fixture(scope="module")
def callers(zoo: Served) -> Iterator[Callers]:
    made = Callers(zoo.address)
    yield made
    made.close()


@functools.cache
def runtime(kind: str) -> Runtime:
    """The same artifact in this process, never batched."""
    artifact = inspect(models.build(kind))
    return table.load(artifact, LoadOptions(options={trust.OPTION: "yes"}))


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, on the server of this test run."""
    root = tmp_path_factory.getbasetemp()
    home = (root if worker_id == "master" else root.parent) / "postgres"
    with postgres.shared_server(home) as server, server.database(f"test_{uuid.uuid4().hex}") as url:
        yield url
