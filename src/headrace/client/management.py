"""Calls of the management API: retries, typed errors, who calls and with which key. Knows no noun of the API."""

from __future__ import annotations

import asyncio
import getpass
import random
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from headrace.client.credentials import with_key
from headrace.client.errors import error_from_response
from headrace.client.retry import RetryPolicy, delay_before_retry
from headrace.core import errors
from headrace.core.release import VERSION

_CONNECT_S = 10.0
_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")
_WHO_HEADER = "x-headrace-user"


class Management:
    """The management port of one server. Connections are made when the first call needs them.

    ``retries`` counts attempts after the first. Refusals are retried; a request that may have been done only when doing
    it again is harmless: reading, and POSTs, which carry an idempotency key."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        retries: int = 3,
        verify: Any = True,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.url = url
        self.policy = RetryPolicy(retries=retries)
        self.sleep = sleep
        self._api_key = api_key
        self._verify = verify
        self._transport = transport
        self._http: httpx.AsyncClient | None = None

    async def get(self, path: str, query: Mapping[str, str | int | None] | None = None) -> httpx.Response:
        """``path`` is below ``/api/v1``; query parameters that are None are left out."""
        return await self.call("GET", path, query=query, repeatable=True)

    async def post(
        self, path: str, body: Any = None, *, timeout_s: float = 60.0, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """A POST that happens once, however often it has to be sent. ``body``: anything that msgspec encodes."""
        keyed = {**(headers or {}), "idempotency-key": str(uuid.uuid4())}
        return await self.call("POST", path, timeout_s=timeout_s, body=body, headers=keyed, repeatable=True)

    async def call(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float = 60.0,
        query: Mapping[str, str | int | None] | None = None,
        body: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """A successful answer, after retries. Raises what the problem document says, NotReady when nobody answers."""
        given = dict(headers or {})
        if body is not None:
            content, given["content-type"] = msgspec.json.encode(body), "application/json"
        known = {name: value for name, value in (query or {}).items() if value is not None}
        attempt, ends = 1, time.monotonic() + timeout_s
        while True:
            try:
                return await self._attempt(method, path, known, content, given, timeout_s)
            except errors.HeadraceError as error:
                left = ends - time.monotonic()
                delay = delay_before_retry(self.policy, error, attempt, left, random.random(), repeatable=repeatable)
                if delay is None:
                    raise
            await self.sleep(delay)
            attempt += 1

    async def _attempt(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        content: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> httpx.Response:
        where = f"{self.url}/api/v1{path}"
        try:
            response = await self._client().request(
                method,
                f"/api/v1{path}",
                params=query,
                content=content,
                headers=headers,
                timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_S)),
            )
        except httpx.HTTPError as error:
            raise self.transport_error(error, where) from error
        if not response.is_success:
            raise error_from_response(response.status_code, response.headers, response.content, where)
        return response

    @asynccontextmanager
    async def stream(self, path: str, headers: Mapping[str, str], timeout_s: float) -> AsyncIterator[httpx.Response]:
        """An answer whose body is read by the caller; one attempt."""
        where = f"{self.url}/api/v1{path}"
        timeout = httpx.Timeout(timeout_s, connect=_CONNECT_S)
        try:
            async with self._client().stream("GET", f"/api/v1{path}", headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    content = await response.aread()
                    raise error_from_response(response.status_code, response.headers, content, where)
                yield response
        except httpx.HTTPError as error:
            raise self.transport_error(error, where) from error

    def transport_error(self, error: httpx.HTTPError, where: str) -> errors.HeadraceError:
        reason = str(error) or type(error).__name__
        match error:
            case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
                refused: errors.HeadraceError = errors.NotReady(f"cannot connect to {self.url}: {reason}")
                refused.retry_after = None  # nobody was there to ask for a pause
                return refused
            case httpx.TimeoutException():
                return errors.DeadlineExceeded(f"{where} did not answer in time")
            case _:
                return errors.ReplicaDied(f"the connection to {where} broke: {reason}")

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers=_headers(self._api_key),
                verify=self._verify,
                transport=self._transport,
                # A proxy of the environment has no business between a client and its own machine.
                mounts=None if self._transport is not None else dict.fromkeys(_LOOPBACK),
            )
        return self._http


def in_path(endpoint: str) -> str:
    """An endpoint's name as a part of a path; its slashes stay."""
    return quote(endpoint, safe="/")


def _headers(api_key: str | None) -> dict[str, str]:
    headers = with_key({"user-agent": f"headrace-client/{VERSION}"}, api_key)
    try:
        name = f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return headers  # a container's user may have no name; the server notes the address then
    if name.isascii() and name.isprintable():
        headers[_WHO_HEADER] = name
    return headers
