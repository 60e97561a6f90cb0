"""The secret under which keys are kept as HMACs: a file beside the database, or ``HEADRACE_KEY_SECRET``.

The threat is a stolen database: a backup, a replica, a dump. Digests without this secret cannot be tried offline, so
it is never stored with them. Servers that share a database share the secret through the environment.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from headrace.core import errors

FILE = "key.secret"
VARIABLE = "HEADRACE_KEY_SECRET"
_BYTES = 32
_LEAST = 32
"""Characters of a secret that somebody chose: 256 random bits in hex have 64, in base64 44."""


def read_secret(directory: Path, environ: Mapping[str, str]) -> bytes:
    """Raises BadSettings when there is none, when others may read it, or when it is too short."""
    given = environ.get(VARIABLE)
    if given:
        return _checked(given, f"environment variable {VARIABLE}")
    path = directory / FILE
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise errors.BadSettings(
            f"there are keys, but their secret is not in {path}: bring the file back, or give its text in {VARIABLE}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise errors.BadSettings(f"{path} cannot be read: {error}") from error
    if mode & 0o077:
        raise errors.BadSettings(f"{path} can be read by others: chmod 600 {path}")
    return _checked(text, str(path))


def make_secret(directory: Path, environ: Mapping[str, str]) -> bytes:
    """The secret; when there is none yet, a new one in a file that only its owner reads. Raises BadSettings."""
    path = directory / FILE
    if not environ.get(VARIABLE) and not path.exists():
        # Whole or not there at all, and never over one that somebody else has just made.
        descriptor, partial = tempfile.mkstemp(prefix=f"{FILE}.", dir=directory)  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
        finally:
            Path(partial).unlink()
    return read_secret(directory, environ)


def _checked(text: str, where: str) -> bytes:
    if len(text) < _LEAST:
        raise errors.BadSettings(
            f"{where} has {len(text)} characters; a secret has at least {_LEAST}, e.g. from: openssl rand -hex 32"
        )
    return text.encode()
