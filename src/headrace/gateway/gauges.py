"""What a gateway holds right now, written into its metric page now and then."""

from __future__ import annotations

from headrace.gateway.services import Services
from headrace.pipeline.breaker import BreakerState
from headrace.telemetry.recording import RequestRecorder


class Gauges:
    """Queues, batches and streams of every deployment; those of deployments that are gone vanish."""

    def __init__(self, recorder: RequestRecorder, services: Services) -> None:
        self._recorder = recorder
        self._services = services
        self._shown: set[tuple[str, str]] = set()
        """(model, version) of what is in the page."""

    def set(self) -> None:
        recorder, services = self._recorder, self._services
        recorder.set_route_version(services.router.table_version)
        shown: set[tuple[str, str]] = set()
        # A version that is being replaced under its own number comes last there: what takes over counts.
        for deployment in reversed(services.router.deployments()):
            model, version = key = deployment.endpoint, deployment.route.version
            shown.add(key)
            recorder.set_queue(model, version, deployment.queue.count, deployment.queue.rows)
            in_flight = sum(len(batch.calls) for replica in deployment.replicas for batch in replica.batches.values())
            recorder.set_in_flight(model, version, in_flight)
            recorder.set_batch_limit(model, version, deployment.decision.limit)
            if deployment.fallback:
                recorder.set_circuit_open(model, version, deployment.breaker.state is not BreakerState.CLOSED)
            recorder.set_open_streams(model, version, services.open_streams.get(key, 0))
        for model, version in self._shown - shown:
            recorder.forget(model, version)
        self._shown = shown
