from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from headrace.control.analysis.documents import settings_of
from headrace.control.analysis.settings import AnalysisSettings, LatencySettings, MetricSettings, ShadowSettings
from headrace.core import errors


def test_what_is_left_out_has_its_default() -> None:
    assert settings_of(None) == settings_of({}) == AnalysisSettings()
    document = {
        "false_alarm": 0.01,
        "latency": {"quantiles": [0.5, 0.99], "margin": 1.1},
        "shadow": {"gate": True},
        "metrics": [{"name": "loss", "success": "<= 0.2"}],
    }
    assert settings_of(document) == AnalysisSettings(
        false_alarm=0.01,
        latency=LatencySettings(quantiles=(0.5, 0.99), margin=1.1),
        shadow=ShadowSettings(gate=True),
        metrics=(MetricSettings("loss", success="<= 0.2"),),
    )


def test_the_example_of_the_manual_is_valid() -> None:
    manual = (Path(__file__).parents[4] / "docs" / "rollouts.md").read_text()
    _, _, rest = manual.partition("```yaml\n# strict.yaml\n")
    found = settings_of(yaml.safe_load(rest.partition("```")[0]))
    assert found.predictions.gate
    assert found.latency.quantiles == (0.5, 0.99)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"false_alarms": 0.1}, "file.yaml: there is no setting 'false_alarms'; did you mean 'false_alarm'?"),
        ({"latency": {"margn": 2}}, "no setting 'latency.margn'; did you mean 'margin'?"),
        ({"shadow": {"zzz": 2}}, "no setting 'shadow.zzz'; valid here: gate, agreement, minimum"),
        ({"metrics": [{"name": "a", "sucess": "<1"}]}, r"'metrics\[0\].sucess'; did you mean 'success'?"),
        ({"latency": {"margin": "big"}}, "file.yaml: latency.margin: expected `float`, got `str`"),
        ({"latency": 3}, "file.yaml: latency: expected `object`, got `int`"),
        ([], "file.yaml: expected `object`, got `array`"),
        ({"metrics": [{"success": "<1"}]}, "file.yaml: metrics.*missing required field `name`"),
        ({"false_alarm": 2}, "file.yaml: false_alarm is a probability"),
        ({"errors": {"margin": 1, "tolerance": 0.5}}, "file.yaml: margin must be at least 0 and below tolerance"),
        ({"latency": {"tolerance": float("inf")}}, "latency.tolerance: expected a finite number, got inf"),
        ({"latency": {"quantiles": [float("nan")]}}, r"latency.quantiles\[0\]: expected a finite number"),
        ({7: 1}, "no setting '7'"),
    ],
)
def test_what_is_wrong_is_named(document: object, says: str) -> None:
    with pytest.raises(errors.BadSettings, match=says):
        settings_of(document, "file.yaml")
