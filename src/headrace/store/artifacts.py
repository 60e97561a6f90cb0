"""Files of versions, kept under the SHA-256 of their content: in a folder or in an object store.

Content-addressed means that a file is stored once whatever refers to it, that two writers of one digest write the same
bytes, and that whatever is read back can be checked. Both homes have the shape of ``Artifacts``.
"""

from __future__ import annotations

import errno
import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from pathlib import Path

import msgspec

from headrace.core import errors

CHUNK = 1 << 20

Progress = Callable[[int], None]
"""Called with the bytes that were just moved."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class Collected(msgspec.Struct, frozen=True):
    """What ``collect`` removed (or would have)."""

    blobs: int
    size: int


class Artifacts(ABC):
    """Blobs by digest (``sha256:`` + hex). Blocking; safe for several threads, processes and machines at once."""

    @abstractmethod
    def put(self, source: Path, digest: str, progress: Progress) -> None:
        """Store a file under its digest; one that is there is not sent again, but counts as new for ``collect``.

        The blob appears whole or not at all. Raises InvalidInput when the file has another digest by now,
        StorageFull, StoreFailed."""

    @abstractmethod
    def size(self, digest: str) -> int | None:
        """Bytes of a blob; None when there is none. Raises StoreFailed."""

    @abstractmethod
    def present(self, digest: str, size: int) -> bool:
        """The blob is there with this many bytes; it counts as new for ``collect`` then. Raises StoreFailed."""

    @abstractmethod
    def chunks(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """The content from byte ``start`` on, unchecked. Raises Corrupted when it is missing, StoreFailed."""

    @abstractmethod
    def collect(self, referenced: Set[str], before: float, *, dry_run: bool = False) -> Collected:
        """Remove blobs that nothing refers to and that were last put before ``before`` (seconds since 1970): an upload
        whose version is not registered yet is younger."""

    @abstractmethod
    def where(self, digest: str) -> str:
        """The blob's place, for messages."""

    def check(self, digest: str, progress: Progress) -> None:
        """Read a blob to its end. Raises Corrupted when its bytes do not have its digest."""
        for chunk in self._verified(digest):
            progress(len(chunk))

    def get(self, digest: str, target: Path, progress: Progress) -> None:
        """Write a blob to ``target``, which appears only when its bytes have the digest. Raises Corrupted, StorageFull,
        StoreFailed."""
        partial = target.with_name(f".{target.name}.partial")
        try:
            with partial.open("wb") as file:
                for chunk in self._verified(digest):
                    file.write(chunk)
                    progress(len(chunk))
            partial.replace(target)
        except OSError as error:
            raise failed(target, error) from error
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()

    def _verified(self, digest: str) -> Iterator[bytes]:
        seen = hashlib.sha256()
        for chunk in self.chunks(digest):
            seen.update(chunk)
            yield chunk
        if f"sha256:{seen.hexdigest()}" != digest:
            raise errors.Corrupted(
                f"{self.where(digest)} is damaged: it has the digest sha256:{seen.hexdigest()};"
                " remove it and push the model again from its source"
            )


def open_artifacts(location: str) -> Artifacts:
    """The home of blobs at a folder's path or an ``s3://``, ``gs://``, ``az://`` URL."""
    if "://" in location:
        from headrace.store.object_artifacts import ObjectArtifacts

        return ObjectArtifacts(location)
    from headrace.store.folder_artifacts import FolderArtifacts

    return FolderArtifacts(Path(location))


def key_of(digest: str) -> str:
    """``sha256/ab/abcd…``: the blob's path below its home."""
    if not _DIGEST.match(digest):
        raise errors.InvalidInput(f"{digest!r} is no digest: it must be sha256: and 64 hexadecimal digits")
    return f"sha256/{digest[7:9]}/{digest[7:]}"


def digest_of(key: str) -> str | None:
    """The digest of a key; None for what is no blob."""
    digest = f"sha256:{key.rpartition('/')[2]}"
    return digest if _DIGEST.match(digest) else None


def changed(source: Path, digest: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        f"{source} changed while it was read: its digest is not {digest} any more; push it again"
    )


def missing(where: str) -> errors.Corrupted:
    return errors.Corrupted(f"{where} is missing; push the model again from its source")


def failed(where: object, error: OSError) -> errors.StoreFailed:
    """The typed form of what a file system said."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return errors.StorageFull(f"{where}: {error.strerror}; make room and try again, nothing half-written is left")
    return errors.StoreFailed(f"{where}: {error.strerror or error}")
