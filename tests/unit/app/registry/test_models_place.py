"""The registry's commands find whoever owns the registry, and open it when nobody does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from headrace.app.registry.direct_models import DirectModels
from headrace.app.registry.models_place import open_models
from headrace.app.registry.remote_models import RemoteModels
from headrace.app.state import controller_address, registry_state
from headrace.app.state.registry_state import Location
from headrace.core import errors
from tests import registry_server


def place(folder: Path, database: str | None = None) -> Location:
    return Location(folder, database, str(folder / "artifacts"))


def test_a_controller_is_found_by_its_state_and_left_when_it_is_gone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with registry_server.owning(state), open_models(place(state), None, {}) as models:
        assert isinstance(models, RemoteModels)
        assert models.models() == []
    assert (state / "controller.json").exists(), "it was ended without a chance to withdraw"
    with open_models(place(state), None, {}) as models:
        assert isinstance(models, DirectModels)
        assert models.models() == []


def test_a_controller_is_found_by_the_lease_of_a_shared_database(url: str, tmp_path: Path) -> None:
    shared = place(tmp_path / "mine", url)
    with open_models(shared, None, {}) as models:
        assert isinstance(models, DirectModels)
    with registry_server.owning(tmp_path / "its", url), open_models(shared, None, {}) as models:
        assert isinstance(models, RemoteModels)
        assert models.models() == []


def test_a_server_can_be_named(tmp_path: Path) -> None:
    elsewhere = place(tmp_path / "nowhere")
    with registry_server.owning(tmp_path / "state") as server:
        for flag, environ in ((server.url, {}), (None, {"HEADRACE_SERVER": server.url})):
            with open_models(elsewhere, flag, environ) as models:
                assert models.models() == []
    assert not (tmp_path / "nowhere").exists(), "nothing is made where nothing is used"
    with open_models(elsewhere, "http://127.0.0.1:1", {}) as models, pytest.raises(errors.NotReady, match="connect"):
        models.models()
    with pytest.raises(errors.BadSettings, match="server's address"), open_models(elsewhere, "ftp://x", os.environ):
        pass


def test_an_owner_whose_port_is_silent_keeps_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading is harmless; what the owner owns is not changed behind its back."""
    monkeypatch.setattr(registry_state, "_WAIT_S", 0.0)
    monkeypatch.setattr(controller_address, "_START_S", 0.0)
    state = tmp_path / "state"
    with registry_server.owning(state) as server:
        (state / "controller.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": server.process.pid}))
        with open_models(place(state), None, {}) as models:
            assert models.models() == []
            with pytest.raises(errors.StateInUse, match="headrace serve"):
                models.trust("m@1")


def test_a_controller_that_is_starting_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the lock already, so that the state could not be changed directly anyway."""
    state = tmp_path / "state"
    pauses = 0
    with registry_server.owning(state) as server:
        said = (state / "controller.json").rename(state / "later.json")

        def pause(_: float) -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 3:
                said.rename(state / "controller.json")

        monkeypatch.setattr("headrace.app.state.controller_address.time.sleep", pause)
        assert controller_address.find(state) == controller_address.Address(server.url, server.process.pid)
        assert pauses == 3
