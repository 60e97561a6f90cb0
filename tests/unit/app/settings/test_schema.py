"""The JSON Schema of ``headrace.yaml`` and the reader of it agree, on generated files, right ones and damaged ones."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from headrace.app.settings import schema as settings_schema
from headrace.app.settings.file import parse_settings
from headrace.app.settings.keys import GROUPS, KEYS, Form, Key
from headrace.core import errors
from headrace.core.endpoints import BatchMode, Isolation
from headrace.core.keys import Signatures
from headrace.core.traffic import OVERRIDES

FILE = Path("headrace.yaml")
VALIDATOR = jsonschema.Draft202012Validator(settings_schema.schema())

NUMBER_LIKE = r"[\s\d+\-._eE]+"


def _version(text: str) -> str:
    return f"endpoints: {{m: {{deployments: {{a: {{model: x, version: {text}}}}}}}}}"


TWO = "a: {model: x}, b: {model: y}"
STRICTER = {
    "deployments are named that there are": (
        r"there is no deployment",
        "endpoints: {m: {deployments: {a: {model: x}}, traffic: {c: 1}}}",
    ),
    "somebody takes requests": (
        r"no deployment has a weight above 0",
        f"endpoints: {{m: {{deployments: {{{TWO}}}, traffic: {{a: 0}}}}}}",
    ),
    "versions differ": (
        r"has version \S+ already; versions of an endpoint differ",
        "endpoints: {m: {deployments: {a: {model: x, version: 1}, b: {model: y, version: 1}}, traffic: {a: 1}}}",
    ),
    "a shadow takes no traffic": (
        r"takes traffic; a shadow takes none",
        f"endpoints: {{m: {{deployments: {{{TWO}}}, traffic: {{a: 1}}, shadow: {{a: 10}}}}}}",
    ),
    "a constant answers always": (
        r"is never reached: a constant always answers",
        "endpoints: {m: {model: x, fallback: [{constant: {y: 1}}, {deployment: main}]}}",
    ),
    "headers are ASCII": (
        r"expected a header name in ASCII",
        "endpoints: {m: {deployments: {a: {model: x}}, sticky: header:é}}",
    ),
    "models of a list have a path and a legal name": (
        r"models\[\d+\]: (?:endpoint name|.* has no path)",
        "models: [x=]",
    ),
    "numbers in quotes have ranges": (
        rf"expected an? .*, got text '{NUMBER_LIKE}(?:[a-zA-Zµμ]+\s*)?'",
        "port: '65536'",
    ),
    "whole numbers have no point, and quantities no exponent": (
        rf"expected .*, got a number '{NUMBER_LIKE}'",
        "port: 80.0",
    ),
    "a version has no exponent": (r"version '[\d.]+e\+\d+' is not valid", _version("1.0e+20")),
    "a rollout has one strategy, and what fits it": (
        r"a rollout has one strategy|blue-green has no steps|says how long each step bakes",
        "endpoints: {m: {model: x, rollout: {canary: 5, blue_green: true}}}",
    ),
    "steps rise, and stay below all": (
        r"steps must rise and stay below|a step needs traffic|linear steps '[^']*' are",
        "endpoints: {m: {model: x, rollout: {canary: '5,1'}}}",
    ),
    "margins lie below tolerances": (
        r"must be at least 0 and below",
        "endpoints: {m: {model: x, rollout: {analysis: {errors: {margin: 0.5}}}}}",
    ),
    "probabilities are": (
        r"is a probability between 0 and 1|quantiles lie between 0 and 1|is a share between 0 and 1",
        "endpoints: {m: {model: x, rollout: {analysis: {false_alarm: 7}}}}",
    ),
    "metrics can be judged": (
        r"has no condition|condition '.*' is not valid|go together|metrics must have different names",
        "endpoints: {m: {model: x, rollout: {analysis: {metrics: [{name: a}]}}}}",
    ),
    "whole numbers of an analysis have no point": (
        r"expected `int`, got `float`",
        "endpoints: {m: {model: x, rollout: {analysis: {error_limit: 5.0}}}}",
    ),
    "names end where they end": (r"version '.*\\n' is not valid", _version('"1\\n"')),
}
"""What only the reader refuses: why → how its message reads, and a file."""

NAMES = st.sampled_from(["a", "b", "champion", "v1.2", "_x-y", "9"])
ENDPOINTS = st.sampled_from(["fraud", "team/pricer", "a.b-c_d", "stats2", "x/y/z", "7"])
TEXTS = st.one_of(
    st.sampled_from(
        ["x", "off", "null", "7", "a b", " ", "name=path", "=x", "<<", "é", "yes", "2024-01-01", "x" * 300]
    ),
    st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=("Cs",)), min_size=1, max_size=6),
    st.integers(-3, 10**6),
    st.booleans(),
    st.floats(-10, 1e20, allow_nan=False),
)
TIMES = st.sampled_from([1, 30, 0.5, "30", "500ms", "2 m", "1h", " 1.5s ", "1_0", ".5s", "10µs", "3d"])
SIZES = st.sampled_from([1, 2.0, "64MiB", "1 GB", "2Gi", "500", "1.5k", "3b", "7T"])
COUNTS = st.sampled_from([1, 2, 64, "3", " 4 ", "+5", "1_0"])
NUMBERS = st.sampled_from([1, 0.5, 1e20, "2", "1e3", " .5", "3.", "1_0.5"])
SWITCHES = st.sampled_from([True, False, 0, 1, "true", "No", "ON", "off", "0"])
CONSTANTS = st.recursive(
    st.one_of(st.integers(), st.floats(-1e3, 1e3), st.booleans(), st.text("ab1.", max_size=3)),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
SOURCES = st.sampled_from(["key", "header:x-user-id", "header: X-Plan ", "body:country", "body:a b", "header:a:b"])
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70000),
    st.floats(-2, 1e22, allow_nan=False),
    st.sampled_from(["", "-1", "0", "nonsense", "1e400", "65536", "0s", "5x", "header:", "key:x", "é", "a/versions/b"]),
    st.lists(st.integers(0, 2), max_size=2),
    st.dictionaries(st.sampled_from(["main", "mode", "model"]), st.sampled_from(["x", 1]), max_size=2),
)
WORDS = st.sampled_from(
    ["model", "replicas", "repliacs", "deployments", "traffic", "version", "slo", "stats", "é", "in", "canary", "gate"]
)


def value_of(key: Key) -> st.SearchStrategy[Any]:
    """Values that the reader takes for a key, in all spellings."""
    if key.kind.form is Form.LIST:
        value: st.SearchStrategy[Any] = st.lists(COUNTS if key.kind.metavar == "N" else TEXTS, max_size=3)
    elif key.kind.form is Form.MAP:
        value = st.dictionaries(st.sampled_from(["opset", "a", "7"]), TEXTS, max_size=2)
    elif key.kind.switch:
        value = SWITCHES
    else:
        value = {
            "TIME": TIMES,
            "SIZE": SIZES,
            "NUMBER": NUMBERS,
            "N": COUNTS,
            "PORT": st.sampled_from([0, 8000, "65535", 65535]),
            "TEXT": TEXTS,
            "FILE": TEXTS,
            "MODE": choices_of(key),
            "UNIT": st.sampled_from(["rows", "elements", "bytes"]),
            "FORMAT": st.sampled_from(["auto", "pretty", "json"]),
            "LEVEL": st.sampled_from(["debug", "info", "warning", "error"]),
            "rollout": st.sampled_from(["rollout", "rollout:champion"]),
        }[key.kind.metavar]
    return st.none() | value if key.nullable else value


def choices_of(key: Key) -> st.SearchStrategy[str]:
    enums = {"batching.mode": BatchMode, "isolation": Isolation, "sigv4": Signatures}
    return st.sampled_from([str(value) for value in enums.get(key.name, ())] or ["?"])


@st.composite
def some_settings(draw: st.DrawFn, keys: tuple[Key, ...]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(keys), max_size=4, unique=True)):
        *sections, last = key.path
        branch = document
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[last] = draw(value_of(key))
    if "batching" in document and draw(st.booleans()):
        document["batching"] = draw(st.sampled_from([str(mode) for mode in BatchMode]))
    return document


PER_DEPLOYMENT = tuple(key for key in KEYS if key.per_deployment)


ANALYSES = st.fixed_dictionaries(
    {},
    optional={
        "false_alarm": st.sampled_from([0.01, 1e-3]),
        "block_s": st.sampled_from([5, 0.5]),
        "error_limit": st.integers(0, 9),
        "latency": st.fixed_dictionaries(
            {}, optional={"margin": st.just(1.1), "quantiles": st.lists(st.floats(0.01, 0.99), max_size=2)}
        ),
        "predictions": st.fixed_dictionaries({"gate": st.booleans()}),
        "metrics": st.just([{"name": "loss", "success": "<= 0.2", "failure_limit": 0}]),
    },
)
STRATEGIES = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"canary": st.sampled_from(["1,5", 5, 0.5, " 5 , 50.5", "1e1"])},
        optional={"bake": TIMES, "shadow_first": SWITCHES},
    ),
    st.fixed_dictionaries({"linear": st.sampled_from(["10/2m", " 7.5 / 1.5 h"])}),
    st.fixed_dictionaries({"linear": st.just("20/30s"), "shadow_first": st.just(True), "bake": TIMES}),
    st.fixed_dictionaries({"blue_green": st.sampled_from([True, "on", 1])}),
)
ROLLOUTS = st.builds(
    lambda strategy, more: {**strategy, **more},
    STRATEGIES,
    st.fixed_dictionaries({}, optional={"final_bake": TIMES, "max_step": TIMES, "analysis": ANALYSES}),
)


SLOS = st.one_of(
    st.fixed_dictionaries(
        {"p99_ms": st.sampled_from([50, 0.5, "33", "1s", " 2.5ms"])},
        optional={"error_rate": st.sampled_from([0.001, "0.5", "1e-3", 1e-5])},
    ),
    st.fixed_dictionaries({"error_rate": st.sampled_from([0.001, ".25"])}),
)


@st.composite
def of_endpoint(draw: st.DrawFn) -> dict[str, Any]:
    """What is said of an endpoint, however many deployments it has."""
    chosen = {"rollout": ROLLOUTS, "slo": SLOS}
    return {name: draw(chosen[name]) for name in draw(st.lists(st.sampled_from(["rollout", "slo"]), unique=True))}


@st.composite
def deployments(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    made = {name: {"model": draw(TEXTS), **draw(some_settings(PER_DEPLOYMENT))} for name in names}
    for number, body in enumerate(made.values()):
        if draw(st.booleans()):
            body["version"] = draw(st.sampled_from([number + 20, f"2024-{number}", float(number + 30)]))
    return made


@st.composite
def endpoints(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        body = {"model": draw(TEXTS), **draw(some_settings(PER_DEPLOYMENT)), **draw(of_endpoint())}
        if draw(st.booleans()):
            body["fallback"] = [{"constant": {"y": draw(CONSTANTS)}}]
        return body
    names = list(made := draw(deployments()))
    weights = st.sampled_from([1, 0.5, "3", 1e9])
    body = {"deployments": made, **draw(of_endpoint())}
    if len(names) > 1 or draw(st.booleans()):
        takers = [names[0], *draw(st.lists(st.sampled_from(names), max_size=2))]
        body["traffic"] = {name: draw(weights) for name in takers}
    if draw(st.booleans()):
        body["sticky"] = draw(SOURCES)
    if draw(st.booleans()):
        body["rules"] = draw(st.lists(rules(names[:1]), max_size=2))
    if draw(st.booleans()):
        body["overrides"] = draw(st.lists(st.sampled_from([*OVERRIDES, "x-headrace-DEPLOYMENT"]), max_size=2))
    if draw(st.booleans()):
        body["fallback"] = [{"deployment": names[-1]}, {"constant": {"y": draw(CONSTANTS)}}]
    idle = [name for name in names if name not in body.get("traffic", names) and name != names[0]]
    body["shadow"] = {name: draw(st.sampled_from([10, 100, "0.5"])) for name in idle}
    return body


def rules(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    base = {"when": SOURCES, "deployment": st.sampled_from(names)}
    return st.one_of(
        st.fixed_dictionaries(base),
        st.fixed_dictionaries({**base, "equals": TEXTS}),
        st.fixed_dictionaries({**base, "in": st.lists(TEXTS, min_size=1, max_size=3)}),
    )


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    document = draw(some_settings(KEYS))
    if draw(st.booleans()):
        document["models"] = draw(st.lists(st.sampled_from(["m.onnx", "a=b.onnx", "team/x=y", "fraud@7"]), max_size=2))
    document["endpoints"] = draw(st.dictionaries(ENDPOINTS, endpoints(), max_size=2))
    return document


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A document in which one to three places were changed."""
    document = copy.deepcopy(draw(documents()))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(document))
        if not places:
            return draw(JUNK)
        container, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "remove", "add", "rename"])):
            case "replace":
                container[key] = draw(st.one_of(JUNK, TEXTS))
            case "remove":
                del container[key]
            case "add" if isinstance(container, dict):
                container[draw(WORDS)] = draw(JUNK)
            case "rename" if isinstance(container, dict):
                container[draw(WORDS)] = container.pop(key)
    return document


