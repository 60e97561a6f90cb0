"""Logs: one line per event on stderr, JSON or for people, with an action and declared fields.

``Log`` is what the other folders use; it sits on the standard library's loggers, so that lines of third-party code
take the same way out. structlog renders them, and is imported only by the process that calls ``configure``. Workers
never import this: they write plain lines to their stderr, which the supervisor keeps.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO, TypedDict, Unpack

import msgspec

from headrace.core.requests import Outcome, RequestRecord
from headrace.telemetry.settings import LogSettings


class Fields(TypedDict, total=False):
    """Every field that a log line may carry beside time, level, message, action, logger and process.

    mypy refuses names that are not here and values of another type."""

    endpoint: str
    model: str
    version: str
    deployment: str
    """``endpoint@version``."""
    replica: str
    """Replica id, ``fraud@1#3``."""
    worker: str
    gateway: int
    pid: int
    state: str
    """State of a replica, a version or a process."""
    request_id: str
    protocol: str
    outcome: str
    error: str
    """Stable error code, ``core/errors.py``."""
    reason: str
    """Why, in words."""
    rows: int
    bytes: int
    count: int
    limit: int
    attempt: int
    seconds: float
    """How long it took, or how long we are going to wait."""
    exit_code: int
    signal: str
    address: str
    """``unix:/path``, ``tcp:host:port`` or ``host:port``."""
    url: str
    path: str
    """File or folder."""
    digest: str
    format: str
    runtime: str
    setting: str
    route_version: int
    epoch: int
    log_tail: str
    """Last lines that a worker wrote."""


class Log:
    """A logger whose calls name an action: a stable word or two with underscores that machines can filter by."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *, action: str, **fields: Unpack[Fields]) -> None:
        self._emit(logging.DEBUG, message, action, None, fields)

    def info(self, message: str, *, action: str, **fields: Unpack[Fields]) -> None:
        self._emit(logging.INFO, message, action, None, fields)

    def warning(
        self, message: str, *, action: str, exception: BaseException | None = None, **fields: Unpack[Fields]
    ) -> None:
        self._emit(logging.WARNING, message, action, exception, fields)

    def error(
        self, message: str, *, action: str, exception: BaseException | None = None, **fields: Unpack[Fields]
    ) -> None:
        """``exception`` adds its traceback."""
        self._emit(logging.ERROR, message, action, exception, fields)

    def _emit(self, level: int, message: str, action: str, exception: BaseException | None, fields: Fields) -> None:
        if self._logger.isEnabledFor(level):
            extra = {_EXTRA: {"action": action, **fields}}
            self._logger.log(level, message, exc_info=exception, extra=extra, stacklevel=3)


_EXTRA = "headrace_fields"
_TALKATIVE = ("alembic",)
"""Libraries that tell at level info how they are made; it is shown at level debug."""


def configure(settings: LogSettings, process: str, *, stream: TextIO | None = None) -> None:
    """Send all logs of this process to ``stream`` (stderr). Call again to change settings.

    ``process`` (``gateway-0``, ``controller``) is on every line. Python's warnings become log lines too."""
    stream = stream or sys.stderr
    handler = _Handler(stream)
    handler.setFormatter(_formatter(wants_json(settings, stream), process, colors=stream.isatty()))
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _Handler)] + [handler]
    root.setLevel(settings.level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET if settings.level == "debug" else logging.WARNING)
    logging.captureWarnings(True)


def wants_json(settings: LogSettings, stream: TextIO) -> bool:
    """Whether lines on ``stream`` are JSON: as set, or by whether it is a terminal."""
    return not stream.isatty() if settings.format == "auto" else settings.format == "json"


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, to be told from handlers that others have put on the root logger."""


def _formatter(json: bool, process: str, *, colors: bool) -> logging.Formatter:
    from structlog import dev, processors, stdlib

    def describe(_: Any, __: str, event: Any) -> Any:
        record: logging.LogRecord = event["_record"]
        fields = getattr(record, _EXTRA, None) or {"action": "library"}
        return {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "event": event["event"].rstrip(),  # captured warnings end in a newline
            **fields,
            "logger": record.name,
            "process": process,
            **{name: event[name] for name in ("exc_info", "stack_info", "_record", "_from_structlog") if name in event},
        }

    render: list[Any] = [stdlib.ProcessorFormatter.remove_processors_meta]
    if json:
        render += [
            processors.format_exc_info,
            processors.EventRenamer("message"),
            processors.JSONRenderer(serializer=_to_json),
        ]
    else:
        render.append(dev.ConsoleRenderer(colors=colors, exception_formatter=dev.plain_traceback, sort_keys=False))
    return stdlib.ProcessorFormatter(foreign_pre_chain=[describe], processors=render)


def _to_json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class AccessLog:
    """One line per finished request, formatted in bulk and off the path of any request.

    ``write`` (``sys.stderr.write``) gets the lines of one call in one piece; ``json`` False gives lines for people."""

    def __init__(self, write: Callable[[str], object], *, json: bool, process: str) -> None:
        self._write = write
        self._format = self._as_json if json else self._as_text
        self._process = process
        self._encode_lines = msgspec.json.Encoder().encode_lines
        self._second = -1
        self._time = ""

    def write(self, records: Sequence[RequestRecord]) -> None:
        if records:
            self._write(self._format(records))

    def _as_json(self, records: Iterable[RequestRecord]) -> str:
        process = self._process
        names = Outcome.NAMES
        lines = [
            _AccessLine(
                self._timestamp(r.finished_at),
                r.request_id,
                r.model,
                r.version,
                r.protocol,
                names[r.outcome],
                process,
                r.rows,
                r.batch_rows,
                r.bytes_in,
                r.bytes_out,
                round(r.total * 1e3, 3),
                round(r.queue * 1e3, 3),
                round(r.compute * 1e3, 3),
                r.error,
                r.replica,
                r.fallback,
            )
            for r in records
        ]
        return self._encode_lines(lines).decode()

    def _as_text(self, records: Iterable[RequestRecord]) -> str:
        names = Outcome.NAMES
        return "".join(
            [
                f"{self._timestamp(r.finished_at)} {r.model or '-'}@{r.version or '-'} {r.protocol} {names[r.outcome]}"
                f" {r.total * 1e3:.3f}ms rows={r.rows} batch={r.batch_rows:g} {r.request_id}"
                f"{f' error={r.error}' if r.error else ''}{f' fallback={r.fallback}' if r.fallback else ''}\n"
                for r in records
            ]
        )

    def _timestamp(self, seconds: float) -> str:
        whole, milliseconds = divmod(round(seconds * 1e3), 1000)
        if whole != self._second:  # the records of one call are of the same second or two
            self._second = whole
            self._time = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return f"{self._time}{milliseconds:03d}Z"


class _AccessLine(msgspec.Struct, omit_defaults=True, gc=False, tag_field="action", tag="request"):
    timestamp: str
    request_id: str
    model: str
    version: str
    protocol: str
    outcome: str
    process: str
    rows: int
    batch_rows: float
    bytes_in: int
    bytes_out: int
    total_ms: float
    queue_ms: float
    compute_ms: float
    error: str = ""
    replica: str = ""
    fallback: str = ""
