"""Settings from all their sources: flags over environment over ``headrace.yaml`` over defaults.

A flag or an environment variable wins over the whole file, also over what stands under an endpoint; in the file an
endpoint's own settings win over the top level.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.app.settings.file import FILE_NAME, DeploymentEntry, SettingsFile, Values, parse_value, read_settings
from headrace.app.settings.keys import BY_NAME, BY_VARIABLE, SHORTHANDS, Form, Key, Section
from headrace.app.settings.model_sources import endpoint_name, parse_source
from headrace.app.settings.nodes import nearest
from headrace.app.settings.serve_settings import DeploymentSettings, EndpointSettings, ModelSource, ServeSettings
from headrace.core import errors
from headrace.core.endpoints import AdmissionSettings, BatchingSettings, ResourceSettings
from headrace.core.traffic import MAIN
from headrace.gateway.settings import GatewaySettings
from headrace.telemetry.settings import LogSettings

PREFIX = "HEADRACE_"
OTHER_VARIABLES = frozenset(
    {
        *("HEADRACE_CONFIG", "HEADRACE_MODELS", "HEADRACE_URL", "HEADRACE_SERVER"),
        *("HEADRACE_STATE", "HEADRACE_DATABASE", "HEADRACE_ARTIFACTS"),
        *("HEADRACE_KEY_SECRET", "HEADRACE_API_KEY"),
    }
)
"""Variables that are no setting: the file, the models, the state and its secret, and where clients find a server and
their key."""

_KUBERNETES_LINK = re.compile(r"HEADRACE_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_\w+)?)\Z")
"""What Kubernetes puts into every pod when a service is called ``headrace``."""

Flags = Mapping[str, str | Sequence[str]]
"""Texts of the flags that were given, by the name of their key; several for repeatable ones."""


def load_settings(
    models: Sequence[str] = (),
    flags: Flags | None = None,
    *,
    environ: Mapping[str, str],
    directory: Path = Path(),
    config: Path | None = None,
    required: bool = True,
) -> ServeSettings:
    """Put all layers together. Not ``required``: there may be nothing to serve yet.

    ``directory`` is where ``headrace.yaml`` is looked for when neither ``config`` nor
    HEADRACE_CONFIG names a file. Raises BadSettings or Unsupported."""
    over = _over(_environment_values(environ), _flag_values(flags or {}))
    file = _find_file(config, environ, directory)
    values = _over(file.values if file else {}, over)
    typed = [parse_source(text) for text in models] or [
        parse_source(text, where="environment variable HEADRACE_MODELS") for text in _split(environ, "HEADRACE_MODELS")
    ]
    sources = _sources(typed, file, over)
    if not sources and required:
        raise nothing_to_serve(config or (file.path if file else None), directory)
    path = str(file.path.absolute()) if file is not None and not typed and sources else None
    settings = msgspec.structs.replace(_build(values, sources), endpoints=_endpoints(file, typed), file=path)
    _check(settings, {name: place for name, place in (file.places if file else {}).items() if name not in over})
    return settings


def settings_of_file(file: SettingsFile) -> ServeSettings:
    """What a file says by itself, without flags and environment. Raises BadSettings."""
    settings = msgspec.structs.replace(_build(file.values, _sources([], file, {})), endpoints=_endpoints(file, []))
    _check(settings, file.places)
    return settings


def settings_from_values(models: Sequence[ModelSource], values: Values) -> ServeSettings:
    """Settings from already parsed values, checked like any others."""
    settings = _build(values, tuple(models))
    _check(settings, {})
    return settings


def _find_file(config: Path | None, environ: Mapping[str, str], directory: Path) -> SettingsFile | None:
    if config is None and environ.get("HEADRACE_CONFIG"):
        config = Path(environ["HEADRACE_CONFIG"])
    if config is not None:
        return read_settings(config)
    path = directory / FILE_NAME
    return read_settings(path) if path.is_file() else None


def _environment_values(environ: Mapping[str, str]) -> Values:
    values: Values = {}
    for name, text in environ.items():
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES or _KUBERNETES_LINK.match(name):
            continue
        if name == "HEADRACE_PORT" and text.startswith("tcp://"):
            continue  # also one of Kubernetes' service links, never a port of ours
        key = BY_VARIABLE.get(name) or BY_NAME.get(SHORTHANDS.get(name.removeprefix(PREFIX).lower(), ""))
        where = f"environment variable {name}"
        if key is None:
            raise errors.BadSettings(f"{where}: there is no such setting{nearest(name, BY_VARIABLE)}")
        values[key.name] = _from_texts(key, _split(environ, name) if key.kind.form is not Form.SCALAR else text, where)
    return values


def _flag_values(flags: Flags) -> Values:
    return {name: _from_texts(BY_NAME[name], text, BY_NAME[name].flag or name) for name, text in flags.items()}


def _from_texts(key: Key, texts: str | Sequence[str], where: str) -> Any:
    if key.kind.form is Form.SCALAR:
        assert isinstance(texts, str)
        return parse_value(key, texts, where)
    items = [texts] if isinstance(texts, str) else texts
    if key.kind.form is Form.LIST:
        return tuple(parse_value(key, text, where) for text in items)
    pairs = {}
    for text in items:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise errors.BadSettings(f"{where}: expected NAME=VALUE, got {text!r}")
        pairs[name] = value
    return pairs


def _split(environ: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in environ.get(name, "").split(",") if part.strip()]


def _over(lower: Values, higher: Values) -> Values:
    """Values of both, the higher winning; of options, name by name."""
    merged = {**lower, **higher}
    for name in lower.keys() & higher.keys():
        if BY_NAME[name].kind.form is Form.MAP:
            merged[name] = {**lower[name], **higher[name]}
    return merged


def _sources(typed: list[ModelSource], file: SettingsFile | None, over: Values) -> tuple[ModelSource, ...]:
    """Models that were typed replace the file's, but keep the settings of a file's endpoint of their name."""
    if file is None:
        return tuple(typed)
    values = file.values

    def settings(entry: DeploymentEntry) -> DeploymentSettings:
        return _deployment(_over(_over(values, entry.values), over))

    if not typed:
        listed = [entry for endpoint in file.endpoints.values() for entry in endpoint.deployments]
        return (*(msgspec.structs.replace(entry.source, settings=settings(entry)) for entry in listed), *file.models)
    sources = []
    for source in typed:
        endpoint = file.endpoints.get(endpoint_name(source))
        if endpoint is not None and len(endpoint.deployments) > 1:
            raise errors.BadSettings(
                f"{source.path} would replace endpoint {endpoint_name(source)!r} of {file.path}, which has"
                f" {len(endpoint.deployments)} deployments with settings of their own; serve it under another name,"
                f" e.g. {endpoint_name(source)}-2={source.path}, or change the file"
            )
        own = None if endpoint is None else settings(endpoint.deployments[0])
        sources.append(msgspec.structs.replace(source, settings=own))
    return tuple(sources)


def _endpoints(file: SettingsFile | None, typed: list[ModelSource]) -> dict[str, EndpointSettings]:
    """Of the file's endpoints. A typed model is a deployment without a name: only what needs none goes with it."""
    found = {} if file is None else {name: entry.settings for name, entry in file.endpoints.items()}
    return {name: own for name, own in found.items() if not typed or own.policy.weights.keys() == {MAIN}}


