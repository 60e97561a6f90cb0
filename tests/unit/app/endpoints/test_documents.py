"""Endpoints as documents: what the reader of the file makes of one is the endpoint that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from headrace.app.endpoints.documents import DeploymentEntry, as_yaml, document_of
from headrace.app.settings.file import parse_settings
from headrace.app.settings.keys import KEYS
from headrace.app.settings.layers import settings_of_file
from headrace.app.settings.serve_settings import DeploymentSettings, EndpointSettings
from headrace.control.analysis.settings import (
    AnalysisSettings,
    ErrorRateSettings,
    LatencySettings,
    MetricSettings,
    PredictionSettings,
)
from headrace.control.rollout_plan import RolloutPlan
from headrace.core.endpoints import AdmissionSettings, BatchingSettings, BatchMode, Isolation, ResourceSettings
from headrace.core.fallbacks import ConstantFallback, DeploymentFallback, Fallback
from headrace.core.shadows import Shadow
from headrace.core.slo import Slo
from headrace.core.traffic import MAIN, OVERRIDES, Rule, Source, SourceKind, TrafficPolicy

Endpoint = tuple[dict[str, DeploymentEntry], EndpointSettings]

COUNTS = st.integers(1, 10**9)
SECONDS = st.one_of(st.integers(1, 10**6).map(float), st.floats(1e-6, 1e6)).map(lambda value: round(value, 9))
SIZES = st.integers(1, 1 << 45)
POSITIVE = st.floats(1e-9, 1e15)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=8)
VALUES = st.one_of(WORDS, st.sampled_from(["yes", "off", "7", "1.5", "null", "a: b", "# no", "2024-01-01", "~", "é ü"]))
PATHS = VALUES.map(lambda text: f"/models/{text}")

SETTINGS = st.builds(
    DeploymentSettings,
    replicas=st.integers(0, 50),
    threads=st.none() | COUNTS,
    isolation=st.sampled_from(Isolation),
    resources=st.builds(ResourceSettings, cpu=st.none() | POSITIVE, memory=st.none() | SIZES, gpu=st.integers(0, 8)),
    batching=st.builds(
        BatchingSettings,
        mode=st.sampled_from(BatchMode),
        max_batch_size=COUNTS,
        max_batch_cost=st.none() | POSITIVE,
        cost=st.sampled_from(["rows", "elements", "bytes"]),
        max_queue_delay_ms=st.just(0.0) | SECONDS,
        pad=st.dictionaries(VALUES, VALUES, max_size=2),
        buckets=st.lists(COUNTS, max_size=3).map(tuple),
        dims=st.dictionaries(VALUES, VALUES, max_size=2),
    ),
    admission=st.builds(
        AdmissionSettings,
        max_queue_rows=COUNTS,
        max_queue_bytes=SIZES,
        max_queue_time_s=SECONDS,
        min_queue_rows=st.integers(0, 10**6),
    ),
    idempotent=st.booleans(),
    timeout_s=SECONDS,
    replica_timeout_s=SECONDS,
    stream_stall_s=SECONDS,
    warmup=st.booleans(),
    options=st.dictionaries(VALUES, VALUES, max_size=2),
    requirements=st.none() | PATHS,
)
NAMES = st.sampled_from(["main", "champion", "v1.2", "9", "null", "_x"])
SOURCES = st.one_of(
    st.just(Source(SourceKind.KEY, "")),
    st.builds(Source, st.just(SourceKind.BODY), VALUES),
    st.builds(Source, st.just(SourceKind.HEADER), st.sampled_from(["x-user-id", "a:b", "7"])),
)
CONSTANTS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), VALUES),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=4,
)


ANALYSES = st.builds(
    AnalysisSettings,
    false_alarm=st.floats(1e-9, 0.5),
    block_s=st.sampled_from([20.0, 5.0, 0.6]),
    block_requests=st.integers(1, 100),
    errors=st.builds(ErrorRateSettings, gate=st.booleans(), margin=st.sampled_from([0.001, 0.0])),
    rejections=st.builds(ErrorRateSettings, gate=st.booleans()),
    latency=st.builds(LatencySettings, quantiles=st.lists(st.floats(0.01, 0.99), max_size=3).map(tuple)),
    predictions=st.builds(PredictionSettings, gate=st.booleans(), limit=st.floats(0, 1e9)),
    metrics=st.lists(
        st.builds(MetricSettings, name=VALUES, success=st.just("<= 0.2"), minimum=st.integers(0, 9)),
        max_size=2,
        unique_by=lambda metric: metric.name,
    ).map(tuple),
)
PLANS = st.builds(
    RolloutPlan,
    final_bake_s=st.none() | st.just(0.0) | SECONDS,
    max_step_s=st.none() | SECONDS,
    analysis=st.just(AnalysisSettings()) | ANALYSES,
).flatmap(
    lambda plan: st.sampled_from(
        [
            plan,
            msgspec.structs.replace(plan, canary="5,50", bake_s=90.5, shadow_first=True),
            msgspec.structs.replace(plan, canary="5"),
            msgspec.structs.replace(plan, linear="10/2m"),
            msgspec.structs.replace(plan, blue_green=True),
        ]
    )
)


SLOS = st.builds(
    Slo,
    p99_ms=st.none() | st.integers(1, 10**6).map(float) | st.sampled_from([0.5, 33.25, 1e-06, 1e20]),
    error_rate=st.none() | st.floats(1e-9, 0.5),
)


@st.composite
def policies(draw: st.DrawFn, names: list[str]) -> TrafficPolicy:
    if names == [MAIN] and draw(st.booleans()):
        return TrafficPolicy(fallback=draw(fallbacks(names)))
    taking = [names[0], *draw(st.lists(st.sampled_from(names), unique=True))]
    rules = draw(st.lists(st.builds(Rule, SOURCES, st.lists(VALUES, max_size=3).map(tuple), st.just(names[0]))))
    return TrafficPolicy(
        weights={name: draw(st.integers(1, 100).map(float) | st.floats(1e-9, 1e9)) for name in taking},
        sticky=draw(st.none() | SOURCES),
        rules=tuple(rules),
        overrides=tuple(draw(st.lists(st.sampled_from(OVERRIDES), unique=True))),
        fallback=draw(fallbacks(names)),
        shadows=tuple(Shadow(name, draw(st.floats(1e-6, 100))) for name in names if name not in taking),
    )


@st.composite
def fallbacks(draw: st.DrawFn, names: list[str]) -> tuple[Fallback, ...]:
    found: list[Fallback] = [DeploymentFallback(name) for name in draw(st.lists(st.sampled_from(names), max_size=2))]
    if draw(st.booleans()):
        found.append(ConstantFallback(draw(st.dictionaries(VALUES, CONSTANTS, min_size=1, max_size=2))))
    return tuple(found)


@st.composite
def endpoints(draw: st.DrawFn) -> Endpoint:
    names = draw(st.just([MAIN]) | st.lists(NAMES, min_size=1, max_size=3, unique=True))
    versions = draw(st.lists(st.sampled_from(["1", "007", "2024-05", "1.10", "true"]), min_size=3, unique=True))
    entries = {
        name: DeploymentEntry(draw(PATHS), draw(SETTINGS), draw(st.none() | st.just(version)))
        for name, version in zip(names, versions, strict=False)
    }
    return entries, EndpointSettings(draw(policies(names)), draw(PLANS), draw(SLOS))


def read(text: str) -> Endpoint:
    """Of the only endpoint of a file."""
    found = settings_of_file(parse_settings(text, Path("headrace.yaml")))
    entries = {
        s.deployment or MAIN: DeploymentEntry(s.path, s.settings or found.deployment, s.version) for s in found.models
    }
    (own,) = found.endpoints.values()
    return entries, own


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(endpoints())
def test_what_is_written_reads_as_it_was(endpoint: Endpoint) -> None:
    document = document_of(*endpoint)
    text = as_yaml({"team/fraud": document})
    assert read(text) == endpoint
    # And what was read is written in the same way.
    assert as_yaml({"team/fraud": document_of(*read(text))}) == text


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(endpoints())
def test_a_document_keeps_its_meaning_as_json(endpoint: Endpoint) -> None:
    """The state keeps it so."""
    document = document_of(*endpoint)
    assert read(as_yaml({"m": msgspec.json.decode(msgspec.json.encode(document))})) == endpoint


@pytest.mark.parametrize("name", ["0E0", "1e3", "-1.5e-7", ".5E2", "e3", "1_000", "0x1f", "yes", "12"])
def test_a_text_that_looks_like_a_number_stays_one(name: str) -> None:
    rollout = RolloutPlan(analysis=AnalysisSettings(metrics=(MetricSettings(name, "<= 0.2"),)))
    own = EndpointSettings(rollout=rollout)
    entries = {MAIN: entry()}
    assert read(as_yaml({"m": document_of(entries, own)})) == (entries, own)


def entry(**changes: Any) -> DeploymentEntry:
    return DeploymentEntry("/m.onnx", DeploymentSettings(**changes))


def test_defaults_are_left_out() -> None:
    assert document_of({MAIN: entry()}, EndpointSettings()) == {"model": "/m.onnx"}
    assert document_of({MAIN: entry(replicas=2)}, EndpointSettings()) == {"model": "/m.onnx", "replicas": 2}


def test_one_deployment_is_written_out_when_it_has_a_version_or_traffic_of_its_own() -> None:
    numbered = DeploymentEntry("/repository", DeploymentSettings(), "3")
    assert document_of({MAIN: numbered}, EndpointSettings())["deployments"] == {
        MAIN: {"model": "/repository", "version": "3"}
    }
    sticky = TrafficPolicy(sticky=Source(SourceKind.KEY, ""))
    assert document_of({MAIN: entry()}, EndpointSettings(sticky))["sticky"] == "key"
    assert document_of({"a": entry()}, EndpointSettings(TrafficPolicy({"a": 1.0})))["traffic"] == {"a": 1}


def test_values_are_written_as_people_write_them_and_exactly() -> None:
    made = document_of(
        {MAIN: entry(timeout_s=90.5, resources=ResourceSettings(memory=64 << 20, cpu=0.5), stream_stall_s=120.0)},
        EndpointSettings(),
    )
    assert (made["timeout"], made["stream_stall"]) == ("90.5s", "2m")
    assert made["resources"] == {"memory": "64MiB", "cpu": "0.5"}
    odd = entry(resources=ResourceSettings(memory=1234567890), timeout_s=123456.789)
    made = document_of({MAIN: odd}, EndpointSettings())
    assert (made["resources"]["memory"], made["timeout"]) == (1234567890, "123456.789")


def test_every_key_that_may_stand_under_an_endpoint_is_written() -> None:
    """One that is forgotten would be lost in the state."""
    for key in (key for key in KEYS if key.per_deployment):
        document: Any = document_of({MAIN: other_than_default(key.name)}, EndpointSettings())
        for part in key.path:
            assert part in document, key.name
            document = document[part]


def other_than_default(name: str) -> DeploymentEntry:
    values = {
        "threads": 3, "isolation": "packed", "warmup": "false", "idempotent": "false", "batching.mode": "off",
        "batching.cost": "bytes", "requirements": "/r.txt", "options": "{a: b}",
        "batching.pad": "{x: 0}", "batching.buckets": "[16, 32]", "batching.dims": "{y: tokens}",
        "lazy": "true", "follow": "rollout:champion",
    }  # fmt: skip
    value = values.get(name, 7)
    *sections, last = name.split(".")
    text = "".join(f"{section}: {{" for section in sections) + f"{last}: {value}" + "}" * len(sections)
    return read(f"endpoints: {{m: {{model: /m, {text}}}}}")[0][MAIN]


@pytest.mark.parametrize("value", ["7", "yes", "a: b", "#", "é"])
def test_texts_stay_texts(value: str) -> None:
    rule = Rule(Source(SourceKind.BODY, "x"), (value,), MAIN)
    policy = TrafficPolicy(rules=(rule,))
    assert read(as_yaml({"m": document_of({MAIN: entry()}, EndpointSettings(policy))}))[1].policy == policy


def test_a_rollout_is_written_as_people_write_it() -> None:
    plan = RolloutPlan(canary="5,50", bake_s=300.0, analysis=AnalysisSettings(latency=LatencySettings(margin=1.1)))
    made = document_of({MAIN: entry()}, EndpointSettings(rollout=plan))
    assert made == {
        "model": "/m.onnx",
        "rollout": {"canary": "5,50", "bake": "5m", "analysis": {"latency": {"margin": 1.1}}},
    }
