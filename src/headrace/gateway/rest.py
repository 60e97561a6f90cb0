"""REST operations beside inference: health, metadata, lists, statistics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from headrace.core import errors, release
from headrace.core.keys import Principal
from headrace.core.routes import DeploymentRoute
from headrace.gateway.services import Services
from headrace.gateway.state import ServerState
from headrace.protocols import http_status, kserve_v1, oip_documents
from headrace.protocols.paths import Match, Operation
from headrace.protocols.protocol import Reply


class RestOperations:
    """Answers a resolved path; the verb is already checked."""

    def __init__(self, services: Services) -> None:
        self._state = ServerState(services)
        self._services = services
        self._operations: dict[Operation, Callable[[Match, bytes, Principal], Reply | Awaitable[Reply]]] = {
            Operation.ROOT: self._alive,
            Operation.PING: self._ping,
            Operation.HEALTH: self._health,
            Operation.SERVER_METADATA: self._server_metadata,
            Operation.SERVER_LIVE: self._live,
            Operation.SERVER_READY: self._server_ready,
            Operation.MODEL_LIST: self._model_list,
            Operation.ALL_STATISTICS: self._all_statistics,
            Operation.REPOSITORY_INDEX: self._repository_index,
            Operation.MODEL_METADATA: self._model_metadata,
            Operation.MODEL_READY: self._model_ready,
            Operation.MODEL_CONFIG: self._model_config,
            Operation.MODEL_STATISTICS: self._model_statistics,
            Operation.V1_LIST: self._v1_list,
            Operation.V1_MODEL: self._v1_model,
        }

    async def answer(self, match: Match, body: bytes, caller: Principal) -> Reply:
        """``caller`` reads of the endpoints that its key is for. Raises core errors."""
        if match.model:
            caller.check_sees(match.model)
        operation = self._operations.get(match.operation)
        if operation is None:
            raise errors.Bug(f"no handler for {match.operation}")
        reply = operation(match, body, caller)
        return reply if isinstance(reply, Reply) else await reply

    # --- health ---

    def _alive(self, match: Match, body: bytes, caller: Principal) -> Reply:
        return http_status.json_reply({"status": "alive"})

    def _ping(self, match: Match, body: bytes, caller: Principal) -> Reply:
        ready = self._state.ready()
        return http_status.json_reply({"status": "Healthy" if ready else "Unhealthy"}, 200 if ready else 503)

    def _health(self, match: Match, body: bytes, caller: Principal) -> Reply:
        ready = self._state.ready()
        return http_status.json_reply({"status": "ok" if ready else "not ready"}, 200 if ready else 503)

    def _live(self, match: Match, body: bytes, caller: Principal) -> Reply:
        return http_status.json_reply(oip_documents.health(True, self._state.ready()))

    def _server_ready(self, match: Match, body: bytes, caller: Principal) -> Reply:
        ready = self._state.ready()
        return http_status.json_reply(oip_documents.health(True, ready), 200 if ready else 503)

    def _model_ready(self, match: Match, body: bytes, caller: Principal) -> Reply:
        ready = self._state.model_ready(match.model, match.version)
        return http_status.json_reply(oip_documents.model_ready(match.model, ready), 200 if ready else 503)

    # --- what there is ---

    def _server_metadata(self, match: Match, body: bytes, caller: Principal) -> Reply:
        return http_status.json_reply(oip_documents.server_metadata(release.VERSION))

    def _model_list(self, match: Match, body: bytes, caller: Principal) -> Reply:
        return http_status.json_reply(oip_documents.model_list(self._state.names(caller)))

    def _model_metadata(self, match: Match, body: bytes, caller: Principal) -> Reply:
        deployment = self._services.router.describing(match.model, match.version)
        versions = self._state.versions(match.model)
        return http_status.json_reply(
            oip_documents.model_metadata(match.model, versions, deployment.route.platform, deployment.signature)
        )

    def _model_config(self, match: Match, body: bytes, caller: Principal) -> Reply:
        deployment = self._services.router.describing(match.model, match.version)
        route: DeploymentRoute = deployment.route
        return http_status.json_reply(
            oip_documents.model_config(match.model, route.platform, deployment.signature, route.batching.max_batch_size)
        )

    def _repository_index(self, match: Match, body: bytes, caller: Principal) -> Reply:
        entries = self._state.index(caller, only_ready=oip_documents.parse_index(body))
        return http_status.json_reply(oip_documents.repository_index(entries))

    def _v1_list(self, match: Match, body: bytes, caller: Principal) -> Reply:
        return http_status.json_reply(kserve_v1.render_list(self._state.names(caller)))

    def _v1_model(self, match: Match, body: bytes, caller: Principal) -> Reply:
        deployment = self._services.router.describing(match.model, match.version)
        if not deployment.ready:
            raise errors.NotReady(deployment.route.reason or f"model {match.model!r} is not ready")
        return http_status.json_reply(
            kserve_v1.render_model(match.model, True, self._state.version_states(match.model))
        )

    # --- statistics ---

    async def _all_statistics(self, match: Match, body: bytes, caller: Principal) -> Reply:
        return http_status.json_reply(await self._state.statistics(caller))

    async def _model_statistics(self, match: Match, body: bytes, caller: Principal) -> Reply:
        return http_status.json_reply(await self._state.statistics(caller, match.model, match.version))
