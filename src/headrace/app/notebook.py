"""``headrace.serve(model)``: serves an object from a notebook or script, by ``headrace serve`` in a process of its own.

The object is saved into a private folder and exactly its digest is trusted. The server ends with ``stop``, with the
``with`` block, with the interpreter, and when this process is killed (it watches its stdin).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec
import yaml

from headrace.app import events
from headrace.app.saved_models import save_model
from headrace.app.settings.layers import PREFIX, load_settings
from headrace.app.settings.model_sources import check_sources, endpoint_name, parse_source
from headrace.app.settings.serve_settings import ServeSettings
from headrace.client import Client
from headrace.client.example import curl
from headrace.core import errors, names
from headrace.core.routes import DeploymentRoute
from headrace.runtimes import digest

_TAIL_LINES = 20
_EXIT_S = 10.0

_decode_event = msgspec.json.Decoder(events.Event).decode


def serve(
    model: Any, name: str | None = None, port: int = 0, *, start_timeout: float = 120.0, **settings: Any
) -> Server:
    """Serve ``model`` on this machine and return when it answers.

    model           an estimator with ``predict`` (scikit-learn, XGBoost, LightGBM, …), a booster, an ONNX model,
                    a ``headrace.Model`` class or object, or the path of anything ``headrace serve`` takes
    name            of the endpoint; None: that of the file, ``model`` for an object
    port            0 takes a free one
    start_timeout   seconds until it must answer
    settings        as in ``headrace.yaml``: ``replicas=2``, ``batching={"mode": "exact"}``, ``timeout="500ms"``

    HEADRACE_… variables of the environment are not read: what is not given here is the default.
    Raises LoadFailed with the tail of the log when the model cannot be loaded, BadSettings for wrong settings."""
    name = names.check_endpoint(_name_of(model) if name is None else name)
    for key in ("endpoints", "models"):
        if key in settings:
            raise errors.BadSettings(f"headrace.serve serves one model; for {key!r} use headrace serve and a file")
    folder = Path(tempfile.mkdtemp(prefix="headrace-serve-"))  # mode 0700
    try:
        given = {"port": port, "management_port": 0, **settings}
        config = folder / "headrace.yaml"
        given["endpoints"] = {name: {"model": _model_path(model, folder, given)}}
        config.write_text(yaml.safe_dump(_plain(given), sort_keys=False))
        checked = _checked(config)
        server = Server(name, folder, drain_s=checked.gateway.drain_s)
        server._start(config, start_timeout)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return server


def _name_of(model: Any) -> str:
    """As ``headrace serve`` would name it. Raises BadSettings for a path where nothing is."""
    if not isinstance(model, str | os.PathLike):
        return "model"
    source = parse_source(os.fspath(model), where="headrace.serve")
    check_sources([source])
    return endpoint_name(source)


def _checked(config: Path) -> ServeSettings:
    """The settings as the server will read them: wrong ones are an error here, not in a log."""
    try:
        return load_settings(environ={}, config=config)
    except errors.CallerError as error:
        # The caller wrote no file, so its name and lines would only confuse.
        message = re.sub(rf"^{re.escape(str(config))}( line \d+ column \d+)?: ", "headrace.serve: ", error.message)
        raise type(error)(message) from None


def _model_path(model: Any, folder: Path, settings: dict[str, Any]) -> str:
    """The model as a path; an object of this process is saved there, and what was saved is trusted."""
    if isinstance(model, str | os.PathLike):
        # From the working directory, not from the folder of the file that is written here.
        return str(Path(model).absolute())
    path = save_model(model, folder)
    trust = settings.get("trust", ())
    settings["trust"] = [*([trust] if isinstance(trust, str) else trust), digest.of_file(path)]
    return str(path)


def _plain(value: Any) -> Any:
    """Settings as YAML can hold them: tuples, paths and enums become lists and texts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)


