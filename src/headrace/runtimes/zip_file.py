"""Opens zip archives that may be hostile: a directory of bounded size, and no more bytes than their own size explains.

What is wrong with an archive is an InvalidInput, whatever zipfile calls it.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from headrace.core import errors

_MAX_DIRECTORY = 16 << 20
_TAIL = 66 << 10
"""The end record stands in the last 64 KiB."""
_SMALL = 1 << 30
_MAX_RATIO = 200
"""Models compress a few times over; what inflates to more than a GiB and 200 times its size is a bomb."""

_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, OSError, EOFError, ValueError),
)
"""What zipfile raises for damaged, encrypted and hostile archives; RuntimeError is its word for encrypted."""


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[zipfile.ZipFile]:
    """The archive; what goes wrong while it is read, here or in the body of ``with``, is an InvalidInput."""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file, _checked(file) as archive:
                yield archive
        else:
            with _checked(source) as archive:
                yield archive
    except _ERRORS as error:
        raise errors.InvalidInput(f"this zip archive is damaged: {error}") from error


def _checked(file: BinaryIO) -> zipfile.ZipFile:
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    _bound_directory(file.read())
    archive = zipfile.ZipFile(file)
    inflated = sum(entry.file_size for entry in archive.infolist())
    if inflated > _SMALL and inflated > _MAX_RATIO * size:
        raise errors.InvalidInput(f"this archive claims to inflate {size:,} bytes to {inflated:,}")
    return archive


def _bound_directory(tail: bytes) -> None:
    """Refuse a zip whose directory would take long to read. Its size stands in the end record."""
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 16:
        raise errors.InvalidInput("this zip archive is cut off")
    if int.from_bytes(tail[at + 12 : at + 16], "little") > _MAX_DIRECTORY:
        raise errors.InvalidInput("this zip archive has too many entries")
