"""Real model files of every format Headrace serves, for the whole test-suite.

``build(kind)`` trains and writes a small real model and returns its path (a file, or a folder for MLflow);
``build(kind, directory)`` copies it there. Each kind is built once per process, on first use.
``inputs(kind, rows)`` gives valid input arrays for it, by name.
Everything is deterministic: fixed seeds, bundled data sets.
"""

from __future__ import annotations

import atexit
import functools
import pickle
import shutil
import tempfile
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Builder = Callable[[Path], Path]

FEATURES = 30
"""Columns of the breast-cancer set, the input of most models here."""

MIXED_COLUMNS = ("amount", "age", "country", "plan")
"""Columns of the mixed (pandas) models: two numbers, two strings."""


# --- data ---------------------------------------------------------------------------------------------------------


@functools.cache
def breast_cancer() -> tuple[Array, Array]:
    """569 rows of 30 FP64 measurements, and 0/1 labels."""
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    return features, labels


@functools.cache
def diabetes() -> tuple[Array, Array]:
    """442 rows of 10 FP64 measurements, and a number to predict."""
    from sklearn.datasets import load_diabetes

    features, target = load_diabetes(return_X_y=True)
    return features, target


def mixed_columns(rows: int = 400, seed: int = 0) -> dict[str, Array]:
    """Columns of a made-up table of payments: two numbers and two strings."""
    random = np.random.default_rng(seed)
    return {
        "amount": np.round(random.gamma(2.0, 40.0, rows), 2),
        "age": random.integers(18, 90, rows).astype(np.float64),
        "country": random.choice(np.array(["US", "DE", "FR", "中国"], dtype=object), rows),
        "plan": random.choice(np.array(["free", "pro"], dtype=object), rows),
    }


def mixed_labels(columns: dict[str, Array]) -> Array:
    risky = columns["amount"] * np.where(columns["country"] == "US", 1.0, 1.6) + columns["age"] > 140
    return np.where(risky, "fraud", "fine").astype(object)


# --- ONNX ---------------------------------------------------------------------------------------------------------


def _from_sklearn(model: Any, inputs: list[tuple[str, Any]], path: Path, **options: Any) -> Path:
    from skl2onnx import convert_sklearn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # skl2onnx uses deprecated names of scikit-learn and numpy
        onnx_model = convert_sklearn(model, initial_types=inputs, target_opset=17, **options)
    path.write_bytes(onnx_model.SerializeToString())
    return path


@functools.cache
def _cancer_classifier() -> Any:
    from sklearn.ensemble import GradientBoostingClassifier

    return GradientBoostingClassifier(n_estimators=40, max_depth=3, random_state=0).fit(*breast_cancer())


def _onnx_cancer(path: Path, zipmap: Any) -> Path:
    from skl2onnx.common.data_types import FloatTensorType

    model = _cancer_classifier()
    return _from_sklearn(
        model, [("X", FloatTensorType([None, FEATURES]))], path, options={id(model): {"zipmap": zipmap}}
    )


def onnx_classifier(folder: Path) -> Path:
    """Trees on the breast-cancer set: X FP32[-1,30] -> label INT64[-1], probabilities FP32[-1,2]."""
    return _onnx_cancer(folder / "cancer.onnx", zipmap=False)


def onnx_zipmap(folder: Path) -> Path:
    """The same with skl2onnx's default ZipMap: the probabilities come as a sequence of maps."""
    return _onnx_cancer(folder / "zipmap.onnx", zipmap=True)


def onnx_regression(folder: Path) -> Path:
    """Linear regression: X FP32[-1,10] -> variable FP32[-1,1]."""
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(*diabetes())
    return _from_sklearn(model, [("X", FloatTensorType([None, 10]))], folder / "regression.onnx")


