"""``headrace.serve`` with real server processes."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

import headrace
from headrace.core import errors

FACTOR = 3.0


class Tripler(headrace.Model):
    """Uses a global of this module, as notebook cells do."""

    def predict(self, x: headrace.Float64) -> {"y": headrace.Float64}:  # type: ignore[override, misc]  # noqa: F821
        return {"y": x * FACTOR}


class Counter(headrace.Model):
    def predict(self, n: headrace.Int64) -> {"i": headrace.Int64}:  # type: ignore[override, misc]  # noqa: F821
        for i in range(int(n[0])):
            yield {"i": [i]}


class Broken(headrace.Model):
    def load(self) -> None:
        raise FileNotFoundError("weights.bin")

    def predict(self, x: headrace.Float64) -> {"y": headrace.Float64}:  # type: ignore[override, misc]  # noqa: F821
        return {"y": x}


@pytest.fixture(scope="module", autouse=True)
def by_value() -> Iterator[None]:
    """The server cannot import this test module: its classes travel inside the pickle, as those of a notebook do."""
    import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def tripler() -> Iterator[Any]:
    with headrace.serve(Tripler, name="tripler") as server:
        yield server


def test_predict_with_every_client(tripler: Any) -> None:
    client = tripler.client()
    assert client.predict("tripler", {"x": [1.0, 2.0]})["y"].tolist() == [3.0, 6.0]
    assert tripler.predict(np.array([4.0]))["y"].tolist() == [12.0]

    async def ask() -> Any:
        async with headrace.AsyncClient(tripler.url) as remote:
            return await asyncio.gather(*(remote.predict("tripler", {"x": [float(n)]}) for n in range(50)))

    assert [answer["y"].tolist() for answer in asyncio.run(ask())] == [[3.0 * n] for n in range(50)]


def test_metadata_readiness_and_lists(tripler: Any) -> None:
    client = tripler.client()
    assert client.ready()
    assert client.ready("tripler")
    assert client.models() == ["tripler"]
    metadata = client.metadata("tripler")
    assert [(spec.name, spec.dtype, spec.shape) for spec in metadata.inputs] == [("x", "FP64", (-1,))]


def test_errors_are_typed_and_name_the_input(tripler: Any) -> None:
    client = tripler.client()
    with pytest.raises(errors.InvalidInput, match="input 'x' row 1: expected a number"):
        client.predict("tripler", {"x": [1.0, "b"]})
    with pytest.raises(errors.InvalidInput, match="missing input 'x'"):
        client.predict("tripler", {})
    with pytest.raises(errors.UnknownModel):
        client.predict("other", {"x": [1.0]})
    with pytest.raises(errors.UnknownModel):
        client.predict("tripler", {"x": [1.0]}, version="99")


def test_the_curl_line_works(tripler: Any) -> None:
    line = tripler.curl()
    assert line in repr(tripler)
    output = subprocess.run(line, shell=True, capture_output=True, text=True, check=True, timeout=30).stdout
    assert output == '{"predictions":[0.0]}'


def test_the_command_line_predicts(tripler: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("x\n" + "".join(f"{n}\n" for n in range(2500)))
    command = [sys.executable, "-m", "headrace.cli.main", "predict", "tripler", str(rows), "--url", tripler.url]
    result = subprocess.run([*command, "--output", "jsonl"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f'{{"y":{3.0 * n}}}' for n in range(2500)]


def test_streams() -> None:
    with headrace.serve(Counter, name="counter") as server:
        assert [chunk["i"] for chunk in server.client().stream("counter", {"n": [4]})] == [0, 1, 2, 3]


def test_stop_ends_the_process_and_removes_the_folder() -> None:
    server = headrace.serve(Tripler())
    folder, url = server._folder, server.url
    assert server.running
    assert folder.exists()
    server.stop()
    server.stop()
    assert not server.running
    assert not folder.exists()
    assert "stopped" in repr(server)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    with pytest.raises(errors.NotReady, match="is stopped"):
        server.client()


def test_a_model_that_cannot_be_loaded_is_an_error_with_its_log() -> None:
    with pytest.raises(errors.LoadFailed) as caught:
        headrace.serve(Broken, name="broken")
    assert "FileNotFoundError: weights.bin" in caught.value.message


def test_a_pickle_given_by_path_is_not_trusted(tmp_path: Path) -> None:
    import pickle

    from sklearn.linear_model import LinearRegression

    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])))
    with pytest.raises(errors.LoadFailed, match="--trust"):
        headrace.serve(path)


def test_a_taken_port_is_said(tripler: Any) -> None:
    port = int(tripler.url.rpartition(":")[2])
    with pytest.raises(errors.BadSettings, match=f"cannot listen on 127.0.0.1 port {port}"):
        headrace.serve(Tripler, port=port)


SCRIPT = """
import os, signal, headrace
class M(headrace.Model):
    def predict(self, x: headrace.Float64) -> {"y": headrace.Float64}:
        return {"y": x}
server = headrace.serve(M)
print(server._process.pid, server._folder, flush=True)
"""


@pytest.mark.parametrize(
    "ending",
    ["os.kill(os.getpid(), signal.SIGKILL)", "raise SystemExit", "raise RuntimeError"],
    ids=["killed", "exits", "raises"],
)
def test_the_server_does_not_outlive_its_script(tmp_path: Path, ending: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT) + ending)
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    pid, folder = result.stdout.split()
    try:
        psutil.Process(int(pid)).wait(timeout=20)
    except psutil.NoSuchProcess:
        pass  # it was quicker
    except psutil.TimeoutExpired:
        os.kill(int(pid), signal.SIGKILL)
        raise
    assert not Path(folder).exists()
