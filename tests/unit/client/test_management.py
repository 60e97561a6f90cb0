"""Calls of the management API: what is tried again, what is not, and which errors come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from headrace.client.management import Management
from headrace.core import errors

Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers with each of ``script`` in turn: a response, or an error of the connection."""

    def __init__(self, *script: httpx.Response | Exception) -> None:
        self._script = list(script)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    headers = {"content-type": "application/problem+json", **headers}
    return httpx.Response(status, headers=headers, json={"detail": "because", "code": code})


def run(server: Server, call: Callable[[Management], Any], slept: list[float] | None = None, **options: Any) -> Any:
    async def sleep(seconds: float) -> None:
        if slept is not None:
            slept.append(seconds)

    async def main() -> Any:
        management = Management("http://x", transport=httpx.MockTransport(server), sleep=sleep, **options)
        try:
            return await call(management)
        finally:
            await management.close()

    return asyncio.run(main())


OK = httpx.Response(200, json={})
BROKEN = httpx.ReadError("reset by peer")


def test_a_post_is_sent_again_under_the_same_key() -> None:
    server = Server(BROKEN, problem(503, "state_in_use"), BROKEN, OK)
    assert run(server, lambda management: management.post("/gc", {"grace_s": 1})) is OK
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert len(server.requests) == 4
    assert len(keys) == 1
    other = Server(OK)
    run(other, lambda management: management.post("/gc", {}))
    assert other.requests[0].headers["idempotency-key"] not in keys


def test_reading_is_tried_again_with_pauses() -> None:
    slept: list[float] = []
    server = Server(BROKEN, httpx.ConnectError("refused"), problem(503, "not_ready", **{"retry-after": "2"}), OK)
    assert run(server, lambda management: management.get("/models", {"limit": 5, "cursor": None}), slept) is OK
    assert str(server.requests[0].url) == "http://x/api/v1/models?limit=5"
    assert slept[0] < 0.1
    assert slept[1] < 0.2
    assert slept[2] >= 2.0, "as asked, never sooner"


def test_a_change_that_may_have_happened_is_not_repeated() -> None:
    server = Server(BROKEN)
    with pytest.raises(errors.ReplicaDied, match="broke"):
        run(server, lambda management: management.call("PUT", "/models/m/aliases/a", body={}))
    refused = Server(problem(503, "state_in_use"), httpx.ConnectError("refused"), OK)
    assert run(refused, lambda management: management.call("PUT", "/models/m/aliases/a", body={})) is OK


def test_an_end_of_patience() -> None:
    server = Server(*[BROKEN] * 4)
    with pytest.raises(errors.ReplicaDied):
        run(server, lambda management: management.get("/models"))
    assert len(server.requests) == 4
    with pytest.raises(errors.NotReady, match="cannot connect to http://x"):
        run(Server(httpx.ConnectError("refused")), lambda management: management.get("/models"), retries=0)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(404, "unknown_model"), errors.UnknownModel),
        (problem(404, "unknown_artifact"), errors.UnknownArtifact),
        (problem(404, "no_registry"), errors.NoRegistry),
        (problem(409, "conflict"), errors.Conflict),
        (problem(412, "precondition_failed"), errors.PreconditionFailed),
        (problem(422, "wrong_digest"), errors.WrongDigest),
        (problem(422, "load_failed"), errors.LoadFailed),
        (problem(400, "bad_settings"), errors.BadSettings),
        (problem(500, "corrupted"), errors.Corrupted),
        (problem(507, "storage_full"), errors.StorageFull),
        (problem(401, "unauthorized"), errors.Unauthorized),
        (problem(418, "a_code_of_tomorrow"), errors.CallerError),
        (problem(403, "cross_origin"), errors.Forbidden),
        (httpx.Response(404, text="<html>"), errors.UnknownModel),
        (httpx.Response(500, headers={"content-type": "application/problem+json"}, text="{"), errors.RuntimeFailed),
    ],
)
def test_problems_are_the_errors_that_they_were(answer: httpx.Response, kind: type[Exception]) -> None:
    with pytest.raises(errors.HeadraceError) as raised:
        run(Server(answer), lambda management: management.get("/x"), retries=0)
    assert type(raised.value) is kind
    if answer.headers.get("content-type") == "application/problem+json" and answer.text != "{":
        assert raised.value.message == "because"


def test_the_key_that_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(**options: Any) -> httpx.Headers:
        server = Server(OK)
        run(server, lambda management: management.get("/x"), **options)
        return server.requests[0].headers

    monkeypatch.delenv("HEADRACE_API_KEY", raising=False)
    monkeypatch.setenv("LOGNAME", "ada")
    assert "authorization" not in sent()
    assert sent()["x-headrace-user"].startswith("ada@")
    assert sent(api_key="k1")["authorization"] == "Bearer k1"
    monkeypatch.setenv("HEADRACE_API_KEY", "k2")
    assert sent()["authorization"] == "Bearer k2"
    assert sent(api_key="k1")["authorization"] == "Bearer k1"