def onnx_strings(folder: Path) -> Path:
    """The mixed-columns classifier: numbers FP32[-1,1] and strings BYTES[-1,1] in, string labels out."""
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    types = [
        (name, StringTensorType([None, 1]) if name in ("country", "plan") else FloatTensorType([None, 1]))
        for name in MIXED_COLUMNS
    ]
    model = mixed_pipeline()
    return _from_sklearn(model, types, folder / "strings.onnx", options={id(model): {"zipmap": False}})


def onnx_strings_zipmap(folder: Path) -> Path:
    """As onnx_strings, with probabilities as maps from the string class to a number."""
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    types = [
        (name, StringTensorType([None, 1]) if name in ("country", "plan") else FloatTensorType([None, 1]))
        for name in MIXED_COLUMNS
    ]
    return _from_sklearn(mixed_pipeline(), types, folder / "strings_zipmap.onnx")


def write_graph(
    path: Path,
    nodes: list[Any],
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[tuple[str, int, list[Any]]],
    weights: dict[str, Array] | None = None,
    external: bool = False,
) -> Path:
    """Write an ONNX graph. Inputs and outputs are (name, element type, shape); a string is a symbolic dimension."""
    import onnx
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(*spec) for spec in inputs],
        [helper.make_tensor_value_info(*spec) for spec in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    if external:
        onnx.save_model(model, str(path), save_as_external_data=True, location=path.name + ".data", size_threshold=16)
    else:
        onnx.save_model(model, str(path))
    return path


def onnx_fixed_batch(folder: Path) -> Path:
    """A linear layer exported for exactly one row: X FP32[1,4] -> Y FP32[1,2]."""
    from onnx import TensorProto, helper

    weights = {"w": np.arange(8, dtype=np.float32).reshape(4, 2)}
    node = helper.make_node("MatMul", ["X", "w"], ["Y"])
    shapes = [("X", TensorProto.FLOAT, [1, 4])], [("Y", TensorProto.FLOAT, [1, 2])]
    return write_graph(folder / "fixed.onnx", [node], *shapes, weights)


def onnx_external_data(folder: Path) -> Path:
    """A linear layer whose weights are in a second file: X FP32[N,4] -> Y FP32[N,2]."""
    from onnx import TensorProto, helper

    weights = {"w": np.arange(8, dtype=np.float32).reshape(4, 2)}
    node = helper.make_node("MatMul", ["X", "w"], ["Y"])
    shapes = [("X", TensorProto.FLOAT, ["N", 4])], [("Y", TensorProto.FLOAT, ["N", 2])]
    return write_graph(folder / "external.onnx", [node], *shapes, weights, external=True)


def onnx_cnn(folder: Path) -> Path:
    """A small image network, well under 1 ms an image on one thread: image FP32[N,3,224,224] -> scores FP32[N,1000]."""
    from onnx import TensorProto, helper

    random = np.random.default_rng(0)
    weights = {
        "conv": random.normal(0, 0.1, (8, 3, 8, 8)).astype(np.float32),
        "conv_bias": np.zeros(8, np.float32),
        "conv2": random.normal(0, 0.1, (16, 8, 3, 3)).astype(np.float32),
        "conv2_bias": np.zeros(16, np.float32),
        "dense": random.normal(0, 0.3, (16, 1000)).astype(np.float32),
        "dense_bias": np.zeros(1000, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv", "conv_bias"], ["a"], strides=[8, 8]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "conv2", "conv2_bias"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "dense", "dense_bias"], ["scores"]),
    ]
    shapes = [("image", TensorProto.FLOAT, ["N", 3, 224, 224])], [("scores", TensorProto.FLOAT, ["N", 1000])]
    return write_graph(folder / "cnn.onnx", nodes, *shapes, weights)


def onnx_masked(folder: Path) -> Path:
    """Token ids of any length and their mask, as text encoders take them; a table of 100 embeddings. Padding with
    mask 0 and id 0 changes no answer:

    input_ids INT64[batch,sequence], attention_mask INT64[batch,sequence] -> mean FP32[batch,8] (under the mask),
    weights FP32[batch,sequence] (softmax under the mask), sums INT64[batch,sequence] (of ids so far),
    count INT64[batch]
    """
    from onnx import TensorProto, helper

    random = np.random.default_rng(0)
    weights = {
        "table": random.normal(size=(100, 8)).astype(np.float32),
        "query": random.normal(size=8).astype(np.float32),
        "one": np.array(1, np.float32),
        "large": np.array(1e9, np.float32),
        "last": np.array([2]),
        "along": np.array([1]),
        "axis": np.array(1),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["embedded", "mask3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "along"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "along"], ["n"], keepdims=1),
        helper.make_node("Div", ["sum", "n"], ["mean"]),
        helper.make_node("MatMul", ["embedded", "query"], ["scores"]),
        helper.make_node("Sub", ["mask", "one"], ["absent"]),
        helper.make_node("Mul", ["absent", "large"], ["penalty"]),
        helper.make_node("Add", ["scores", "penalty"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["weights"], axis=1),
        helper.make_node("CumSum", ["input_ids", "axis"], ["sums"]),
        helper.make_node("ReduceSum", ["attention_mask", "along"], ["count"], keepdims=0),
    ]
    texts = ["batch", "sequence"]
    inputs = [(name, TensorProto.INT64, texts) for name in ("input_ids", "attention_mask")]
    outputs = [
        ("mean", TensorProto.FLOAT, ["batch", 8]),
        ("weights", TensorProto.FLOAT, texts),
        ("sums", TensorProto.INT64, texts),
        ("count", TensorProto.INT64, ["batch"]),
    ]
    return write_graph(folder / "masked.onnx", nodes, inputs, outputs, weights)


def onnx_fp16(folder: Path) -> Path:
    """Half precision: X FP16[N,4] -> Y FP16[N,4], X + X."""
    from onnx import TensorProto, helper

    node = helper.make_node("Add", ["X", "X"], ["Y"])
    kind = TensorProto.FLOAT16
    return write_graph(folder / "fp16.onnx", [node], [("X", kind, ["N", 4])], [("Y", kind, ["N", 4])])


def onnx_bf16(folder: Path) -> Path:
    """BF16 in and out, computed in FP32 inside (the CPU has no BF16 Add): Y BF16[N,4] = X + X."""
    from onnx import TensorProto, helper

    kind = TensorProto.BFLOAT16
    nodes = [
        helper.make_node("Cast", ["X"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "wide"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["Y"], to=kind),
    ]
    return write_graph(folder / "bf16.onnx", nodes, [("X", kind, ["N", 4])], [("Y", kind, ["N", 4])])


def onnx_int64(folder: Path) -> Path:
    """Two inputs A, B INT64[N,3] -> SUM, DIFFERENCE INT64[N,3]."""
    from onnx import TensorProto, helper

    kind = TensorProto.INT64
    nodes = [
        helper.make_node("Add", ["A", "B"], ["SUM"]),
        helper.make_node("Sub", ["A", "B"], ["DIFFERENCE"]),
    ]
    spec: list[Any] = ["N", 3]
    inputs = [("A", kind, spec), ("B", kind, spec)]
    return write_graph(folder / "int64.onnx", nodes, inputs, [("SUM", kind, spec), ("DIFFERENCE", kind, spec)])


def onnx_count_varies(folder: Path) -> Path:
    """As many output rows as it finds, like a detector: X FP32[N] -> found INT64[M,1]. Not batchable."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("NonZero", ["X"], ["where"]),
        helper.make_node("Transpose", ["where"], ["found"], perm=[1, 0]),
    ]
    shapes = [("X", TensorProto.FLOAT, ["N"])], [("found", TensorProto.INT64, ["M", 1])]
    return write_graph(folder / "detector.onnx", nodes, *shapes)


# --- scikit-learn -------------------------------------------------------------------------------------------------


@functools.cache
def mixed_pipeline() -> Any:
    """A classifier trained on a data frame: numbers scaled, strings one-hot encoded, string classes."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = mixed_columns()
    prepare = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["amount", "age"]),
            ("strings", OneHotEncoder(handle_unknown="ignore"), ["country", "plan"]),
        ]
    )
    model = Pipeline([("prepare", prepare), ("classify", LogisticRegression(max_iter=1000))])
    return model.fit(pd.DataFrame(columns), mixed_labels(columns))


def sklearn_skops(folder: Path) -> Path:
    """The mixed-columns pipeline as skops: loads without trust."""
    import skops.io

    skops.io.dump(mixed_pipeline(), folder / "mixed.skops")
    return folder / "mixed.skops"


def sklearn_joblib(folder: Path) -> Path:
    import joblib

    joblib.dump(mixed_pipeline(), folder / "mixed.joblib")
    return folder / "mixed.joblib"


def sklearn_joblib_compressed(folder: Path) -> Path:
    import joblib

    joblib.dump(mixed_pipeline(), folder / "mixed.joblib.z", compress=("zlib", 3))
    return folder / "mixed.joblib.z"


def sklearn_pickle(folder: Path) -> Path:
    (folder / "mixed.pkl").write_bytes(pickle.dumps(mixed_pipeline()))
    return folder / "mixed.pkl"


def sklearn_forest(folder: Path) -> Path:
    """A random forest on a plain matrix, as joblib: input FP64[-1,30]."""
    import joblib
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(n_estimators=15, max_depth=6, random_state=0, n_jobs=-1).fit(*breast_cancer())
    joblib.dump(model, folder / "forest.joblib")
    return folder / "forest.joblib"


def sklearn_regression(folder: Path) -> Path:
    """Scaled ridge regression on a plain matrix, as skops: input FP64[-1,10] -> prediction FP64[-1]."""
    import skops.io
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), Ridge()).fit(*diabetes())
    skops.io.dump(model, folder / "ridge.skops")
    return folder / "ridge.skops"


