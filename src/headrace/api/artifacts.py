"""/api/v1/artifacts/DIGEST: the files of versions, which arrive in pieces and are read in any part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

from anyio import CancelScope
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from headrace.api import problems
from headrace.api.ports import Files, RegistryAccess, Upload
from headrace.api.ranges import Piece, read_content_range, read_range
from headrace.api.registry import owned
from headrace.api.registry_schema import UploadState
from headrace.core import errors

MAX_FILE = 1 << 40
"""Bytes of one stored file."""
MAX_PIECE = 64 << 20
"""Bytes of one request's body: what is lost when it breaks off is at most one piece."""

_WRITE = 1 << 20
_BINARY = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


def router(access: RegistryAccess | None) -> APIRouter:
    routes = APIRouter(prefix="/artifacts", tags=["artifacts"])

    @routes.head("/{digest}", summary="Is a file stored?", responses=problems.described(400, 404, 422))
    def is_stored(digest: str) -> Response:
        size = _size(owned(access).files, digest)
        return Response(headers=_headers(digest) | {"Content-Length": str(size)}, media_type="application/octet-stream")

    @routes.get(
        "/{digest}",
        summary="A stored file, or a part of it",
        response_class=Response,
        responses={200: _BINARY, 206: _BINARY, **problems.described(400, 404, 416, 422)},
    )
    def stored(request: Request, digest: str) -> Response:
        """`Range` is understood. The bytes are not checked on their way out: compare their SHA-256 with the digest."""
        files = owned(access).files
        size = _size(files, digest)
        if request.headers.get("if-none-match") == f'"{digest}"':
            return Response(status_code=304, headers=_headers(digest))
        try:
            part = read_range(request.headers.get("range"), size)
        except ValueError:
            detail = f"Range {request.headers['range'][:60]!r} lies outside of the file's {size} bytes"
            headers = {"Content-Range": f"bytes */{size}"}
            return problems.response(416, detail, path=request.url.path, code="range_not_satisfiable", headers=headers)
        start, stop = part or (0, size)
        headers = _headers(digest) | {"Content-Length": str(stop - start)}
        if part is not None:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        status = 200 if part is None else 206
        return StreamingResponse(_part(files, digest, start, stop), status, headers, "application/octet-stream")

    @routes.put(
        "/{digest}",
        summary="Store a file, whole or in pieces",
        response_model=UploadState,
        responses={
            200: {"description": "It is stored already"},
            201: {"description": "It is complete and stored", "model": UploadState},
            202: {"description": "More is to come: `received` says where to go on", "model": UploadState},
            **problems.described(400, 404, 409, 413, 422, 503, 507),
        },
        openapi_extra={"requestBody": _BINARY},
    )
    async def store(request: Request, digest: str) -> Response:
        """Each request brings one piece of at most 64 MiB, with `Content-Range: bytes FIRST-LAST/SIZE`; without that
        header its body is the whole file. `Content-Range: bytes */SIZE` without a body asks how much has arrived, so
        that an upload that broke off goes on where it stopped. When the last byte is here, the digest is compared."""
        files = owned(access).files
        piece = read_content_range(request.headers.get("content-range"), request.headers.get("content-length"))
        _check_sizes(piece)
        if await run_sync(files.present, digest, piece.size):
            return _state(digest, piece.size, piece.size, 200)
        if piece.start is None:
            return _state(digest, piece.size, await run_sync(files.received, digest, piece.size), 202)
        with ExitStack() as stack:
            upload = await run_sync(stack.enter_context, files.receiving(digest, piece.size, piece.start))
            await _receive(request, upload, piece)
            if upload.received < piece.size:
                return _state(digest, piece.size, upload.received, 202)
            await run_sync(upload.finish)
        return _state(digest, piece.size, piece.size, 201)

    return routes


def _check_sizes(piece: Piece) -> None:
    if piece.size > MAX_FILE:
        raise errors.PayloadTooLarge(f"a file of {piece.size} bytes is too large: at most {MAX_FILE} are stored")
    if piece.start is not None and piece.stop - piece.start > MAX_PIECE:
        raise errors.PayloadTooLarge(
            f"one request brings at most {MAX_PIECE} bytes, not {piece.stop - piece.start}; send the file in pieces,"
            " each with its Content-Range"
        )


async def _receive(request: Request, upload: Upload, piece: Piece) -> None:
    """Append a body to an upload; of one that breaks off, what has arrived is kept."""
    try:
        async for block in _blocks(request):
            if upload.received + len(block) > piece.stop:
                raise errors.InvalidInput("the body is longer than its Content-Range says")
            # A thread that writes cannot be stopped, and its file must not be closed under it.
            with CancelScope(shield=True):
                await run_sync(upload.append, block)
    except ClientDisconnect:
        raise errors.InvalidInput("the connection broke off; go on where `received` says") from None
    if upload.received != piece.stop:
        raise errors.InvalidInput(
            f"the body ended after byte {upload.received} of the file, its Content-Range says {piece.stop}"
        )


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks that are worth a thread's while; the beginning of the last one also when it breaks off."""
    held = bytearray()
    try:
        async for chunk in request.stream():
            held += chunk
            if len(held) >= _WRITE:
                yield bytes(held)
                held.clear()
    except ClientDisconnect:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)


def _size(files: Files, digest: str) -> int:
    size = files.size(digest)
    if size is None:
        raise errors.UnknownArtifact(f"no file with the digest {digest} is stored here")
    return size


def _part(files: Files, digest: str, start: int, stop: int) -> Iterator[bytes]:
    left = stop - start
    for chunk in files.chunks(digest, start) if left else ():
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return


def _headers(digest: str) -> dict[str, str]:
    return {
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, immutable",
        # Whatever somebody stored must never be shown as a page of this server.
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }


def _state(digest: str, size: int, received: int, status: int) -> Response:
    document = UploadState(digest=digest, size=size, received=received, complete=status != 202)
    headers = {"Range": f"bytes=0-{received - 1}"} if status == 202 and received else {}
    return Response(document.model_dump_json(), status, headers, "application/json")
