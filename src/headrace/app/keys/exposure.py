"""Which ports other machines reach, and that nobody serves them without keys by mistake."""

from __future__ import annotations

import ipaddress
import shlex
from pathlib import Path
from urllib.parse import urlsplit

from headrace.app.settings.serve_settings import ServeSettings
from headrace.core import errors

PASSING_OVER = "pass --no-auth (no_auth: true) when something else guards the port"


def exposed(settings: ServeSettings) -> tuple[str, str] | None:
    """Key and value of the first host setting that is not loopback; None when only this machine can connect."""
    for key, host in (("host", settings.gateway.host), ("management_host", settings.management_host)):
        if not is_loopback(host):
            return key, host
    return None


def is_loopback(host: str) -> bool:
    """True when only this machine can connect to ``host``."""
    if host.lower() in {"localhost", "localhost.localdomain", "ip6-localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def without_keys(key: str, host: str, where: str, command: str) -> errors.BadSettings:
    """Why a server does not start: others reach it, and there is no key that it could ask for."""
    return errors.BadSettings(
        f"{key} {host!r} can be reached from other machines, and there are no API keys in {where}; make the first one"
        f" with: {command}; or use 127.0.0.1, or {PASSING_OVER} (health and ping paths are open in any case)"
    )


def bootstrap_command(state: str | None, database: str | None) -> str:
    """The command that makes the first key in the state of these flags, without a password that is in them."""
    parts = ["headrace", "keys", "bootstrap"]
    if state is not None:
        parts += ["--state", str(Path(state))]
    if database is not None:
        password = urlsplit(database).password
        parts += ["--database", database if password is None else database.replace(f":{password}@", ":***@", 1)]
    return shlex.join(parts)
