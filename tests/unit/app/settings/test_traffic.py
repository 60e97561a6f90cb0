"""Traffic policies in ``headrace.yaml``, and what is read by those who write them wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.app.settings.file import EndpointEntry, parse_settings
from headrace.app.settings.layers import load_settings
from headrace.app.settings.serve_settings import EndpointSettings
from headrace.core import errors
from headrace.core.fallbacks import ConstantFallback, DeploymentFallback
from headrace.core.shadows import Shadow
from headrace.core.traffic import OVERRIDES, Rule, Source, SourceKind, TrafficPolicy

FILE = Path("headrace.yaml")
DEPLOYMENTS = """
    deployments:
      champion: {model: a.onnx, replicas: 2}
      challenger: {model: b.onnx, threads: 1}
"""


def endpoint(text: str) -> EndpointEntry:
    return parse_settings(text, FILE).endpoints["fraud"]


def fraud(policy: str, deployments: str = DEPLOYMENTS) -> str:
    return f"endpoints:\n  fraud:\n    {policy}{deployments}"


def test_the_whole_of_it() -> None:
    found = endpoint(
        """
endpoints:
  fraud:
    traffic: {champion: 95, challenger: 5}
    sticky: header:X-User-Id
    rules:
      - {when: body:country, in: [DE, AT], deployment: challenger}
      - {when: header:X-Plan, equals: gold, deployment: challenger}
      - {when: header:x-beta, deployment: challenger}
    overrides: [x-headrace-deployment, X-Amzn-SageMaker-Target-Variant, azureml-model-deployment]
    deployments:
      champion: {model: a.onnx, replicas: 2}
      challenger: {model: "b.py:B", threads: 1}