# --- XGBoost and LightGBM -----------------------------------------------------------------------------------------


def _xgboost_classifier(path: Path) -> Path:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=30, max_depth=4, n_jobs=1, random_state=0).fit(*breast_cancer())
    model.save_model(path)
    return path


def _xgboost_regressor(path: Path) -> Path:
    import pandas as pd
    import xgboost

    features, target = diabetes()
    frame = pd.DataFrame(features, columns=[f"f{index}_{'abcdefghij'[index]}" for index in range(10)])
    model = xgboost.XGBRegressor(n_estimators=30, max_depth=4, n_jobs=1, random_state=0).fit(frame, target)
    model.save_model(path)
    return path


def xgboost_json(folder: Path) -> Path:
    """Classifier on a plain matrix: input FP32[-1,30] -> label INT64[-1], probabilities FP32[-1,2]."""
    return _xgboost_classifier(folder / "cancer.json")


def xgboost_ubj(folder: Path) -> Path:
    return _xgboost_classifier(folder / "cancer.ubj")


def xgboost_regressor_json(folder: Path) -> Path:
    """Regressor with named columns: f0_a … f9_j FP32[-1] -> prediction FP32[-1]."""
    return _xgboost_regressor(folder / "diabetes.json")


def xgboost_regressor_ubj(folder: Path) -> Path:
    return _xgboost_regressor(folder / "diabetes.ubj")


