"""``--tls-cert`` and ``--tls-key``: the same port answers REST and gRPC, encrypted, and nothing in the clear."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from tests import models
from tests.serving import Served, served

pytestmark = pytest.mark.xdist_group("tls")


class Pair(NamedTuple):
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


def make_pair(folder: Path) -> Pair:
    """A self-signed certificate for localhost."""
    made = Pair(folder / "cert.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def server(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    flags = ("--tls-cert", pair.certificate, "--tls-key", pair.key)
    with served(f"echo={models.build('echo')}", *flags, directory=tmp_path_factory.mktemp("tls")) as running:
        yield running


def test_the_url_says_https(server: Served) -> None:
    assert server.url.startswith("https://")
    assert server.management_url.startswith("http://")


def test_rest(server: Served, pair: Pair) -> None:
    context = ssl.create_default_context(cafile=pair.certificate)
    body = {"inputs": [{"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2]}]}
    for http2 in (False, True):
        with httpx.Client(verify=context, http2=http2) as client:
            answer = client.post(f"{server.url}/v2/models/echo/infer", json=body)
            assert answer.json()["outputs"][0]["data"] == [1, 2]
            assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")


def test_triton_over_https(server: Served, pair: Pair) -> None:
    context = ssl.create_default_context(cafile=pair.certificate)
    with tritonclient.http.InferenceServerClient(
        f"localhost:{server.port}", ssl=True, ssl_context_factory=lambda: context
    ) as client:
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        tensor = tritonclient.http.InferInput("x", [2, 3], "FP32")
        tensor.set_data_from_numpy(array)
        assert client.infer("echo", [tensor]).as_numpy("x").tolist() == array.tolist()


def test_triton_over_grpc(server: Served, pair: Pair) -> None:
    with tritonclient.grpc.InferenceServerClient(
        f"localhost:{server.port}", ssl=True, root_certificates=str(pair.certificate)
    ) as client:
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        tensor = tritonclient.grpc.InferInput("x", [2, 3], "FP32")
        tensor.set_data_from_numpy(array)
        assert client.is_server_ready()
        assert client.infer("echo", [tensor]).as_numpy("x").tolist() == array.tolist()


def test_strangers_certificates_are_not_ours(server: Served) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(f"{server.url}/v2")
    channel = grpc.secure_channel(f"localhost:{server.port}", grpc.ssl_channel_credentials())
    with channel, pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(channel).result(timeout=1)


def test_plain_text_gets_nothing(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"headrace" not in connection.recv(65536)


def test_management_stays_plain(server: Served) -> None:
    with urllib.request.urlopen(f"{server.management_url}/metrics", timeout=30) as answer:
        assert b"headrace_build_info" in answer.read()


def refusal(*flags: str | Path) -> str:
    """What ``headrace serve`` says when it does not start."""
    command = [sys.executable, "-m", "headrace.cli.main", "serve", str(models.build("echo")), "--port", "0", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_pairs_that_cannot_work_are_refused(pair: Pair, tmp_path: Path) -> None:
    assert "tls.key is not" in refusal("--tls-cert", pair.certificate)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    assert "garbage.pem" in refusal("--tls-cert", garbage, "--tls-key", pair.key)
    assert "missing.pem: No such file" in refusal("--tls-cert", pair.certificate, "--tls-key", tmp_path / "missing.pem")
    other = make_pair(tmp_path)
    assert "do not belong together" in refusal("--tls-cert", pair.certificate, "--tls-key", other.key)
