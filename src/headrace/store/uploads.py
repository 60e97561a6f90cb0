"""Uploads under way: files that arrive in pieces and become blobs when all of their bytes are there.

``DIGEST.SIZE`` is one file per announced content, so that whoever sends the same content goes on where the last one
stopped. One writer at a time: a lock that the kernel drops with its process. What arrives is not believed: the
bytes must have the digest, or nothing of them stays.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.core import errors
from headrace.store.artifacts import Artifacts, Collected, failed, key_of

_RESERVE = 64 << 20
"""Bytes that an upload leaves free on the disk."""


class Upload:
    """An upload that this process writes. ``received``: bytes that have arrived; ``size``: bytes in all."""

    def __init__(self, descriptor: int, path: Path, digest: str, size: int, artifacts: Artifacts) -> None:
        self._descriptor = descriptor
        self._path = path
        self._digest = digest
        self._artifacts = artifacts
        self.size = size
        self.received = os.fstat(descriptor).st_size

    def append(self, piece: bytes) -> None:
        """Add bytes at the end. Raises InvalidInput when there are more than announced, StorageFull."""
        if self.received + len(piece) > self.size:
            raise errors.InvalidInput(f"more than the {self.size} bytes of {self._digest} were sent")
        try:
            # A short write is possible when the disk fills up; the next one says so.
            view = memoryview(piece)
            while view:
                written = os.write(self._descriptor, view)
                self.received += written
                view = view[written:]
        except OSError as error:
            raise failed(self._path, error) from error

    def finish(self) -> None:
        """Make the complete upload a blob. Raises WrongDigest, and forgets it, when it is something else."""
        try:
            self._artifacts.put(self._path, self._digest, lambda _: None)
        except errors.InvalidInput:
            self._path.unlink()
            raise errors.WrongDigest(
                f"the {self.size} bytes that arrived do not have the digest {self._digest}; nothing is kept of them:"
                " send the file again from its beginning"
            ) from None
        self._path.unlink()


class Uploads:
    """The uploads of one home of artifacts. Blocking; safe for several threads and processes."""

    def __init__(self, root: Path, artifacts: Artifacts) -> None:
        self._root = root
        self._artifacts = artifacts

    def received(self, digest: str, size: int) -> int:
        """Bytes of this content that have arrived; 0 when nobody began."""
        try:
            return self._path(digest, size).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def receiving(self, digest: str, size: int, start: int) -> Iterator[Upload]:
        """Go on with an upload at byte ``start``.

        Raises StateInUse while another sends the same, WrongOffset when ``start`` is not where it stopped,
        StorageFull when the rest would not fit."""
        path = self._path(digest, size)
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failed(path, error) from error
        try:
            _lock(descriptor, path, digest)
            upload = Upload(descriptor, path, digest, size, self._artifacts)
            if start == 0 and upload.received:  # the sender knows nothing of an earlier attempt, or does not trust it
                os.ftruncate(descriptor, 0)
                upload.received = 0
            if start != upload.received:
                raise errors.WrongOffset(
                    f"{upload.received} of {size} bytes of {digest} have arrived, so the next piece begins at byte"
                    f" {upload.received}, not at {start}"
                )
            self._require_room(size - start)
            yield upload
        finally:
            os.close(descriptor)

    def collect(self, before: float, *, dry_run: bool = False) -> Collected:
        """Remove uploads to which nothing was added since ``before`` (seconds since 1970)."""
        count = size = 0
        for path in self._root.glob("*.*"):
            status = path.stat()
            if status.st_mtime < before:
                count, size = count + 1, size + status.st_size
                if not dry_run:
                    path.unlink()
        return Collected(count, size)

    def _path(self, digest: str, size: int) -> Path:
        return self._root / f"{key_of(digest).rpartition('/')[2]}.{size}"

    def _require_room(self, wanted: int) -> None:
        free = shutil.disk_usage(self._root).free - _RESERVE
        if wanted > free:
            raise errors.StorageFull(f"{self._root}: {wanted} more bytes would not fit, {max(0, free)} are free")


def _lock(descriptor: int, path: Path, digest: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise errors.StateInUse(f"{digest} is being uploaded by another; try again in a moment") from None
    # Between open and lock the other may have finished: what this process holds is a file without a name then.
    if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
        raise errors.StateInUse(f"{digest} was just uploaded by another; ask for it again")