def xgboost_categorical(folder: Path) -> Path:
    """Classifier on the mixed columns, strings as categories kept in the model."""
    import pandas as pd
    import xgboost

    columns = mixed_columns()
    frame = pd.DataFrame(columns).astype({"country": "category", "plan": "category"})
    labels = (mixed_labels(columns) == "fraud").astype(int)
    model = xgboost.XGBClassifier(n_estimators=15, n_jobs=1, enable_categorical=True, random_state=0).fit(frame, labels)
    model.save_model(folder / "categories.ubj")
    return folder / "categories.ubj"


def lightgbm(folder: Path) -> Path:
    """Classifier on a plain matrix: input FP64[-1,30] -> label INT64[-1], probabilities FP64[-1,2]."""
    import lightgbm as framework

    features, labels = breast_cancer()
    data = framework.Dataset(features, labels)
    parameters = {"objective": "binary", "verbose": -1, "num_threads": 1, "seed": 0, "deterministic": True}
    framework.train(parameters, data, 30).save_model(folder / "cancer.txt")
    return folder / "cancer.txt"


def lightgbm_regressor(folder: Path) -> Path:
    """Regressor with named columns age, bmi, … FP64[-1] -> prediction FP64[-1]."""
    import lightgbm as framework

    features, target = diabetes()
    names = ["age", "sex", "bmi", "bp", *(f"s{index}" for index in range(1, 7))]
    data = framework.Dataset(features, target, feature_name=names)
    parameters = {"objective": "regression", "verbose": -1, "num_threads": 1, "seed": 0, "deterministic": True}
    framework.train(parameters, data, 30).save_model(folder / "diabetes.txt")
    return folder / "diabetes.txt"


