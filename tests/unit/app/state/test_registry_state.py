"""Where the registry lives and who may change it, in real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.app.state import registry_state
from headrace.app.state.registry_state import Location, locate, open_registry
from headrace.core import errors
from headrace.store import lease
from headrace.store.database import open_database

HOLD = """
import sys
from pathlib import Path
from headrace.app.state.registry_state import Location, open_registry
with open_registry(Location(Path(sys.argv[1]), sys.argv[2] or None, sys.argv[1] + "/a")) as state:
    with state.changing("headrace models gc"):
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def location(url: str, tmp_path: Path) -> Location:
    """A state directory with SQLite in it, or a shared PostgreSQL."""
    database = None if url.startswith("sqlite") else url
    return Location(tmp_path / "state", database, str(tmp_path / "state" / "a"))


@pytest.fixture
def holder(location: Location) -> Iterator[subprocess.Popen[str]]:
    """Another process that changes the registry."""
    command = [sys.executable, "-c", HOLD, str(location.directory), location.database or ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_flags_win_over_the_environment(tmp_path: Path) -> None:
    environ = {"HEADRACE_STATE": "/srv/a", "HEADRACE_DATABASE": "postgresql://h/x", "HEADRACE_ARTIFACTS": "s3://b"}
    assert locate(None, None, None, environ) == Location(Path("/srv/a"), "postgresql://h/x", "s3://b")
    assert locate(str(tmp_path), None, None, {}) == Location(tmp_path, None, str(tmp_path / "artifacts"))
    assert locate(None, None, None, {}).directory == Path.home() / ".headrace"
    assert locate("/b", "sqlite:////x", "/c", environ) == Location(Path("/b"), "sqlite:////x", "/c")


def test_one_process_changes_at_a_time_and_others_read(
    location: Location, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_state, "_WAIT_S", 0.0)
    with open_registry(location) as state:
        assert state.registry.models() == []
        with pytest.raises(errors.StateInUse, match="headrace models gc"), state.changing("test"):
            pass
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait(30)
        with state.changing("test") as registry:
            assert registry.models() == []


def test_a_command_waits_for_another(location: Location, holder: subprocess.Popen[str]) -> None:
    with open_registry(location) as state:
        assert holder.stdin is not None
        holder.stdin.close()
        with state.changing("test") as registry:
            assert registry.models() == []


def test_a_controllers_lease_keeps_commands_out(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_state, "_WAIT_S", 0.0)
    database = open_database(url)
    held = lease.acquire(database, "controller", "headrace serve on a", ttl_s=60, clock=time.time)
    with open_registry(Location(tmp_path, url, str(tmp_path / "a"))) as state:
        with pytest.raises(errors.StateInUse, match="headrace serve on a"), state.changing("test"):
            pass
        held.release()
        with state.changing("test"):
            pass
    database.close()


def test_a_command_that_was_paused_cannot_write_over_another(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_state, "_LEASE_TTL_S", -1.0)  # over as soon as it is taken
    place = Location(tmp_path, url, str(tmp_path / "a"))
    with (
        open_registry(place) as paused,
        open_registry(place) as other,
        paused.changing("slow") as slow,
        other.changing("quick") as quick,
    ):
        with pytest.raises(errors.LeaseLost, match="slow"):
            slow.trust("fraud@1")
        with pytest.raises(errors.UnknownModel):
            quick.trust("fraud@1")


def test_a_place_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(errors.BadSettings, match="--state"),
        open_registry(Location(tmp_path / "file" / "state", None, "a")),
    ):
        pass
