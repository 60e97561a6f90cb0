"""``headrace keys`` on a real state."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.app.keys.key_state import read_ring
from headrace.app.state.location import Location
from headrace.cli.main import app
from headrace.core import errors, keys
from headrace.core.keys import KeyRing, Principal
from tests import key_server

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command of the group on the state itself."""
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))
    for variable in ("HEADRACE_API_KEY", "HEADRACE_SERVER", "HEADRACE_DATABASE"):
        monkeypatch.delenv(variable, raising=False)

    def invoke(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in arguments else result

    return invoke


@pytest.fixture(params=["directly", "through a server"])
def anywhere(
    request: pytest.FixtureRequest, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """The same where there is a key ``root``: on the state, and through a server that goes by it."""
    admin = run("bootstrap", "--name", "root", "--json")["key"]
    if request.param == "directly":
        yield run
        return
    with key_server.serving(Location(tmp_path / "state", None, ""), tmp_path) as url:
        monkeypatch.setenv("HEADRACE_SERVER", url)
        monkeypatch.setenv("HEADRACE_API_KEY", admin)
        yield run


@pytest.fixture
def check(tmp_path: Path) -> Callable[[str], Principal]:
    """Who a server of this state takes the bearer for."""
    return lambda token: KeyRing(read_ring(Location(tmp_path / "state", None, ""), {})).check(
        token.encode(), time.time()
    )


def test_the_first_key_is_printed_once_and_alone(run: Run, check: Callable[[str], Principal], tmp_path: Path) -> None:
    result = run("bootstrap")
    token = result.stdout.strip()
    assert keys.looks_like_token(token.encode())
    assert "shown once" in result.stderr
    assert token not in result.stderr
    assert check(token).name == "admin"
    again = run("bootstrap", code=2)
    assert "has keys already" in again.stderr
    shown = "".join(run(*command).output for command in (["list"], ["show", "admin"]))
    shown += json.dumps([run("list", "--json"), run("show", "admin", "--json")])
    assert token not in shown
    assert token.split("_", 2)[2] not in shown, "the secret may have a _ in it"
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert token.encode() not in kept
    assert token.encode()[16:] not in kept


def test_create_list_rotate_revoke(anywhere: Run, check: Callable[[str], Principal]) -> None:
    run = anywhere
    made = run("create", "checkout", "-s", "predict", "-s", "metrics", "-e", "fraud", "--expires", "90d", "--json")
    assert (made["scopes"], made["endpoints"], made["state"]) == (["predict", "metrics"], ["fraud"], "live")
    assert made["expires"] - made["created"] == pytest.approx(90 * 86400, abs=5)
    rotated = run("rotate", "checkout", "--grace", "1h", "--why", "monthly", "--json")
    assert rotated["before"]["id"] == made["id"]
    listed = run("list", "--json")[1:]
    assert [entry["id"] for entry in listed] == [made["id"], rotated["id"]]
    assert listed[0]["expires"] - rotated["created"] == pytest.approx(3600, abs=5)
    assert all("key" not in entry and "digest" not in entry for entry in listed)
    assert check(made["key"]).name == check(rotated["key"]).name == "checkout"
    assert [entry["id"] for entry in run("revoke", made["id"], "--json")] == [made["id"]]
    with pytest.raises(errors.Unauthorized, match="revoked"):
        check(made["key"])
    assert check(rotated["key"]).name == "checkout"
    assert [entry["state"] for entry in run("list", "--all", "--json")] == ["live", "revoked", "live"]
    story = run("show", "checkout", "--json")
    assert [event["what"] for event in story["events"]] == ["key.create", "key.rotate", "key.revoke"]
    assert story["events"][1]["why"] == "monthly"
    assert "key.rotate" in run("show", "checkout").stdout
    said = run("revoke", "checkout").stdout
    assert f"checkout ({rotated['id']}) is revoked" in said


def test_people_read_tables(run: Run) -> None:
    assert run("list").stdout == "no keys; headrace keys bootstrap\n"
    run("create", "prometheus", "--scope", "metrics")
    said = run("rotate", "prometheus").stderr
    assert "prometheus" in said
    assert "the key before it, it ends " in said
    table = run("list").stdout.splitlines()
    assert table[0].split() == ["name", "id", "state", "may", "made", "by", "ends"]
    assert len(table) == 3
    assert "is revoked; servers refuse it" in run("revoke", "prometheus").stdout
    assert run("list").stdout == "no keys are live; headrace keys list --all\n"
    assert "key.revoke" in run("show", "prometheus").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x", "--scope", "root"), "--scope 'root': there is no such scope; there are predict, metrics"),
        (("create", "x", "--scope", "predict"), "says with what"),
        (("create", "x y", "--scope", "admin"), "name of a key 'x y' is not valid"),
        (("create", "x", "--scope", "admin", "--expires", "soon"), "--expires 'soon' is no time"),
        (("create", "root", "--scope", "admin"), "there is a live key 'root'"),
        (("rotate", "x"), "there is no live key 'x'; there are root"),
        (("revoke", "x"), "there is no key to revoke 'x'"),
        (("show", "x"), "there is no key 'x'"),
        (("show", "a/b"), "there is no key 'a/b'"),
    ],
)
def test_mistakes_end_with_2(anywhere: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in anywhere(*arguments, code=2).stderr


def test_without_keys_it_begins_with_bootstrap(run: Run) -> None:
    assert "begin with: headrace keys bootstrap" in run("rotate", "x", code=2).stderr


@pytest.mark.parametrize("command", ["bootstrap", "create", "list", "show", "rotate", "revoke"])
def test_every_command_has_an_example(run: Run, command: str) -> None:
    assert f"headrace keys {command}" in run(command, "--help").stdout
