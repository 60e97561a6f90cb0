"""/api/v1/keys over a real state: for holders of an admin key, each secret once, each request once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.app.keys.key_state import open_issuer
from headrace.app.state.location import Location
from headrace.core import errors, keys
from headrace.core.keys import Scope
from headrace.store.answers import Answers
from headrace.store.database import open_database, sqlite_url
from headrace.store.state import State
from tests.key_server import NO_ENVIRON, KeyServer

METRICS = {"name": "prometheus", "scopes": ["metrics"]}


class Api:
    """Asked with the admin key unless a header says otherwise."""

    def __init__(self, server: KeyServer, admin: str) -> None:
        self.server = server
        self.admin = admin
        self._transport = httpx.ASGITransport(server.app, raise_app_exceptions=False)

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {"x-api-key": self.admin} | {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in named.items() if value}
        async with httpx.AsyncClient(transport=self._transport, base_url="http://localhost:9000") as client:
            return await client.request(method, f"/api/v1{path}", json=body, headers=sent)

    async def create(self, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        return await self("POST", "/keys", METRICS if body is None else body, **headers)


@pytest.fixture
def location(url: str, tmp_path: Path) -> Location:
    return Location(tmp_path / "state", None if url.startswith("sqlite") else url, "")


@asynccontextmanager
async def serving(location: Location, folder: Path, *, bootstrap: bool = True) -> AsyncIterator[Api]:
    admin = ""
    if bootstrap:
        with open_issuer(location, NO_ENVIRON) as issuer:
            admin = issuer.bootstrap("root", None).token
    async with KeyServer(location, folder).following() as server:
        yield Api(server, admin)


def run(location: Location, test: Callable[[Api], Awaitable[None]], **more: bool) -> None:
    async def main() -> None:
        async with serving(location, location.directory.parent, **more) as api:
            await test(api)

    asyncio.run(main())


def everything_kept(location: Location) -> str:
    """What the tables hold that anybody could read a secret from."""
    database = open_database(location.database or sqlite_url(location.directory / "state.db"))
    try:
        with database.reading() as connection:
            tables = ("api_keys", "key_set", "events", "answers")
            return str([connection.exec_driver_sql(f"SELECT * FROM {table}").fetchall() for table in tables])
    finally:
        database.close()


def test_a_key_is_made_shown_once_and_works_at_once(location: Location) -> None:
    async def test(api: Api) -> None:
        made = await api.create({"name": "ci", "scopes": ["predict", "metrics"], "endpoints": ["fraud", "a/*"]})
        assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
        document = made.json()
        assert keys.looks_like_token(document["key"].encode())
        assert (document["name"], document["state"], document["scopes"], document["endpoints"], document["who"]) == (
            "ci",
            "live",
            ["predict", "metrics"],
            ["fraud", "a/*"],
            "key:root",
        )
        assert (document["expires"], document["revoked"], document["before"]) == (None, None, None)
        assert api.server.guard.identify({b"x-api-key": document["key"].encode()}).name == "ci"
        shown = await api("GET", made.headers["location"].removeprefix("/api/v1"))
        assert [event["what"] for event in shown.json()["events"]] == ["key.create"]
        secret = document["key"].rpartition("_")[2]
        listed = await api("GET", "/keys")
        assert [key["name"] for key in listed.json()["keys"]] == ["root", "ci"]
        assert secret not in shown.text + listed.text + everything_kept(location) + "".join(api.server.logged)
        assert "digest" not in listed.text

    run(location, test)


def test_a_rotation_leaves_the_key_before_its_grace(location: Location) -> None:
    async def test(api: Api) -> None:
        old = (await api.create({**METRICS, "expires_in_s": 1000})).json()
        assert old["expires"] - old["created"] == pytest.approx(1000, abs=5)
        rotated = await api("POST", "/keys/prometheus/rotate", {"grace_s": 60, "why": "monthly"})
        new = rotated.json()
        assert (rotated.status_code, rotated.headers["location"]) == (201, f"/api/v1/keys/{new['id']}")
        assert new["expires"] - new["created"] == pytest.approx(1000, abs=5)
        assert new["before"]["id"] == old["id"]
        assert new["before"]["expires"] - new["created"] == pytest.approx(60, abs=5)
        for made in (old, new):
            assert api.server.guard.identify({b"x-api-key": made["key"].encode()}).name == "prometheus"
        story = (await api("GET", "/keys/prometheus")).json()
        assert [(event["what"], event["why"]) for event in story["events"]] == [
            ("key.create", ""),
            ("key.rotate", "monthly"),
        ]
        third = await api("POST", "/keys/prometheus/rotate", {})
        assert (third.status_code, third.json()["code"]) == (409, "conflict")

    run(location, test)


def test_a_revoked_key_is_refused_at_once(location: Location) -> None:
    async def test(api: Api) -> None:
        made = (await api.create()).json()
        ended = await api("POST", f"/keys/{made['id']}/revoke", {"why": "lost"})
        assert [(key["id"], key["state"]) for key in ended.json()["keys"]] == [(made["id"], "revoked")]
        with pytest.raises(errors.Unauthorized, match="was revoked"):
            api.server.guard.identify({b"x-api-key": made["key"].encode()})
        again = await api("POST", f"/keys/{made['id']}/revoke", {})
        assert (again.status_code, again.json()["code"]) == (404, "unknown_key")

    run(location, test)


def test_lists_come_in_pages(location: Location) -> None:
    async def test(api: Api) -> None:
        for number in range(4):
            await api.create({"name": f"k{number}", "scopes": ["metrics"]})
        found: list[str] = []
        cursor = ""
        for _ in range(3):
            page = (await api("GET", f"/keys?limit=2{cursor}")).json()
            found += [key["name"] for key in page["keys"]]
            cursor = f"&cursor={page['next_cursor']}"
        assert found == ["root", "k0", "k1", "k2", "k3"]
        assert page["next_cursor"] is None
        assert (await api("GET", "/keys?cursor=abc")).status_code == 400

    run(location, test)


# --- who may ---------------------------------------------------------------------------------------------------


CALLS = (
    ("GET", "/keys", None),
    ("GET", "/keys/root", None),
    ("POST", "/keys", {"name": "evil", "scopes": ["admin"]}),
    ("POST", "/keys/root/rotate", {}),
    ("POST", "/keys/root/revoke", {}),
    ("POST", "/keys%0A", {"name": "evil", "scopes": ["admin"]}),
    ("POST", "/%6beys", {"name": "evil", "scopes": ["admin"]}),
    ("POST", "/keys/", {"name": "evil", "scopes": ["admin"]}),
    ("POST", "/keys/root%0A/revoke", {}),
)


def test_it_takes_an_admin_key(location: Location) -> None:
    async def test(api: Api) -> None:
        with open_issuer(location, NO_ENVIRON) as issuer:
            manager = issuer.create("manager", [Scope.MANAGE, Scope.METRICS], [], None).token
            partner = issuer.create("partner", [Scope.PREDICT], ["*"], None).token
        await api.server.follower.look()
        for method, path, body in CALLS:
            for token, status, code in (
                ("", 401, "unauthorized"),
                (manager, 403, "forbidden"),
                (partner, 403, "forbidden"),
            ):
                refused = await api(method, path, body, x_api_key=token)
                assert (refused.status_code, refused.json()["code"]) == (status, code), (method, path, token)
        assert {key["name"] for key in (await api("GET", "/keys")).json()["keys"]} == {"root", "manager", "partner"}
        assert (await api("GET", "/keys/root")).json()["keys"][0]["state"] == "live"

    run(location, test)


def test_nobody_gets_a_first_key_from_a_port_that_asks_for_none(location: Location) -> None:
    async def test(api: Api) -> None:
        for method, path, body in CALLS:
            refused = await api(method, path, body)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert "headrace keys bootstrap" in refused.json()["detail"]
        with open_issuer(location, NO_ENVIRON) as issuer:
            assert issuer.all() == []

    run(location, test, bootstrap=False)


def test_a_server_without_key_access_has_no_such_routes(tmp_path: Path, get: Any) -> None:
    assert get("/api/v1/keys").status_code == 403
    assert "/api/v1/keys" not in get("/api/v1/openapi.json").json()["paths"]


# --- once ------------------------------------------------------------------------------------------------------


def test_a_request_that_made_a_key_makes_no_second_one_and_tells_no_secret(location: Location) -> None:
    async def test(api: Api) -> None:
        for path, body, key in (("/keys", METRICS, "1"), ("/keys/prometheus/rotate", {"grace_s": 60}, "2")):
            made = (await api("POST", path, body, Idempotency_Key=key)).json()
            again = await api("POST", path, body, Idempotency_Key=key)
            assert (again.status_code, again.json()["code"]) == (409, "secret_shown_once")
            assert f"'prometheus' ({made['id']})" in again.json()["detail"]
            assert f"headrace keys revoke {made['id']}" in again.json()["detail"]
            secret = made["key"].rpartition("_")[2]
            assert secret not in again.text + everything_kept(location)
            other = await api("POST", path, {**body, "expires_in_s": 5}, Idempotency_Key=key)
            assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        assert len((await api("GET", "/keys/prometheus")).json()["keys"]) == 2

    run(location, test)


def test_what_was_lost_is_replaced_as_the_refusal_says(location: Location) -> None:
    async def test(api: Api) -> None:
        await api.create({**METRICS, "expires_in_s": 1000})
        lost = (await api("POST", "/keys/prometheus/rotate", {"grace_s": 60})).json()
        await api("POST", f"/keys/{lost['id']}/revoke", {"why": "it never arrived"})
        found = (await api("POST", "/keys/prometheus/rotate", {"grace_s": 60})).json()
        assert found["expires"] - found["created"] == pytest.approx(1000, abs=5), "not what the rotation left"

    run(location, test)


def test_a_revocation_is_answered_again(location: Location) -> None:
    async def test(api: Api) -> None:
        await api.create()
        first = await api("POST", "/keys/prometheus/revoke", {}, Idempotency_Key="1")
        again = await api("POST", "/keys/prometheus/revoke", {}, Idempotency_Key="1")
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotency-replayed"] == "true"

    run(location, test)


def test_a_key_is_kept_with_its_answer_or_neither_is(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(api: Api) -> None:
        with monkeypatch.context() as broken:

            def fail(*_: Any) -> None:
                raise errors.StoreFailed("the disk is gone")

            broken.setattr(Answers, "keep", fail)
            assert (await api.create(Idempotency_Key="1")).json()["code"] == "store_failed"
        assert (await api("GET", "/keys/prometheus")).status_code == 404
        assert (await api.create(Idempotency_Key="1")).status_code == 201

    run(location, test)


def test_several_at_once_make_one_key(location: Location) -> None:
    async def test(api: Api) -> None:
        found = await asyncio.gather(*(api.create(Idempotency_Key="1") for _ in range(4)))
        codes = sorted(answer.status_code for answer in found)
        assert codes.count(201) == 1
        assert {answer.json()["code"] for answer in found if answer.status_code != 201} <= {
            "secret_shown_once",
            "state_in_use",
        }
        assert len((await api("GET", "/keys/prometheus")).json()["keys"]) == 1

    run(location, test)


def test_if_match(location: Location) -> None:
    async def test(api: Api) -> None:
        await api.create()
        seen = (await api("GET", "/keys/prometheus")).headers["etag"]
        assert (await api("GET", "/keys/prometheus", if_none_match=seen)).status_code == 304
        await api("POST", "/keys/prometheus/rotate", {}, if_match=seen)
        for verb in ("rotate", "revoke"):
            refused = await api("POST", f"/keys/prometheus/{verb}", {}, if_match=seen)
            assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
        assert [key["state"] for key in (await api("GET", "/keys/prometheus")).json()["keys"]] == ["live", "live"]
        now = (await api("GET", "/keys/prometheus")).headers["etag"]
        assert (await api("POST", "/keys/prometheus/revoke", {}, if_match=now)).status_code == 200

    run(location, test)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/keys", {"name": "x", "scopes": ["root"]}, 422, "scopes"),
        ("/keys", {"name": "x", "scopes": []}, 422, "scopes"),
        ("/keys", {"name": "x y", "scopes": ["admin"]}, 400, "'x y' is not valid"),
        ("/keys", {"name": "x", "scopes": ["predict"]}, 400, "says with what"),
        ("/keys", {"name": "x", "scopes": ["metrics"], "expires": 5}, 422, "expires"),
        ("/keys", {"name": "x", "scopes": ["metrics"], "expires_in_s": 0}, 422, "expires_in_s"),
        ("/keys", {"name": "root", "scopes": ["metrics"]}, 409, "a live key 'root'"),
        ("/keys/nobody/rotate", {}, 404, "no live key 'nobody'"),
        ("/keys/root/rotate", {"grace_s": -1}, 422, "grace_s"),
        ("/keys/nobody/revoke", {}, 404, "no key to revoke 'nobody'"),
        ("/keys/root/revoke", {"why": "a\0b"}, 422, "NUL"),
        ("/keys/root%00/revoke", {}, 422, "pattern"),
    ],
)
def test_mistakes_are_problems_that_say_so(
    tmp_path: Path, path: str, body: dict[str, Any], status: int, says: str
) -> None:
    async def test(api: Api) -> None:
        answer = await api("POST", path, body)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert says in json.dumps(answer.json(), ensure_ascii=False)

    run(Location(tmp_path / "state", None, ""), test)


def test_events_are_those_of_the_caller_and_hold_no_secret(location: Location) -> None:
    async def test(api: Api) -> None:
        made = (await api.create(X_Headrace_User="eve")).json()
        database = open_database(location.database or sqlite_url(location.directory / "state.db"))
        with State(database).reading() as transaction:
            [event] = transaction.events.of("key:prometheus")
        database.close()
        assert event.who == "key:root"
        assert made["key"].rpartition("_")[2] not in str(event)

    run(location, test)