class Server:
    """A running server. ``url`` is where it answers; ``client()`` talks to it; ``stop()`` ends it."""

    def __init__(self, name: str, folder: Path, drain_s: float) -> None:
        self.name = name
        self.url = ""
        self.management_url = ""
        self._folder = folder
        self._drain_s = drain_s
        self._process: subprocess.Popen[str] | None = None
        self._deployment: DeploymentRoute | None = None
        self._failure: events.ModelFailed | None = None
        self._error = ""
        self._decided = threading.Event()
        self._ready = False
        self._stopped = False
        self._lock = threading.Lock()
        self._clients: list[Client] = []

    @property
    def running(self) -> bool:
        """True while the server's process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_path(self) -> Path:
        """The server's log: its own lines and those of the model. Removed by ``stop``."""
        return self._folder / "server.log"

    def client(self, **options: Any) -> Client:
        """A client of this server; it is closed with the server. ``options`` are those of ``headrace.Client``."""
        if self._stopped:
            raise errors.NotReady(f"the server of {self.name!r} is stopped; call headrace.serve again")
        client = Client(self.url, **options)
        self._clients.append(client)
        return client

    def predict(self, inputs: Any, **options: Any) -> dict[str, Any]:
        """One prediction, for trying things out."""
        with Client(self.url) as client:
            return client.predict(self.name, inputs, **options)

    def stop(self) -> None:
        """End the server: accepted requests are finished, bounded by ``drain``. Calling it again does nothing."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        atexit.unregister(self.stop)
        for client in self._clients:
            client.close()
        process = self._process
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(self._drain_s + _EXIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._follower.join()
            if process.stdin is not None:
                process.stdin.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        if self._stopped:
            return f"<headrace.Server of {self.name!r}, stopped>"
        example = self.curl()
        return f"<headrace.Server of {self.name!r} at {self.url}>" + (f"\n{example}" if example else "")

    def curl(self) -> str:
        """A shell command that sends an example request."""
        signature = self._deployment.signature if self._deployment is not None else None
        if signature is None:
            return ""
        return curl(
            self.url,
            self.name,
            signature.inputs,
            batchable=signature.batchable,
            columns=signature.columns,
            streaming=signature.streaming,
        )

    def _start(self, config: Path, timeout: float) -> None:
        command = [sys.executable, "-m", "headrace.cli.main", "serve", "--config", str(config), "--json"]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--for-parent", str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                text=True,
                # Ctrl-C in the notebook interrupts the cell, not the server.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self._follower = threading.Thread(
            target=self._follow, args=[self._process.stdout], name="headrace-server", daemon=True
        )
        self._follower.start()
        atexit.register(self.stop)
        try:
            decided = self._decided.wait(timeout)
            if not decided:
                raise errors.NotReady(f"{self.name!r} did not answer within {timeout:g} s{self._log_tail()}")
            if not self._ready:
                raise self._start_error()
        except BaseException:
            self.stop()
            raise

    def _follow(self, lines: IO[str]) -> None:
        """Read events until the server closes its output; an unread pipe would stop it in the end."""
        with lines:
            for event in _events(lines):
                self._note(event)
        self._decided.set()

    def _note(self, event: events.Event | str) -> None:
        match event:
            case events.ModelFailed():
                self._failure = event
            case events.Serving():
                self.url, self.management_url = event.url, event.management_url
                found = [d for e in event.endpoints if e.name == self.name for d in e.deployments if d.ready]
                if found:
                    self._deployment = found[0]
                    self._ready = True
                self._decided.set()
            case str():
                self._error = event
            case _:
                return

    def _start_error(self) -> errors.HeadraceError:
        if self._failure is not None:
            tail = self._failure.log_tail.strip()
            return errors.LoadFailed(self._failure.reason + (f"\n{tail}" if tail else ""))
        if self._error:
            return errors.BadSettings(self._error)
        return errors.LoadFailed(f"the server of {self.name!r} ended before it served{self._log_tail()}")

    def _log_tail(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
            if lines:
                return "; the end of its log:\n" + "\n".join(lines)
        return ""


def _events(lines: IO[str]) -> Iterator[events.Event | str]:
    """Events of ``headrace serve --json``; the message of an error that ended it before it began."""
    for line in lines:
        try:
            yield _decode_event(line)
        except msgspec.DecodeError:
            with contextlib.suppress(msgspec.DecodeError):
                document = msgspec.json.decode(line, type=dict[str, Any])
                if isinstance(document.get("error"), str):
                    yield str(document["error"])


def _environment() -> dict[str, str]:
    """The parent's, without settings, and with its import path: a pickle names modules that were found through it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    # An empty entry is the working directory, which a child has in common.
    environment["PYTHONPATH"] = os.pathsep.join(
        entry or str(Path.cwd()) for entry in sys.path if not entry.endswith(".zip")
    )
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
