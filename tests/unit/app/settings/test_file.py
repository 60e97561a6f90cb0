"""``headrace.yaml``: what it may say, and that errors name file, line, key and the nearest valid one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.app.settings.file import SettingsFile, parse_settings, read_settings
from headrace.app.settings.layers import settings_of_file
from headrace.app.settings.model_sources import check_sources
from headrace.core import errors
from headrace.core.endpoints import BatchMode
from headrace.core.slo import Slo

FILE = Path("headrace.yaml")


def parse(text: str) -> SettingsFile:
    return parse_settings(text, FILE)


def refusal(text: str) -> str:
    with pytest.raises(errors.HeadraceError) as caught:
        parse(text)
    return without_columns(caught.value)


def without_columns(error: errors.HeadraceError) -> str:
    """These tests look at lines; ``test_columns_are_told`` at columns."""
    return re.sub(r"(line \d+) column \d+", r"\1", error.message)


def test_empty_files_say_nothing() -> None:
    for text in ("", "# only a comment\n", "---\n", "null\n"):
        parsed = parse(text)
        assert (parsed.values, parsed.models, parsed.endpoints) == ({}, [], {})


def test_top_level_values_are_parsed_by_kind() -> None:
    parsed = parse(
        """
host: localhost
port: 8080
no_auth: yes
drain: 2m
drain_delay: 500ms
max_body: 64MiB
body_idle: 1.5
tls: {cert: a.pem, key: b.pem}
logs: {format: json, level: debug}
trust: [sha256:00ff, models/a.pkl]
resources: {cpu: 1.5, memory: 2Gi, gpu: 1}
options: {opset: 12, flag: true, text: "a b"}
threads: null
"""
    )
    assert parsed.values == {
        "host": "localhost",
        "port": 8080,
        "no_auth": True,
        "drain": 120.0,
        "drain_delay": 0.5,
        "max_body": 64 << 20,
        "body_idle": 1.5,
        "tls.cert": "a.pem",
        "tls.key": "b.pem",
        "logs.format": "json",
        "logs.level": "debug",
        "trust": ("sha256:00ff", "models/a.pkl"),
        "resources.cpu": 1.5,
        "resources.memory": 2 << 30,
        "resources.gpu": 1,
        "options": {"opset": "12", "flag": "true", "text": "a b"},
        "threads": None,
    }


@pytest.mark.parametrize("text", ["batching: off", "batching: {mode: off}", 'batching: {"mode": "off"}'])
def test_off_is_a_word_and_not_the_boolean_of_yaml(text: str) -> None:
    assert parse(text).values == {"batching.mode": BatchMode.OFF}


def test_queue_delay_counts_milliseconds() -> None:
    assert parse("batching: {max_queue_delay_ms: 2}").values == {"batching.max_queue_delay_ms": 2.0}
    assert parse("batching: {max_queue_delay_ms: 2ms}").values == {"batching.max_queue_delay_ms": 2.0}
    assert parse("batching: {max_queue_delay_ms: 1s}").values == {"batching.max_queue_delay_ms": 1000.0}


def test_endpoints_in_long_and_short_form() -> None:
    parsed = parse(
        """
endpoints:
  fraud:
    deployments:
      main: {model: fraud.onnx, replicas: 2, batching: exact, resources: {memory: 1GB}}
  team/pricer: {model: "pricer.py:Pricer", timeout: 250ms}
models: [churn.ubj, risk=r.onnx]
"""
    )
    (fraud,), (pricer,) = parsed.endpoints["fraud"].deployments, parsed.endpoints["team/pricer"].deployments
    assert (fraud.source.name, fraud.source.path) == ("fraud", "fraud.onnx")
    assert fraud.values == {"replicas": 2, "batching.mode": BatchMode.EXACT, "resources.memory": 10**9}
    assert (pricer.source.path, pricer.source.attribute) == ("pricer.py", "Pricer")
    assert pricer.values == {"timeout": 0.25}
    assert [(m.name, m.path) for m in parsed.models] == [(None, "churn.ubj"), ("risk", "r.onnx")]


def test_anchors_and_merge_keys_work() -> None:
    parsed = parse(
        """
