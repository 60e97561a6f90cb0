"""The one table of settings: key in ``headrace.yaml``, field, flag, kind of value and help text.

``--help``, error messages, environment variables and ``docs/settings.md`` are all made from it.
It knows nothing of files or precedence (``app/settings/file.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from headrace.app.settings import value_schemas
from headrace.app.settings.quantities import format_duration, format_size, parse_duration, parse_size
from headrace.app.settings.serve_settings import DeploymentSettings, ServeSettings
from headrace.core.endpoints import AdmissionSettings, BatchingSettings, BatchMode, Isolation, ResourceSettings
from headrace.core.keys import Signatures
from headrace.gateway.settings import GatewaySettings
from headrace.telemetry.settings import LogSettings

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})


class Section(StrEnum):
    """The struct a key ends in."""

    SERVER = "server"
    GATEWAY = "gateway"
    LOGS = "logs"
    DEPLOYMENT = "deployment"
    RESOURCES = "resources"
    BATCHING = "batching"
    ADMISSION = "admission"


STRUCTS: dict[Section, type[msgspec.Struct]] = {
    Section.SERVER: ServeSettings,
    Section.GATEWAY: GatewaySettings,
    Section.LOGS: LogSettings,
    Section.DEPLOYMENT: DeploymentSettings,
    Section.RESOURCES: ResourceSettings,
    Section.BATCHING: BatchingSettings,
    Section.ADMISSION: AdmissionSettings,
}

PER_DEPLOYMENT = frozenset({Section.DEPLOYMENT, Section.RESOURCES, Section.BATCHING, Section.ADMISSION})
"""Sections whose keys may also stand under an endpoint."""


class Form(StrEnum):
    """What a value looks like in the file."""

    SCALAR = "scalar"
    LIST = "list"
    """A list of texts; comma-separated in the environment, a repeated flag on the command line."""
    MAP = "map"
    """Names to texts; ``name=value`` pairs in the environment and on the command line."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How the text of a value is read. ``parse`` raises ValueError; ``expected`` completes "expected …"; ``schema`` is
    the JSON Schema of the value in the file."""

    metavar: str
    expected: str
    parse: Callable[[str], Any]
    schema: Mapping[str, Any] = field(hash=False)
    form: Form = Form.SCALAR
    show: Callable[[Any], str] = str
    switch: bool = False
    """True: on the command line a flag without a value."""
    is_path: bool = False

    def written(self, value: Any) -> Any:
        """As one would write it in the file, ``30s`` or ``64MiB``, and exactly; numbers are numbers."""
        if value is None or isinstance(value, bool):
            return value
        if self.form is not Form.SCALAR:
            return dict(value) if self.form is Form.MAP else list(value)
        text = self.show(value)
        if not self._says(text, value):
            # Rounded for people: 1.15GiB. Here it must be the value itself, without an exponent.
            text = format(Decimal(str(value)), "f")
        return value if isinstance(value, int) and text == str(value) else text

    def _says(self, text: str, value: Any) -> bool:
        try:
            return bool(self.parse(text) == value)
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. ``path`` is where it stands in the file; ``nullable`` means that `null` is a value."""

    path: tuple[str, ...]
    section: Section
    field: str
    kind: Kind
    flag: str | None
    help: str
    nullable: bool = False

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """Environment variable: ``HEADRACE_BATCHING__MAX_BATCH_SIZE``."""
        return "HEADRACE_" + "__".join(self.path).upper()

    @property
    def default(self) -> Any:
        return next(f.default for f in msgspec.structs.fields(STRUCTS[self.section]) if f.name == self.field)

    @property
    def per_deployment(self) -> bool:
        return self.section in PER_DEPLOYMENT

    def show_default(self) -> str:
        """The default as one would write it; empty when there is none."""
        value = self.default
        if value is None or value is msgspec.NODEFAULT or self.kind.form is not Form.SCALAR:
            return ""
        return self.kind.show(value)


