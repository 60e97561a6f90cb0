"""The judge as a whole: defaults without configuration, errors of the analysis, what survives a restart."""

from __future__ import annotations

import msgspec
import pytest

from headrace.control.analysis.judge import Judge, judge
from headrace.control.analysis.settings import AnalysisSettings, MetricSettings, PredictionSettings, ShadowSettings
from headrace.control.analysis.verdict import Finding, Verdict
from headrace.core.tallies import Agreement, Measurement, Observation, Tally
from tests.observations import INTERVAL_S, batches, measured, tally


def observation(
    errors: int = 0, ms: float = 10.0, refused: int = 0, predictions: dict[str, int] | None = None, **fields: object
) -> Observation:
    """A look at a canary with 100 requests beside a healthy stable with 1,900."""
    base = tally(100, ms=10.0)
    both = {"compute": batches(b4=(30, 0.004))}
    labels = {"label": {"a": 50, "b": 50}}
    canary = tally(100 - errors - refused, errors, refused, ms=ms)
    return Observation(
        INTERVAL_S,
        canary=Tally(canary.outcomes, canary.latency, **both, predictions={"label": predictions or labels["label"]}),
        stable=Tally(tally(1896, 4).outcomes, **both),
        baseline=Tally(base.outcomes, base.latency, predictions=labels),
        **fields,  # type: ignore[arg-type]
    )


def judged(seen: Observation, looks: int = 60, settings: AnalysisSettings | None = None) -> Verdict:
    judging = judge(settings or AnalysisSettings())
    judging.begin_step()
    return [judging.look(seen) for _ in range(looks)][-1]


def test_a_healthy_canary_passes_without_configuration() -> None:
    found = judged(observation())
    assert found.finding is Finding.PASS
    assert found.reason == "4 checks passed: errors, refusals, latency p50, latency p95"
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("seen", "check"),
    [
        (observation(errors=5), "errors: "),
        (observation(ms=20.0), "latency p50: "),
        (observation(refused=5), "refusals: "),
    ],
)
def test_harm_fails_and_is_named(seen: Observation, check: str) -> None:
    found = judged(seen)
    assert found.finding is Finding.FAIL
    assert found.reason.startswith(check)


def test_a_shift_of_predictions_warns_and_gates_only_when_declared() -> None:
    moved = observation(predictions={"a": 5, "b": 95})
    warned = judged(moved)
    assert warned.finding is Finding.PASS
    assert [w.check for w in warned.warnings] == ["predictions"]
    gated = judged(moved, settings=AnalysisSettings(predictions=PredictionSettings(gate=True)))
    assert gated.finding is Finding.FAIL


def test_shadow_disagreement_warns_and_gates_only_when_declared() -> None:
    disagree = observation(shadow=Agreement(100, 50))
    assert [w.check for w in judged(disagree).warnings] == ["shadow agreement"]
    assert judged(disagree).finding is Finding.PASS
    assert judged(disagree, settings=AnalysisSettings(shadow=ShadowSettings(gate=True))).finding is Finding.FAIL


def test_every_gate_gets_its_part_of_the_false_alarms() -> None:
    usual = judge(AnalysisSettings(false_alarm=0.01))
    more = judge(AnalysisSettings(false_alarm=0.01, shadow=ShadowSettings(gate=True)))
    assert {check.alarm for check in usual.checks if hasattr(check, "alarm")} == {500.0}
    assert {check.alarm for check in more.checks if hasattr(check, "alarm")} == {600.0}


def test_silent_gateways_are_no_failure_of_the_canary() -> None:
    judging = judge(AnalysisSettings(error_limit=3))
    judging.begin_step()
    for _ in range(60):
        assert judging.look(observation()).finding is not Finding.FAIL
    lost = Observation(INTERVAL_S, error="gateway 0 does not answer")
    assert judging.look(lost).finding is Finding.PASS
    assert judging.look(lost).finding is Finding.PASS
    found = judging.look(lost)
    assert found.finding is Finding.INCONCLUSIVE
    assert found.reason == "no numbers of the gateways for 3 looks in a row: gateway 0 does not answer"
    assert judging.look(observation()).finding is Finding.PASS


def test_a_failure_is_not_forgotten_when_gateways_fall_silent() -> None:
    judging = judge(AnalysisSettings(error_limit=1))
    judging.begin_step()
    for _ in range(60):
        judging.look(observation(errors=50))
    assert judging.look(Observation(INTERVAL_S, error="silent")).finding is Finding.FAIL


def test_metrics_of_the_user_are_needed_to_pass_and_can_fail() -> None:
    settings = AnalysisSettings(metrics=(MetricSettings("churn", success="<= 0.5"),))
    assert judged(observation(), settings=settings).finding is Finding.INCONCLUSIVE
    good = observation(measurements=(Measurement("churn", 0.1),))
    assert judged(good, settings=settings).finding is Finding.PASS
    bad = observation(measurements=(Measurement("churn", 0.9),))
    assert judged(bad, looks=3, settings=settings).finding is Finding.FAIL


def test_metrics_are_looked_at_while_gateways_are_silent() -> None:
    judging = judge(AnalysisSettings(metrics=(MetricSettings("churn", success="<= 0.5"),)))
    judging.begin_step()
    silent = msgspec.structs.replace(measured("churn", 0.9), error="silent")
    assert [judging.look(silent).finding for _ in range(3)][-1] is Finding.FAIL


def test_a_judgement_goes_on_after_a_restart() -> None:
    """Encoded and decoded after every look, it says the same as one that was not."""
    settings = AnalysisSettings(metrics=(MetricSettings("churn", success="<= 0.5"),))
    kept, restarted = judge(settings), judge(settings)
    for step in range(3):
        kept.begin_step()
        restarted.begin_step()
        for look in range(20):
            seen = observation(errors=look % 3, ms=10.0 + step, predictions={"a": 40 + look, "b": 60})
            one = kept.look(seen)
            restarted = msgspec.json.decode(msgspec.json.encode(restarted), type=Judge)
            assert restarted.look(seen) == one
