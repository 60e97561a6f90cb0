"""What a controller leaves for its successor: whole, and only within one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.app.controller import state as controller_state
from headrace.app.controller.state import ControllerState, LoadFailure, Switch
from headrace.app.watching import Watched
from headrace.core.endpoints import DeploymentSpec, ResourceSettings
from headrace.core.models import Artifact, Format
from headrace.core.traffic import EndpointTraffic, Rule, Source, SourceKind, TrafficPolicy

STATE = ControllerState(
    began=1234.000000001,
    deployments=(
        DeploymentSpec(
            "fraud",
            "2",
            Artifact("/models/fraud.py", Format.PYTHON, "python", "sha256:00", code_bearing=True),
            replicas=3,
            resources=ResourceSettings(memory=1 << 30),
            platform_options={"trusted": "yes"},
        ),
    ),
    traffic={
        "fraud": EndpointTraffic(
            TrafficPolicy(
                {"main": 1.0}, Source(SourceKind.HEADER, "x"), (Rule(Source(SourceKind.BODY, "y"), (), "b"),)
            ),
            {"main": "fraud@2"},
        )
    },
    failures=(("churn", "1", "it is no model"),),
    switches=(Switch("fraud", "main", "fraud@3", "fraud@2"), Switch("img", "b", "img@2", None)),
    load_failures={"fraud@1": LoadFailure("no table", "Traceback …")},
    watched=Watched((("fraud", "2", (("/models/fraud.py", 1 << 60, 77),)),), (("fraud", "main", "2"),)),
)


def test_a_successor_reads_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "controller.state"
    controller_state.save(path, STATE)
    assert controller_state.load(path, STATE.began) == STATE
    assert [entry.name for entry in tmp_path.iterdir()] == ["controller.state"]


def test_another_run_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "controller.state"
    assert controller_state.load(path, 1.0) is None
    controller_state.save(path, STATE)
    assert controller_state.load(path, 1.0) is None


def test_a_death_while_saving_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "controller.state"
    controller_state.save(path, STATE)

    def die(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        controller_state.save(path, ControllerState(STATE.began, (), {}, (), (), {}, None))
    assert controller_state.load(path, STATE.began) == STATE
