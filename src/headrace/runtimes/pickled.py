"""Models in pickles and joblib files. Unpickling runs code, so it needs trust; then the object decides what it is."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

from headrace.core import errors
from headrace.core.models import Artifact, Format
from headrace.runtimes import digest, table, trust
from headrace.runtimes.model import Model
from headrace.runtimes.runtime import LoadOptions, Runtime


def load(artifact: Artifact, options: LoadOptions) -> Runtime:
    trust.require(artifact, options.options)
    return wrap(read(artifact), options, Path(artifact.path))


def read(artifact: Artifact) -> Any:
    """Unpickle a trusted artifact, having made sure that it is still the one that was trusted."""
    path = Path(artifact.path)
    now = digest.of_file(path)
    if now != artifact.digest:
        raise errors.UntrustedArtifact(f"{path} changed after it was inspected: it is {now} now")
    try:
        if artifact.format is Format.JOBLIB:
            return _joblib(path)
        with path.open("rb") as file:
            return pickle.load(file)
    except ImportError as error:
        raise table.import_failed(f"the model in {path.name}", error) from error
    except errors.HeadraceError:
        raise
    except Exception as error:  # the boundary to code that is not ours
        raise errors.LoadFailed(f"{path.name} cannot be unpickled: {type(error).__name__}: {error}") from error


def _joblib(path: Path) -> Any:
    import joblib

    return joblib.load(path)


def wrap(model: Any, options: LoadOptions, path: Path) -> Runtime:
    """A runtime for an object in memory: a ``headrace.Model``, a booster, or anything with predict or transform."""
    if isinstance(model, type) and issubclass(model, Model):
        model = model()
    if isinstance(model, Model):
        from headrace.runtimes import python

        model.path = path.parent
        return python.start(model, path)
    for framework in ("xgboost", "lightgbm"):
        # The module that made the object is imported already; no other framework is touched.
        if any(cls.__module__.partition(".")[0] == framework for cls in type(model).__mro__):
            runtime: Runtime | None = importlib.import_module(f"headrace.runtimes.{framework}").adopt(model, options)
            if runtime is not None:
                return runtime
    sklearn = importlib.import_module("headrace.runtimes.sklearn") if not table.missing("sklearn") else None
    if sklearn is None:
        raise errors.LoadFailed(
            f"{path.name} holds a {type(model).__name__}, which needs: pip install {' '.join(table.missing('sklearn'))}"
        )
    wrapped: Runtime = sklearn.wrap(model, options)
    return wrapped
