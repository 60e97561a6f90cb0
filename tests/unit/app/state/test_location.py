"""Where the state is, also where there is no home to look into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.app.state.location import Location, locate, locate_for_server
from headrace.core import errors


def test_flags_win_over_the_environment(tmp_path: Path) -> None:
    environ = {"HEADRACE_STATE": "/a", "HEADRACE_DATABASE": "postgresql://x", "HEADRACE_ARTIFACTS": "s3://y"}
    assert locate(None, None, None, environ) == Location(Path("/a"), "postgresql://x", "s3://y")
    found = locate(str(tmp_path), "postgresql://z", None, {})
    assert found == Location(tmp_path, "postgresql://z", str(tmp_path / "artifacts"))


def test_a_state_exists_when_its_database_does(tmp_path: Path) -> None:
    location = Location(tmp_path, None, "")
    assert not location.exists
    assert Location(tmp_path, "postgresql://nowhere", "").exists
    (tmp_path / "state.db").touch()
    assert location.exists
    assert not Location(tmp_path / "state.db", None, "").exists


def test_without_a_home_there_is_no_state_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert locate_for_server(None, None, None, {}) is None
    assert locate_for_server("/srv/state", None, None, {}) == Location(Path("/srv/state"), None, "/srv/state/artifacts")
    with pytest.raises(errors.BadSettings, match="--state ~/x: Could not determine home directory"):
        locate_for_server("~/x", None, None, {})


def test_a_home_that_cannot_be_read_is_none_and_a_named_state_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.stat

    def locked(path: Path, **options: bool) -> os.stat_result:
        if path.name == "state.db":
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, **options)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Path, "stat", locked)
    assert locate_for_server(None, None, None, {}) is None
    for given, environ in ((str(tmp_path), {}), (None, {"HEADRACE_STATE": str(tmp_path)})):
        with pytest.raises(errors.BadSettings, match=f"--state {tmp_path}: Permission denied"):
            locate_for_server(given, None, None, environ)