def _places(node: Any) -> Any:
    """Every (container, key) of a document."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])


def block(document: Any) -> str:
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


WRITERS = st.sampled_from([json.dumps, block])
"""The file as JSON, which is YAML, and as people write it."""


def refusal(text: str) -> str | None:
    try:
        parse_settings(text, FILE)
    except errors.HeadraceError as error:
        return error.message
    return None


def complaints(document: Any) -> list[str]:
    return [f"{list(error.absolute_path)}: {error.message}" for error in VALIDATOR.iter_errors(document)]


PATIENT = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@PATIENT
@given(documents(), WRITERS)
def test_both_accept_what_is_right(document: dict[str, Any], write: Callable[[Any], str]) -> None:
    assert (refusal(write(document)), complaints(document)) == (None, [])


@PATIENT
@given(damaged(), WRITERS)
def test_both_refuse_what_is_wrong(document: Any, write: Callable[[Any], str]) -> None:
    """The reader with line and column; where it is stricter than the schema it is one of the listed places."""
    message, found = refusal(write(document)), complaints(document)
    assert not found or message is not None, found
    if message is not None:
        assert re.match(r"headrace.yaml line \d+ column \d+: ", message), message
        assert found or any(re.search(rule, message) for rule, _ in STRICTER.values()), message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "batching: off",
        "no_auth: yes",
        "endpoints: {m: {model: a, batching: {mode: off, max_queue_delay_ms: 1s}}}",
        "endpoints: {m: {model: a, replicas: 0}}",
    ],
)
def test_words_as_editors_read_them(text: str) -> None:
    """Editors read YAML 1.2, in which off and yes are texts."""
    assert refusal(text) is None
    assert complaints(yaml.load(text, Loader=_Yaml12)) == []


@pytest.mark.parametrize("why", STRICTER)
def test_where_only_the_reader_refuses(why: str) -> None:
    rule, text = STRICTER[why]
    assert complaints(yaml.safe_load(text)) == []
    message = refusal(text)
    assert message is not None
    assert re.search(rule, message), message


class _Yaml12(yaml.SafeLoader):
    """Booleans are true and false."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool") or first in "tTfF"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def test_it_is_a_schema_of_the_draft_it_names() -> None:
    jsonschema.Draft202012Validator.check_schema(settings_schema.schema())
    assert settings_schema.schema()["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$schema"]


def test_every_key_is_described_with_its_default() -> None:
    made = settings_schema.schema()
    for key in (key for group in GROUPS.values() for key in group):
        found: Any = made
        for part in key.path:
            found = found.get("properties") or found["anyOf"][1]["properties"]
            found = found[part]
            if "$ref" in found:
                found = made["$defs"][found["$ref"].rpartition("/")[2]]
        assert found["description"] == key.help
        if "default" in found:
            assert key.kind.parse(str(found["default"])) == key.default


def test_the_published_file_is_in_sync() -> None:
    page = Path(__file__).parents[4] / "docs" / "headrace.schema.json"
    assert page.read_text() == settings_schema.document(), "run: make docs"
