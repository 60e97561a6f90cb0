"""The API key of a client, as the header that it sends."""

from __future__ import annotations

import os
from collections.abc import Mapping

from headrace.core import errors

VARIABLE = "HEADRACE_API_KEY"


def with_key(headers: Mapping[str, str] | None, api_key: str | None) -> dict[str, str]:
    """``headers`` and ``Authorization: Bearer``; a key that is not given comes from ``HEADRACE_API_KEY``, if it is set.

    An Authorization among the headers is somebody's choice and stays. Raises BadSettings when the key is no text that
    a header can hold, without repeating it."""
    given = dict(headers or {})
    where = "api_key" if api_key else f"environment variable {VARIABLE}"
    key = (api_key or os.environ.get(VARIABLE) or "").strip()
    if not key or any(name.lower() == "authorization" for name in given):
        return given
    if not key.isascii() or not key.isprintable() or " " in key:
        raise errors.BadSettings(f"{where} is no API key: a key has neither spaces nor special characters")
    return {**given, "authorization": f"Bearer {key}"}
