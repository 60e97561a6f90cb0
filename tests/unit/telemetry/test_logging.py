"""Logs: what a line says, in both formats, for our calls and for those of libraries."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from headrace.core.requests import Outcome, RequestRecord
from headrace.telemetry import logging as logs
from headrace.telemetry.logging import AccessLog, Log
from headrace.telemetry.settings import LogSettings


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Puts the root logger back as pytest had it."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_the_action_and_the_fields() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), "controller", stream=stream)
    Log("headrace.control").info("Replica is ready", action="replica_ready", replica="fraud@1#3", seconds=0.25)
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "message": "Replica is ready",
        "action": "replica_ready",
        "replica": "fraud@1#3",
        "seconds": 0.25,
        "logger": "headrace.control",
        "process": "controller",
    }


def test_an_exception_comes_with_its_traceback() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), "controller", stream=stream)
    try:
        raise RuntimeError("no such file")
    except RuntimeError as error:
        Log("x").error("Load failed", action="load_failed", exception=error, reason="broken\nfile")
        Log("x").warning("Load failed", action="load_failed", exception=error)
    first, second = lines(stream)
    assert "RuntimeError: no such file" in first["exception"]
    assert "test_logging.py" in first["exception"]
    assert first["reason"] == "broken\nfile"
    assert second["level"] == "warning"


def test_library_lines_and_warnings_take_the_same_way() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), "gateway-0", stream=stream)
    logging.getLogger("asyncio").warning("slow callback %s", "x")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    first, second = lines(stream)
    assert (first["message"], first["action"], first["logger"]) == ("slow callback x", "library", "asyncio")
    assert "UserWarning: old" in second["message"]
    assert second["process"] == "gateway-0"


def test_levels_and_values_that_json_does_not_know() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="json", level="warning"), "p", stream=stream)
    log = Log("x")
    log.debug("no", action="a")
    log.info("no", action="a")
    log.warning("yes", action="a", reason=ValueError("odd"))  # type: ignore[arg-type]
    (line,) = lines(stream)
    assert line["reason"] == "odd"
    logs.configure(LogSettings(format="json", level="debug"), "p", stream=stream)
    log.debug("now", action="b")
    assert len(lines(stream)) == 2  # configured again: not twice


def test_libraries_that_talk_about_themselves_are_heard_at_debug_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not alembic itself: whatever else this process has imported may have set that one up.
    monkeypatch.setattr(logs, "_TALKATIVE", ("talkative",))
    for level, heard in (("info", ["careful"]), ("debug", ["setup plugin", "careful"])):
        stream = io.StringIO()
        logs.configure(LogSettings(format="json", level=level), "p", stream=stream)  # type: ignore[arg-type]
        logging.getLogger("talkative.part").info("setup plugin")
        logging.getLogger("talkative.part").warning("careful")
        assert [line["message"] for line in lines(stream)] == heard


def test_percent_signs_are_text() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), "p", stream=stream)
    Log("x").info("100 % of %s", action="a")
    assert lines(stream)[0]["message"] == "100 % of %s"


def test_pretty_lines_are_for_people() -> None:
    stream = Terminal()
    logs.configure(LogSettings(), "controller", stream=stream)
    try:
        raise RuntimeError("no such file")
    except RuntimeError as error:
        Log("headrace").error("Load failed", action="load_failed", exception=error, endpoint="fraud")
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert re.search(r"Z \[error +\] Load failed +\[headrace\] action=load_failed endpoint=fraud", text)
    assert "Traceback (most recent call last)" in text
    assert text.endswith("RuntimeError: no such file\n")


@pytest.mark.parametrize(
    ("format", "stream", "json"),
    [
        ("auto", Terminal(), False),
        ("auto", io.StringIO(), True),
        ("pretty", io.StringIO(), False),
        ("json", Terminal(), True),
    ],
)
def test_auto_means_pretty_on_a_terminal(format: Any, stream: io.StringIO, json: bool) -> None:
    assert logs.wants_json(LogSettings(format=format), stream) is json


def test_structlog_is_imported_by_configure_only() -> None:
    program = (
        "import sys; from headrace.telemetry import logging; logging.Log('x').info('m', action='a');"
        "assert 'structlog' not in sys.modules;"
        "from headrace.telemetry.settings import LogSettings; logging.configure(LogSettings(), 'p');"
        "assert 'structlog' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_access_log_in_json(record: Callable[..., RequestRecord]) -> None:
    written: list[str] = []
    access = AccessLog(written.append, json=True, process="gateway-0")
    access.write([])
    access.write(
        [record(), record(outcome=Outcome.DEADLINE, error="deadline_exceeded", finished_at=1_700_000_000.9996)]
    )
    (text,) = written
    first, second = map(msgspec.json.decode, text.splitlines())
    assert text.endswith("\n")
    assert first == {
        "action": "request",
        "timestamp": "2023-11-14T22:13:20.250Z",
        "request_id": "r-1",
        "model": "fraud",
        "version": "1",
        "protocol": "oip_rest",
        "outcome": "ok",
        "process": "gateway-0",
        "rows": 1,
        "batch_rows": 4,
        "bytes_in": 300,
        "bytes_out": 90,
        "total_ms": 2.0,
        "queue_ms": 0.1,
        "compute_ms": 1.5,
    }
    assert second["outcome"] == second["error"] == "deadline_exceeded"
    assert second["timestamp"] == "2023-11-14T22:13:21.000Z"


def test_access_log_for_people(record: Callable[..., RequestRecord]) -> None:
    written: list[str] = []
    AccessLog(written.append, json=False, process="g").write(
        [record(), record(model="", version="", error="bug", outcome=7)]
    )
    assert written == [
        "2023-11-14T22:13:20.250Z fraud@1 oip_rest ok 2.000ms rows=1 batch=4 r-1\n"
        "2023-11-14T22:13:20.250Z -@- oip_rest bug 2.000ms rows=1 batch=4 r-1 error=bug\n"
    ]
