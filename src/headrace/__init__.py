"""Headrace: serve machine-learning models over REST and gRPC.

    headrace.serve(model)                       # from a notebook or script
    headrace.Client("http://localhost:8000")    # call a server

Names are imported when they are first used, so that ``import headrace`` stays cheap in workers and in the CLI.
"""

from __future__ import annotations

import importlib

from headrace.core.release import VERSION

TYPE_CHECKING = False  # type checkers take it for true; importing `typing` for it would be most of the cost

if TYPE_CHECKING:
    # For type checkers and editors only: at run time ``__getattr__`` imports the same names on demand.
    from headrace.app.notebook import serve
    from headrace.client import AsyncClient, Client
    from headrace.core.errors import HeadraceError
    from headrace.runtimes.model import (
        BFloat16,
        Bool,
        Bytes,
        Float16,
        Float32,
        Float64,
        Int8,
        Int16,
        Int32,
        Int64,
        Model,
        Shape,
        Strings,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
    )

__version__ = VERSION

__all__ = [
    "AsyncClient",
    "BFloat16",
    "Bool",
    "Bytes",
    "Client",
    "Float16",
    "Float32",
    "Float64",
    "HeadraceError",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "Model",
    "Shape",
    "Strings",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "__version__",
    "serve",
]

_HOMES = {
    "AsyncClient": "headrace.client",
    "Client": "headrace.client",
    "HeadraceError": "headrace.core.errors",
    "serve": "headrace.app.notebook",
}
_TYPES_HOME = "headrace.runtimes.model"


if not TYPE_CHECKING:  # hidden from type checkers, so that they still find misspelt names

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'headrace' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES.get(name, _TYPES_HOME)), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
