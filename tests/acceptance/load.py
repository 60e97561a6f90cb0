"""Clients that keep asking from threads of their own and note every answer, for tests that break things meanwhile.

They use ``http.client``, one kept-alive connection each, so that a test knows exactly what was sent when: a request
that met a connection which the server had closed between two requests is sent again on a new one, like every HTTP
client does, and anything else that goes wrong is an answer with status 0.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """Status 0: the connection broke; ``error`` says how. ``at``: monotonic seconds when it was sent."""

    number: int
    status: int
    document: Any
    at: float
    seconds: float
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The error that the server told; empty when there is none."""
        return self.document.get("error", "") if isinstance(self.document, dict) else ""


def infer_body(values: list[float] | float, name: str = "x", datatype: str = "FP32") -> bytes:
    """One input of one dimension, in the Open Inference Protocol's JSON."""
    data = values if isinstance(values, list) else [values]
    tensor = {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}
    return json.dumps({"inputs": [tensor]}).encode()


def output(document: Any, name: str = "y") -> list[Any]:
    """Values of an output of an answer."""
    return next(tensor["data"] for tensor in document["outputs"] if tensor["name"] == name)


class Client:
    """One connection."""

    def __init__(self, address: str, timeout: float = 60.0) -> None:
        self._address = address
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None, number: int = 0) -> Answer:
        at = time.monotonic()
        while True:
            fresh = self._connection is None
            connection = self._connection or http.client.HTTPConnection(self._address, timeout=self._timeout)
            self._connection = connection
            try:
                connection.request("POST", path, body, {**JSON, **(headers or {})})
                response = connection.getresponse()
                raw = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if not fresh and _closed_before(error):
                    continue
                return Answer(number, 0, None, at, time.monotonic() - at, f"{type(error).__name__}: {error}")
            if response.will_close:
                self.close()
            told = {name.lower(): value for name, value in response.getheaders()}
            document = json.loads(raw) if told.get("content-type", "").startswith("application/json") else raw
            return Answer(number, response.status, document, at, time.monotonic() - at, "", told)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _closed_before(error: Exception) -> bool:
    """The server closed a kept-alive connection before it read the request: nothing of an answer came."""
    return isinstance(error, http.client.RemoteDisconnected | BrokenPipeError | ConnectionResetError)


def post(address: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a connection of its own."""
    client = Client(address)
    try:
        return client.post(path, body, headers)
    finally:
        client.close()


def ask(address: str, model: str, values: list[float] | float, **headers: str) -> Answer:
    """One inference on a connection of its own; ``x_request_id`` becomes the header ``x-request-id``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return post(address, f"/v2/models/{model}/infer", infer_body(values), named)


class Load:
    """``clients`` threads ask for the numbers 0, 1, 2, …; request n sends the value n unless ``value`` says otherwise.

    A context manager: the clients start at its beginning and have all ended after it."""

    def __init__(
        self,
        address: str,
        model: str,
        *,
        clients: int = 8,
        count: int | None = None,
        value: Callable[[int], float] = float,
        headers: Mapping[str, str] | None = None,
        pause: float = 0.0,
        operation: str = "infer",
        body: Callable[[float], bytes] = infer_body,
    ) -> None:
        self.answers: list[Answer] = []
        self._address = address
        self._path = f"/v2/models/{model}/{operation}"
        self._body = body
        self._value = value
        self._headers = headers
        self._numbers = iter(range(count)) if count is not None else itertools.count()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pause = pause
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No further requests; wait for the answers of those that are under way."""
        self._ended.set()
        self.join()

    def join(self, timeout: float = 90.0) -> None:
        """Wait until every request has been answered."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
            assert not thread.is_alive(), f"a request has no answer after {timeout} s"

    def wait_for(self, more: int, timeout: float = 60.0) -> None:
        """Wait until ``more`` answers have come from now on."""
        target = len(self.answers) + more
        deadline = time.monotonic() + timeout
        while len(self.answers) < target:
            assert time.monotonic() < deadline, f"{len(self.answers)} answers after {timeout} s, expected {target}"
            time.sleep(0.005)

    def failed(self) -> list[Answer]:
        """Everything but a 200."""
        return [answer for answer in self.answers if answer.status != 200]

    def _run(self) -> None:
        client = Client(self._address)
        while not self._ended.is_set():
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                break
            answer = client.post(self._path, self._body(self._value(number)), self._headers, number)
            with self._lock:
                self.answers.append(answer)
            if self._pause:
                self._ended.wait(self._pause)
        client.close()
