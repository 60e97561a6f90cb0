"""What uv prints while it works, in one line for people who wait."""

from __future__ import annotations

import re

_RESOLVED = re.compile(r"Resolved (\d+) packages?")
_DOWNLOADING = re.compile(r"Downloading (\S+) \((.+)\)")
_DOWNLOADED = re.compile(r"\s*Downloaded (\S+)")
_BUILDING = re.compile(r"\s*Building (\S+)")
_INSTALLED = re.compile(r"Installed (\d+) packages?")
_SHOWN = 4


class Progress:
    """Feed it uv's lines; ``str`` tells where the build stands."""

    def __init__(self) -> None:
        self.resolved = 0
        self.installed = 0
        self.building = ""
        self._sizes: dict[str, str] = {}
        self._downloaded: set[str] = set()

    def feed(self, line: str) -> bool:
        """True when the line told something new."""
        before = str(self)
        if match := _RESOLVED.match(line):
            # The last step resolves Headrace alone.
            self.resolved = max(self.resolved, int(match[1]))
        elif match := _DOWNLOADING.match(line):
            self._sizes[match[1]] = match[2]
        elif match := _DOWNLOADED.match(line):
            self._downloaded.add(match[1])
        elif match := _BUILDING.match(line):
            self.building = match[1]
        elif match := _INSTALLED.match(line):
            self.installed += int(match[1])
        return str(self) != before

    def __str__(self) -> str:
        return f"building its environment ({', '.join(self._steps())})"

    def _steps(self) -> list[str]:
        if not self.resolved:
            return ["looking for its packages"]
        steps = [f"{self.resolved} packages resolved"]
        if self._sizes:
            steps.append(f"{len(self._downloaded)} of {len(self._sizes)} large ones downloaded")
        if self.installed:
            return [*steps, f"{self.installed} installed"]
        missing = [f"{name} {size}" for name, size in self._sizes.items() if name not in self._downloaded]
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            steps.append(f"waiting for {' and '.join(missing[:_SHOWN])}{more}")
        elif self.building:
            steps.append(f"building {self.building}")
        return steps
