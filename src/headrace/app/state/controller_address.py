"""Where the controller that owns a state answers, so that commands can ask it instead of waiting for its lock.

In a state directory a file says so. Whoever owns the directory writes it, and nobody else; it is believed only when the
process lives and the address answers. With a shared database the holder of the lease says it in its row.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import msgspec

from headrace.core import errors
from headrace.store import directory_lock

FILE = "controller.json"

_ANSWER_S = 2.0
_START_S = 10.0
"""A controller that has the state and does not answer yet is given this long."""

OWNER = "headrace serve"
"""What the owner of a state calls itself when it is a controller."""

_IN_HOLDER = re.compile(r" at (https?://\S+)\Z")


class Address(msgspec.Struct, frozen=True):
    """``url`` of the management port, without a path; ``pid`` of the process that answers there."""

    url: str
    pid: int


def announce(directory: Path, url: str) -> None:
    """Say that this process answers at ``url``; to be called only while it owns ``directory``. Only the user whose the
    directory is may read it. Raises StoreFailed."""
    content = msgspec.json.encode(Address(url.rstrip("/"), os.getpid()))
    try:
        descriptor, partial = tempfile.mkstemp(prefix=f".{FILE}.", dir=directory)  # for its owner only: 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(partial).replace(directory / FILE)
    except OSError as error:
        raise errors.StoreFailed(f"{directory / FILE}: {error.strerror}") from error


def withdraw(directory: Path) -> None:
    """Take it back; what another process has announced stays."""
    found = _read(directory)
    if found is not None and found.pid == os.getpid():
        with suppress(FileNotFoundError):
            (directory / FILE).unlink()


def find(directory: Path) -> Address | None:
    """The controller that owns ``directory``; None when nobody says so, or who said so is gone.

    One that is just starting, perhaps because its predecessor was killed, is waited for."""
    deadline = time.monotonic() + _START_S
    while True:
        found = _read(directory)
        if found is not None and _lives(found.pid) and answers(found.url):
            return found
        if not _is_owned(directory) or time.monotonic() > deadline:
            return None
        time.sleep(0.05)


def _is_owned(directory: Path) -> bool:
    """A controller has the lock, whether it answers or not."""
    owner = directory_lock.last_owner(directory)
    return owner is not None and owner[1].startswith(OWNER) and owner[0] != os.getpid() and _lives(owner[0])


def in_holder(who: str, url: str) -> str:
    """The holder of a lease, as its row names it: who it is, and where it answers."""
    return f"{who} at {url.rstrip('/')}"


def of_holder(holder: str) -> str | None:
    """The URL in the name of a lease's holder; None when it has none, or nothing answers there."""
    match = _IN_HOLDER.search(holder)
    return match[1] if match is not None and answers(match[1]) else None


def answers(url: str) -> bool:
    """Whether a controller answers there now."""
    # A proxy of the environment has no business between a command and its own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/healthz", timeout=_ANSWER_S) as answer:
            document = json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return False
    return isinstance(document, dict) and document.get("live") is True


def _read(directory: Path) -> Address | None:
    try:
        content = (directory / FILE).read_bytes()
        return msgspec.json.decode(content, type=Address)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise errors.StoreFailed(
            f"{directory} is another user's, whose controller may own it; name its management port: --server URL"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise errors.StoreFailed(f"{directory / FILE} cannot be read: {error}; remove it") from error


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's, and alive
    return True
