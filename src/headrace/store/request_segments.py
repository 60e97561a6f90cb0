"""Reads the segments of a request log (``core/request_log.py``) while gateways write them, and removes those that are
read to the end and will not grow any more."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from headrace.core import errors, request_log
from headrace.core.request_log import Entry, SegmentHeader

_CHUNK = 256 << 10
"""Bytes read at a time; more than the longest entry."""
_ABANDONED_S = 60.0
"""A file that was not made ready in this time never will be."""


class OpenSegment:
    """A segment at one look. ``ended``: its writer is gone, so that what is in it now is all there will be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self.ended = True
        except BlockingIOError:
            self.ended = False
        except BaseException:
            os.close(self._fd)
            raise

    def head(self) -> tuple[SegmentHeader, int] | None:
        """The header, and where the first entry begins; None for a file of zeros, which is what a power cut leaves of
        one that had not reached the disk. Raises Corrupted."""
        try:
            return request_log.read_header(os.pread(self._fd, _CHUNK, 0))
        except ValueError as error:
            raise errors.Corrupted(f"{self.path}: {error}; move it away") from error

    def entries(self, at: int) -> Iterator[tuple[Entry, int]]:
        """From ``at`` on, each with where the next one begins."""
        while True:
            base, chunk = at, os.pread(self._fd, _CHUNK, at)
            for entry, end in request_log.read(chunk, 0):
                at = base + end
                yield entry, at
            if at == base:
                return

    def close(self) -> None:
        os.close(self._fd)


def segments(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted(folder.glob(f"*{request_log.SUFFIX}"))


def remove_abandoned(folder: Path) -> None:
    """Files whose writer was killed while it made them."""
    for path in folder.glob("*.partial"):
        with contextlib.suppress(FileNotFoundError):  # it has become a segment meanwhile
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
