"""Reads a Python file without running it: the models it defines and the modules it imports."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec

from headrace.core import errors

MAX_SIZE = 2 << 20


class Source(msgspec.Struct, frozen=True):
    """``attribute`` is the class (or object) to serve; ``imports`` are modules."""

    attribute: str
    imports: tuple[str, ...]


def read(path: Path, attribute: str | None) -> Source:
    """Raises InvalidInput for a file that is no Python, has no model, or several and none is named."""
    if path.stat().st_size > MAX_SIZE:
        raise errors.InvalidInput(f"this Python file is larger than {MAX_SIZE >> 20} MiB")
    try:
        tree = ast.parse(path.read_bytes(), str(path))
        chosen = attribute or _only_model(tree, path)
    except SyntaxError as error:
        raise errors.InvalidInput(f"line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise errors.InvalidInput(f"this Python file cannot be parsed: {error}") from error
    defined = sorted(_defined(tree))
    if chosen not in defined and not _imports_everything(tree):
        raise errors.InvalidInput(f"there is no {chosen!r} in it; it defines {', '.join(defined) or 'nothing'}")
    return Source(chosen, tuple(sorted(_imported(tree))))


def imports_of(source: bytes, name: str) -> set[str]:
    """Modules that a Python file imports anywhere in it. Raises InvalidInput, with its name, for one that is no
    Python."""
    try:
        return _imported(ast.parse(source, name))
    except SyntaxError as error:
        raise errors.InvalidInput(f"{name} line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise errors.InvalidInput(f"{name} cannot be parsed as Python: {error}") from error


def _only_model(tree: ast.Module, path: Path) -> str:
    """The one class that derives, directly or through classes of this file, from ``headrace.Model``."""
    classes = {
        node.name: [ast.unparse(base) for base in node.bases] for node in tree.body if isinstance(node, ast.ClassDef)
    }
    models = {name for name, bases in classes.items() if any(b == "Model" or b.endswith(".Model") for b in bases)}
    while more := {name for name, bases in classes.items() if name not in models and models.intersection(bases)}:
        models |= more
    leaves = sorted(models - {base for bases in classes.values() for base in bases})
    if len(leaves) == 1:
        return leaves[0]
    if leaves:
        raise errors.InvalidInput(f"it has several models; name one: {', '.join(f'{path.name}:{n}' for n in leaves)}")
    if "TritonPythonModel" in classes:
        raise errors.Unsupported(
            "this is a model of Triton's Python backend; derive a class from headrace.Model instead"
        )
    raise errors.InvalidInput("it has no class that derives from headrace.Model")


def _defined(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        else:
            names.update(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return names


def _imports_everything(tree: ast.Module) -> bool:
    return any(isinstance(n, ast.ImportFrom) and any(a.name == "*" for a in n.names) for n in tree.body)


def _imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names