def lightgbm_categorical(folder: Path) -> Path:
    """Three classes on the mixed columns, strings as pandas categories kept in the file."""
    import lightgbm as framework
    import pandas as pd

    columns = mixed_columns()
    frame = pd.DataFrame(columns).astype({"country": "category", "plan": "category"})
    labels = (columns["amount"] > 60).astype(int) + (columns["country"] == "US")
    parameters = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1, "deterministic": True}
    framework.train(parameters, framework.Dataset(frame, labels), 10).save_model(folder / "categories.txt")
    return folder / "categories.txt"


# --- MLflow -------------------------------------------------------------------------------------------------------


def mlflow_folder(folder: Path, name: str, flavors: str, signature: str = "") -> Path:
    """An MLflow model folder with the given flavors (YAML) and, when given, a signature (YAML)."""
    target = folder / name
    target.mkdir()
    text = f"flavors:\n{textwrap.indent(textwrap.dedent(flavors).strip(), '  ')}\nmlflow_version: 2.19.0\n"
    if signature:
        text += f"signature:\n{textwrap.indent(textwrap.dedent(signature).strip(), '  ')}\n"
    (target / "MLmodel").write_text(text, encoding="utf-8")
    (target / "requirements.txt").write_text("scikit-learn\n")
    return target


def mlflow_sklearn(folder: Path) -> Path:
    """The mixed-columns pipeline as MLflow's sklearn flavor writes it: cloudpickle, with a signature."""
    import cloudpickle

    target = mlflow_folder(
        folder,
        "mixed_mlflow",
        """
        python_function:
          loader_module: mlflow.sklearn
          model_path: model.pkl
          predict_fn: predict
          python_version: 3.11.7
        sklearn:
          code: null
          pickled_model: model.pkl
          serialization_format: cloudpickle
          sklearn_version: 1.5.0
        """,
        """
        inputs: '[{"type": "double", "name": "amount", "required": true}, {"type": "long", "name": "age",
          "required": true}, {"type": "string", "name": "country", "required": true}, {"type": "string",
          "name": "plan", "required": true}]'
        outputs: '[{"type": "string", "required": true}]'
        params: null
        """,
    )
    (target / "model.pkl").write_bytes(cloudpickle.dumps(mixed_pipeline()))
    return target


def mlflow_xgboost(folder: Path) -> Path:
    """An XGBoost classifier in MLflow's native form: needs no trust."""
    target = mlflow_folder(
        folder,
        "cancer_mlflow",
        """
        python_function:
          data: model.ubj
          loader_module: mlflow.xgboost
        xgboost:
          code: null
          data: model.ubj
          model_class: xgboost.sklearn.XGBClassifier
          model_format: ubj
          xgb_version: 3.0.0
        """,
    )
    _xgboost_classifier(target / "model.ubj")
    return target


# --- Python and echo ----------------------------------------------------------------------------------------------

