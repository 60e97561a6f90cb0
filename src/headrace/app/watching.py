"""--watch: notices changed files and new version folders by times and sizes. Polling works on every file system."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.app import sources
from headrace.app.settings import ServeSettings

Fingerprint = tuple[tuple[str, int, int], ...]


class Change(msgspec.Struct, frozen=True):
    """A candidate to deploy; ``replaces`` is the version that leaves when the new one serves, None for none."""

    candidate: sources.Candidate
    replaces: str | None


class Watcher:
    """Call ``changes`` from time to time; each change is told once. A file must be quiet for one call first, so that
    half-written artifacts are not picked up."""

    def __init__(self, settings: ServeSettings, known: list[sources.Candidate]) -> None:
        self._settings = settings
        self._fingerprints: dict[tuple[str, str], Fingerprint] = {}
        self._unsettled: dict[tuple[str, str], Fingerprint] = {}
        self._current: dict[str, str] = {}
        """Endpoint → version in use, for sources whose files change in place."""
        for candidate in known:
            self._fingerprints[candidate.endpoint, candidate.version] = fingerprint(Path(candidate.path))
            if candidate.typed:
                self._current[candidate.endpoint] = candidate.version

    def changes(self) -> list[Change]:
        """What has changed since the last call. Folders that cannot be listed now are looked at next time."""
        found, _ = sources.discover(self._settings)
        return [change for candidate in found if (change := self._change(candidate)) is not None]

    def _change(self, candidate: sources.Candidate) -> Change | None:
        key = candidate.endpoint, candidate.version
        now = fingerprint(Path(candidate.path))
        if not now or self._fingerprints.get(key) == now:
            self._unsettled.pop(key, None)
            return None
        if self._unsettled.get(key) != now:
            self._unsettled[key] = now
            return None
        is_new = key not in self._fingerprints
        self._fingerprints[key] = now
        if is_new and not candidate.typed:
            return Change(candidate, None)
        old = self._current.get(candidate.endpoint, candidate.version)
        version = str(int(old) + 1) if old.isdigit() else f"{candidate.version}.1"
        self._current[candidate.endpoint] = version
        return Change(msgspec.structs.replace(candidate, version=version, served=True), old)


def fingerprint(path: Path) -> Fingerprint:
    """Names, times (ns) and sizes of a file or of everything in a folder; empty when it is gone."""
    try:
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        stats = [(str(p), p.stat()) for p in files]
    except OSError:
        return ()
    return tuple((name, s.st_mtime_ns, s.st_size) for name, s in stats)
