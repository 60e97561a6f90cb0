"""``Client``: the synchronous face of ``AsyncClient``, one thin wrapper.

The calls run on an event loop in a thread of the client's own, so that it works in scripts, notebooks (where a loop
is already running) and threads alike.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from headrace.client.async_client import AsyncClient
from headrace.client.endpoints import Endpoints
from headrace.client.experiments import Experiments
from headrace.client.inputs import Inputs
from headrace.client.keys import Keys
from headrace.client.metadata import ModelMetadata
from headrace.client.models import Models
from headrace.client.rollouts import Rollouts
from headrace.client.wire import Prediction
from headrace.core import errors
from headrace.core.requests import Parameter
from headrace.core.tensors import Array

T = TypeVar("T")


class Client:
    """A client of one server. Safe to share between threads; use it as ``with`` or call ``close``.

        client = headrace.Client("http://localhost:8000")
        client.predict("fraud", {"amount": [12.5], "country": ["US"]})
        client.models.push("fraud.onnx", "fraud", alias="champion")

    Arguments are those of ``AsyncClient``."""

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
        management_url: str | None = None,
    ) -> None:
        self._async = AsyncClient(
            url,
            api_key=api_key,
            timeout=timeout,
            headers=headers,
            retries=retries,
            verify=verify,
            transport=transport,
            management_url=management_url,
        )
        self._loop = _LoopThread()
        self._finalizer = weakref.finalize(self, _close, self._async, self._loop)

    @property
    def url(self) -> str:
        return self._async.url

    # What is reached through them keeps the client alive: Client(url).models.list() is a whole program.

    @property
    def models(self) -> Models:
        return Models(self._async.models, self._run)

    @property
    def endpoints(self) -> Endpoints:
        return Endpoints(self._async.endpoints, self._run)

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(self._async.rollouts, self._run)

    @property
    def experiments(self) -> Experiments:
        return Experiments(self._async.experiments, self._run)

    @property
    def keys(self) -> Keys:
        return Keys(self._async.keys, self._run)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(coroutine)

    def predict(
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
        return self.infer(model, inputs, version, parameters, outputs=outputs, timeout=timeout).outputs

    def infer(
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
        return self._loop.run(self._async.infer(model, inputs, version, parameters, outputs=outputs, timeout=timeout))

    def stream(
        self,
        model: str,
        inputs: Mapping[str, Any],
        version: str | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        timeout: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Responses of a streaming model as they come. Closing the iterator (leaving the loop) cancels the work."""
        chunks = self._async.stream(model, inputs, version, parameters, timeout=timeout)

        async def following() -> dict[str, Any] | None:
            return await anext(chunks, None)

        try:
            while (chunk := self._loop.run(following())) is not None:
                yield chunk
        finally:
            self._loop.run(chunks.aclose())

    def metadata(self, model: str, version: str | None = None) -> ModelMetadata:
        """Names, dtypes and shapes of a model's inputs and outputs."""
        return self._loop.run(self._async.metadata(model, version))

    def ready(self, model: str | None = None, version: str | None = None) -> bool:
        """True when the server, or one model, can answer now."""
        return self._loop.run(self._async.ready(model, version))

    def wait_ready(self, model: str | None = None, *, timeout: float = 30.0) -> None:
        """Return when the server, or the model, is ready. Raises NotReady after ``timeout`` seconds."""
        self._loop.run(self._async.wait_ready(model, timeout=timeout))

    def close(self) -> None:
        """Close the connections and end the thread. Also happens when the client is collected."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class _LoopThread:
    """An event loop in a daemon thread, started by the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._closed = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end and give the result. An interrupt (Ctrl-C) cancels the coroutine."""
        try:
            loop = self._started()
        except errors.HeadraceError:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run ``last``, then end the thread. Later calls are refused."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or os.getpid() != self._process:
            last.close()
            return

        async def ending() -> None:
            await last
            # Calls that other threads still wait for end as cancelled instead of never.
            waiting = asyncio.all_tasks() - {asyncio.current_task()}
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            await loop.shutdown_asyncgens()
            loop.stop()

        asyncio.run_coroutine_threadsafe(ending(), loop)
        # The garbage collector may close a forgotten client from the loop's own thread.
        if threading.current_thread() is not thread:
            thread.join()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closed:
                raise errors.BadSettings("this client is closed; make a new one")
            if os.getpid() != self._process:
                raise errors.BadSettings("this client was made before a fork; make one in each process")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_serve, args=[self._loop], name="headrace-client", daemon=True)
                self._thread.start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _close(client: AsyncClient, loop: _LoopThread) -> None:
    loop.close(client.close())
