"""Listening sockets, and errors that say what to do."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from headrace.app import listening
from headrace.core import errors


def test_binds_inheritable_and_says_its_url() -> None:
    with listening.bind("127.0.0.1", 0, "--port") as sock:
        assert sock.get_inheritable()
        port = sock.getsockname()[1]
        assert listening.url(sock, "127.0.0.1", tls=False) == f"http://127.0.0.1:{port}"
        assert listening.url(sock, "0.0.0.0", tls=True) == f"https://127.0.0.1:{port}"
        assert listening.url(sock, "::1", tls=False) == f"http://[::1]:{port}"
        assert listening.url(sock, "::", tls=False) == f"http://[::1]:{port}"
        with socket.create_connection(("127.0.0.1", port)):
            pass


def test_taken_port() -> None:
    with listening.bind("127.0.0.1", 0, "--port") as sock:
        port = sock.getsockname()[1]
        with pytest.raises(errors.BadSettings, match=f"port {port}: another process .* --management-port PORT"):
            listening.bind("127.0.0.1", port, "--management-port")


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("no.such.host.invalid", 0, "cannot be resolved"),
        ("a" * 100, 0, "cannot be resolved"),
        ("a..b", 0, "cannot be resolved"),
        ("192.0.2.1", 0, "cannot listen on 192.0.2.1"),
        ("127.0.0.1", 70_000, "a port is a number from 0 to 65535"),
        ("127.0.0.1", -1, "a port is a number from 0 to 65535"),
    ],
)
def test_what_cannot_be_bound_says_why(host: str, port: int, words: str) -> None:
    with pytest.raises(errors.BadSettings, match=words):
        listening.bind(host, port, "--port")


def test_refusing_new_connections_serves_those_that_stand() -> None:
    with listening.bind("127.0.0.1", 0, "--port") as sock:
        address = sock.getsockname()
        with socket.create_connection(address) as client:
            listening.refuse_new_connections(sock)
            server, _ = sock.accept()
            with server:
                client.sendall(b"ping")
                assert server.recv(10) == b"ping"


def certificate(folder: Path, name: str) -> tuple[str, str]:
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(cert), "-days", "1", "-subj", "/CN=localhost"),
        ],
        check=True,
        capture_output=True,
    )
    return str(cert), str(key)


def test_certificates_are_checked_before_gateways_start(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    other, _ = certificate(tmp_path, "other")
    listening.check_certificate(cert, key)
    with pytest.raises(errors.BadSettings, match="do not belong together"):
        listening.check_certificate(other, key)
    with pytest.raises(errors.BadSettings, match=r"--tls-key .*missing: No such file"):
        listening.check_certificate(cert, str(tmp_path / "missing"))
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(errors.BadSettings, match="PEM files"):
        listening.check_certificate(str(tmp_path / "junk"), key)
