"""Blobs in an object store, and models read from one: S3, Google Cloud Storage, Azure, through obstore.

Credentials come from where the providers' own tools look: the environment (``AWS_…``, ``GOOGLE_…``, ``AZURE_…``) or the
machine's role. An object appears when its upload is complete, so nothing half-written can be read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Set
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headrace.core import errors
from headrace.store.artifacts import CHUNK, Artifacts, Collected, Progress, changed, digest_of, failed, key_of, missing

SCHEMES = ("s3", "gs", "az")
_REFRESH_AFTER = timedelta(hours=1)
"""A blob older than this is made young when it is put again; shorter than any grace of ``collect``."""

_REASON = re.compile(r"<Code>([^<]*)</Code>\s*<Message>([^<\n]*)")
"""The XML in which all three kinds of store say why."""


class ObjectArtifacts(Artifacts):
    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._store = _open(self._url)

    def where(self, digest: str) -> str:
        return f"{self._url}/{key_of(digest)}"

    def put(self, source: Path, digest: str, progress: Progress) -> None:
        import obstore

        with _typed(self.where(digest)):
            size = source.stat().st_size
            if self._fresh(key_of(digest), size):
                progress(size)
                return
            upload = _Upload(source, digest, progress)
            try:
                obstore.put(self._store, key_of(digest), upload.chunks())
            except Exception as error:
                # An error inside the generator comes back as another one, after the upload was given up.
                if upload.wrong is not None:
                    raise upload.wrong from error
                # Of several writers of one blob Azure drops the parts of all but the first that ends.
                if not self._fresh(key_of(digest), size):
                    raise
                progress(size - upload.moved)

    def size(self, digest: str) -> int | None:
        meta = self._head(key_of(digest))
        return None if meta is None else int(meta["size"])

    def present(self, digest: str, size: int) -> bool:
        with _typed(self.where(digest)):
            return self._fresh(key_of(digest), size)

    def _head(self, key: str) -> Any:
        import obstore

        with _typed(f"{self._url}/{key}"):
            try:
                return obstore.head(self._store, key)
            except FileNotFoundError:
                return None

    def _fresh(self, key: str, size: int) -> bool:
        import obstore

        meta = self._head(key)
        if meta is None or meta["size"] != size:
            return False
        if datetime.now(UTC) - meta["last_modified"] > _REFRESH_AFTER:
            # There is no "touch", and a copy of an object onto itself is refused.
            obstore.copy(self._store, key, f"touch/{key}")
            obstore.copy(self._store, f"touch/{key}", key)
            obstore.delete(self._store, f"touch/{key}")
        return True

    def chunks(self, digest: str, start: int = 0) -> Iterator[bytes]:
        yield from _read(self._store, key_of(digest), self.where(digest), start)

    def collect(self, referenced: Set[str], before: float, *, dry_run: bool = False) -> Collected:
        import obstore

        oldest = datetime.fromtimestamp(before, UTC)
        count = size = 0
        with _typed(self._url):
            for page in obstore.list(self._store, "sha256"):
                for meta in page:
                    if meta["last_modified"] >= oldest or digest_of(meta["path"]) in referenced:
                        continue
                    count, size = count + 1, size + meta["size"]
                    if not dry_run:
                        obstore.delete(self._store, meta["path"])
        return Collected(count, size)


class _Upload:
    """A file in pieces for native code, and what happened while they were made."""

    def __init__(self, source: Path, digest: str, progress: Progress) -> None:
        self._source = source
        self._digest = digest
        self._progress = progress
        self.moved = 0
        self.wrong: errors.HeadraceError | None = None

    def chunks(self) -> Iterator[bytes]:
        """The last piece is held back until the digest is known to be right."""
        seen = hashlib.sha256()
        held = b""
        with self._source.open("rb") as file:
            while chunk := file.read(CHUNK):
                seen.update(chunk)
                if held:
                    yield held
                    self._move(len(held))
                held = chunk
        if f"sha256:{seen.hexdigest()}" != self._digest:
            self.wrong = changed(self._source, self._digest)
            raise self.wrong
        yield held
        self._move(len(held))

    def _move(self, size: int) -> None:
        self.moved += size
        self._progress(size)


def download(url: str, folder: Path, progress: Progress) -> Path:
    """Copy the object at ``url``, or everything below it, into ``folder``; return the file or folder.

    Raises InvalidInput when nothing is there, StoreFailed, StorageFull."""
    import obstore

    bucket, _, path = url.rstrip("/").partition("://")[2].partition("/")
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES or not path:
        raise errors.BadSettings(
            f"{url!r} names no object: write s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH"
        )
    store = _open(f"{scheme}://{bucket}")
    target = folder / path.rpartition("/")[2]
    with _typed(url):
        listed = [meta["path"] for page in obstore.list(store, path) for meta in page]
    keys = listed or ([path] if _exists(store, path, url) else [])
    if not keys:
        raise errors.InvalidInput(f"there is nothing at {url}")
    for key in keys:
        file = target if key == path else target / key[len(path) + 1 :]
        if ".." in file.parts:
            raise errors.InvalidInput(f"{scheme}://{bucket}/{key} would be written outside of its folder")
        file.parent.mkdir(parents=True, exist_ok=True)
        _save(store, key, file, progress)
    return target


def _exists(store: Any, key: str, where: str) -> bool:
    import obstore

    with _typed(where):
        try:
            obstore.head(store, key)
        except FileNotFoundError:
            return False
        return True


def _save(store: Any, key: str, file: Path, progress: Progress) -> None:
    try:
        with file.open("wb") as output:
            for chunk in _read(store, key, key):
                output.write(chunk)
                progress(len(chunk))
    except OSError as error:
        raise failed(file, error) from error


def _read(store: Any, key: str, where: str, start: int = 0) -> Iterator[bytes]:
    import obstore

    options: Any = {"range": {"offset": start}} if start else None  # a range of an empty object is refused
    with _typed(where):
        try:
            stream = obstore.get(store, key, options=options).stream(min_chunk_size=CHUNK)
        except FileNotFoundError:
            raise missing(where) from None
        for chunk in stream:
            yield bytes(chunk)


def _open(url: str) -> Any:
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise errors.BadSettings("object stores need a library: pip install 'headrace[storage]'") from error
    if url.partition("://")[0] not in SCHEMES:
        raise errors.BadSettings(f"{url!r} is no object store: use s3://, gs:// or az://")
    with _typed(url):
        return from_url(url)


@contextmanager
def _typed(where: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise errors.StoreFailed(f"{where}: {_said(str(error).strip())}") from error


def _said(text: str) -> str:
    """What happened, and the server's own words for it; the rest of the text is the library's trace."""
    first = text.splitlines()[0].partition(": <?xml")[0]
    reason = _REASON.search(text)
    return f"{first}: {reason[1]}: {reason[2].strip()}" if reason else first