endpoints:
  a: &shared {model: a.onnx, replicas: 3, threads: 2}
  b:
    <<: *shared
    model: b.onnx
"""
    )
    (deployment,) = parsed.endpoints["b"].deployments
    assert deployment.source.path == "b.onnx"
    assert deployment.values == {"replicas": 3, "threads": 2}


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    parsed = parse_settings(
        "models: [a.onnx, /abs/b.onnx]\ntls: {cert: c.pem, key: /k.pem}\ntrust: [sha256:ab, x.pkl]",
        tmp_path / "x.yaml",
    )
    assert [m.path for m in parsed.models] == [str(tmp_path / "a.onnx"), "/abs/b.onnx"]
    assert parsed.values["tls.cert"] == str(tmp_path / "c.pem")
    assert parsed.values["tls.key"] == "/k.pem"
    assert parsed.values["trust"] == ("sha256:ab", str(tmp_path / "x.pkl"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nprot: 1", "headrace.yaml line 2: unknown key 'prot'; did you mean 'port'?"),
        (
            "batching:\n  max_batchsize: 1",
            "headrace.yaml line 2: unknown key 'batching.max_batchsize'; did you mean 'max_batch_size'?",
        ),
        (
            "max_batch_size: 8",
            "headrace.yaml line 1: unknown key 'max_batch_size'; did you mean 'batching.max_batch_size'?",
        ),
        (
            "endpoints:\n  a:\n    deployments:\n      main:\n        model: a\n        batchin: off",
            "headrace.yaml line 6: unknown key 'endpoints.a.deployments.main.batchin'; did you mean 'batching'?",
        ),
        (
            "endpoints:\n  a: {model: a, gateways: 2}",
            "headrace.yaml line 2: unknown key 'endpoints.a.gateways'; 'gateways' is a setting of the whole server: it"
            " belongs at the top level",
        ),
        (
            "tls: {cret: a}",
            "headrace.yaml line 1: unknown key 'tls.cret'; did you mean 'cert'?",
        ),
        ("logs: {qqq: a}", "headrace.yaml line 1: unknown key 'logs.qqq'; valid here: format, level"),
    ],
)
def test_unknown_keys_name_line_path_and_nearest_key(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "port: many",
            "headrace.yaml line 1: port: expected a whole number from 0 to 65535, got text 'many'",
        ),
        (
            "port: 70000",
            "headrace.yaml line 1: port: expected a whole number from 0 to 65535, got a whole number '70000'",
        ),
        ("port:", "headrace.yaml line 1: port: expected a whole number from 0 to 65535, got nothing"),
        ("replicas: 1.5", "headrace.yaml line 1: replicas: expected a whole number of at least 0, got a number '1.5'"),
        ("replicas: [1]", "headrace.yaml line 1: replicas: expected a whole number of at least 0, got a list"),
        ("drain: soon", "headrace.yaml line 1: drain: expected a duration like 30, 30s, 500ms or 2m, got text 'soon'"),
        (
            "timeout: 0",
            "headrace.yaml line 1: timeout: expected a duration above 0 like 30, 30s, 500ms or 2m,"
            " got a whole number '0'",
        ),
        (
            "max_body: 10 parsecs",
            "headrace.yaml line 1: max_body: expected a size above 0 like 64MiB, 1GB or a number of bytes,"
            " got text '10 parsecs'",
        ),
        ("watch: perhaps", "headrace.yaml line 1: watch: expected true or false, got text 'perhaps'"),
        (
            "batching: sometimes",
            "headrace.yaml line 1: batching: expected one of auto, always, exact, off, got text 'sometimes'",
        ),
        ("batching: [off]", "headrace.yaml line 1: batching: expected keys with values, got a list"),
        ("trust: a.pkl", "headrace.yaml line 1: trust: expected a list, got text 'a.pkl'"),
        ("trust: [[a]]", "headrace.yaml line 1: trust[0]: expected a text, got a list"),
        ("options: 3", "headrace.yaml line 1: options: expected keys with values, got a whole number '3'"),
        ("models: a.onnx", "headrace.yaml line 1: models: expected a list, got text 'a.onnx'"),
        ("endpoints: [a]", "headrace.yaml line 1: endpoints: expected keys with values, got a list"),
        ("endpoints: {a: a.onnx}", "headrace.yaml line 1: endpoints.a: expected keys with values, got text 'a.onnx'"),
        ("endpoints: {a: {replicas: 1}}", "headrace.yaml line 1: endpoints.a has no model; add model: PATH"),
        ("- port", "headrace.yaml line 1: expected keys with values at the top level"),
        ("port: 1\nport: 2", "headrace.yaml line 2: 'port' is given twice"),
        ("logs: {level: info, level: debug}", "headrace.yaml line 1: 'level' is given twice"),
        ("[1]: 2", "headrace.yaml line 1: the top level: expected plain keys, got a list"),
    ],
)
def test_wrong_values_name_key_what_came_and_what_was_expected(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("port: [1", "headrace.yaml line 1: not valid YAML"),
        ("a: b: c", "headrace.yaml line 1: not valid YAML"),
        ("port: *nowhere", "not valid YAML: found undefined alias"),
        ("port: 1\n---\nport: 2", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_broken_yaml_is_said_to_be_broken(text: str, part: str) -> None:
    assert part in refusal(text)


def test_bad_endpoint_names_are_refused_with_their_line() -> None:
    assert refusal("endpoints:\n  'a b': {model: x}").startswith(
        "headrace.yaml line 2: endpoint name 'a b' is not valid"
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("endpoints: {a: {model: a, replicas: {min: 1, max: 2}}}", "bounds (autoscaling) come in a later release"),
    ],
)
def test_what_comes_later_is_unsupported_and_says_so(text: str, part: str) -> None:
    with pytest.raises(errors.Unsupported) as caught:
        parse(text)
    assert part in caught.value.message
    assert without_columns(caught.value).startswith("headrace.yaml line 1: ")


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ("{canari: 5}", "line 1 column 37: unknown key 'endpoints.m.rollout.canari'; did you mean 'canary'?"),
        ("{bake: soon}", "line 1 column 43: endpoints.m.rollout.bake: expected a duration like 30"),
        ("{canary: '5,1'}", "endpoints.m.rollout: steps must rise and stay below 100 percent; got 5, 1"),
        ("{blue_green: true, bake: 5}", "endpoints.m.rollout: blue-green has no steps to bake"),
        (
            "{analysis: {latncy: {}}}",
            "line 1 column 47: endpoints.m.rollout.analysis: there is no setting 'latncy'; did you mean 'latency'?",
        ),
        ("{analysis: {block_s: fast}}", "analysis: block_s: expected `float`, got `str`"),
        ("{analysis: 5}", "endpoints.m.rollout.analysis: expected keys with values, got a whole number '5'"),
        ("&a {analysis: *a}", "expected less deeply nested values, got keys with values"),
    ],
)
def test_a_wrong_rollout_is_named_with_its_place(section: str, part: str) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        parse(f"endpoints: {{m: {{model: x, rollout: {section}}}}}")
    assert part in caught.value.message


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ("{p95_ms: 5}", "line 1 column 33: unknown key 'endpoints.m.slo.p95_ms'; did you mean 'p99_ms'?"),
        ("{p99_ms: 0}", "line 1 column 41: endpoints.m.slo.p99_ms: expected a duration above 0 like 2, 2ms or 1s"),
        ("{error_rate: 1}", "endpoints.m.slo.error_rate: expected a share above 0 and below 1, e.g. 0.001, got"),
        ("{}", "endpoints.m.slo: expected p99_ms, error_rate, or both, got keys with values"),
        ("50", "endpoints.m.slo: expected keys with values, got a whole number '50'"),
    ],
)
def test_wrong_objectives_are_named_with_their_place(section: str, part: str) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        parse(f"endpoints: {{m: {{model: x, slo: {section}}}}}")
    assert part in caught.value.message


def test_objectives_of_one_model_and_of_several() -> None:
    found = parse(
        "endpoints: {a: {model: x, slo: {p99_ms: 50, error_rate: 0.001}},"
        " b: {deployments: {main: {model: x}}, slo: {p99_ms: 1s}}}"
    ).endpoints
    assert (found["a"].settings.slo, found["b"].settings.slo) == (Slo(50.0, 0.001), Slo(p99_ms=1000.0))


def test_numbers_of_an_analysis_may_have_an_exponent_without_a_point() -> None:
    found = parse("endpoints: {m: {model: x, rollout: {analysis: {false_alarm: 1e-3}}}}")
    assert found.endpoints["m"].settings.rollout.analysis.false_alarm == 0.001


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\nport: many", "line 1 column 1: unknown key 'a'"),
        ("host: x\nport:   many", "line 2 column 9: port: expected"),
        ("endpoints:\n  a: {model: x, replicas: no}", "line 2 column 27: endpoints.a.replicas: expected"),
        ("logs: {level: info, level: debug}", "line 1 column 21: 'level' is given twice"),
        ("- port", "line 1 column 1: expected keys"),
        ("port: [1", "line 1 column 9: not valid YAML"),
    ],
)
def test_columns_are_told(text: str, where: str) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        parse(text)
    assert caught.value.message.startswith(f"headrace.yaml {where}")


def test_settings_beside_deployments_are_refused() -> None:
    message = refusal("endpoints:\n  a:\n    deployments: {main: {model: a}}\n    replicas: 2")
    assert message == (
        "headrace.yaml line 4: endpoints.a.replicas stands beside deployments; move it under the deployment"
    )


def test_a_file_that_cannot_be_read_is_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(errors.BadSettings, match="cannot be read"):
        read_settings(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"host: \xff")
    with pytest.raises(errors.BadSettings, match="cannot be read"):
        read_settings(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("port: 1\nhost: a\x00b\n", "line 2 column 8: not valid YAML: special characters are not allowed: 0"),
        (f"port: 1\noptions: {{a: {'[' * 5000}", "line 2 column 112: nested too deeply"),
        (
            "endpoints: {m: {model: x, fallback: [{constant: {y: &y [*y]}}]}}",
            "line 1 column 53: endpoints.m.fallback[0].constant.y"
            + "[0]" * 32
            + ": expected lists nested at most 32 deep, got a list",
        ),
    ],
    ids=["character", "depth", "cycle"],
)
def test_what_is_no_document_is_told_where(text: str, where: str) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        parse(text)
    assert caught.value.message.startswith(f"headrace.yaml {where}")


def test_a_model_that_can_be_no_path_is_named() -> None:
    parsed = parse(f"models: [a={'x' * 300}]")
    assert parsed.models[0].path == "x" * 300
    with pytest.raises(errors.BadSettings, match="there is no file or folder 'xxx"):
        check_sources(parsed.models)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port: 1\ntls:\n  cert: a.pem\n", "headrace.yaml line 3 column 3: tls.cert is set but tls.key is not"),
        ("management_port: 7\nport: 7\n", "headrace.yaml line 1 column 1: port and management_port are both 7"),
        ("port: 9000\n", "headrace.yaml line 1 column 1: port and management_port are both 9000"),
    ],
)
def test_rules_between_settings_name_a_place(text: str, message: str) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        settings_of_file(parse(text))
    assert caught.value.message.startswith(message)


def test_missing_models_name_their_place(tmp_path: Path) -> None:
    for text, place in (
        ("endpoints:\n  m: {model: nowhere.onnx}", "line 2 column 14"),
        ("models:\n- nowhere.onnx", "line 2 column 3"),
    ):
        with pytest.raises(errors.BadSettings, match=f"headrace.yaml {place}: there is no file or folder"):
            check_sources(settings_of_file(parse_settings(text, tmp_path / "headrace.yaml")).models)
