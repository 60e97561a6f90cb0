"""The scenarios of the simulation, by name."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.rollouts.traffic import Bursts, Scenario, Wander

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
ALL = (HEALTHY, BURSTY, QUIET, *TARGETS, *POWER, *STRESS)
