"""Files of versions on their way: sent in pieces from where the last attempt stopped, received and compared."""

from __future__ import annotations

import errno
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from headrace.client.management import Management
from headrace.client.retry import delay_before_retry
from headrace.core import errors
from headrace.core.versions import StoredFile

PIECE = 4 << 20
"""Bytes of one request. What is lost when a connection breaks is at most one piece."""

Moved = Callable[[int], None]
"""Called with the bytes that were just moved."""

_TIMEOUT_S = 300.0


class _UploadState(msgspec.Struct):
    received: int
    complete: bool


async def send(management: Management, source: Path, file: StoredFile, moved: Moved) -> None:
    """Store a file on the server, unless it is there already. Goes on where an earlier upload stopped.

    Raises InvalidInput when the file has other bytes than its digest says."""
    path = f"/artifacts/{file.digest}"
    state = await _ask(management, path, file.size)
    if state.complete:
        moved(file.size)
        return
    reported = 0
    resumed = state.received > 0
    attempt = 1
    while not state.complete:
        if state.received > reported:
            moved(state.received - reported)
            reported, attempt = state.received, 1
        try:
            state = await _send_piece(management, path, source, file, state.received)
        except errors.WrongDigest:
            if not resumed:
                raise errors.InvalidInput(f"{source} changed while it was pushed; push it again") from None
            # The beginning was somebody else's, and no beginning of this file.
            resumed, state = False, _UploadState(0, complete=False)
        except (errors.ReplicaDied, errors.WrongOffset, errors.StateInUse) as error:
            await _pause(management, _as_broken(error), attempt)
            attempt += 1
            state = await _ask(management, path, file.size)
    moved(file.size - reported)


async def _pause(management: Management, error: errors.HeadraceError, attempt: int) -> None:
    """Wait before attempt number ``attempt`` + 1, or give up with the error."""
    delay = delay_before_retry(management.policy, error, attempt, _TIMEOUT_S, random.random(), repeatable=True)
    if delay is None:
        raise error
    await management.sleep(delay)


def _as_broken(error: errors.HeadraceError) -> errors.HeadraceError:
    """After a piece that arrived although its answer did not, the offset is another one: as good as a broken line."""
    return errors.ReplicaDied(error.message) if isinstance(error, errors.WrongOffset) else error


async def _ask(management: Management, path: str, size: int) -> _UploadState:
    headers = {"content-range": f"bytes */{size}"}
    answer = await management.call("PUT", path, headers=headers, content=b"", repeatable=True)
    return msgspec.json.decode(answer.content, type=_UploadState)


async def _send_piece(management: Management, path: str, source: Path, file: StoredFile, start: int) -> _UploadState:
    piece = _read(source, start, min(PIECE, file.size - start))
    headers = {"content-type": "application/octet-stream"}
    if file.size:
        if not piece:
            raise errors.InvalidInput(f"{source} changed while it was pushed; push it again")
        headers["content-range"] = f"bytes {start}-{start + len(piece) - 1}/{file.size}"
    answer = await management.call("PUT", path, headers=headers, content=piece, timeout_s=_TIMEOUT_S)
    return msgspec.json.decode(answer.content, type=_UploadState)


def _read(source: Path, start: int, count: int) -> bytes:
    try:
        with source.open("rb") as file:
            file.seek(start)
            return file.read(count)
    except OSError as error:
        raise errors.InvalidInput(f"{source} cannot be read: {error.strerror}") from error


async def receive(management: Management, file: StoredFile, target: Path, moved: Moved) -> None:
    """Write a stored file to ``target``. Goes on where a broken connection stopped.

    Raises Corrupted when it is missing on the server or its bytes do not have the digest."""
    with _Sink(target, file) as sink:
        attempt = 1
        while sink.received < file.size:
            before = sink.received
            try:
                await _receive_rest(management, file, sink, moved)
            except (errors.ReplicaDied, errors.NotReady, errors.Overloaded) as error:
                attempt = 1 if sink.received > before else attempt + 1
                await _pause(management, error, attempt)
            except errors.UnknownArtifact:
                raise errors.Corrupted(
                    f"{file.path} ({file.digest}) is missing on {management.url}; push the model again from its source"
                ) from None
        sink.check(management.url)


async def _receive_rest(management: Management, file: StoredFile, sink: _Sink, moved: Moved) -> None:
    headers = {"range": f"bytes={sink.received}-"} if sink.received else {}
    async with management.stream(f"/artifacts/{file.digest}", headers, _TIMEOUT_S) as response:
        if sink.received and response.status_code != 206:
            raise errors.Unsupported(f"{management.url} sends no parts of files")
        async for chunk in response.aiter_raw():
            sink.write(chunk)
            moved(len(chunk))
    if sink.received < file.size:
        raise errors.ReplicaDied(f"{management.url} sent {sink.received} of {file.size} bytes of {file.path}")


class _Sink:
    """A file that is written and hashed at once."""

    def __init__(self, target: Path, file: StoredFile) -> None:
        self._target = target
        self._file = file
        self._hash = hashlib.sha256()
        self.received = 0

    def __enter__(self) -> Self:
        try:
            self._output = self._target.open("wb")
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._output.close()

    def write(self, chunk: bytes) -> None:
        if self.received + len(chunk) > self._file.size:
            raise errors.Corrupted(f"{self._file.path} has more than its {self._file.size} bytes on the server")
        try:
            self._output.write(chunk)
        except OSError as error:
            raise self._failed(error) from error
        self._hash.update(chunk)
        self.received += len(chunk)

    def check(self, url: str) -> None:
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._file.digest:
            raise errors.Corrupted(
                f"{self._file.path} is damaged on {url}: it has the digest {found}, not {self._file.digest};"
                " push the model again from its source"
            )

    def _failed(self, error: OSError) -> errors.StoreFailed:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        kind = errors.StorageFull if full else errors.StoreFailed
        return kind(f"{self._target}: {error.strerror}")