def _text(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


def _flag(text: str) -> bool:
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise ValueError(text)
    return lowered in _TRUE


def _whole(minimum: int, maximum: int | None = None, metavar: str = "N") -> Kind:
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError(text)
        return value

    span = f"from {minimum} to {maximum}" if maximum is not None else f"of at least {minimum}"
    return Kind(metavar, f"a whole number {span}", parse, value_schemas.whole(minimum, maximum))


def _duration(*, zero: bool = False, unit: str = "s") -> Kind:
    scale = 1e3 if unit == "ms" else 1.0

    def parse(text: str) -> float:
        seconds = parse_duration(text, default_unit=unit)
        if seconds == 0 and not zero:
            raise ValueError(text)
        return round(seconds * scale, 9)

    example = "2, 2ms or 1s" if unit == "ms" else "30, 30s, 500ms or 2m"
    bound = "" if zero else " above 0"
    return Kind(
        "TIME",
        f"a duration{bound} like {example}",
        parse,
        value_schemas.duration(zero=zero),
        show=lambda value: format_duration(value / scale),
    )


def _choice(*values: str, metavar: str) -> Kind:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(text)
        return text

    return Kind(metavar, f"one of {', '.join(values)}", parse, value_schemas.choice(values))


def _enum(cls: type[StrEnum]) -> Kind:
    return Kind("MODE", f"one of {', '.join(cls)}", cls, value_schemas.choice(cls))


def _size(text: str) -> int:
    size = parse_size(text)
    if size == 0:
        raise ValueError(text)
    return size


def _follow(text: str) -> str:
    # With the alias is how it is kept, beside the number that the alias had.
    word, colon, alias = text.partition(":")
    if word != "rollout" or (colon and not alias):
        raise ValueError(text)
    return text


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise ValueError(text)
    return value


TEXT = Kind("TEXT", "a text", _text, value_schemas.TEXT)
PATH = Kind("FILE", "a path", _text, value_schemas.TEXT, is_path=True)
SWITCH = Kind(
    "",
    "true or false",
    _flag,
    value_schemas.switch(_TRUE, _FALSE),
    show=lambda value: str(value).lower(),
    switch=True,
)
SIZE = Kind("SIZE", "a size above 0 like 64MiB, 1GB or a number of bytes", _size, value_schemas.SIZE, show=format_size)
SHARE = Kind("SHARE", "a share above 0 and below 1, e.g. 0.001", _share, value_schemas.SHARE)
NUMBER = Kind("NUMBER", "a number above 0", _positive, value_schemas.NUMBER, show=lambda value: f"{value:g}")
PORT = _whole(0, 65535, "PORT")
COUNT = _whole(1)
NATURAL = _whole(0)
TIME = _duration()
TIME_MS = _duration(unit="ms")
TIME_OR_ZERO = _duration(zero=True)
TEXTS = Kind("TEXT", "a list of texts", _text, value_schemas.TEXTS, form=Form.LIST)
COUNTS = Kind("N", "a list of whole numbers of at least 1", COUNT.parse, value_schemas.COUNTS, form=Form.LIST)
FOLLOW = Kind("rollout", "rollout", _follow, value_schemas.FOLLOW)
PAIRS = Kind("NAME=VALUE", "names with values", _text, value_schemas.PAIRS, form=Form.MAP)

_S, _G, _L, _D, _R, _B, _A = Section


def _key(
    name: str, section: Section, field: str, kind: Kind, flag: str | None, text: str, nullable: bool = False
) -> Key:
    return Key(tuple(name.split(".")), section, field, kind, flag, text, nullable)


GROUPS: dict[str, tuple[Key, ...]] = {
    "Network": (
        _key("host", _G, "host", TEXT, "--host", "Address of the inference port."),
        _key("port", _G, "port", PORT, "--port", "Inference port, REST and gRPC; 0 takes a free one."),
        _key("management_host", _S, "management_host", TEXT, "--management-host", "Address of the management port."),
        _key(
            "management_port",
            _S,
            "management_port",
            PORT,
            "--management-port",
            "Management API and /metrics; 0 takes a free one.",
        ),
        _key("gateways", _G, "gateways", COUNT, "--gateways", "Gateway processes that share the inference port."),
    ),
    "Security": (
        _key(
            "no_auth",
            _G,
            "no_auth",
            SWITCH,
            "--no-auth",
            "Ask for no keys, also on a host that is not loopback: something else guards the ports.",
        ),
        _key(
            "sigv4",
            _G,
            "sigv4",
            _enum(Signatures),
            "--sigv4",
            "Requests signed by AWS clients: refuse, or accept-unverified (the access key id is the id of a key).",
        ),
        _key(
            "tls.cert",
            _G,
            "tls_cert",
            PATH,
            "--tls-cert",
            "PEM file with the certificate chain; turns TLS on, for inference.",
            True,
        ),
        _key("tls.key", _G, "tls_key", PATH, "--tls-key", "PEM file with the private key.", True),
        _key(
            "trust",
            _S,
            "trust",
            TEXTS,
            "--trust",
            "Digest (sha256:…) or path of an artifact that may run code, such as a pickle. Repeatable.",
        ),
    ),
    "Replicas": (
        _key("replicas", _D, "replicas", NATURAL, "--replicas", "Loaded copies of each model; 0: none, it is stopped."),
        _key(
            "threads",
            _D,
            "threads",
            COUNT,
            "--threads",
            "Framework threads in one replica; default: its share of the cores.",
            True,
        ),
        _key(
            "isolation",
            _D,
            "isolation",
            _enum(Isolation),
            "--isolation",
            "process: one worker process per replica; packed: small replicas of one runtime and trust class share one.",
        ),
        _key(
            "resources.cpu",
            _R,
            "cpu",
            NUMBER,
            "--cpu",
            "Cores per replica; default: the machine's or container's share.",
            True,
        ),
        _key(
            "resources.memory",
            _R,
            "memory",
            SIZE,
            "--memory",
            "Memory a replica may use; a replica that passes it is ended and restarted. Default: no limit.",
            True,
        ),
        _key(
            "resources.gpu",
            _R,
            "gpu",
            NATURAL,
            None,
            "GPUs per replica; kept for what places replicas on GPUs, which nothing does yet.",
        ),
        _key(
            "follow",
            _D,
            "follow",
            FOLLOW,
            None,
            "rollout: when the alias that the model is named by moves, a rollout to its new version begins.",
            True,
        ),
        _key("lazy", _D, "lazy", SWITCH, "--lazy", "Start a model on its first request, which waits for it."),
        _key("warmup", _D, "warmup", SWITCH, None, "Run inferences before a replica counts as ready."),
        _key(
            "idempotent",
            _D,
            "idempotent",
            SWITCH,
            None,
            "The same input may be computed twice without harm; false: nothing is ever re-run.",
        ),
        _key("options", _D, "options", PAIRS, "--option", "Option of the runtime, NAME=VALUE. Repeatable."),
    ),
    "Environments": (
        _key(
            "requirements",
            _D,
            "requirements",
            PATH,
            "--requirements",
            "requirements.txt: replicas run in an environment of their own with these packages, unless their version"
            " brings its own.",
            True,
        ),
        _key(
            "environments.folder",
            _S,
            "environments_folder",
            PATH,
            None,
            "Where environments of versions are built and kept; default: environments in the state directory.",
            True,
        ),
        _key(
            "environments.allow_source_builds",
            _S,
            "source_builds",
            SWITCH,
            "--allow-source-builds",
            "Build packages that have no wheel for this machine, which runs their authors' code at once.",
        ),
    ),
    "Experiments": (
        _key(
            "experiments.retention",
            _S,
            "experiment_retention_s",
            TIME,
            None,
            "How long answered requests of experiments are remembered: outcomes that come later find nothing.",
        ),
        _key(
            "experiments.requests",
            _S,
            "experiment_requests",
            COUNT,
            None,
            "How many answered requests of experiments are remembered per endpoint; each takes some 200 bytes on disk.",
        ),
    ),
    "Batching": (
        _key(
            "batching.mode",
            _B,
            "mode",
            _enum(BatchMode),
            "--batching",
            "auto: batch where it pays; always: up to the limits; exact: every request alone, bit for bit; off: never.",
        ),
        _key(
            "batching.max_batch_size", _B, "max_batch_size", COUNT, "--max-batch-size", "Rows in one call of the model."
        ),
        _key(
            "batching.max_batch_cost",
            _B,
            "max_batch_cost",
            NUMBER,
            None,
            "Largest summed cost of a batch, in the unit of batching.cost; default: rows only.",
            True,
        ),
        _key(
            "batching.cost",
            _B,
            "cost",
            _choice("rows", "elements", "bytes", metavar="UNIT"),
            None,
            "Unit of batching.max_batch_cost: rows, elements (values of all inputs) or bytes.",
        ),
        _key(
            "batching.max_queue_delay_ms",
            _B,
            "max_queue_delay_ms",
            _duration(zero=True, unit="ms"),
            "--max-queue-delay-ms",
            "Wait this long (milliseconds) for a fuller batch even when a replica is idle; 0: never wait.",
        ),
        _key(
            "batching.pad",
            _B,
            "pad",
            PAIRS,
            None,
            "Input to value that fills it up to the longest of a batch; without it only equal shapes share a batch.",
        ),
        _key("batching.buckets", _B, "buckets", COUNTS, None, "Lengths up to which padded requests share a batch."),
        _key(
            "batching.dims",
            _B,
            "dims",
            PAIRS,
            None,
            "Input or output to names of its dimensions after the rows, by comma; equal names are cut back together.",
        ),
    ),
    "Time": (
        _key("timeout", _D, "timeout_s", TIME, "--timeout", "Deadline of a request that brings none."),
        _key(
            "replica_timeout",
            _D,
            "replica_timeout_s",
            TIME,
            "--replica-timeout",
            "A batch older than this means that the replica hangs: it is killed and restarted.",
        ),
        _key(
            "stream_stall",
            _D,
            "stream_stall_s",
            TIME,
            None,
            "A stream whose reader takes nothing for this long is cancelled.",
        ),
        _key(
            "drain",
            _G,
            "drain_s",
            TIME_OR_ZERO,
            "--drain",
            "At the end: time to finish the accepted requests; the others are answered 503 then.",
        ),
        _key(
            "drain_delay",
            _G,
            "drain_delay_s",
            TIME_OR_ZERO,
            "--drain-delay",
            "At the end: time to report not-ready while still accepting, for load balancers to notice.",
        ),
    ),
    "Limits": (
        _key("max_body", _G, "max_body_bytes", SIZE, "--max-body", "Largest request body, after decompression too."),
        _key("max_bodies", _G, "max_bodies_bytes", SIZE, None, "All bodies that one gateway may hold at once."),
        _key(
            "body_idle",
            _G,
            "body_idle_s",
            TIME,
            None,
            "A client that sends nothing of an announced body for this long is dropped.",
        ),
        _key(
            "offload",
            _G,
            "offload_bytes",
            SIZE,
            None,
            "JSON bodies larger than this are decoded outside the event loop.",
        ),
        _key(
            "admission.max_queue_rows",
            _A,
            "max_queue_rows",
            COUNT,
            None,
            "Rows that may wait per deployment, over all gateways.",
        ),
        _key(
            "admission.max_queue_bytes",
            _A,
            "max_queue_bytes",
            SIZE,
            None,
            "Bytes that may wait per deployment, over all gateways.",
        ),
        _key(
            "admission.max_queue_time",
            _A,
            "max_queue_time_s",
            TIME,
            None,
            "Refuse when the predicted wait passes this, once admission.min_queue_rows wait.",
        ),
        _key(
            "admission.min_queue_rows",
            _A,
            "min_queue_rows",
            NATURAL,
            None,
            "Rows that may wait per replica whatever the predicted wait.",
        ),
    ),
    "Logs": (
        _key("access_log", _G, "access_log", SWITCH, "--access-log", "Log one line per inference request."),
        _key(
            "logs.format",
            _L,
            "format",
            _choice("auto", "pretty", "json", metavar="FORMAT"),
            "--log-format",
            "pretty, json, or auto: pretty on a terminal, JSON otherwise.",
        ),
        _key(
            "logs.level",
            _L,
            "level",
            _choice("debug", "info", "warning", "error", metavar="LEVEL"),
            "--log-level",
            "Least severe lines that are written: debug, info, warning or error.",
        ),
    ),
    "Other": (
        _key(
            "explain_batching",
            _S,
            "explain_batching",
            SWITCH,
            "--explain-batching",
            "Say whenever the batch limit of a deployment changes, and why.",
        ),
        _key(
            "watch",
            _S,
            "watch",
            SWITCH,
            "--watch",
            "Load a changed .py or a new version folder beside the old one; it takes over when it is ready.",
        ),
        _key(
            "runtime_dir",
            _S,
            "runtime_dir",
            PATH,
            None,
            "Folder for sockets, logs and metric pages; default: a temporary one, removed at the end.",
            True,
        ),
    ),
}
"""Every setting, grouped for people."""

KEYS: tuple[Key, ...] = tuple(key for group in GROUPS.values() for key in group)

BY_NAME: dict[str, Key] = {key.name: key for key in KEYS}

BY_VARIABLE: dict[str, Key] = {key.variable: key for key in KEYS}

SHORTHANDS = {"batching": "batching.mode"}
"""Sections that also take a single value: ``batching: exact``."""
