"""Who may run code: the one rule that lets a code-bearing artifact be loaded.

An artifact is code-bearing when loading it runs what its author chose: pickle, joblib, Python files, TorchServe
archives, skops files with types outside skops' own list. It is loaded only when its digest or its path is trusted, or
when it is a Python file that the user typed. Inspection found all of this without running anything.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from headrace.core import errors
from headrace.core.models import Artifact, Format

OPTION = "trusted"
"""Key in ``LoadOptions.options`` that tells a runtime the outcome: ``yes`` for a trusted artifact."""

_SHOWN = 8
_EXPECTED = frozenset(
    {"sklearn", "numpy", "scipy", "pandas", "joblib", "xgboost", "lightgbm", "collections", "copyreg", "_codecs"}
)


def is_trusted(artifact: Artifact, trust: Sequence[str], typed_path: bool) -> bool:
    """True when the artifact may run code: pass ``{OPTION: "yes"}`` to its runtime.

    ``trust`` holds digests and paths; a listed folder covers what is in it. ``typed_path``: the user named this
    very file, which is enough for Python source."""
    if typed_path and artifact.format is Format.PYTHON:
        return True
    if artifact.digest in trust:
        return True
    return covers(Path(artifact.path), trust)


def covers(path: Path, trust: Sequence[str]) -> bool:
    """True when ``trust`` lists this path or a folder that it is in."""
    real = path.resolve()
    return any(real.is_relative_to(Path(entry).resolve()) for entry in trust if not entry.startswith("sha256:"))


def check(artifact: Artifact, trust: Sequence[str], typed_path: bool) -> None:
    """Raise UntrustedArtifact, saying how to go on, unless the artifact is harmless or trusted."""
    if artifact.code_bearing and not is_trusted(artifact, trust, typed_path):
        raise errors.UntrustedArtifact(_refusal(artifact))


def require(artifact: Artifact, options: dict[str, str]) -> None:
    """The runtime's own guard, in case a caller forgot ``check``."""
    if artifact.code_bearing and options.get(OPTION) != "yes":
        raise errors.UntrustedArtifact(_refusal(artifact))


def command(artifact: Artifact) -> str:
    """The command line that serves the artifact as trusted."""
    target = artifact.path if artifact.attribute is None else f"{artifact.path}:{artifact.attribute}"
    return f"headrace serve {shlex.quote(target)} --trust {artifact.digest}"


def _refusal(artifact: Artifact) -> str:
    what = {
        Format.PICKLE: "a pickle: loading it runs code of whoever made it",
        Format.JOBLIB: "a joblib pickle: loading it runs code of whoever made it",
        Format.SKOPS: "a skops file with types that are not safe to load from a stranger",
        Format.MLFLOW: f"an MLflow folder ({artifact.flavor}) that runs code of whoever made it when loaded",
        Format.TORCHSERVE: "a TorchServe archive: its handler is Python code of whoever made it",
        Format.PYTHON: "Python source that was not named on the command line",
    }.get(artifact.format, "code-bearing")
    imports = f"\n  it would import: {shortened(artifact.imports)}" if artifact.imports else ""
    return (
        f"{artifact.path} is {what}\n  digest: {artifact.digest}{imports}\n"
        f"  if you know where it comes from: {command(artifact)}"
    )


def shortened(imports: Sequence[str]) -> str:
    """The imports for a message: what a model rarely needs comes first, because it is what to look at."""
    ordered = sorted(imports, key=lambda name: (name.partition(".")[0] in _EXPECTED, name))
    shown = ", ".join(ordered[:_SHOWN])
    return shown if len(ordered) <= _SHOWN else f"{shown} and {len(ordered) - _SHOWN} more"
