from __future__ import annotations

import msgspec
import pytest

from headrace.control.analysis.settings import AnalysisSettings
from headrace.core import errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"false_alarm": 0}', "false_alarm is a probability"),
        ('{"false_pass": 1}', "false_pass is a probability"),
        ('{"errors": {"margin": 0.02}}', "margin must be at least 0 and below tolerance"),
        ('{"errors": {"relative_margin": 0.9}}', "relative_margin must be"),
        ('{"latency": {"margin": 2}}', "margin must be"),
        ('{"latency": {"quantiles": [99]}}', "between 0 and 1"),
        ('{"compute": {"tolerance": 1}}', "margin must be"),
        ('{"refusals": {"margin": -1}}', "margin must be"),
        ('{"shadow": {"agreement": 1}}', "share between 0 and 1"),
        ('{"metrics": [{"name": "x"}]}', "metric 'x' has no condition"),
        ('{"metrics": [{"name": "x", "success": "ok"}]}', "write a comparison"),
        ('{"metrics": [{"name": "x", "success": "< 1"}, {"name": "x", "failure": "> 1"}]}', "different names"),
        ('{"eror": {}}', "unknown field"),
    ],
)
def test_wrong_settings_are_refused(text: str, message: str) -> None:
    with pytest.raises((errors.BadSettings, msgspec.ValidationError), match=message):
        msgspec.json.decode(text, type=AnalysisSettings)


def test_no_configuration_is_needed() -> None:
    assert msgspec.json.decode(b"{}", type=AnalysisSettings) == AnalysisSettings()
