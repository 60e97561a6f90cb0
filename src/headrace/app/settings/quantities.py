"""Durations and sizes as people write them: ``30``, ``500ms``, ``2m``; ``64MiB``, ``1GB``.

Pure text ↔ number; which setting wants which is said in ``app/settings/keys.py``.
"""

from __future__ import annotations

import math
import re

_NUMBER = r"(?P<number>\d+(?:[._]\d+)*|\.\d+)"
_QUANTITY = re.compile(rf"\s*{_NUMBER}\s*(?P<unit>[a-zA-Zµμ]*)\s*\Z")

_SECONDS = {"us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
    # Kubernetes writes 2Gi and 500M
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
}


def parse_duration(text: str, *, default_unit: str = "s") -> float:
    """Seconds. A bare number counts ``default_unit``. Raises ValueError for anything else."""
    number, unit = _split(text)
    factor = _SECONDS.get(unit or default_unit)
    if factor is None:
        raise ValueError(text)
    return number * factor


def parse_size(text: str) -> int:
    """Bytes; units in powers of 1000 (kB, MB, GB) or 1024 (KiB, MiB, GiB). Raises ValueError for anything else."""
    number, unit = _split(text)
    factor = _BYTES.get(unit.lower() or "b")
    if factor is None:
        raise ValueError(text)
    size = number * factor
    if size != int(size):
        raise ValueError(text)
    return int(size)


def format_duration(seconds: float) -> str:
    """The shortest text that ``parse_duration`` reads back: ``30s``, ``500ms``, ``2m``."""
    if seconds and seconds < 1:
        return f"{seconds * 1e3:g}ms"
    if seconds >= 60 and seconds % 60 == 0:
        return f"{seconds / 60:g}m" if seconds % 3600 else f"{seconds / 3600:g}h"
    return f"{seconds:g}s"


def format_size(size: float) -> str:
    """Bytes in the largest binary unit that keeps it short: ``64MiB``, ``1.5GiB``."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.4g}{unit}"
    return f"{size:g}B"


def _split(text: str) -> tuple[float, str]:
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(text)
    number = float(match["number"])
    if not math.isfinite(number):
        raise ValueError(text)
    return number, match["unit"]
