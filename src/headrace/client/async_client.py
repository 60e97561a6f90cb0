"""``AsyncClient``: typed calls to any server of the Open Inference Protocol over HTTP.

One call has one time budget that covers all its attempts; it is sent along, so that the server does not compute what
nobody waits for. Errors are those of ``core.errors``.
"""

# ruff: noqa: ASYNC109  (a call's timeout covers its retries and travels to the server; asyncio.timeout cannot)

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlsplit

import httpx
import msgspec
import numpy as np

from headrace.client.credentials import with_key
from headrace.client.endpoints import AsyncEndpoints
from headrace.client.errors import error_from_response
from headrace.client.experiments import AsyncExperiments
from headrace.client.inputs import Inputs, to_tensors
from headrace.client.keys import AsyncKeys
from headrace.client.management import Management
from headrace.client.metadata import ModelMetadata, decode_metadata
from headrace.client.registry import AsyncModels
from headrace.client.retry import RetryPolicy, delay_before_retry
from headrace.client.rollouts import AsyncRollouts
from headrace.client.sse import EventParser
from headrace.client.wire import Prediction, decode_response, encode_request
from headrace.core import errors
from headrace.core.release import VERSION
from headrace.core.requests import Parameter
from headrace.core.tensors import Array, DType, Tensor, bf16_to_fp32

TIMEOUT_HEADER = "x-request-timeout-ms"

_MANAGEMENT_PORT = 9000
_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")


