"""Keys that a controller leaves to its successor."""

from __future__ import annotations

from pathlib import Path

from headrace.app.keys import kept_keys
from headrace.core.keys import Scope
from tests.issued import key, key_set


def test_a_successor_in_the_same_run_goes_on(tmp_path: Path) -> None:
    assert kept_keys.load(tmp_path, 1.5) is None
    for version in (1, 2):
        made = key_set(key("ci", Scope.ADMIN), version=version)
        kept_keys.save(tmp_path, 1.5, made)
        assert kept_keys.load(tmp_path, 1.5) == made
    assert kept_keys.load(tmp_path, 2.5) is None
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_a_death_left_half_written_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "keys.partial").write_bytes(b"half")
    kept_keys.save(tmp_path, 1.0, key_set())
    assert kept_keys.load(tmp_path, 1.0) == key_set()
