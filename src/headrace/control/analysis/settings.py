"""What may be set about the judgement of a rollout. Every default is meant to work without configuration."""

from __future__ import annotations

import msgspec

from headrace.control.analysis import conditions
from headrace.core import errors


def _ordered(low_key: str, low: float, high_key: str, high: float) -> None:
    if not 0 <= low < high:
        raise errors.BadSettings(f"{low_key} must be at least 0 and below {high_key}; got {low} and {high}")


class ErrorRateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Share of requests that fail by the deployment's fault, compared with all of stable."""

    gate: bool = True
    """False: only warn."""
    margin: float = 0.001
    """A rise up to this is no harm: 0.001 is one more error in 1,000 requests."""
    relative_margin: float = 0.25
    """… nor is a rise up to this part of stable's own rate. The larger of both holds."""
    tolerance: float = 0.01
    """To pass, a rise of this size must be ruled out."""
    relative_tolerance: float = 0.5
    """… or of this part of stable's rate. The larger of both holds."""

    def __post_init__(self) -> None:
        _ordered("margin", self.margin, "tolerance", self.tolerance)
        _ordered("relative_margin", self.relative_margin, "relative_tolerance", self.relative_tolerance)


class RefusalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Share of requests that the deployment does not take, compared block by block with the baseline slice."""

    gate: bool = True
    margin: float = 0.01
    tolerance: float = 0.03

    def __post_init__(self) -> None:
        _ordered("margin", self.margin, "tolerance", self.tolerance)


class LatencySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Total time of requests answered, timed out or given up: quantiles, block by block with the baseline slice."""

    gate: bool = True
    quantiles: tuple[float, ...] = (0.5, 0.95)
    margin: float = 1.25
    """Being slower by less than this factor is no harm."""
    tolerance: float = 1.5
    """To pass, being slower by this factor must be ruled out."""

    def __post_init__(self) -> None:
        _ordered("margin", self.margin, "tolerance", self.tolerance)
        if not all(0 < q < 1 for q in self.quantiles):
            raise errors.BadSettings(f"latency quantiles lie between 0 and 1, e.g. 0.95; got {list(self.quantiles)}")


class ComputeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Compute time at equal batch size, compared with what stable's batches of these sizes take."""

    gate: bool = True
    margin: float = 1.25
    tolerance: float = 1.5

    def __post_init__(self) -> None:
        _ordered("margin", self.margin, "tolerance", self.tolerance)


class PredictionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Distribution of predictions, compared with the baseline slice. Warns unless it is declared a gate."""

    gate: bool = False
    limit: float = 0.1
    """Population stability index from which a shift matters: 0.1 is called moderate, 0.25 large."""
    minimum: int = 500
    """Predictions of each side before a shift is called one."""


class ShadowSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Share of mirrored requests whose answers agree. Warns unless it is declared a gate."""

    gate: bool = False
    agreement: float = 0.99
    """At least this share should agree."""
    minimum: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.agreement < 1:
            raise errors.BadSettings(f"shadow agreement is a share between 0 and 1, e.g. 0.99; got {self.agreement}")


class SloSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The objectives of the endpoint (``slo:``), which the canary must not break where stable keeps them."""

    gate: bool = True


class MetricSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric of the user: a Prometheus query, a number that somebody posts. Conditions read like ``<= 0.2``."""

    name: str
    success: str = ""
    """A measurement that fulfils this is good. Empty: whatever is not a failure."""
    failure: str = ""
    """A measurement that fulfils this is bad. Empty: whatever is not a success."""
    gate: bool = True
    failure_limit: int = 2
    """Bad measurements in one step that are borne; one more fails the canary."""
    minimum: int = 3
    """Good measurements in one step that are needed to pass."""
    query: str = ""
    """PromQL that gives one number; ``$endpoint``, ``$old`` and ``$new`` (versions) are put in. Empty: it is posted."""
    prometheus: str = ""
    """Base URL of the server that is asked."""

    def __post_init__(self) -> None:
        if not self.success and not self.failure:
            raise errors.BadSettings(f"metric {self.name!r} has no condition: give success, failure or both")
        if bool(self.query) != bool(self.prometheus):
            raise errors.BadSettings(
                f"metric {self.name!r}: query and prometheus (its URL, e.g. http://localhost:9090) go together"
            )
        for condition in (self.success, self.failure):
            if condition:
                conditions.parse(condition)


class AnalysisSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a canary is judged."""

    false_alarm: float = 0.005
    """At most this share of healthy rollouts is rolled back by the statistical checks together, over all steps."""
    false_pass: float = 0.05
    """At most this share of steps passes a canary whose harm reaches the tolerance of a check."""
    block_s: float = 20.0
    """Times are compared in blocks of at least this length: a burst is one event, not a hundred."""
    block_requests: int = 20
    """… and of at least this many requests of either side."""
    error_limit: int = 5
    """Looks in a row without the numbers of a check after which it is called inconclusive."""
    errors: ErrorRateSettings = ErrorRateSettings()
    rejections: ErrorRateSettings = ErrorRateSettings(gate=False)
    """Requests that are called the caller's fault: a changed signature. Warns unless declared a gate."""
    refusals: RefusalSettings = RefusalSettings()
    latency: LatencySettings = LatencySettings()
    compute: ComputeSettings = ComputeSettings()
    predictions: PredictionSettings = PredictionSettings()
    shadow: ShadowSettings = ShadowSettings()
    slo: SloSettings = SloSettings()
    metrics: tuple[MetricSettings, ...] = ()

    def __post_init__(self) -> None:
        for key, value in (("false_alarm", self.false_alarm), ("false_pass", self.false_pass)):
            if not 0 < value < 1:
                raise errors.BadSettings(f"{key} is a probability between 0 and 1, e.g. 0.01; got {value}")
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise errors.BadSettings(f"metrics must have different names; got {', '.join(names)}")
