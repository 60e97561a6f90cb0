"""What an endpoint's record says about its deployments."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.core.endpoint_records import EndpointRecord
from headrace.core.endpoints import DeploymentSpec
from headrace.core.fallbacks import DeploymentFallback
from headrace.core.models import Artifact, Format
from headrace.core.shadows import Shadow
from headrace.core.traffic import EndpointTraffic, Rule, Source, SourceKind, TrafficPolicy

LIVE, DARK = (DeploymentSpec("m", version, Artifact("m.onnx", Format.ONNX, "onnx", "d1")) for version in ("1", "2"))


def record(targets: dict[str, str] | None = None, **policy: Any) -> EndpointRecord:
    asked = TrafficPolicy(**{"weights": {"live": 1.0}, "shadows": (Shadow("dark", 10.0),), **policy})
    traffic = EndpointTraffic(asked, targets or {"live": LIVE.id, "dark": DARK.id})
    return EndpointRecord("m", {"deployments": {"live": {}, "dark": {}}}, (LIVE, DARK), traffic)


def test_a_deployment_that_is_only_mirrored_to_yields() -> None:
    found = record()
    assert found.at_work(DARK).yields
    assert not found.at_work(LIVE).yields
    assert found.at_work(DARK).load_key != DARK.load_key
    assert found.at_work(LIVE) == LIVE


@pytest.mark.parametrize(
    "policy",
    [
        {"weights": {"live": 9.0, "dark": 1.0}},
        {"rules": (Rule(Source(SourceKind.HEADER, "x-plan"), ("gold",), "dark"),)},
        {"fallback": (DeploymentFallback("dark"),)},
        {"shadows": ()},
    ],
)
def test_a_deployment_that_callers_may_wait_for_does_not(policy: dict[str, Any]) -> None:
    assert not record(**policy).at_work(DARK).yields


def test_a_version_that_serves_under_two_names_goes_by_both() -> None:
    assert not record({"live": DARK.id, "dark": DARK.id}).at_work(DARK).yields


def test_what_a_rollout_mirrors_to_shares_as_the_others_do() -> None:
    found = record({"live": LIVE.id, "live-next": DARK.id}, shadows=(Shadow("live-next", 10.0),))
    assert not found.at_work(DARK).yields
