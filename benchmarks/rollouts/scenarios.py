"""The scenarios of the simulation, by name."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.rollouts.traffic import NO_SLO, Bursts, Scenario, Wander
from headrace.core.slo import Slo

HEALTHY = Scenario("healthy")
BURSTY = Scenario(
    "healthy, bursty",
    clump=4.0,
    sigma=0.8,
    shared=Wander(0.9, 0.4),
    own=Wander(0.9, 0.1),
    shared_bursts=Bursts(0.02, 3.0, 4.0),
    own_bursts=Bursts(0.02, 3.0, 3.0),
)
QUIET = Scenario("healthy, 2 requests/s", rate=2.0)

TARGETS = (
    replace(HEALTHY, name="latency × 2", slower=2.0),
    replace(HEALTHY, name="errors + 1 %", more_errors=0.01),
)
POWER = (
    *(replace(HEALTHY, name=f"latency × {factor:g}", slower=factor) for factor in (1.1, 1.2, 1.3, 1.4, 1.5)),
    *(replace(HEALTHY, name=f"errors + {rise:.1%}", more_errors=rise) for rise in (0.001, 0.002, 0.003, 0.005)),
    replace(HEALTHY, name="5 % of requests × 5 slower", slow_tail=0.05),
    replace(HEALTHY, name="compute × 1.5, total time unchanged", slower_compute=1.5),
    replace(HEALTHY, name="5 % refused", refused=0.05),
    replace(HEALTHY, name="every request fails", more_errors=0.99),
    replace(HEALTHY, name="latency × 2 after 25 minutes", slower=2.0, harm_from=1500.0),
    replace(HEALTHY, name="errors + 1 % after 25 minutes", more_errors=0.01, harm_from=1500.0),
    replace(BURSTY, name="bursty, latency × 2", slower=2.0),
    replace(BURSTY, name="bursty, errors + 1 %", more_errors=0.01),
    replace(QUIET, name="2 requests/s, latency × 2", slower=2.0),
)
STRESS = (
    *(
        replace(HEALTHY, name=f"healthy, noise of one side {deviation:.0%}", own=Wander(0.9, deviation))
        for deviation in (0.1, 0.15, 0.2, 0.3)
    ),
    replace(HEALTHY, name="healthy, slow noise of one side 10%", own=Wander(0.98, 0.1)),
    replace(HEALTHY, name="healthy, successive requests correlated 0.9", successive=0.9),
    replace(HEALTHY, name="healthy, successive requests correlated 0.99", successive=0.99),
    replace(HEALTHY, name="healthy, errors in clumps of 10", clump=10.0),
    replace(HEALTHY, name="healthy, 5 % of all requests fail", errors=0.05),
)
"""Healthy canaries beyond what the method promises: how much noise of its own a side may have."""
_PROMISED = Slo(p99_ms=100.0, error_rate=0.004)
"""Of the ordinary service 0.2 % of the requests take longer, and as many fail."""
_RARE = replace(HEALTHY, errors=0.0002, slo=Slo(error_rate=0.0005))
OBJECTIVES = (
    replace(HEALTHY, name="healthy, slo kept", slo=_PROMISED),
    replace(BURSTY, name="healthy, bursty, slo broken in bursts", slo=_PROMISED),
    replace(HEALTHY, name="healthy, slo just kept or just not", slo=Slo(p99_ms=74.0, error_rate=0.002)),
    replace(HEALTHY, name="healthy, slo broken by both sides", slo=Slo(p99_ms=50.0, error_rate=0.001)),
    replace(HEALTHY, name="healthy, slo kept, noise of one side 20%", own=Wander(0.9, 0.2), slo=_PROMISED),
    replace(HEALTHY, name="latency × 1.2, slo kept", slower=1.2, slo=Slo(p99_ms=130.0)),
    replace(HEALTHY, name="latency × 1.2, slo broken half of the time", slower=1.2, slo=Slo(p99_ms=75.0)),
    replace(HEALTHY, name="3 % of requests × 5 slower, without slo", slow_tail=0.03),
    replace(HEALTHY, name="3 % of requests × 5 slower, slo broken", slow_tail=0.03, slo=_PROMISED),
    replace(HEALTHY, name="5 % of requests × 5 slower, slo broken", slow_tail=0.05, slo=_PROMISED),
    replace(_RARE, name="errors 0.02 % + 0.02 %, slo 0.05 % kept", more_errors=0.0002),
    replace(_RARE, name="errors 0.02 % + 0.08 %, without slo", more_errors=0.0008, slo=NO_SLO),
    replace(_RARE, name="errors 0.02 % + 0.08 %, slo 0.05 % broken", more_errors=0.0008),
    replace(HEALTHY, name="4 % of requests × 5 slower, without slo", slow_tail=0.04),
    replace(HEALTHY, name="4 % of requests × 5 slower, slo broken", slow_tail=0.04, slo=_PROMISED),
    replace(_RARE, name="errors 0.02 % + 0.1 %, without slo", more_errors=0.001, slo=NO_SLO),
    replace(_RARE, name="errors 0.02 % + 0.1 %, slo 0.03 % broken", more_errors=0.001, slo=Slo(error_rate=0.0003)),
)
"""With objectives of the endpoint: what they must not fail first, then what breaks them."""
ALL = (HEALTHY, BURSTY, QUIET, *TARGETS, *POWER, *STRESS, *OBJECTIVES)