def _build(values: Values, models: tuple[ModelSource, ...]) -> ServeSettings:
    sections = _by_section(values)
    return ServeSettings(
        models=models,
        gateway=GatewaySettings(**sections[Section.GATEWAY]),
        deployment=_deployment(values),
        logs=LogSettings(**sections[Section.LOGS]),
        **sections[Section.SERVER],
    )


def _deployment(values: Values) -> DeploymentSettings:
    sections = _by_section(values)
    return DeploymentSettings(
        resources=ResourceSettings(**sections[Section.RESOURCES]),
        batching=BatchingSettings(**sections[Section.BATCHING]),
        admission=AdmissionSettings(**sections[Section.ADMISSION]),
        **sections[Section.DEPLOYMENT],
    )


def _by_section(values: Values) -> dict[Section, dict[str, Any]]:
    sections: dict[Section, dict[str, Any]] = defaultdict(dict)
    for name, value in values.items():
        key = BY_NAME[name]
        sections[key.section][key.field] = value
    return sections


def _check(settings: ServeSettings, places: Mapping[str, str]) -> None:
    """Rules between several settings. ``places``: of those that a file says, by the name of their key."""
    gateway = settings.gateway
    if (gateway.tls_cert is None) != (gateway.tls_key is None):
        given, missing = ("tls.cert", "tls.key") if gateway.tls_key is None else ("tls.key", "tls.cert")
        where = f"{places[given]}: " if given in places else ""
        raise errors.BadSettings(
            f"{where}{given} is set but {missing} is not; TLS needs both ({BY_NAME[missing].flag})"
        )
    if gateway.port == settings.management_port != 0:
        said = [places[name] for name in ("management_port", "port") if name in places]
        where = f"{said[0]}: " if said else ""
        raise errors.BadSettings(
            f"{where}port and management_port are both {gateway.port}; choose another for one (--management-port)"
        )


def nothing_to_serve(file: Path | None, directory: Path) -> errors.BadSettings:
    """The error of a command that names nothing, directly or by a file, where nothing was served before."""
    file = file or (directory / FILE_NAME if (directory / FILE_NAME).is_file() else None)
    if file is not None:
        return errors.BadSettings(
            f"{file} names no models; add endpoints or models to it, or type one: headrace serve model.onnx"
        )
    return errors.BadSettings(
        f"no model was given and there is no {FILE_NAME} in {directory.absolute()};"
        " type a model, e.g. headrace serve model.onnx, or name a file with --config"
    )
