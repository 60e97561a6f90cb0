"""Who makes a change, for the events that tell of it."""

from __future__ import annotations

import re

from fastapi import Request

HEADER = "x-headrace-user"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:+\-]{0,127}\Z")


def caller(request: Request) -> str:
    """The name that the client gives itself (``ada@laptop``), else its address. FastAPI dependency.

    It is a claim, like the user name of a command on this machine, for the history: it opens nothing."""
    claimed = request.headers.get(HEADER, "")
    if _NAME.match(claimed):
        return claimed
    return f"client@{request.client.host}" if request.client is not None else "client"
