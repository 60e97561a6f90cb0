"""Keys at the management port: which scope opens what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request

from headrace.api.app import create_app
from headrace.api.caller import caller
from headrace.api.key_check import CALLER
from headrace.core.keys import ANYBODY, Principal, Scope
from headrace.pipeline.auth import Guard
from tests.issued import TestKey, key, key_set

MANAGER, ADMIN = key("manager", Scope.MANAGE), key("admin", Scope.ADMIN)
SCRAPER = key("scraper", Scope.METRICS)
PARTNER = key("partner", Scope.PREDICT, endpoints=("*",))
EXPIRED = key("expired", Scope.ADMIN, expires=1.0)
PATHS = (
    *("/", "/metrics", "/api/v1/endpoints", "/api/v1/replicas", "/api/v1/events", "/api/v1/openapi.json"),
    *("/nothing", "/metrics/", "//metrics", "/healthz/"),
)

Ask = Callable[..., httpx.Response]


@pytest.fixture
def guard() -> Guard:
    made = Guard()
    made.follow(key_set(MANAGER, ADMIN, SCRAPER, PARTNER, EXPIRED))
    return made


@pytest.fixture
def ask(controller: Any, tmp_path: Path, guard: Guard) -> Ask:
    app = create_app(controller, metrics_directory=tmp_path, guard=guard)

    def call(path: str, headers: Any = None, method: str = "GET") -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:9000") as client:
                return await client.request(method, f"http://localhost:9000{path}", headers=headers)

        return asyncio.run(send())

    return call


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_read_without_a_key(ask: Ask, path: str) -> None:
    for method in ("GET", "POST", "HEAD", "OPTIONS"):
        answer = ask(path, method=method)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert ask(path).json()["code"] == "unauthorized"
    assert ask(path, EXPIRED.bearer).status_code == 401


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("caller", [MANAGER, ADMIN], ids=lambda caller: caller.record.name)
def test_managers_read_everything(ask: Ask, path: str, caller: TestKey) -> None:
    assert ask(path, caller.bearer).status_code in (200, 404)


@pytest.mark.parametrize("path", PATHS)
def test_other_scopes_open_what_they_are_for(ask: Ask, path: str) -> None:
    assert ask(path, SCRAPER.bearer).status_code == (200 if path == "/metrics" else 403)
    answer = ask(path, PARTNER.bearer)
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"
    assert f"takes the scope {'metrics' if path == '/metrics' else 'manage'}" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_open(ask: Ask, path: str) -> None:
    assert ask(path).status_code == 200


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "X-API-Key"])
def test_other_header_forms(ask: Ask, name: str) -> None:
    assert ask("/metrics", {name: SCRAPER.token}).status_code == 200


def test_repeated_keys_are_refused(ask: Ask) -> None:
    assert ask("/metrics", [("x-api-key", "junk"), ("x-api-key", SCRAPER.token)]).status_code == 401


def test_keys_come_and_go_while_it_runs(ask: Ask, guard: Guard) -> None:
    assert ask("/metrics", SCRAPER.bearer).status_code == 200
    guard.follow(key_set(key("scraper", Scope.METRICS, revoked=1.0), version=2))
    assert "was revoked" in ask("/metrics", SCRAPER.bearer).json()["detail"]
    guard.follow(key_set(version=3, required=False))
    assert ask("/metrics").status_code == 200


def test_a_guard_that_knows_no_keys_yet_says_when_to_come_back(controller: Any, tmp_path: Path) -> None:
    app = create_app(controller, metrics_directory=tmp_path, guard=Guard(closed=True))

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.get("/metrics", headers=ADMIN.bearer)

    answer = asyncio.run(send())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_who_makes_a_change_is_the_key_and_not_what_the_caller_says() -> None:
    principal = principal_of(MANAGER)
    claimed = [(b"x-headrace-user", b"root@elsewhere")]

    def who(**scope: Any) -> str:
        return caller(Request({"type": "http", "headers": claimed, "client": ("10.0.0.9", 1), **scope}))

    assert who() == "root@elsewhere"
    assert who(**{CALLER: ANYBODY}) == "root@elsewhere"
    assert who(**{CALLER: principal}) == "key:manager"


def principal_of(made: TestKey) -> Principal:
    guard = Guard()
    guard.follow(key_set(made))
    return guard.identify({b"x-api-key": made.token.encode()})


def test_whoever_may_ask_a_model_may_say_what_came_of_it(ask: Ask, guard: Guard) -> None:
    """There is no experiment here: 404 and 405 are past the key check."""
    feedback = "/api/v1/experiments/team-a/fraud/feedback"
    own = key("own", Scope.PREDICT, endpoints=("team-a/*",))
    other = key("other", Scope.PREDICT, endpoints=("team-b/*",))
    guard.follow(key_set(MANAGER, SCRAPER, own, other, version=2))
    assert ask(feedback, own.bearer, "POST").status_code == 404
    assert ask(feedback, MANAGER.bearer, "POST").status_code == 404
    for stranger in (other, SCRAPER):
        assert ask(feedback, stranger.bearer, "POST").status_code == 403
    for method, path in (("GET", feedback), ("PUT", "/api/v1/experiments/team-a/fraud"), ("POST", "/api/v1/apply")):
        assert ask(path, own.bearer, method).status_code == 403
