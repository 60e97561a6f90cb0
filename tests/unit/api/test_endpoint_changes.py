"""/api/v1/plan, /apply, /config and what is done to one endpoint by hand, over HTTP and real operations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.core.keys import Scope
from headrace.pipeline.auth import Guard
from tests.issued import key, key_set
from tests.operated import ECHO, serving

CONFIG = "endpoints: {team/m: {traffic: {a: 3, b: 1}, deployments: {a: {model: a.echo}, b: {model: b.echo}}}}\n"


class Api:
    def __init__(self, url: str, folder: Path) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=30)
        self.path = str(folder / "headrace.yaml")

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.request(method, path, json=body, headers=named)

    def apply(self, config: str = CONFIG, **more: Any) -> httpx.Response:
        return self("POST", "/apply", {"config": config, "path": self.path, **more})

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def operations(tmp_path: Path) -> Iterator[Api]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.echo").write_text(ECHO)
    with serving(tmp_path) as (url, _):
        api = Api(url, tmp_path)
        yield api
        api.close()


def test_plan_changes_nothing_and_apply_does(operations: Api) -> None:
    planned = operations("POST", "/plan", {"config": CONFIG, "path": operations.path}).json()["changes"]
    assert [(c["endpoint"], c["kind"]) for c in planned] == [("team/m", "create")]
    assert operations("GET", "/wanted/team/m").status_code == 404
    assert operations.apply().json()["changes"] == planned
    wanted = operations("GET", "/wanted/team/m")
    assert (wanted.status_code, wanted.headers["etag"]) == (200, '"1"')
    assert wanted.json()["weights"] == {"a": 3, "b": 1}
    assert wanted.json()["versions"] == {"a": "1", "b": "2"}
    assert wanted.json()["owner"] == f"file {operations.path}"


def test_config_is_a_file_that_says_what_runs(operations: Api) -> None:
    operations.apply()
    answer = operations("GET", "/config")
    assert answer.headers["content-type"] == "application/yaml"
    assert operations.apply(answer.text).json()["changes"][0]["kind"] == "none"


def test_errors_of_the_file_name_line_and_column(operations: Api) -> None:
    answer = operations.apply("endpoints:\n  m: {model: a.echo, replicsa: 2}\n")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_settings")
    assert f"{operations.path} line 2 column 22: unknown key" in answer.json()["detail"]


def test_by_hand(operations: Api) -> None:
    operations.apply()
    assert operations("PUT", "/scale/team/m", {"replicas": 2, "deployment": "a"}).json()["generation"] == 2
    refused = operations("PUT", "/traffic/team/m", {"weights": {"a": 1}})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    taken = operations("PUT", "/traffic/team/m", {"weights": {"a": 1, "b": 1}, "take_over": True}).json()
    assert (taken["owner"], taken["weights"]) == ("manual", {"a": 1, "b": 1})
    assert operations("POST", "/drain/team/m", {"deployment": "a"}).json()["weights"] == {"b": 1}
    assert operations("POST", "/restart/team/m", {"deployment": "b"}).json()["generation"] == 5
    assert operations("PUT", "/pause/team/m", {"why": "lunch"}).json()["paused"] == "lunch"
    assert operations("DELETE", "/pause/team/m").json()["paused"] == ""
    assert operations("DELETE", "/endpoints/team/m").status_code == 204
    assert operations("GET", "/wanted/team/m").status_code == 404


def test_who_asks_stands_in_the_record(operations: Api) -> None:
    operations.apply()
    assert operations("PUT", "/pause/team/m", {}, X_Headrace_User="ada").json()["changed_by"] == "ada"
    assert operations("PUT", "/pause/team/m", {}, X_Headrace_User="").json()["changed_by"] == "client@127.0.0.1"
    assert len(operations("PUT", "/pause/team/m", {}, X_Headrace_User="a" * 999).json()["changed_by"]) == 200


def test_with_keys_the_record_names_the_key_and_no_claim(tmp_path: Path) -> None:
    (tmp_path / "a.echo").write_text(ECHO)
    manager, guard = key("ci", Scope.MANAGE), Guard()
    guard.follow(key_set(manager))
    with serving(tmp_path, guard) as (url, _):
        api = Api(url, tmp_path)
        body = {"config": "endpoints: {m: {model: a.echo}}\n", "path": api.path}
        assert api("POST", "/apply", body, X_Headrace_User="eve").status_code == 401
        sent = {"X_API_Key": manager.token, "X_Headrace_User": "eve"}
        assert api("POST", "/apply", body, **sent).status_code == 200
        assert api("PUT", "/pause/m", {}, **sent).json()["changed_by"] == "key:ci"
        api.close()


@pytest.mark.parametrize(("tag", "status"), [('"1"', 200), ("*", 200), ('"7"', 412), ('W/"1"', 412), ("soon", 412)])
def test_if_match(operations: Api, tag: str, status: int) -> None:
    operations.apply()
    answer = operations("PUT", "/pause/team/m", {"why": "x"}, If_Match=tag)
    assert answer.status_code == status
    assert operations("GET", "/wanted/team/m").json()["paused"] == ("x" if status == 200 else "")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/scale/team/m", {"replicas": -1}),
        ("PUT", "/scale/team/m", {"replicas": 2000}),
        ("PUT", "/scale/team/m", {"replicas": 1, "deploymnet": "a"}),
        ("PUT", "/traffic/team/m", {"weights": {"a": "many"}}),
        ("POST", "/apply", {"path": "/x"}),
    ],
)
def test_bodies_are_checked(operations: Api, method: str, path: str, body: Any) -> None:
    operations.apply()
    assert operations(method, path, body).status_code == 422
    assert operations("GET", "/wanted/team/m").headers["etag"] == '"1"'