PYTHON_SOURCE = '''\
import headrace


class Pricer(headrace.Model):
    """Price of an order: the unit price of the article times the quantity."""

    def load(self):
        self.prices = {"apple": 1.5, "pear": 2.0, "küche": 99.5}

    def predict(self, sku: headrace.Strings, qty: headrace.Int64) -> {"price": headrace.Float32}:
        return {"price": [self.prices[name] * count for name, count in zip(sku, qty)]}
'''


def python(folder: Path) -> Path:
    """A custom model: sku BYTES[-1], qty INT64[-1] -> price FP32[-1]; an unknown article raises KeyError."""
    (folder / "pricer.py").write_text(PYTHON_SOURCE, encoding="utf-8")
    return folder / "pricer.py"


STREAM_SOURCE = '''\
import headrace


class Counter(headrace.Model):
    """Streams the words of a prompt, one chunk each, ``times`` times over."""

    def predict(self, prompt: headrace.Strings, times: int = 1) -> {"text": headrace.Strings}:
        for _ in range(times):
            for word in prompt[0].split():
                yield word
'''


def python_stream(folder: Path) -> Path:
    """A streaming model: prompt BYTES[-1], parameter times -> chunks of text."""
    (folder / "counter.py").write_text(STREAM_SOURCE, encoding="utf-8")
    return folder / "counter.py"


def echo(folder: Path) -> Path:
    """Returns every input under its own name."""
    (folder / "echo.txt").write_text("headrace-echo 1\n")
    return folder / "echo.txt"


# --- the table, the cache, inputs ---------------------------------------------------------------------------------

BUILDERS: dict[str, Builder] = {
    "onnx": onnx_classifier,
    "onnx-zipmap": onnx_zipmap,
    "onnx-regression": onnx_regression,
    "onnx-strings": onnx_strings,
    "onnx-strings-zipmap": onnx_strings_zipmap,
    "onnx-fixed-batch": onnx_fixed_batch,
    "onnx-external-data": onnx_external_data,
    "onnx-cnn": onnx_cnn,
    "onnx-fp16": onnx_fp16,
    "onnx-bf16": onnx_bf16,
    "onnx-int64": onnx_int64,
    "onnx-count-varies": onnx_count_varies,
    "sklearn-skops": sklearn_skops,
    "sklearn-joblib": sklearn_joblib,
    "sklearn-joblib-compressed": sklearn_joblib_compressed,
    "sklearn-pickle": sklearn_pickle,
    "sklearn-forest": sklearn_forest,
    "sklearn-regression": sklearn_regression,
    "xgboost-json": xgboost_json,
    "xgboost-ubj": xgboost_ubj,
    "xgboost-regressor-json": xgboost_regressor_json,
    "xgboost-regressor-ubj": xgboost_regressor_ubj,
    "xgboost-categorical": xgboost_categorical,
    "lightgbm": lightgbm,
    "lightgbm-regressor": lightgbm_regressor,
    "lightgbm-categorical": lightgbm_categorical,
    "mlflow-sklearn": mlflow_sklearn,
    "mlflow-xgboost": mlflow_xgboost,
    "python": python,
    "python-stream": python_stream,
    "echo": echo,
}

KINDS = tuple(BUILDERS)


