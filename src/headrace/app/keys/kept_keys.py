"""The keys of this run, kept beside the sockets, so that a controller that is started again while its database is down
goes on: it lets in whom its predecessor let in, and looks after the workers meanwhile.

The folder is its owner's alone, and so is the file: the secret of the digests is in it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from headrace.core.keys import KeySet

FILE = "keys"


class _Kept(msgspec.Struct, frozen=True):
    """``began`` names the run of ``headrace serve`` that this belongs to: another run reads its state first."""

    began: float
    keys: KeySet


def save(directory: Path, began: float, keys: KeySet) -> None:
    """Replace the file as a whole, so that a death in the middle leaves the old one."""
    partial = directory / f"{FILE}.partial"
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.msgpack.encode(_Kept(began, keys)))
    partial.replace(directory / FILE)


def load(directory: Path, began: float) -> KeySet | None:
    """The keys of this run; None when it has not kept any yet."""
    try:
        kept = msgspec.msgpack.decode((directory / FILE).read_bytes(), type=_Kept)
    except FileNotFoundError:
        return None
    return kept.keys if kept.began == began else None
