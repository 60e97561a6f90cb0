"""The running Headrace as a wheel."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path

from headrace.backends.environments import own_wheel
from headrace.core.release import VERSION


def test_the_wheel_has_the_whole_package_and_no_dependencies(tmp_path: Path) -> None:
    path = own_wheel.write(tmp_path)
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        info = f"headrace-{VERSION}.dist-info"
        assert {"headrace/replica/worker.py", "headrace/py.typed", f"{info}/METADATA"} <= names
        assert not [name for name in names if "__pycache__" in name]
        assert "Requires-Dist" not in wheel.read(f"{info}/METADATA").decode()
        own = Path(own_wheel.__file__)
        assert wheel.read("headrace/backends/environments/own_wheel.py") == own.read_bytes()
        rows = list(csv.reader(io.StringIO(wheel.read(f"{info}/RECORD").decode())))
    assert {row[0] for row in rows} == names
    assert all(re.fullmatch(r"sha256=[\w-]{43}", row[1]) for row in rows if row[0] != f"{info}/RECORD")


def test_the_same_build_is_the_same_wheel(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert own_wheel.write(tmp_path / "a").read_bytes() == own_wheel.write(tmp_path / "b").read_bytes()
    assert re.fullmatch(r"[0-9a-f]{64}", own_wheel.build_digest())
