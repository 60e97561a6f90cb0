"""``headrace serve`` as a command: what it says when it cannot start, its exit codes, its events and its screen."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests import models
from tests.acceptance import saboteurs
from tests.acceptance.load import ask, output
from tests.acceptance.processes import pids, runtime_directory
from tests.serving import eventually, served


def headrace(
    *arguments: str | Path, cwd: Path, stdin: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", **(environment or {})},
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saboteurs.write(tmp_path, saboteurs.DOUBLE)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.mark.parametrize("flag", ["--port", "--management-port"])
def test_a_port_that_is_taken(model: Path, taken: int, flag: str) -> None:
    other = "--management-port" if flag == "--port" else "--port"
    result = headrace("serve", model, flag, str(taken), other, "0", cwd=model.parent)
    assert result.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {taken}" in result.stderr
    assert f"choose another with {flag} PORT" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.onnx"], "there is no file or folder 'missing.onnx'"),
        (["n.py"], "did you mean 'm.py'?"),
        ([], "no model was given and there is no headrace.yaml"),
        (["m.py", "--host", "0.0.0.0"], "pass --no-auth"),
        (["m.py", "--management-host", "0.0.0.0"], "pass --no-auth"),
        (["m.py", "--host", "192.0.2.1", "--no-auth"], "cannot listen on 192.0.2.1"),
        (["m.py", "--tls-cert", "cert.pem"], "TLS needs both (--tls-key)"),
        (["m.py", "--tls-key", "key.pem"], "TLS needs both (--tls-cert)"),
        (["m.py", "--tls-cert", "cert.pem", "--tls-key", "key.pem"], "cert.pem"),
        (["m.py", "--replicas", "x"], "replicas: expected a whole number of at least 0, got 'x'"),
        (["m.py", "--drain", "soon"], "drain: expected a duration like 30"),
        (["m.py", "--batching", "sometimes"], "expected one of auto, always, exact, off"),
        (["m.py", "--config", "other.yaml"], "other.yaml"),
        (["a=m.py", "a=m.py"], "both be endpoint 'a'"),
        (["m.py", "--memory", "lots"], "resources.memory: expected a size above 0"),
    ],
)
def test_what_cannot_be_served_says_why(model: Path, arguments: list[str], said: str) -> None:
    result = headrace("serve", *arguments, "--management-port", "0", cwd=model.parent)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("replica: 2\n", "did you mean 'replicas'?"),
        ("batching: {max_batch_sise: 4}\n", "max_batch_size"),
        ("endpoints: {m: {model: m.py, replicsa: 2}}\n", "replicas"),
        ("replicas: many\n", "expected a whole number"),
        ("replicas: [\n", "headrace.yaml"),
    ],
)
def test_an_unknown_setting_names_the_nearest_one(model: Path, yaml: str, said: str) -> None:
    (model.parent / "headrace.yaml").write_text(yaml)
    result = headrace("serve", model, cwd=model.parent)
    assert result.returncode == 2, result.stderr
    assert "headrace.yaml" in result.stderr
    assert said in result.stderr


def test_an_unknown_variable_names_the_nearest_one(model: Path) -> None:
    result = headrace("serve", model, cwd=model.parent, environment={"HEADRACE_REPLICA": "2"})
    assert result.returncode == 2
    assert "environment variable HEADRACE_REPLICA" in result.stderr
    assert "HEADRACE_REPLICAS" in result.stderr


def test_an_unknown_flag(model: Path) -> None:
    result = headrace("serve", model, "--replica", "2", cwd=model.parent)
    assert result.returncode == 2
    assert "--replicas" in result.stderr


def test_errors_as_json(model: Path) -> None:
    result = headrace("serve", "missing.onnx", "--json", cwd=model.parent)
    assert result.returncode == 2
    document = json.loads(result.stdout)
    assert document["code"] == "bad_settings"
    assert "missing.onnx" in document["error"]


def test_a_pickle_is_not_loaded_without_trust(tmp_path: Path) -> None:
    """The server starts, the endpoint says why it is not there, and nothing of the pickle was run."""
    path = models.build("sklearn-pickle", tmp_path / "model")
    with served(path, directory=tmp_path / "run") as server:
        failed = next(event for event in server.events if event["type"] == "ModelFailed")
        digest = re.search(r"sha256:[0-9a-f]{64}", failed["reason"])
        assert digest is not None
        assert "--trust" in failed["reason"]
        assert "sklearn" in failed["reason"]
        assert not server.children("replica.worker")
    with served(path, "--trust", digest[0], directory=tmp_path / "trusted") as server:
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 200


def test_flags_win_over_the_environment_which_wins_over_the_file(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "headrace.yaml").write_text("replicas: 1\nbatching: {max_batch_size: 7}\ntimeout: 9s\n")
    environment = {"HEADRACE_REPLICAS": "3", "HEADRACE_BATCHING__MAX_BATCH_SIZE": "8"}
    with served(model, "--replicas", "2", directory=run, environment=environment) as server:
        serving = server.events[-1]
        (deployment,) = serving["endpoints"][0]["deployments"]
        assert deployment["desired_replicas"] == 2
        assert deployment["batching"]["max_batch_size"] == 8
        assert deployment["timeout_s"] == 9
        assert len(pids(server, "replica.worker")) == 2


@pytest.mark.parametrize(("gateways", "replicas"), [(3, 1), (1, 3)])
def test_counts_are_real_processes(model: Path, tmp_path: Path, gateways: int, replicas: int) -> None:
    flags = ("--gateways", str(gateways), "--replicas", str(replicas))
    with served(model, *flags, directory=tmp_path / "run") as server:
        assert len(pids(server, "app.gateway")) == gateways
        assert len(pids(server, "replica.worker")) == replicas
        assert len(pids(server, "app.controller")) == 1
        assert server.events[-1]["gateways"] == gateways


def test_events_come_in_order_and_tell_no_secrets(tmp_path: Path) -> None:
    """Inspected, then served, then drained, then stopped; a start is told after everything is ready."""
    slow = saboteurs.write(tmp_path, saboteurs.SLOW_TO_LOAD, "slow")
    onnx = models.build("onnx-regression", tmp_path / "onnx")
    with served(slow, onnx, directory=tmp_path / "run") as server:
        assert httpx.get(f"{server.url}/v2/models/slow/ready").status_code == 200
        assert httpx.get(f"{server.url}/v2/models/regression/ready").status_code == 200
        replicas = [
            replica
            for endpoint in server.events[-1]["endpoints"]
            for deployment in endpoint["deployments"]
            for replica in deployment["replicas"]
        ]
        assert len(replicas) == 2
        assert all(replica["token"] == "" for replica in replicas)
        assert server.stop() == 0
        server.wait_event("Stopped")
        kinds = [event["type"] for event in server.events]
        assert kinds == ["ModelInspected", "ModelInspected", "Serving", "Draining", "Stopped"]


def test_the_screen_has_a_curl_line_that_works(model: Path) -> None:
    """Plain lines, because this is no terminal."""
    command = [sys.executable, "-m", "headrace.cli.main", "serve", str(model), "--port", "0", "--management-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=model.parent)
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("try: "):
                break
        assert any(re.fullmatch(r"serving 1 endpoint after \d+\.\d+ s", line) for line in lines)
        assert any(
            line.startswith("endpoint m version 1: ready; python, 1/1 replicas; inputs 'x' FP32[-1]") for line in lines
        )
        metrics = next(line.partition(": ")[2] for line in lines if line.startswith("metrics: "))
        assert "headrace_" in httpx.get(metrics).text
        curl = lines[-1].removeprefix("try: ")
        answer = subprocess.run(shlex.split(curl), capture_output=True, text=True, timeout=30)
        assert answer.returncode == 0
        assert json.loads(answer.stdout)["predictions"]
        process.terminate()
        rest = process.stdout.read()
        assert process.wait(30) == 0
        assert rest.strip().endswith("stopped")
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()


def test_quiet_says_nothing_of_what_works(model: Path, taken: int) -> None:
    del taken
    command = [sys.executable, "-m", "headrace.cli.main", "serve", str(model), "-q", "--management-port", "0"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=model.parent
    )
    try:
        eventually(lambda: ask(f"127.0.0.1:{port}", "m", 2.0).status == 200)
        assert output(ask(f"127.0.0.1:{port}", "m", 2.0).document) == [4.0]
        process.terminate()
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert out == ""
    assert err == ""


def test_folders_too_long_for_sockets(model: Path, tmp_path: Path) -> None:
    """A temporary folder is chosen elsewhere; one that was asked for is refused with its bound."""
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    with served(model, directory=tmp_path / "run", environment={"TMPDIR": str(deep)}) as server:
        assert ask(server.address, "m", 2.0).status == 200
    result = headrace("serve", model, cwd=tmp_path, environment={"HEADRACE_RUNTIME_DIR": str(deep)})
    assert result.returncode == 2
    assert "is too long: the paths of Unix sockets in it have at most 107 bytes" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_runtime_folder_of_ones_own_stays(model: Path, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            environment = {"HEADRACE_RUNTIME_DIR": folder}
            with served(model, "--watch", directory=tmp_path / "run", environment=environment) as server:
                assert ask(server.address, "m", 2.0).status == 200
                assert runtime_directory(server) == Path(folder)
                # What another run left there is not taken for this one's.
                assert server.events[-1]["endpoints"][0]["deployments"][0]["version"] == "1"
                model.write_text(saboteurs.DOUBLE + "\n")
                server.wait_event("VersionLoaded")
        assert list(Path(folder).iterdir())