@functools.cache
def _cache() -> Path:
    # One folder per process: the workers of a parallel run end at different times, so none may remove another's.
    folder = Path(tempfile.mkdtemp(prefix="headrace-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _built(kind: str) -> Path:
    folder = _cache() / kind
    folder.mkdir()
    return BUILDERS[kind](folder)


def build(kind: str, directory: Path | None = None) -> Path:
    """The model file (or folder) of this kind, from the session's cache; a copy inside ``directory`` when given.

    Treat the cached file as read-only; ask for a copy to change it."""
    path = _built(kind)
    if directory is None:
        return path
    shutil.copytree(path.parent, directory, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return directory / path.name


def _strings_to_bytes(values: Array) -> Array:
    out = np.empty(len(values), dtype=object)
    out[:] = [str(value).encode() for value in values]
    return out


def inputs(kind: str, rows: int = 1, seed: int = 0) -> dict[str, Array]:
    """Valid inputs for a kind, by name, as a worker hands them to the runtime (strings as ``bytes``)."""
    random = np.random.default_rng(seed)
    match kind:
        case "onnx" | "onnx-zipmap":
            return {"X": _take(breast_cancer()[0], rows, random).astype(np.float32)}
        case "onnx-regression":
            return {"X": _take(diabetes()[0], rows, random).astype(np.float32)}
        case "onnx-strings" | "onnx-strings-zipmap":
            columns = _mixed_inputs(rows, seed)
            return {
                name: (array if array.dtype == object else array.astype(np.float32)).reshape(-1, 1)
                for name, array in columns.items()
            }
        case "onnx-fixed-batch":
            return {"X": random.normal(size=(1, 4)).astype(np.float32)}
        case "onnx-external-data":
            return {"X": random.normal(size=(rows, 4)).astype(np.float32)}
        case "onnx-cnn":
            return {"image": random.random((rows, 3, 224, 224), dtype=np.float32)}
        case "onnx-fp16":
            return {"X": random.normal(size=(rows, 4)).astype(np.float16)}
        case "onnx-bf16":
            return {"X": (random.normal(size=(rows, 4)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)}
        case "onnx-int64":
            return {name: random.integers(-(2**40), 2**40, (rows, 3)) for name in ("A", "B")}
        case "onnx-count-varies":
            return {"X": random.integers(0, 2, rows).astype(np.float32)}
        case "sklearn-skops" | "sklearn-joblib" | "sklearn-joblib-compressed" | "sklearn-pickle":
            return _mixed_inputs(rows, seed)
        case "sklearn-forest":
            return {"input": _take(breast_cancer()[0], rows, random)}
        case "sklearn-regression":
            return {"input": _take(diabetes()[0], rows, random)}
        case "xgboost-json" | "xgboost-ubj" | "mlflow-xgboost":
            return {"input": _take(breast_cancer()[0], rows, random).astype(np.float32)}
        case "xgboost-regressor-json" | "xgboost-regressor-ubj":
            matrix = _take(diabetes()[0], rows, random).astype(np.float32)
            return {f"f{index}_{'abcdefghij'[index]}": matrix[:, index].copy() for index in range(10)}
        case "xgboost-categorical":
            columns = _mixed_inputs(rows, seed)
            return {n: a if a.dtype == object else a.astype(np.float32) for n, a in columns.items()}
        case "lightgbm":
            return {"input": _take(breast_cancer()[0], rows, random)}
        case "lightgbm-regressor":
            matrix = _take(diabetes()[0], rows, random)
            names = ["age", "sex", "bmi", "bp", *(f"s{index}" for index in range(1, 7))]
            return {name: matrix[:, index].copy() for index, name in enumerate(names)}
        case "lightgbm-categorical":
            return _mixed_inputs(rows, seed)
        case "mlflow-sklearn":
            columns = _mixed_inputs(rows, seed)
            return {**columns, "age": columns["age"].astype(np.int64)}
        case "python":
            sku = random.choice(np.array(["apple", "pear", "küche"], dtype=object), rows)
            return {"sku": _strings_to_bytes(sku), "qty": random.integers(0, 100, rows)}
        case "python-stream":
            return {"prompt": _strings_to_bytes(np.array(["one two three"]))}
        case "echo":
            return {"x": random.normal(size=(rows, 3)).astype(np.float32)}
        case _:
            raise KeyError(kind)


def _take(matrix: Array, rows: int, random: np.random.Generator) -> Array:
    return matrix[random.integers(0, len(matrix), rows)]


def _mixed_inputs(rows: int, seed: int) -> dict[str, Array]:
    columns = mixed_columns(rows, seed + 1)
    return {name: _strings_to_bytes(a) if a.dtype == object else a for name, a in columns.items()}
