"""Blobs in a folder.

sha256/ab/abcd…   whole blobs
partial/abcd…     uploads under way, locked by their writer; one that was interrupted is continued
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

from headrace.core import errors
from headrace.store.artifacts import CHUNK, Artifacts, Collected, Progress, changed, digest_of, failed, key_of, missing


class FolderArtifacts(Artifacts):
    def __init__(self, root: Path) -> None:
        self._root = root

    def where(self, digest: str) -> str:
        return str(self._root / key_of(digest))

    def put(self, source: Path, digest: str, progress: Progress) -> None:
        blob = self._root / key_of(digest)
        try:
            if self.present(digest, _size(source)):
                progress(source.stat().st_size)
                return
            blob.parent.mkdir(parents=True, exist_ok=True)
            with self._partial(digest) as partial:
                if self.present(digest, _size(source)):  # another writer was faster
                    progress(source.stat().st_size)
                    return
                _fill(partial, source, digest, progress)
                self._path_of(digest).replace(blob)
                _sync_folder(blob.parent)
        except OSError as error:
            raise failed(blob, error) from error

    def _path_of(self, digest: str) -> Path:
        return self._root / "partial" / digest[7:]

    @contextmanager
    def _partial(self, digest: str) -> Iterator[int]:
        """The file of an upload under way, for one writer at a time; a second one waits for the first."""
        path = self._path_of(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not _is_at(descriptor, path):
                    continue  # while this writer waited, the other made it the blob
                yield descriptor
                if _is_at(descriptor, path):
                    path.unlink()  # nothing was left to do
                return
            except (errors.HeadraceError, OSError):
                # A full disk must not stay full of what nobody can use, and wrong bytes are no beginning.
                with suppress(FileNotFoundError):
                    path.unlink()
                raise
            finally:
                os.close(descriptor)

    def size(self, digest: str) -> int | None:
        blob = self._root / key_of(digest)
        try:
            return blob.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise failed(blob, error) from error

    def present(self, digest: str, size: int) -> bool:
        # Whatever stands under its name was renamed there when it was whole; another size is damage from outside.
        if self.size(digest) != size:
            return False
        try:
            os.utime(self._root / key_of(digest))
        except FileNotFoundError:  # collected meanwhile
            return False
        except OSError as error:
            raise failed(self.where(digest), error) from error
        return True

    def chunks(self, digest: str, start: int = 0) -> Iterator[bytes]:
        blob = self._root / key_of(digest)
        try:
            with blob.open("rb") as file:
                file.seek(start)
                while chunk := file.read(CHUNK):
                    yield chunk
        except FileNotFoundError:
            raise missing(str(blob)) from None
        except OSError as error:
            raise failed(blob, error) from error

    def collect(self, referenced: Set[str], before: float, *, dry_run: bool = False) -> Collected:
        count = size = 0
        try:
            for path in (*self._root.glob("sha256/*/*"), *self._root.glob("partial/*")):
                status = path.stat()
                if status.st_mtime >= before or (path.parent.name != "partial" and digest_of(path.name) in referenced):
                    continue
                count, size = count + 1, size + status.st_size
                if not dry_run:
                    path.unlink()
        except OSError as error:
            raise failed(self._root, error) from error
        return Collected(count, size)


def _size(source: Path) -> int:
    try:
        return source.stat().st_size
    except FileNotFoundError:
        raise errors.InvalidInput(f"{source} does not exist any more") from None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _fill(partial: int, source: Path, digest: str, progress: Progress) -> None:
    """Complete the upload: go on after what is there, or start anew when that is no beginning of this file."""
    start = os.fstat(partial).st_size
    if _append(partial, source, progress) != digest:
        os.ftruncate(partial, 0)
        if not start or _append(partial, source, lambda _: None) != digest:
            raise changed(source, digest)
    os.fsync(partial)


def _append(partial: int, source: Path, progress: Progress) -> str:
    seen = hashlib.sha256()
    with os.fdopen(os.dup(partial), "r+b") as target, source.open("rb") as file:
        target.seek(0)
        while chunk := target.read(CHUNK):
            seen.update(chunk)
            progress(len(chunk))
        file.seek(target.tell())
        while chunk := file.read(CHUNK):
            target.write(chunk)
            seen.update(chunk)
            progress(len(chunk))
    return f"sha256:{seen.hexdigest()}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
