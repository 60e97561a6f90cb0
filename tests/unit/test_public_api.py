"""What ``import headrace`` offers, and that it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import headrace
import headrace.client
from headrace.runtimes import model

PUBLIC = {
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
}


def test_public_names_are_pinned() -> None:
    assert set(headrace.__all__) == PUBLIC
    assert set(headrace.client.__all__) == {"AsyncClient", "Client", "ModelMetadata"}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_name_is_there(name: str) -> None:
    assert getattr(headrace, name) is not None
    assert name in dir(headrace)


def test_every_annotation_type_is_public() -> None:
    for name in (*model.TYPE_NAMES, "Model", "Shape"):
        assert getattr(headrace, name) is getattr(model, name)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'headrace' has no attribute 'Modell'"):
        _ = headrace.Modell  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"module 'headrace\.client' has no attribute 'x'"):
        _ = headrace.client.x  # type: ignore[attr-defined]


def loaded_by(statement: str) -> set[str]:
    """Modules that a fresh interpreter has after ``statement``."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.split())


def test_import_loads_nothing_else() -> None:
    ours = loaded_by("import headrace") - loaded_by("import importlib")
    assert ours - {"__future__"} == {"headrace", "headrace.core", "headrace.core.release"}


def test_models_do_not_load_the_client_and_the_other_way_round() -> None:
    assert "httpx" not in loaded_by("import headrace; headrace.Model")
    assert "headrace.runtimes.model" not in loaded_by("import headrace; headrace.Client")
    assert "httpx" not in loaded_by("import headrace.client.example")
