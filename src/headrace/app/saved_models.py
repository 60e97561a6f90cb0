"""Objects in memory → model files that ``headrace serve`` takes, in a native format where that keeps everything.

XGBoost and LightGBM boosters and ONNX models have formats without code. Everything else is pickled by cloudpickle,
which carries classes and functions that were defined in a notebook.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.core import errors

_NATIVE: dict[tuple[str, str], tuple[str, Callable[[Any, Path], None]]] = {
    ("xgboost", "Booster"): ("model.ubj", lambda model, path: model.save_model(str(path))),
    ("lightgbm", "Booster"): ("model.txt", lambda model, path: model.save_model(str(path))),
    ("onnx", "ModelProto"): ("model.onnx", lambda model, path: _write_onnx(model, path)),
}
"""Package and class → file name and how it is written. Found by name: importing a framework to compare classes with
would cost seconds, and an object of it proves that it is loaded."""


def save_model(model: Any, folder: Path) -> Path:
    """Write ``model`` into ``folder`` and return the file. Raises LoadFailed or Unsupported that say what to do."""
    if _is_session(model):
        raise errors.Unsupported("an onnxruntime session cannot be saved; pass the path of its .onnx file instead")
    for cls in type(model).__mro__:
        native = _NATIVE.get((cls.__module__.partition(".")[0], cls.__name__))
        if native is not None:
            path = folder / native[0]
            native[1](model, path)
            return path
    return _pickle(model, folder / "model.pkl")


def _is_session(model: Any) -> bool:
    return type(model).__module__.startswith("onnxruntime") and type(model).__name__ == "InferenceSession"


def _write_onnx(model: Any, path: Path) -> None:
    path.write_bytes(model.SerializeToString())


def _pickle(model: Any, path: Path) -> Path:
    _refuse_other_objects(model)
    import cloudpickle  # heavy, and not needed for native formats

    try:
        path.write_bytes(cloudpickle.dumps(model))
    except Exception as error:  # whatever the object's own reduce methods raise
        raise errors.LoadFailed(
            f"{type(model).__name__} cannot be pickled: {error}; write it as a class in a file and serve that:"
            " headrace serve model.py:MyModel"
        ) from error
    return path


def _refuse_other_objects(model: Any) -> None:
    from headrace.runtimes.model import Model  # numpy; only here

    if isinstance(model, type):
        if issubclass(model, Model):
            return
        what = f"the class {model.__name__}"
    elif isinstance(model, Model) or callable(getattr(model, "predict", None)):
        return
    elif inspect.isroutine(model):
        what = f"the function {getattr(model, '__name__', model)!r}"
    else:
        what = f"an object of {type(model).__module__}.{type(model).__name__}"
    raise errors.Unsupported(
        f"{what} is no model: pass an estimator with a predict method, a booster, an ONNX model, or a class that"
        " derives from headrace.Model"
    )
