"""Who makes a change, for the events that tell of it."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Request

from headrace.api.key_check import CALLER
from headrace.core.keys import ANYBODY, Principal

HEADER = "x-headrace-user"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:+\-]{0,127}\Z")


def key_of(request: Request) -> str:
    """The key that the request came with (``key:ci``), else nothing."""
    principal: Principal = request.scope.get(CALLER, ANYBODY)
    return "" if principal is ANYBODY else f"key:{principal.name}"


def caller(request: Request) -> str:
    """The key that the request came with (``key:ci``); without keys the name that the client gives itself
    (``ada@laptop``), else its address. FastAPI dependency.

    A name is a claim, like the user name of a command on this machine, for the history: it opens nothing."""
    if proven := key_of(request):
        return proven
    claimed = request.headers.get(HEADER, "")
    if _NAME.match(claimed):
        return claimed
    return f"client@{request.client.host}" if request.client is not None else "client"


Who = Annotated[str, Depends(caller)]
"""Who makes a change."""