"""
    )
    assert found.settings.policy == TrafficPolicy(
        {"champion": 95.0, "challenger": 5.0},
        Source(SourceKind.HEADER, "x-user-id"),
        (
            Rule(Source(SourceKind.BODY, "country"), ("DE", "AT"), "challenger"),
            Rule(Source(SourceKind.HEADER, "x-plan"), ("gold",), "challenger"),
            Rule(Source(SourceKind.HEADER, "x-beta"), (), "challenger"),
        ),
        OVERRIDES,
    )
    champion, challenger = found.deployments
    assert (champion.source.name, champion.source.deployment, champion.values) == ("fraud", "champion", {"replicas": 2})
    assert (challenger.source.attribute, challenger.source.default_version) == ("B", "2")


def test_the_key_of_the_caller_may_decide() -> None:
    found = endpoint(
        fraud(
            "traffic: {champion: 1}\n    sticky: key\n    rules: [{when: key, equals: partner, deployment: challenger}]"
        )
    )
    assert found.settings.policy.sticky == Source(SourceKind.KEY, "")
    assert str(found.settings.policy.sticky) == "key"
    assert found.settings.policy.rules == (Rule(Source(SourceKind.KEY, ""), ("partner",), "challenger"),)
    assert not found.settings.policy.reads_body


def test_fallbacks_are_deployments_and_a_constant() -> None:
    found = endpoint(
        fraud(
            "traffic: {champion: 1}\n    fallback: [{deployment: challenger},"
            " {constant: {score: 0.5, label: unknown, flags: [true, 'true', 1]}}]"
        )
    )
    assert found.settings.policy.fallback == (
        DeploymentFallback("challenger"),
        ConstantFallback({"score": 0.5, "label": "unknown", "flags": [True, "true", 1]}),
    )
    short = endpoint("endpoints: {fraud: {model: a.onnx, replicas: 2, fallback: [{constant: {y: 0}}]}}")
    assert short.settings.policy == TrafficPolicy(fallback=(ConstantFallback({"y": 0}),))
    assert short.deployments[0].values == {"replicas": 2}


def test_shadows_take_a_percentage_and_no_traffic() -> None:
    found = endpoint(fraud("traffic: {champion: 1, challenger: 0}\n    shadow: {challenger: 12.5}"))
    assert found.settings.policy.shadows == (Shadow("challenger", 12.5),)


def test_one_deployment_takes_everything_without_being_told() -> None:
    found = endpoint("endpoints: {fraud: {deployments: {prod: {model: a}}}}")
    assert found.settings.policy == TrafficPolicy({"prod": 1.0})


def test_versions_are_given_or_the_first_free_numbers() -> None:
    found = endpoint(
        "endpoints: {fraud: {traffic: {a: 1}, deployments:"
        " {a: {model: a}, b: {model: b, version: 1}, c: {model: c}, d: {model: d, version: v2}}}}"
    )
    assert [(d.source.version, d.source.default_version) for d in found.deployments] == [
        (None, "2"),
        ("1", "1"),
        (None, "3"),
        ("v2", "1"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            fraud("sticky: header:x"),
            "line 4: endpoints.fraud has 2 deployments and no traffic; say how requests are spread,"
            " e.g. traffic: {champion: 100, challenger: 0}",
        ),
        (
            fraud("traffic: {champion: 95, chalenger: 5}"),
            "line 3: endpoints.fraud.traffic.chalenger: there is no deployment 'chalenger'; did you mean 'challenger'?",
        ),
        (
            fraud("traffic: {champion: 0}"),
            "line 3: endpoints.fraud.traffic: no deployment has a weight above 0",
        ),
        (
            fraud("traffic: {}"),
            "line 3: endpoints.fraud.traffic: no deployment has a weight above 0",
        ),
        *[
            (
                fraud(f"traffic: {{champion: {bad}}}"),
                f"line 3: endpoints.fraud.traffic.champion: expected a weight of at least 0, e.g. 5, got {shown}",
            )
            for bad, shown in (
                ("-1", "a whole number '-1'"),
                ("most", "text 'most'"),
                (".inf", "a number '.inf'"),
                ("nan", "text 'nan'"),
                ("inf", "text 'inf'"),
            )
        ],
        (
            fraud("traffic: 95"),
            "line 3: endpoints.fraud.traffic: expected keys with values, got a whole number '95'",
        ),
        (
            fraud("traffic: {champion: 1}\n    sticky: x-user-id"),
            "line 4: endpoints.fraud.sticky: expected header:NAME, body:FIELD or key, got text 'x-user-id'",
        ),
        (
            fraud("traffic: {champion: 1}\n    sticky: 'header:'"),
            "line 4: endpoints.fraud.sticky: expected header:NAME, body:FIELD or key, got text 'header:'",
        ),
        (
            fraud("traffic: {champion: 1}\n    sticky: header:größe"),
            "line 4: endpoints.fraud.sticky: expected a header name in ASCII, got text 'header:größe'",
        ),
        (
            fraud("traffic: {champion: 1}\n    rules: {when: header:x}"),
            "line 4: endpoints.fraud.rules: expected a list, got keys with values",
        ),
        (
            fraud("traffic: {champion: 1}\n    rules: [{when: header:x, equal: y, deployment: champion}]"),
            "line 4: unknown key 'endpoints.fraud.rules[0].equal'; did you mean 'equals'?",
        ),
        (
            fraud("traffic: {champion: 1}\n    rules: [{when: header:x}]"),
            "line 4: endpoints.fraud.rules[0] has no deployment; a rule reads"
            " {when: header:x-plan, equals: gold, deployment: challenger}",
        ),
        (
            fraud("traffic: {champion: 1}\n    rules: [{when: header:x, deployment: who}]"),
            "line 4: endpoints.fraud.rules[0].deployment: there is no deployment 'who';"
            " valid here: champion, challenger",
        ),
        (
            fraud("traffic: {champion: 1}\n    rules: [{when: header:x, equals: a, in: [b], deployment: champion}]"),
            "line 4: endpoints.fraud.rules[0] has both equals and in; keep one",
        ),
        (
            fraud("traffic: {champion: 1}\n    rules: [{when: header:x, in: [], deployment: champion}]"),
            "line 4: endpoints.fraud.rules[0].in: expected a list of at least one value, got a list",
        ),
        (
            fraud("traffic: {champion: 1}\n    overrides: [X-Headrace-Deploy]"),
            "line 4: endpoints.fraud.overrides[0]: 'X-Headrace-Deploy' is no header that may name a deployment;"
            " did you mean 'X-Headrace-Deployment'?",
        ),
        (
            fraud("traffic: {champion: 1}\n    fallback: [{deployment: nobody}]"),
            "line 4: endpoints.fraud.fallback[0].deployment: there is no deployment 'nobody';",
        ),
        (
            fraud("traffic: {champion: 1}\n    fallback: [{version: 3}]"),
            "line 4: endpoints.fraud.fallback[0]: expected one of {deployment: NAME} and {constant: {OUTPUT: VALUE}}",
        ),
        (
            fraud("traffic: {champion: 1}\n    fallback: [{constant: {}}]"),
            "line 4: endpoints.fraud.fallback[0].constant: expected outputs with their values, e.g. {score: 0.5}",
        ),
        (
            fraud("traffic: {champion: 1}\n    fallback: [{constant: {y: [1, {a: 2}]}}]"),
            "line 4: endpoints.fraud.fallback[0].constant.y[1]: expected a number, a text, true or false,"
            " or a list of them, got keys with values",
        ),
        (
            fraud("traffic: {champion: 1}\n    fallback: [{constant: {y: null}}]"),
            "line 4: endpoints.fraud.fallback[0].constant.y: expected a number, a text,",
        ),
        (
            fraud("traffic: {champion: 1}\n    fallback: [{constant: {y: 1}}, {deployment: champion}]"),
            "line 4: endpoints.fraud.fallback[1] is never reached: a constant always answers; put it last",
        ),
        (
            fraud("traffic: {champion: 1, challenger: 1}\n    shadow: {challenger: 10}"),
            "line 4: endpoints.fraud.shadow.challenger: 'challenger' takes traffic; a shadow takes none:"
            " leave it out of endpoints.fraud.traffic and rules, or give it the weight 0",
        ),
        (
            fraud(
                "traffic: {champion: 1}\n    rules: [{when: header:x, deployment: challenger}]\n"
                "    shadow: {challenger: 10}"
            ),
            "line 5: endpoints.fraud.shadow.challenger: 'challenger' takes traffic;",
        ),
        (
            fraud("traffic: {champion: 1}\n    shadow: {challenger: 101}"),
            "line 4: endpoints.fraud.shadow.challenger: expected a percentage above 0 and up to 100, e.g. 10, got",
        ),
        (
            "endpoints:\n  fraud: {model: a, sticky: header:x}",
            "line 2: endpoints.fraud.sticky needs deployments to choose from; write deployments: {main: {model: PATH}}",
        ),
        (
            "endpoints: {fraud: {deployments: {'a b': {model: a}}}}",
            "line 1: endpoints.fraud.deployments: deployment name 'a b' is not valid:"
            " use letters, digits, '_', '-', '.'",
        ),
        (
            "endpoints:\n  fraud:\n    traffic: {a: 1}\n    deployments:\n      a: {model: a, version: 3}\n"
            "      b: {model: b, version: 3}",
            "line 6: endpoints.fraud.deployments.b.version: 'a' has version 3 already; versions of an endpoint differ",
        ),
        (
            "endpoints: {fraud: {deployments: {a: {model: a, version: ../x}}}}",
            "line 1: endpoints.fraud.deployments.a.version: version '../x' is not valid:"
            " use letters, digits, '_', '-', '.'",
        ),
        ("endpoints: {fraud: {deployments: {}}}", "line 1: endpoints.fraud.deployments: expected one deployment,"),
        (
            "endpoints: {fraud: {model: a, version: 3}}",
            "line 1: unknown key 'endpoints.fraud.version'",
        ),
    ],
)
def test_mistakes_are_named_with_line_path_and_remedy(text: str, message: str) -> None:
    with pytest.raises(errors.BadSettings) as caught:
        parse_settings(text, FILE)
    assert re.sub(r" column \d+", "", caught.value.message).startswith(f"headrace.yaml {message}")


def test_settings_of_the_file_reach_each_deployment(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text("replicas: 3\n" + fraud("traffic: {champion: 1}"))
    settings = load_settings(environ={}, directory=tmp_path)
    assert settings.endpoints == {"fraud": EndpointSettings(TrafficPolicy({"champion": 1.0}))}
    found = {source.deployment: source.settings for source in settings.models}
    champion, challenger = found["champion"], found["challenger"]
    assert champion is not None
    assert challenger is not None
    assert (champion.replicas, challenger.replicas, challenger.threads) == (2, 3, 1)


def test_a_typed_model_does_not_silently_replace_several_deployments(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text(fraud("traffic: {champion: 1}"))
    with pytest.raises(errors.BadSettings, match=r"would replace endpoint 'fraud' .* which has 2 deployments"):
        load_settings(["fraud.onnx"], environ={}, directory=tmp_path)
    (other,) = load_settings(["other.onnx"], environ={}, directory=tmp_path).models
    assert other.settings is None


def test_a_typed_model_keeps_the_policy_that_needs_no_names(tmp_path: Path) -> None:
    (tmp_path / "headrace.yaml").write_text(
        "endpoints:\n  fraud: {model: a.onnx, fallback: [{constant: {y: 0}}]}\n"
        "  named: {deployments: {prod: {model: b.onnx}}}"
    )
    settings = load_settings(["fraud.onnx", "named.onnx"], environ={}, directory=tmp_path)
    policy = TrafficPolicy(fallback=(ConstantFallback({"y": 0}),))
    assert settings.endpoints == {"fraud": EndpointSettings(policy)}


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_constants_are_finite(value: str) -> None:
    """The state is JSON, which would make nothing of them."""
    with pytest.raises(
        errors.BadSettings, match=r"line 1 column 57: endpoints.m.fallback\[0\].constant.y\[1\]: expected a"
    ):
        parse_settings(f"endpoints: {{m: {{model: x, fallback: [{{constant: {{y: [1, {value}]}}}}]}}}}", FILE)
