"""Virtual environments of the peers and of the tools, and the two load programs from Debian.

Each peer has its own environment: their pins exclude one another, and Headrace must not be measured in their company.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".venvs"
DEBIAN_PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}

ONNXRUNTIME = f"onnxruntime=={version('onnxruntime')}"
"""Everyone runs the version that Headrace runs."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "tools": (
        "matplotlib==3.11.2",
        "onnx==1.23.2",
        "onnxmltools==1.16.0",
        "scikit-learn==1.9.1",
        "skl2onnx==1.20.0",
        "xgboost-cpu==3.2.0",
    ),
    "fastapi": (
        "fastapi==0.165.0",
        "httptools==0.9.0",
        "scikit-learn==1.9.1",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "xgboost-cpu==3.2.0",
    ),
    # With uvloop 0.23 the parallel workers of MLServer 1.7.1 never start: "no current event loop".
    "mlserver": ("mlserver==1.7.1", "uvloop==0.21.0"),
    "kserve": ("kserve==0.21.0", "uvloop==0.23.0"),
    "litserve": ("litserve==0.2.19",),
    "bentoml": ("bentoml==1.4.39",),
    "mosec": ("mosec==0.9.8", "msgspec==0.22.0"),
}


class SetupFailed(RuntimeError):
    """Something that the benchmark needs could not be installed; the message says what to do."""


def python_of(name: str) -> Path:
    """The interpreter of an environment that is made when it is not there yet."""
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    wanted = "\n".join((*PACKAGES[name], ONNXRUNTIME))
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"  installing {name} into {folder.relative_to(HERE.parent)} …", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], name)
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _run(["nice", "-n", "10", *install, *PACKAGES[name], ONNXRUNTIME], name)
    stamp.write_text(wanted)
    return python


def _run(command: list[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupFailed(f"cannot install {name}: {' '.join(command)}\n{done.stderr[-2000:]}")


def ensure_load_programs() -> None:
    missing = [package for program, package in DEBIAN_PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    hint = f"install it first: apt-get install {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupFailed(f"{' and '.join(missing)} missing; {hint}")
    _run(["apt-get", "update", "-qq"], "package lists")
    _run(["apt-get", "install", "-y", "-qq", *missing], " ".join(missing))
