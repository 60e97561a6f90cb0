"""Small wheels in a folder, and an index that answers when it is told to: environments are really built, offline."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import numpy


def wheel(folder: Path, name: str, version: str, files: Mapping[str, str] | None = None, requires: str = "") -> Path:
    """A wheel of pure Python with these files."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    content = {
        **(files or {f"{name}.py": f"VERSION = {version!r}\n"}),
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*content, f"{info}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_in_wheel, text in content.items():
            archive.writestr(name_in_wheel, text)
    return path


def worker_wheels(folder: Path) -> None:
    """What a worker needs, as wheels that link to the packages of the environment that runs the tests."""
    for module in (numpy, msgspec):
        assert module.__file__ is not None
        name = module.__name__
        wheel(folder, name, module.__version__, {f"{name}_of_the_tests.pth": f"{Path(module.__file__).parents[1]}\n"})


def offline(folder: Path, cache: Path) -> dict[str, str]:
    """Environment variables with which uv takes everything from ``folder`` and nothing from elsewhere: by the
    configuration of its user, because there is no variable for that."""
    configuration = cache.with_name(f"{cache.name}-configuration")
    path = configuration / "uv" / "uv.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"no-index = true\nfind-links = [{str(folder)!r}]\n")
    return bare() | {"XDG_CONFIG_HOME": str(configuration), "UV_CACHE_DIR": str(cache)}


def bare() -> dict[str, str]:
    """The environment variables of the tests without settings of installers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}


class StubbornIndex:
    """A package index that has nothing, and says so only when ``answer`` is set."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answer = threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.set()
                index.answer.wait(60)
                try:
                    self.send_error(404)
                except OSError:
                    self.close_connection = True  # whoever asked was killed

            def log_message(self, format: str, *arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def variables(self, folder: Path, cache: Path) -> dict[str, str]:
        """uv asks this index, and finds the wheels of ``folder``."""
        index = f"http://127.0.0.1:{self.server.server_port}/simple"
        return bare() | {"UV_DEFAULT_INDEX": index, "UV_FIND_LINKS": str(folder), "UV_CACHE_DIR": str(cache)}


@contextmanager
def stubborn_index() -> Iterator[StubbornIndex]:
    index = StubbornIndex()
    thread = threading.Thread(target=index.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        index.answer.set()
        index.server.shutdown()
        index.server.server_close()
        thread.join(10)
