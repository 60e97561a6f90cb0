"""Errors of the management API: problem documents of RFC 9457, whatever went wrong and wherever it did."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headrace.core import errors
from headrace.telemetry.logging import Log

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[errors.HeadraceError], int], ...] = (
    (errors.UnknownModel, 404),
    (errors.UnknownArtifact, 404),
    (errors.NoRegistry, 404),
    (errors.WrongDigest, 422),
    (errors.KeyReused, 422),
    (errors.PreconditionFailed, 412),
    (errors.PreconditionRequired, 428),
    (errors.UnknownKey, 404),
    (errors.UnknownExperiment, 404),
    (errors.MethodNotAllowed, 405),
    (errors.PayloadTooLarge, 413),
    (errors.Unauthorized, 401),
    (errors.Forbidden, 403),
    (errors.Unsupported, 501),
    (errors.Conflict, 409),
    (errors.CallerError, 400),
    (errors.QuotaExceeded, 429),
    (errors.Overloaded, 503),
    (errors.NotReady, 503),
    (errors.StateInUse, 503),
    (errors.LeaseLost, 503),
    (errors.StorageFull, 507),
    (errors.LoadFailed, 422),
    (errors.DeadlineExceeded, 504),
    (errors.HeadraceError, 500),
)
"""The first class that fits decides."""

_log = Log(__name__)


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field("about:blank", description="URI of the kind of problem; `about:blank`: the status says it all.")
    title: str = Field(description="The HTTP status in words.")
    status: int
    detail: str = Field(description="What is wrong here, and what to do about it.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable error code for machines.")


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with problems, for the OpenAPI document."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Make every error of this application a problem document."""
    app.add_exception_handler(errors.HeadraceError, _headrace_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _bug)


def response(
    status: int, detail: str, *, path: str, code: str, headers: Mapping[str, str] | None = None, **extensions: Any
) -> Response:
    """A problem response; ``extensions`` are further members of the document."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path,
        "code": code,
        **extensions,
    }
    return Response(msgspec.json.encode(document), status, headers=headers, media_type=MEDIA_TYPE)


def status_of(error: errors.HeadraceError) -> int:
    """HTTP status of an error of ours."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


async def _headrace_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.HeadraceError)
    status = status_of(error)
    if status == 500 and not isinstance(error, errors.StoreFailed):
        return await _bug(request, error)
    if status >= 500 and isinstance(error, errors.StoreFailed):
        # Whoever keeps models here must know which file is damaged or why nothing can be stored.
        _log.error("The registry's state failed", action="state_failed", path=request.url.path, exception=error)
    return error_response(error, request.url.path)


def error_response(error: errors.HeadraceError, path: str) -> Response:
    """The problem document of a typed error, with the headers that go with its status."""
    status = status_of(error)
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return response(status, error.message, path=path, code=error.code, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        return response(404, f"there is nothing at {path}; / lists what there is", path=path, code="not_found")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        detail = f"{path} does not take {request.method}; it takes {allowed}"
        return response(405, detail, path=path, code=errors.MethodNotAllowed.code, headers={"Allow": allowed})
    if error.status_code == 413:
        return response(413, str(error.detail), path=path, code=errors.PayloadTooLarge.code)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return response(error.status_code, str(error.detail), path=path, code=code, headers=error.headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"location": ".".join(map(str, fault["loc"])), "message": fault["msg"], "got": str(fault.get("input"))[:200]}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['location']}: {fault['message']}, got {fault['got']!r}" for fault in faults)
    return response(422, detail, path=request.url.path, code=errors.InvalidInput.code, errors=faults)


async def _bug(request: Request, error: Exception) -> Response:
    _log.error("The management API failed", action="management_failed", path=request.url.path, exception=error)
    detail = "the server failed to answer; its log says why"
    return response(500, detail, path=request.url.path, code=errors.Bug.code)
