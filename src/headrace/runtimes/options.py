"""Options of a runtime: text from settings, checked against what the runtime reads."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from headrace.core import errors

GENERAL = frozenset({"trusted"})
"""Options that the caller sets for every runtime; see ``runtimes/trust.py``."""


def check(runtime: str, options: Mapping[str, str], known: Collection[str]) -> None:
    """Raise BadSettings for an option the runtime does not read, naming the nearest one it does."""
    for name in options:
        if name in known or name in GENERAL:
            continue
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it reads {', '.join(sorted(known)) or 'none'}"
        raise errors.BadSettings(f"the {runtime} runtime has no option {name!r}; {hint}")


def flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    """A yes/no option."""
    text = options.get(name)
    if text is None:
        return default
    match text.strip().lower():
        case "yes" | "true" | "on" | "1":
            return True
        case "no" | "false" | "off" | "0":
            return False
    raise errors.BadSettings(f"option {name!r} is yes or no, got {text!r}")


def number(options: Mapping[str, str], name: str, default: float) -> float:
    text = options.get(name)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        raise errors.BadSettings(f"option {name!r} is a number, got {text!r}") from None
