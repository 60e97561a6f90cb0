"""What the management API needs: the controller, and the registry when this server owns one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from headrace.control.deploying import Deploy
from headrace.control.endpoint_changes import EndpointChange
from headrace.control.experiments.report import ExperimentReport
from headrace.control.key_issuer import KeyIssuer
from headrace.control.registry import Registry
from headrace.control.rollout import Command
from headrace.control.rollout_plan import RolloutRequest
from headrace.control.rollout_story import Rollout
from headrace.core.answers import Answer, Answering
from headrace.core.endpoint_records import EndpointRecord
from headrace.core.experiments import BanditSettings, Experiment, Outcome, Receipt
from headrace.core.load import LoadReport
from headrace.core.routes import RouteTable
from headrace.core.versions import Draft, Registration, Version


class ControllerView(Protocol):
    """The controller as the API sees it. Called on the event loop: every method answers at once, from memory or from
    a small file, and changes nothing."""

    def routes(self) -> RouteTable:
        """The route table that gateways have been given last."""
        ...

    def loads(self) -> list[LoadReport]:
        """The latest report of every living gateway."""
        ...

    def events(self, limit: int) -> list[dict[str, Any]]:
        """The latest events, newest first: ``type``, ``at`` (Unix seconds) and the fields of that type."""
        ...

    def log_tail(self, replica: str) -> str:
        """The last lines a replica's worker wrote, of dead replicas too while they are kept.

        Raises UnknownModel when there is no such replica."""
        ...

    def ready(self) -> bool:
        """Every endpoint can answer."""
        ...


class KeepsAnswers(Protocol):
    """Whatever keeps the answers to requests with an idempotency key beside the changes that they tell of."""

    async def earlier(self, key: str) -> Answer | None:
        """What was answered to this key before; None when nothing was. Raises StoreFailed when that cannot be known."""
        ...


class EndpointCommands(KeepsAnswers, Protocol):
    """What can be done to endpoints. Called on the event loop; ``who`` is for the history, ``generation`` the one that
    the caller has seen. ``answering`` is called once, before the change is kept: what it makes of the result is kept
    in the same transaction. Changes raise Conflict, PreconditionFailed, UnknownModel, BadSettings, StoreFailed."""

    async def plan(self, text: str, path: str) -> tuple[EndpointChange, ...]: ...
    async def apply(
        self,
        text: str,
        path: str,
        *,
        who: str,
        take_over: bool,
        answering: Answering[tuple[EndpointChange, ...]] | None,
    ) -> tuple[EndpointChange, ...]: ...
    async def deploy(self, wanted: Deploy, *, who: str, generation: int | None) -> EndpointChange: ...
    def export(self) -> str: ...
    def wanted(self, endpoint: str) -> EndpointRecord: ...
    async def set_traffic(
        self, endpoint: str, weights: Mapping[str, float], *, who: str, take_over: bool, generation: int | None
    ) -> EndpointRecord: ...
    async def scale(
        self, endpoint: str, deployment: str | None, replicas: int, *, who: str, generation: int | None
    ) -> EndpointRecord: ...
    async def restart(
        self,
        endpoint: str,
        deployment: str | None,
        *,
        who: str,
        generation: int | None,
        answering: Answering[EndpointRecord] | None,
    ) -> EndpointRecord: ...
    async def drain(
        self,
        endpoint: str,
        deployment: str,
        *,
        who: str,
        take_over: bool,
        generation: int | None,
        answering: Answering[EndpointRecord] | None,
    ) -> EndpointRecord: ...
    async def pause(self, endpoint: str, why: str, *, who: str, generation: int | None) -> EndpointRecord: ...
    async def resume(self, endpoint: str, *, who: str, generation: int | None) -> EndpointRecord: ...
    async def delete(self, endpoint: str, *, who: str, take_over: bool, generation: int | None) -> None: ...


class RolloutCommands(KeepsAnswers, Protocol):
    """Rollouts of what is served. Called on the event loop; ``who`` is for the history, ``answering`` as of
    ``EndpointCommands``."""

    async def start(self, wanted: RolloutRequest, *, who: str, answering: Answering[Rollout] | None) -> Rollout:
        """Raises BadSettings, UnknownModel, LoadFailed, StoreFailed, and Conflict when another rollout is under way or
        another decides the traffic."""
        ...

    async def command(self, endpoint: str, said: Command, *, who: str, answering: Answering[Rollout] | None) -> Rollout:
        """The rollout after it. Raises UnknownModel; Conflict that says why it does nothing now."""
        ...

    async def measured(
        self, endpoint: str, metric: str, value: float, *, answering: Answering[Rollout] | None
    ) -> Rollout:
        """A metric that is posted. Raises UnknownModel when no rollout is under way that is judged by it."""
        ...

    async def rollouts(self, endpoint: str | None, limit: int) -> list[Rollout]:
        """The latest, newest first; of all endpoints or of one. Raises StoreFailed."""
        ...

    async def rollout(self, endpoint: str) -> Rollout:
        """The one that is under way, else the latest. Raises UnknownModel when there was none."""
        ...


class ExperimentCommands(Protocol):
    """Experiments on endpoints. Called on the event loop. Raise UnknownExperiment, and what ``EndpointCommands`` do."""

    async def all(self) -> list[Experiment]:
        """Newest first."""
        ...

    async def start(
        self,
        endpoint: str,
        arms: Sequence[str],
        *,
        weights: Mapping[str, float] | None,
        bandit: BanditSettings | None,
        metric: str,
        confidence: float,
        who: str,
        take_over: bool,
        generation: int | None,
    ) -> ExperimentReport: ...
    async def stop(self, endpoint: str, *, who: str, generation: int | None) -> ExperimentReport: ...
    async def report(self, endpoint: str) -> ExperimentReport: ...
    async def feedback(self, endpoint: str, outcomes: Sequence[Outcome]) -> list[Receipt]:
        """One receipt for each outcome, in order; all outcomes are kept, or none."""
        ...


class Upload(Protocol):
    """A stored file on its way in, written by one request at a time."""

    @property
    def received(self) -> int:
        """Bytes that have arrived."""
        ...

    def append(self, piece: bytes) -> None:
        """Raises InvalidInput when there are more bytes than announced, StorageFull."""
        ...

    def finish(self) -> None:
        """All bytes are there: store them. Raises WrongDigest when they are others than announced."""
        ...


class Files(Protocol):
    """The files of versions, by digest. Blocking; never called on the event loop."""

    def size(self, digest: str) -> int | None:
        """Bytes of a stored file; None when there is none. Raises InvalidInput for what is no digest."""
        ...

    def present(self, digest: str, size: int) -> bool:
        """The file is stored with this size; it counts as new for ``collect`` then."""
        ...

    def chunks(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """The content from byte ``start`` on. Raises Corrupted."""
        ...

    def received(self, digest: str, size: int) -> int:
        """Bytes of an upload that have arrived."""
        ...

    def receiving(self, digest: str, size: int, start: int) -> AbstractContextManager[Upload]:
        """Go on with an upload at byte ``start``. Raises StateInUse, WrongOffset, StorageFull."""
        ...


class RegistryAccess(Protocol):
    """The registry that this server owns. Blocking; never called on the event loop."""

    @property
    def registry(self) -> Registry:
        """For reading."""
        ...

    @property
    def files(self) -> Files: ...

    def changing(self, who: str) -> AbstractContextManager[Registry]:
        """For changes that ``who`` makes. Raises StateInUse, LeaseLost when another owns the state."""
        ...

    def inspected(self, model: str, wanted: Registration, who: str) -> Draft:
        """What stored files are, found out in a process of its own. Raises UnknownArtifact for files that are not
        stored, InvalidInput, Unsupported, Corrupted."""
        ...

    def verified(self, version: Version) -> tuple[str, ...]:
        """Read every file of a version; what is wrong with them."""
        ...

    def collect(self, grace_s: float, who: str, *, dry_run: bool) -> tuple[int, int]:
        """Remove files that no version refers to and that are older than ``grace_s``; how many, and their bytes."""
        ...


class KeyAccess(Protocol):
    """The API keys that this server goes by, for those who may change them."""

    def issuing(self, who: str) -> AbstractContextManager[KeyIssuer]:
        """For what ``who`` does. Blocking; never called on the event loop. Raises BadSettings, StoreFailed."""
        ...

    async def followed(self) -> None:
        """Returns when this server has taken note of a change, or soon after it could not. Called on the event loop."""
        ...
