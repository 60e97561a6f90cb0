"""Reads the schema of a skops file: which types it holds that skops does not load on its own."""

from __future__ import annotations

import zipfile
from typing import Any

import msgspec

from headrace.core import errors
from headrace.runtimes import sniff

_MAX_SCHEMA = 32 << 20


def untrusted_types(archive: zipfile.ZipFile) -> tuple[str, ...]:
    """Names of the untrusted types in an archive (of ``zip_file.opened``). Raises Unsupported for one of another
    kind."""
    names = frozenset(archive.namelist())
    if "schema.json" not in names:
        raise sniff.unsupported(sniff.zip_content(names))
    with archive.open("schema.json") as file:
        schema = file.read(_MAX_SCHEMA + 1)
    if len(schema) > _MAX_SCHEMA:
        raise errors.InvalidInput(f"the schema of this skops file is larger than {_MAX_SCHEMA >> 20} MiB")
    return _types(schema)


def _types(schema: bytes) -> tuple[str, ...]:
    """Types in a skops schema that skops does not load on its own.

    An estimate from names, without importing scikit-learn to ask it; skops itself has the last word at load."""
    try:
        document = msgspec.json.decode(schema)
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.InvalidInput(f"the schema of this skops file is damaged: {error}") from error
    if not isinstance(document, dict) or "__loader__" not in document:
        raise errors.Unsupported("this zip archive has a schema.json, but is no skops file")
    untrusted: set[str] = set()
    stack: list[Any] = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            stack.extend(node.values())
            name = _name(node)
            if name is not None and not _trusts(name):
                untrusted.add(name)
    return tuple(sorted(untrusted))


def _name(node: dict[str, Any]) -> str | None:
    module, name = node.get("__module__"), node.get("__class__")
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    content = node.get("content")
    if node.get("__loader__") == "FunctionNode" and isinstance(content, dict):
        return f"{content.get('module_path')}.{content.get('function')}"
    if node.get("__loader__") == "OperatorFuncNode":
        return f"{module}.{name}()"
    return f"{module}.{name}"


_SAFE_BUILTINS = frozenset(
    (
        *("int", "float", "str", "bool", "complex", "list", "set", "frozenset", "map", "tuple", "dict", "bytes"),
        *("bytearray", "slice", "type", "NoneType", "function", "method", "builtin_function_or_method", "object"),
    )
)
_UNSAFE_SKLEARN = frozenset({"sklearn.tree._tree.Tree"})


def _trusts(name: str) -> bool:
    root, _, rest = name.partition(".")
    match root:
        case "builtins":
            return rest in _SAFE_BUILTINS
        case "sklearn":
            # Tree nodes hold indices that scikit-learn follows unchecked, so a crafted file could crash it.
            return name not in _UNSAFE_SKLEARN and not name.endswith(".TreePredictor") and ".externals." not in name
        case "numpy" | "scipy":
            return "ctypes" not in name and "f2py" not in name and "distutils" not in name
        case "collections":
            return rest in ("OrderedDict", "defaultdict")
    return name in ("zoneinfo.ZoneInfo", "functools.partial", "types.FunctionType", "types.MethodType")
