"""The registry as the management API uses it (``api/ports.py``), over the state that this process owns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from headrace.app.registry import collecting, registering, stored_versions
from headrace.app.state.registry_state import RegistryState
from headrace.control.registry import Registry
from headrace.core import errors
from headrace.core.versions import Draft, Registration, Version
from headrace.store.artifacts import Artifacts
from headrace.store.uploads import Upload, Uploads

_WHAT = "headrace serve"


class StoredFiles:
    """Blobs, and uploads on their way to become some."""

    def __init__(self, artifacts: Artifacts, uploads: Uploads) -> None:
        self._artifacts = artifacts
        self._uploads = uploads

    def size(self, digest: str) -> int | None:
        return self._artifacts.size(digest)

    def present(self, digest: str, size: int) -> bool:
        return self._artifacts.present(digest, size)

    def chunks(self, digest: str, start: int = 0) -> Iterator[bytes]:
        return self._artifacts.chunks(digest, start)

    def received(self, digest: str, size: int) -> int:
        return self._uploads.received(digest, size)

    def receiving(self, digest: str, size: int, start: int) -> AbstractContextManager[Upload]:
        return self._uploads.receiving(digest, size, start)


class OwnedRegistry:
    """``changing`` gives the registry for changes, once this process may make any: a process that owns the state for
    its life passes one that returns what it holds; by default the state is taken for each change."""

    def __init__(
        self, state: RegistryState, changing: Callable[[], AbstractContextManager[Registry]] | None = None
    ) -> None:
        self._state = state
        self._changing = changing or (lambda: state.changing(_WHAT))
        self.registry = state.registry
        self.files = StoredFiles(state.artifacts, state.uploads)

    @contextmanager
    def changing(self, who: str) -> Iterator[Registry]:
        with self._changing() as registry:
            yield registry.by(who)

    def inspected(self, model: str, wanted: Registration, who: str) -> Draft:
        return registering.inspected(self._state.artifacts, model, wanted, who)

    def verified(self, version: Version) -> tuple[str, ...]:
        [verdict] = stored_versions.verify(self._state, [version], lambda *_: None)
        return verdict.problems

    def collect(self, grace_s: float, who: str, *, dry_run: bool) -> tuple[int, int]:
        with self.changing(who) as registry:
            done = collecting.collect(self._state, registry, grace_s, dry_run=dry_run)
        return done.blobs, done.size


class KeptRegistry:
    """The registry of a state that is opened a moment after the API, and that may go out of reach for a while."""

    def __init__(self, state: Callable[[], RegistryState | None]) -> None:
        self._state = state
        self._last: tuple[RegistryState, OwnedRegistry] | None = None

    def _now(self) -> OwnedRegistry:
        state = self._state()
        if state is None:
            raise errors.StateInUse("the state cannot be reached now; what is served goes on, try again")
        if self._last is None or self._last[0] is not state:
            self._last = state, OwnedRegistry(state)
        return self._last[1]

    @property
    def registry(self) -> Registry:
        return self._now().registry

    @property
    def files(self) -> StoredFiles:
        return self._now().files

    def changing(self, who: str) -> AbstractContextManager[Registry]:
        return self._now().changing(who)

    def inspected(self, model: str, wanted: Registration, who: str) -> Draft:
        return self._now().inspected(model, wanted, who)

    def verified(self, version: Version) -> tuple[str, ...]:
        return self._now().verified(version)

    def collect(self, grace_s: float, who: str, *, dry_run: bool) -> tuple[int, int]:
        return self._now().collect(grace_s, who, dry_run=dry_run)
