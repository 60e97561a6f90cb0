"""Where packages come from: uv's own configuration, and where that says nothing, pip's, which uv does not read."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

_UV_INDEX_VARIABLES = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
    "UV_CONFIG_FILE",
)
_UV_INDEX_KEYS = frozenset({"index", "index-url", "extra-index-url", "find-links", "no-index"})
_SECTIONS = ("global", "install", ":env:")
"""Of pip's configuration, the stronger ones last."""


class Handed(msgspec.Struct, frozen=True):
    """What uv is told beside its own configuration: environment variables, and arguments of ``uv pip install``."""

    variables: dict[str, str] = {}
    arguments: tuple[str, ...] = ()


async def settings_from_pip(environ: Mapping[str, str]) -> Handed:
    """What pip is configured to, for uv; nothing where uv has settings of its own."""
    if any(environ.get(name) for name in _UV_INDEX_VARIABLES) or any(map(_names_index, _uv_files(environ))):
        return Handed()
    return for_uv(await _pip_settings(environ), environ)


def for_uv(pip: Mapping[str, str], environ: Mapping[str, str]) -> Handed:
    """pip's settings (by the name of the option) in uv's words."""
    found: dict[str, str] = {}
    if pip.get("index-url"):
        found["UV_DEFAULT_INDEX"] = pip["index-url"].strip()
    if pip.get("extra-index-url"):
        found["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
        if not environ.get("UV_INDEX_STRATEGY"):
            # pip takes the best release of all its indexes; uv would ask only the first that has the name.
            found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if pip.get("find-links"):
        found["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
    if pip.get("trusted-host") and not environ.get("UV_INSECURE_HOST"):
        found["UV_INSECURE_HOST"] = " ".join(pip["trusted-host"].split())
    if pip.get("cert") and not environ.get("SSL_CERT_FILE"):
        found["SSL_CERT_FILE"] = pip["cert"].strip()
    # uv has no variable for this one.
    no_index = pip.get("no-index", "").lower() in ("1", "true", "yes", "on")
    return Handed(found, ("--no-index",) if no_index else ())


def parse_pip_config(listing: str) -> dict[str, str]:
    """The output of ``pip config list``, lines of ``section.option='value'``, as options in force for installing."""
    by_section: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        name, equals, text = line.partition("=")
        section, _, option = name.rpartition(".")
        if equals and section in by_section:
            try:
                by_section[section][option] = str(ast.literal_eval(text))
            except (ValueError, SyntaxError):
                # Not the form that pip writes: its words are no setting that we could hand on.
                continue
    return {option: value for section in _SECTIONS for option, value in by_section[section].items()}


async def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pip", "config", "list"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(environ),
    )
    listing, _ = await process.communicate()
    if process.returncode == 0:
        return parse_pip_config(listing.decode(errors="replace"))
    # There is no pip in this environment: its variables may be set all the same.
    prefix = "PIP_"
    return {n.removeprefix(prefix).lower().replace("_", "-"): v for n, v in environ.items() if n.startswith(prefix)}


def _uv_files(environ: Mapping[str, str]) -> list[Path]:
    own = Path(environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    shared = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    return [*(folder / "uv" / "uv.toml" for folder in (own, *map(Path, shared))), Path("/etc/uv/uv.toml")]


def _names_index(path: Path) -> bool:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # uv itself will say what is wrong with its file
    return bool(_UV_INDEX_KEYS & (document.keys() | document.get("pip", {}).keys()))
