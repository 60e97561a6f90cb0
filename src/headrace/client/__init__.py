"""What users import to call a server: ``Client`` and ``AsyncClient``. Knows wire formats, not how serving works.

Imported when first used: the CLI needs the examples of this folder without the HTTP library.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # type checkers take it for true

if TYPE_CHECKING:
    from headrace.client.async_client import AsyncClient
    from headrace.client.client import Client
    from headrace.client.metadata import ModelMetadata

__all__ = ["AsyncClient", "Client", "ModelMetadata"]

_HOMES = {
    "AsyncClient": "headrace.client.async_client",
    "Client": "headrace.client.client",
    "ModelMetadata": "headrace.client.metadata",
}

if not TYPE_CHECKING:  # hidden from type checkers, so that they still find misspelt names

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'headrace.client' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
