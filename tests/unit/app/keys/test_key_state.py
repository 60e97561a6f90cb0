"""Keys of a state, as commands make them and servers read them, on SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.app.keys.key_state import KeyReader, open_issuer, read_ring
from headrace.app.state.location import Location
from headrace.core import errors
from headrace.core.keys import NO_KEYS, KeyRing, Scope
from headrace.store.directory_lock import owning


@pytest.fixture
def location(url: str, tmp_path: Path) -> Location:
    return Location(tmp_path / "state", None if url.startswith("sqlite") else url, "")


def test_what_is_made_is_read(location: Location) -> None:
    reader = KeyReader(location, {})
    empty = reader.changed()
    assert empty is not None
    assert (empty.required, empty.keys) == (False, ())
    assert reader.changed() is None
    with open_issuer(location, {}) as issuer:
        issued = issuer.bootstrap("admin", None)
    found = reader.changed()
    assert found is not None
    assert KeyRing(found).check(issued.token.encode(), 0.0).name == "admin"
    assert reader.changed() is None
    with open_issuer(location, {}) as issuer:
        issuer.revoke("admin")
    after = reader.changed()
    assert after is not None
    assert after.required
    assert read_ring(location, {}) == after
    reader.close()


def test_looking_makes_nothing(tmp_path: Path) -> None:
    location = Location(tmp_path / "state", None, "")
    assert read_ring(location, {}) == NO_KEYS
    assert not location.directory.exists()
    with open_issuer(location, {}) as issuer:
        assert issuer.all() == []
    assert not (location.directory / "key.secret").exists()


def test_a_state_without_its_secret_is_not_given_another(location: Location) -> None:
    with open_issuer(location, {}) as issuer:
        issuer.bootstrap("admin", None)
    secret = location.directory / "key.secret"
    text = secret.read_text().strip()
    secret.unlink()
    with open_issuer(location, {}) as issuer:
        assert [record.name for record in issuer.all()] == ["admin"]
        with pytest.raises(errors.BadSettings, match="bring the file back"):
            issuer.create("ci", [Scope.METRICS], [], None)
    assert not secret.exists()
    with pytest.raises(errors.BadSettings, match="bring the file back"):
        read_ring(location, {})
    with pytest.raises(errors.BadSettings, match="made with another secret"):
        read_ring(location, {"HEADRACE_KEY_SECRET": "x" * 40})
    assert len(read_ring(location, {"HEADRACE_KEY_SECRET": text}).keys) == 1


def test_keys_are_made_while_another_owns_the_state(tmp_path: Path) -> None:
    """A server that owns the state must not have to stop for a key to be revoked."""
    location = Location(tmp_path / "state", None, "")
    with owning(location.directory, "headrace serve"), open_issuer(location, {}) as issuer:
        issuer.bootstrap("admin", None)
        assert issuer.revoke("admin")[0].name == "admin"
