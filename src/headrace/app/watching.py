"""--watch: notices changed files and new version folders by times and sizes. Polling works on every file system."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.app import sources
from headrace.app.settings.serve_settings import ServeSettings

Fingerprint = tuple[tuple[str, int, int], ...]


class Change(msgspec.Struct, frozen=True):
    """A candidate to deploy; ``replaces`` is the version that leaves when the new one serves, None for none."""

    candidate: sources.Candidate
    replaces: str | None


class Watched(msgspec.Struct, frozen=True):
    """What a watcher has seen so far, so that another process can go on with it. ``fingerprints`` are (endpoint,
    version, fingerprint); ``current`` are (endpoint, deployment, version in use) of files that change in place."""

    fingerprints: tuple[tuple[str, str, Fingerprint], ...]
    current: tuple[tuple[str, str, str], ...]


def first_look(candidates: list[sources.Candidate]) -> Watched:
    """What is on disk now."""
    return Watched(
        tuple((c.endpoint, c.version, _fingerprint(c)) for c in candidates),
        tuple((c.endpoint, c.deployment, c.version) for c in candidates if c.typed),
    )


class Watcher:
    """Call ``changes`` from time to time; each change is told once. A file must be quiet for one call first, so that
    half-written artifacts are not picked up."""

    def __init__(self, settings: ServeSettings, watched: Watched) -> None:
        self._settings = settings
        self._fingerprints = {(endpoint, version): seen for endpoint, version, seen in watched.fingerprints}
        self._unsettled: dict[tuple[str, str], Fingerprint] = {}
        self._current = {(endpoint, deployment): version for endpoint, deployment, version in watched.current}

    def watched(self) -> Watched:
        """Everything seen up to the last call of ``changes``."""
        return Watched(
            tuple((*key, seen) for key, seen in self._fingerprints.items()),
            tuple((*key, version) for key, version in self._current.items()),
        )

    def changes(self) -> list[Change]:
        """What has changed since the last call. Folders that cannot be listed now are looked at next time."""
        found, _ = sources.discover(self._settings)
        return [change for candidate in found if (change := self._change(candidate)) is not None]

    def _change(self, candidate: sources.Candidate) -> Change | None:
        key = candidate.endpoint, candidate.version
        now = _fingerprint(candidate)
        if not now or self._fingerprints.get(key) == now:
            self._unsettled.pop(key, None)
            return None
        if self._unsettled.get(key) != now:
            self._unsettled[key] = now
            return None
        self._fingerprints[key] = now
        if not candidate.typed:
            return Change(candidate, None)
        slot = candidate.endpoint, candidate.deployment
        old = self._current.get(slot, candidate.version)
        version = self._current[slot] = self._next(candidate, old)
        return Change(msgspec.structs.replace(candidate, version=version, served=True), old)

    def _next(self, candidate: sources.Candidate, old: str) -> str:
        """The version of a file that has changed: one that no deployment of the endpoint has."""
        if not old.isdigit():
            number = old.removeprefix(f"{candidate.version}.")
            return f"{candidate.version}.{int(number) + 1 if number.isdigit() else 1}"
        named = [version for endpoint, version in self._fingerprints if endpoint == candidate.endpoint]
        named += [version for (endpoint, _), version in self._current.items() if endpoint == candidate.endpoint]
        return str(max(int(version) for version in (old, *named) if version.isdigit()) + 1)


def _fingerprint(candidate: sources.Candidate) -> Fingerprint:
    """Of the model, and of the packages that its environment has."""
    model = fingerprint(Path(candidate.path))
    packages = candidate.requirements or candidate.settings.requirements
    return model + fingerprint(Path(packages)) if model and packages is not None else model


def fingerprint(path: Path) -> Fingerprint:
    """Names, times (ns) and sizes of a file or of everything in a folder; empty when it is gone."""
    try:
        # Loading a model may leave compiled code in its folder: that is no new model.
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and not _compiled(p))
        stats = [(str(p), p.stat()) for p in files]
    except OSError:
        return ()
    return tuple((name, s.st_mtime_ns, s.st_size) for name, s in stats)


def _compiled(path: Path) -> bool:
    return path.parent.name == "__pycache__"