class AsyncClient:
    """A client of one server; use it as ``async with`` or call ``close``. Safe to share between tasks of one loop.

    ``api_key`` is sent as ``Authorization: Bearer`` to both ports; default: ``HEADRACE_API_KEY`` of the environment.
    ``timeout`` is in seconds, for a whole call with its retries; ``retries`` counts attempts after the first and
    covers refusals only (not ready, overloaded, cannot connect), never a request that may have run.

    ``models`` is the registry behind ``management_url`` (by default port 9000 of the same host): ``models.list()``,
    ``models.push("fraud.onnx")``, …; called, ``models()`` names what is served. ``endpoints`` is what is served there,
    and how: ``endpoints.apply("headrace.yaml")``, ``endpoints.scale("fraud", 3)``, …; ``rollouts`` moves it to other
    versions: ``rollouts.start("fraud", "8")``, …; ``experiments`` compares its deployments:
    ``experiments.start("fraud", ["champion", "challenger"])``, ``experiments.feedback(…)``; ``keys`` are the server's
    API keys, for clients with an admin key: ``keys.create("checkout", ["predict"], ["fraud"])``, …."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
        retries: int = 3,
        verify: bool | str = True,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        management_url: str | None = None,
    ) -> None:
        self.url = _check_url(url)
        tls = _tls(verify)
        management = Management(
            _check_url(management_url) if management_url else _beside(self.url),
            api_key=api_key,
            retries=retries,
            verify=tls,
            transport=transport,
            sleep=sleep,
        )
        self.models = AsyncModels(management, self._served_models)
        self.endpoints = AsyncEndpoints(management)
        self.rollouts = AsyncRollouts(management)
        self.experiments = AsyncExperiments(management)
        self.keys = AsyncKeys(management)
        self.timeout = timeout
        self._policy = RetryPolicy(retries=retries)
        self._sleep = sleep
        self._metadata: dict[tuple[str, str | None], ModelMetadata] = {}
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"user-agent": f"headrace-client/{VERSION}", **with_key(headers, api_key)},
            verify=tls,
            transport=transport,
            # A proxy of the environment has no business between a client and its own machine.
            mounts=None if transport is not None else dict.fromkeys(_LOOPBACK),
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=256),
        )

    async def predict(
        self,
        model: str,
        inputs: Inputs,
        version: str | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Outputs by name. ``inputs``: a dict of lists or arrays, a list of row dicts, a data frame, or one array
        for a model with one input. Text outputs are arrays of str, or of bytes when they are not UTF-8."""
        prediction = await self.infer(model, inputs, version, parameters, outputs=outputs, timeout=timeout)
        return prediction.outputs

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        version: str | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> Prediction:
        """Like ``predict``, and says which version answered."""
        ends = self._ends(timeout)
        key = (model, version)
        known = key in self._metadata
        metadata = await self._known_metadata(key, ends)
        try:
            return await self._infer(key, to_tensors(inputs, metadata), parameters or {}, outputs, ends)
        except errors.InvalidInput:
            # The model behind the name may have changed since its metadata was read.
            if not known:
                raise
            fresh = await self._fetch_metadata(key, ends)
            if fresh == metadata:
                raise
            return await self._infer(key, to_tensors(inputs, fresh), parameters or {}, outputs, ends)

    async def stream(
        self,
        model: str,
        inputs: Mapping[str, Any],
        version: str | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        timeout: float | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Responses of a streaming model, each as a dict, as they come. ``timeout`` bounds the wait for each.

        A stream that broke is not tried again: the caller has seen a part of it. Leaving the loop cancels the work
        on the server once the iterator is closed (``contextlib.aclosing``)."""
        limit = self.timeout if timeout is None else timeout
        metadata = await self._known_metadata((model, version), self._ends(limit))
        body = _generate_body(inputs, metadata, parameters or {})
        path = f"{_model_path(model, version)}/generate_stream"
        async with self._open_stream(path, body, limit) as response:
            parser = EventParser()
            try:
                async for piece in response.aiter_bytes():
                    for event in parser.feed(piece):
                        yield _chunk(event)
            except httpx.HTTPError as error:
                self._refuse_transport(error, f"the stream of {model!r}")
            for event in parser.finish():
                yield _chunk(event)

    async def metadata(self, model: str, version: str | None = None) -> ModelMetadata:
        """Names, dtypes and shapes of a model's inputs and outputs."""
        return await self._fetch_metadata((model, version), self._ends(None))

    async def _served_models(self) -> list[str]:
        response = await self._call("GET", "/v2/models", self._ends(None))
        try:
            return msgspec.json.decode(response.content, type=_Models).models
        except msgspec.DecodeError as error:
            raise errors.Unsupported(f"{self.url} does not list its models: {error}") from error

    async def ready(self, model: str | None = None, version: str | None = None) -> bool:
        """True when the server, or one model, can answer now; False also when nothing listens there.

        Raises UnknownModel for a model that the server does not have."""
        path = "/v2/health/ready" if model is None else f"{_model_path(model, version)}/ready"
        try:
            await self._attempt("GET", path, self._ends(None), b"", {})
        except errors.UnknownModel:
            if model is not None:
                raise
            return False
        except (errors.NotReady, errors.Overloaded, errors.DeadlineExceeded, errors.InvalidInput):
            return False  # Triton says 400 when it is not ready
        return True

    async def wait_ready(self, model: str | None = None, *, timeout: float = 30.0) -> None:
        """Return when the server, or the model, is ready. Raises NotReady after ``timeout`` seconds."""
        ends = time.monotonic() + timeout
        while not await self.ready(model):
            if time.monotonic() >= ends:
                what = f"model {model!r} at {self.url}" if model else self.url
                raise errors.NotReady(f"{what} was not ready within {timeout:g} s")
            await self._sleep(0.05)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        await self.models.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _ends(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    async def _known_metadata(self, key: tuple[str, str | None], ends: float) -> ModelMetadata:
        found = self._metadata.get(key)
        return found if found is not None else await self._fetch_metadata(key, ends)

    async def _fetch_metadata(self, key: tuple[str, str | None], ends: float) -> ModelMetadata:
        response = await self._call("GET", _model_path(*key), ends)
        self._metadata[key] = decode_metadata(response.content)
        return self._metadata[key]

    async def _infer(
        self,
        key: tuple[str, str | None],
        tensors: Sequence[Tensor],
        parameters: Mapping[str, Parameter],
        outputs: Sequence[str] | None,
        ends: float,
    ) -> Prediction:
        headers, body = encode_request(tensors, parameters, outputs)
        response = await self._call("POST", f"{_model_path(*key)}/infer", ends, body, headers)
        return decode_response(response.headers, response.content)

    async def _call(
        self, method: str, path: str, ends: float, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One call with its retries."""
        attempt = 1
        while True:
            try:
                return await self._attempt(method, path, ends, body, headers or {})
            except errors.HeadraceError as error:
                left = ends - time.monotonic()
                delay = delay_before_retry(self._policy, error, attempt, left, random.random())
                if delay is None:
                    raise
            await self._sleep(delay)
            attempt += 1

    async def _attempt(
        self, method: str, path: str, ends: float, body: bytes, headers: Mapping[str, str]
    ) -> httpx.Response:
        left = ends - time.monotonic()
        if left <= 0:
            raise errors.DeadlineExceeded(f"no time was left to call {self.url}{path}")
        request = self._http.build_request(
            method,
            path,
            content=body if method == "POST" else None,
            headers={TIMEOUT_HEADER: str(max(1, round(left * 1e3))), **headers},
            timeout=left,
        )
        try:
            async with asyncio.timeout(left):
                response = await self._http.send(request)
        except TimeoutError:
            raise errors.DeadlineExceeded(f"{self.url}{path} did not answer within {left:.3g} s") from None
        except httpx.HTTPError as error:
            self._refuse_transport(error, f"{self.url}{path}")
        if not response.is_success:
            raise error_from_response(response.status_code, response.headers, response.content, f"{self.url}{path}")
        return response

    @asynccontextmanager
    async def _open_stream(self, path: str, body: bytes, limit: float) -> AsyncIterator[httpx.Response]:
        """A streamed answer, retried until its head has come."""
        attempt, ends = 1, time.monotonic() + limit
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        while True:
            try:
                request = self._http.build_request("POST", path, content=body, headers=headers, timeout=limit)
                response = await self._http.send(request, stream=True)
                if response.is_success:
                    break
                content = await response.aread()
                await response.aclose()
                error = error_from_response(response.status_code, response.headers, content, f"{self.url}{path}")
            except httpx.HTTPError as failure:
                error = self._transport_error(failure, f"{self.url}{path}")
            delay = delay_before_retry(self._policy, error, attempt, ends - time.monotonic(), random.random())
            if delay is None:
                raise error
            await self._sleep(delay)
            attempt += 1
        try:
            yield response
        finally:
            await response.aclose()

    def _refuse_transport(self, error: httpx.HTTPError, what: str) -> NoReturn:
        raise self._transport_error(error, what) from error

    def _transport_error(self, error: httpx.HTTPError, what: str) -> errors.HeadraceError:
        reason = str(error) or type(error).__name__
        match error:
            case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
                refused: errors.HeadraceError = errors.NotReady(f"cannot connect to {self.url}: {reason}")
                refused.retry_after = None  # nobody was there to ask for a pause
                return refused
            case httpx.TimeoutException():
                return errors.DeadlineExceeded(f"{what} did not answer in time")
            case _:
                return errors.ReplicaDied(f"the connection broke while waiting for {what}: {reason}")


class _Models(msgspec.Struct):
    models: list[str]


def _check_url(url: str) -> str:
    if "://" not in url:
        url = f"http://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise errors.BadSettings(f"{url!r} is not a server's address; expected http://HOST:PORT or https://HOST:PORT")
    return url.rstrip("/")


def _beside(url: str) -> str:
    """Where the management port of a server is unless somebody moved it."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{_MANAGEMENT_PORT}"


def _tls(verify: bool | str) -> Any:
    """A CA file by its path is what people have; httpx wants a context for it."""
    if not isinstance(verify, str):
        return verify
    import ssl  # only for people with their own certificate authority

    return ssl.create_default_context(cafile=verify)


def _model_path(model: str, version: str | None) -> str:
    # Slashes of a name stay: tritonclient sends them raw too, and every server of the protocol splits on suffixes.
    path = f"/v2/models/{quote(model, safe='/')}"
    return path if version is None else f"{path}/versions/{quote(version, safe='')}"


def _generate_body(inputs: Mapping[str, Any], metadata: ModelMetadata, parameters: Mapping[str, Parameter]) -> bytes:
    document: dict[str, Any] = {tensor.name: _plain(tensor) for tensor in to_tensors(inputs, metadata)}
    if parameters:
        document["parameters"] = dict(parameters)
    return msgspec.json.encode(document)


def _plain(tensor: Tensor) -> Any:
    """A tensor as JSON; a single element as a scalar, the usual form of ``text_input``."""
    array = bf16_to_fp32(tensor.array) if tensor.dtype is DType.BF16 else tensor.array
    if tensor.dtype is DType.BYTES:
        array = np.array([item.decode() for item in array.ravel()], dtype=object).reshape(array.shape)
    return array.item() if array.size == 1 else array.tolist()


def _chunk(event: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(event, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise errors.Unsupported(f"the server sent an event that is no JSON object: {error}") from error
    if document.keys() <= {"error", "code"} and isinstance(document.get("error"), str):
        raise errors.from_code(str(document.get("code", "")), document["error"])
    return document
