"""What processes in an environment see of the variables around them."""

from __future__ import annotations

from pathlib import Path

from headrace.backends.environments import isolation

AROUND = {
    "PATH": "/usr/bin",
    "PYTHONPATH": "/home/me/lib",
    "PYTHONHOME": "/opt/python",
    "VIRTUAL_ENV": "/home/me/.venv",
    "OMP_NUM_THREADS": "2",
    "UV_CACHE_DIR": "/cache",
    "UV_SYSTEM_PYTHON": "1",
    "UV_NO_BINARY": "1",
}


def test_a_worker_sees_its_environment_only() -> None:
    found = isolation.variables(AROUND, Path("/envs/abc"))
    assert "PYTHONPATH" not in found
    assert "PYTHONHOME" not in found
    assert found["VIRTUAL_ENV"] == "/envs/abc"
    assert found["PATH"] == "/envs/abc/bin:/usr/bin"
    assert (found["PYTHONNOUSERSITE"], found["PYTHONSAFEPATH"]) == ("1", "1")
    assert found["OMP_NUM_THREADS"] == "2"


def test_uv_keeps_its_own_settings_and_nothing_that_leads_elsewhere() -> None:
    found = isolation.installer_variables(AROUND)
    assert found["UV_CACHE_DIR"] == "/cache"
    assert found["UV_PYTHON_DOWNLOADS"] == "never"
    assert not {"UV_SYSTEM_PYTHON", "UV_NO_BINARY", "VIRTUAL_ENV", "PYTHONPATH"} & found.keys()
