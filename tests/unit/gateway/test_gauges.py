"""Gauges of the deployments that are there, and of no others."""

from __future__ import annotations

from pathlib import Path

from headrace.core.fallbacks import ConstantFallback
from headrace.core.traffic import TrafficPolicy
from headrace.gateway.gauges import Gauges
from headrace.pipeline.breaker import BreakerState
from headrace.telemetry import pages
from headrace.telemetry.pages import SeriesPage
from headrace.telemetry.recording import RequestRecorder
from tests.fakes import deployment_route
from tests.gateways import Gateway, run


def test_gauges_come_and_go_with_their_deployment(tmp_path: Path) -> None:
    (tmp_path / "gauges").mkdir()
    page = SeriesPage(tmp_path / "gauges", "gateway-0")

    def shown() -> dict[tuple[str, ...], list[float]]:
        return {
            key: values
            for key, values in page_keys().items()
            if key[0] in ("open_streams", "batch_limit_rows", "queue_requests")
        }

    def page_keys() -> dict[tuple[str, ...], list[float]]:
        return {key: values for _, key, values in pages.read_pages(page.path.parent)}

    async def test(gateway: Gateway) -> None:
        gauges = Gauges(RequestRecorder(page), gateway.services)
        one, two = deployment_route(), deployment_route(id="m@2", version="2")
        gateway.deploy(one, two)
        gateway.services.open_streams["m", "1"] = 3
        gauges.set()
        assert shown()["open_streams", "m", "1"] == [3]
        assert shown()["open_streams", "m", "2"] == [0]
        assert not [key for key in page_keys() if key[0] == "circuit_open"], "nothing falls back here"
        gateway.services.open_streams["m", "1"] = 0
        gateway.deploy(two)
        gateway.services.router.sweep(0.0)
        gauges.set()
        assert {key[1:] for key in shown()} == {("m", "2")}
        (guarded,) = gateway.deploy(two, policy=TrafficPolicy(fallback=(ConstantFallback({"y": 1}),)))
        for state, expected in ((BreakerState.OPEN, [1]), (BreakerState.CLOSED, [0])):
            guarded.breaker.state = state
            gauges.set()
            assert page_keys()["circuit_open", "m", "2"] == expected

    run(tmp_path, test)
