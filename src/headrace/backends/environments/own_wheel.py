"""The running Headrace as a wheel, so that an environment gets exactly the code that talks to its workers.

Made from the package on disk: it need not have come from an index, and a checkout works like a release.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from headrace.core import release
from headrace.core.release import VERSION

_TAG = "py3-none-any"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Every file's time: the same code is the same wheel."""


@functools.cache
def build_digest() -> str:
    """SHA-256 over the code of the running build, in hex. Read once per process: what it has imported does not change
    either."""
    listing = hashlib.sha256(VERSION.encode())
    for name, content in _package():
        listing.update(f"\n{name} {hashlib.sha256(content).hexdigest()}".encode())
    return listing.hexdigest()


def write(folder: Path) -> Path:
    """Write the wheel into ``folder`` and return its path. It names no dependencies."""
    info = f"headrace-{VERSION}.dist-info"
    files = dict(_package())
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: headrace\nVersion: {VERSION}\n".encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: headrace\nRoot-Is-Purelib: true\nTag: {_TAG}\n".encode()
    record = "".join(f"{name},sha256={_record_hash(content)},{len(content)}\n" for name, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"headrace-{VERSION}-{_TAG}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return path


def _package() -> Iterator[tuple[str, bytes]]:
    """Files of the package by their path in the wheel, sorted."""
    root = Path(release.__file__).parents[1]
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts:
            yield f"headrace/{path.relative_to(root).as_posix()}", path.read_bytes()


def _record_hash(content: bytes) -> str:
    """As the wheel format wants it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
