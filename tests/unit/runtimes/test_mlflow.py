"""MLflow folders: native flavors without MLflow, signatures as columns, and nothing outside the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from headrace.core import errors
from headrace.core.models import Format
from headrace.core.tensors import DType
from headrace.runtimes import table, trust
from headrace.runtimes.inspect import inspect
from headrace.runtimes.runtime import LoadOptions, Runtime
from tests import models

Load = Callable[..., Runtime]


def _frame(inputs: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({n: [v.decode() for v in a] if a.dtype == object else a for n, a in inputs.items()})


def test_sklearn_folder_uses_the_columns_of_its_signature(load: Load) -> None:
    inputs = models.inputs("mlflow-sklearn", 20)
    runtime = load("mlflow-sklearn")
    assert {s.name: s.dtype for s in runtime.signature.inputs} == {
        "amount": DType.FP64,
        "age": DType.INT64,
        "country": DType.BYTES,
        "plan": DType.BYTES,
    }
    expected = models.mixed_pipeline().predict(_frame(inputs))
    assert [label.decode() for label in runtime.predict(inputs, {})["label"]] == list(expected)


def test_sklearn_folder_is_refused_without_trust() -> None:
    artifact = inspect(models.build("mlflow-sklearn"))
    assert (artifact.format, artifact.flavor, artifact.code_bearing) == (Format.MLFLOW, "sklearn", True)
    assert any("sklearn" in name for name in artifact.imports)
    with pytest.raises(errors.UntrustedArtifact, match=artifact.digest):
        table.load(artifact, LoadOptions())


def test_native_flavors_need_no_trust(load: Load) -> None:
    artifact = inspect(models.build("mlflow-xgboost"))
    assert (artifact.flavor, artifact.code_bearing) == ("xgboost", False)
    inputs = models.inputs("mlflow-xgboost", 4)
    runtime = table.load(artifact, LoadOptions())
    assert runtime.metadata["mlflow_flavor"] == "xgboost"
    expected = load("xgboost-ubj").predict(inputs, {})
    np.testing.assert_array_equal(runtime.predict(inputs, {})["probabilities"], expected["probabilities"])


def test_any_change_in_the_folder_changes_the_digest(tmp_path: Path) -> None:
    folder = models.build("mlflow-sklearn", tmp_path)
    artifact = inspect(folder)
    (folder / "extra.py").write_text("x = 1")
    assert inspect(folder).digest != artifact.digest
    with pytest.raises(errors.UntrustedArtifact, match="changed after it was inspected"):
        table.load(artifact, LoadOptions(options={trust.OPTION: "yes"}))


@pytest.mark.filterwarnings("ignore")  # MLflow warns about being a partial install, in several classes
def test_folders_written_by_mlflow_itself(tmp_path: Path, load: Load) -> None:
    import lightgbm
    import mlflow.lightgbm
    import mlflow.sklearn
    import mlflow.xgboost
    import xgboost
    from mlflow.models import infer_signature

    features, labels = models.breast_cancer()
    frame = pd.DataFrame(features, columns=[f"m{index}" for index in range(30)])
    ridge = models.mixed_pipeline()
    columns = pd.DataFrame(models.mixed_columns(5))
    boosted = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(frame, labels)
    light = lightgbm.train({"verbose": -1, "objective": "binary", "num_threads": 1}, lightgbm.Dataset(frame, labels), 3)
    signature = infer_signature(columns, ridge.predict(columns))
    mlflow.sklearn.save_model(
        ridge, str(tmp_path / "sk"), signature=signature, pip_requirements=[], serialization_format="cloudpickle"
    )
    mlflow.xgboost.save_model(boosted, str(tmp_path / "xgb"), signature=infer_signature(frame), pip_requirements=[])
    mlflow.lightgbm.save_model(light, str(tmp_path / "lgb"), signature=infer_signature(frame), pip_requirements=[])
    row = {name: frame[name].to_numpy()[:4] for name in frame}
    assert load(tmp_path / "xgb").predict(row, {})["label"].tolist() == boosted.predict(frame[:4]).tolist()
    np.testing.assert_array_equal(
        load(tmp_path / "lgb").predict(row, {})["probabilities"][:, 1], light.predict(frame[:4])
    )
    inputs = models.inputs("sklearn-skops", 3)
    expected = ridge.predict(
        pd.DataFrame({n: [v.decode() for v in a] if a.dtype == object else a for n, a in inputs.items()})
    )
    assert [v.decode() for v in load(tmp_path / "sk").predict(inputs, {})["label"]] == list(expected)


@pytest.mark.filterwarnings("ignore")  # MLflow warns about being a partial install, in several classes
def test_a_pyfunc_model_is_loaded_by_mlflow(tmp_path: Path, load: Load) -> None:
    import mlflow.pyfunc
    from mlflow.models import infer_signature

    source = tmp_path / "doubler.py"
    source.write_text(
        "import mlflow\nimport pandas as pd\n"
        "class Doubler(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input: pd.DataFrame, params=None):\n"
        "        return model_input.assign(twice=model_input['x'] * 2)[['twice', 's']]\n"
        "mlflow.models.set_model(Doubler())\n"
    )
    example = pd.DataFrame({"x": [1.0], "s": ["a"]})
    folder = tmp_path / "pyfunc"
    mlflow.pyfunc.save_model(
        str(folder), python_model=str(source), signature=infer_signature(example), pip_requirements=[]
    )
    artifact = inspect(folder)
    assert (artifact.flavor, artifact.code_bearing) == ("python_function", True)
    outputs = load(folder).predict({"x": np.array([1.5]), "s": np.array([b"q"], dtype=object)}, {})
    assert outputs["twice"].tolist() == [3.0]
    assert outputs["s"].tolist() == [b"q"]


def _mlmodel(folder: Path, document: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "MLmodel").write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return folder


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        ("{", errors.InvalidInput, "not valid YAML"),
        ("- 1", errors.InvalidInput, "holds no mapping"),
        ({"flavors": {}}, errors.InvalidInput, "names no flavors"),
        ({"flavors": {"xgboost": {"data": "../../etc/passwd"}}}, errors.InvalidInput, "outside the folder"),
        ({"flavors": {"xgboost": {"data": "/etc/passwd"}}}, errors.InvalidInput, "outside the folder"),
        ({"flavors": {"xgboost": {"data": "gone.ubj"}}}, errors.InvalidInput, "'gone.ubj', which is missing"),
        ({"flavors": {"sklearn": {}}}, errors.InvalidInput, "names no file"),
        ({"flavors": {"pytorch": {"model_data": "data"}}}, errors.Unsupported, "has the MLflow flavors pytorch"),
    ],
)
def test_damaged_folders_say_what_is_wrong(tmp_path: Path, document: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        inspect(_mlmodel(tmp_path / "m", document))


def test_yaml_that_builds_objects_is_refused(tmp_path: Path) -> None:
    folder = _mlmodel(tmp_path / "m", "flavors: !!python/object/apply:os.system ['touch /tmp/owned']")
    with pytest.raises(errors.InvalidInput, match="not valid YAML"):
        inspect(folder)
