"""The commands of keys: which of them go through a server, and which on the state."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.app.keys import keys_place
from headrace.app.keys.direct_keys import DirectKeys
from headrace.app.keys.key_state import open_issuer
from headrace.app.keys.keys_place import open_keys
from headrace.app.state.location import Location
from headrace.client.keys import Keys
from headrace.core import errors
from tests import key_server, registry_server


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location(tmp_path / "state", None, str(tmp_path / "artifacts"))


@pytest.fixture
def admin(location: Location) -> str:
    with open_issuer(location, {}) as issuer:
        return issuer.bootstrap("root", None).token


def test_a_server_that_owns_the_state_is_asked_with_a_key_and_left_alone_without(
    location: Location, admin: str
) -> None:
    with registry_server.owning(location.directory) as server:
        with open_keys(location, None, {"HEADRACE_API_KEY": admin}) as keys:
            assert isinstance(keys, Keys)
            assert keys._async._management.url == server.url
        with open_keys(location, None, {}) as keys:
            assert isinstance(keys, DirectKeys)
            assert keys.create("ci", ["metrics"]).name == "ci"
    with open_keys(location, None, {"HEADRACE_API_KEY": admin}) as keys:
        assert isinstance(keys, DirectKeys), "nobody owns it any more"


def test_a_shared_database_says_who_owns_it(url: str, tmp_path: Path) -> None:
    shared = Location(tmp_path / "mine", url, str(tmp_path / "artifacts"))
    with registry_server.owning(tmp_path / "its", url), open_keys(shared, None, {"HEADRACE_API_KEY": "x"}) as keys:
        assert isinstance(keys, Keys)


def test_a_server_that_is_named_is_asked_in_any_case(location: Location, admin: str, tmp_path: Path) -> None:
    nowhere = Location(tmp_path / "nowhere", None, "")
    with key_server.serving(location, tmp_path) as url:
        for flag, environ in ((url, {"HEADRACE_API_KEY": admin}), (None, {"HEADRACE_SERVER": url})):
            with open_keys(nowhere, flag, environ) as keys:
                if "HEADRACE_API_KEY" in environ:
                    assert [key.name for key in keys.list()] == ["root"]
                else:
                    with pytest.raises(errors.Unauthorized):
                        keys.list()
    assert not nowhere.directory.exists(), "nothing is made where nothing is used"
    assert keys_place._KEY_VARIABLE == "HEADRACE_API_KEY"
