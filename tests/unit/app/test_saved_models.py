"""Objects become files that inspection recognizes; what is no model is refused before a server starts."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from headrace.app.saved_models import save_model
from headrace.core import errors
from headrace.core.models import Format
from headrace.runtimes.inspect import inspect

X = np.arange(40.0).reshape(20, 2)
Y = (X[:, 0] > 20).astype(int)


class Doubler(headrace.Model):
    def predict(self, x: headrace.Float64) -> {"y": headrace.Float64}:  # type: ignore[override, misc]  # noqa: F821
        return {"y": x * 2}


def estimator() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(X, Y)


def xgboost_booster() -> Any:
    import xgboost

    return xgboost.train({"max_depth": 2}, xgboost.DMatrix(X, label=Y), 2)


def xgboost_classifier() -> Any:
    import xgboost

    return xgboost.XGBClassifier(n_estimators=2).fit(X, Y)


def lightgbm_booster() -> Any:
    import lightgbm

    return lightgbm.train({"verbose": -1, "min_data_in_leaf": 1}, lightgbm.Dataset(X, label=Y), 2)


def onnx_model() -> Any:
    from skl2onnx import to_onnx

    return to_onnx(estimator(), X[:1].astype(np.float32))


@pytest.mark.parametrize(
    ("make", "name", "format_"),
    [
        (estimator, "model.pkl", Format.PICKLE),
        (xgboost_booster, "model.ubj", Format.XGBOOST_UBJ),
        (xgboost_classifier, "model.pkl", Format.PICKLE),
        (lightgbm_booster, "model.txt", Format.LIGHTGBM),
        (onnx_model, "model.onnx", Format.ONNX),
        (lambda: Doubler, "model.pkl", Format.PICKLE),
        (Doubler, "model.pkl", Format.PICKLE),
    ],
    ids=["estimator", "booster", "classifier", "lightgbm", "onnx", "class", "object"],
)
def test_formats(tmp_path: Path, make: Any, name: str, format_: Format) -> None:
    path = save_model(make(), tmp_path)
    assert path == tmp_path / name
    assert inspect(path).format is format_


def test_classes_of_a_script_travel_by_value(tmp_path: Path) -> None:
    """As in a notebook: the class exists nowhere but in ``__main__``."""
    code = "class Local(Base):\n    def predict(self, x): return x * factor"
    scope: dict[str, Any] = {"Base": headrace.Model, "factor": 3, "__name__": "__main__"}
    exec(code, scope)
    path = save_model(scope["Local"](), tmp_path)
    assert pickle.loads(path.read_bytes()).predict(2) == 6


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: x, "the function '<lambda>' is no model"),
        (3, "an object of builtins.int is no model"),
        (dict, "the class dict is no model"),
        (None, "an object of builtins.NoneType is no model"),
    ],
)
def test_other_objects_are_refused(tmp_path: Path, model: Any, message: str) -> None:
    with pytest.raises(errors.Unsupported) as caught:
        save_model(model, tmp_path)
    assert caught.value.message.startswith(message)
    assert not any(tmp_path.iterdir())


def test_sessions_of_onnxruntime_name_the_way_out(tmp_path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_model().SerializeToString())
    with pytest.raises(errors.Unsupported, match=r"pass the path of its \.onnx file"):
        save_model(session, tmp_path)


def test_what_cannot_be_pickled_says_so(tmp_path: Path) -> None:
    class Locked(headrace.Model):
        def __init__(self) -> None:
            import threading

            self.lock = threading.Lock()

    with pytest.raises(errors.LoadFailed, match=r"Locked cannot be pickled: .*; write it as a class in a file"):
        save_model(Locked(), tmp_path)
