"""The registry as the management API uses it (``api/ports.py``), over the state that this process owns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from headrace.app import registering, stored_versions
from headrace.app.registry_state import RegistryState
from headrace.control.registry import Registry
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
            done = stored_versions.collect(self._state, registry, grace_s, dry_run=dry_run)
        return done.blobs, done.size
