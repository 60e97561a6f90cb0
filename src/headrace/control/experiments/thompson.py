"""Thompson sampling over whole shares of traffic: how probable it is that each arm is the best.

Rewards of 0 and 1 have a Beta posterior, others a normal-inverse-gamma one (Murphy, "Conjugate Bayesian analysis of
the Gaussian distribution", 2007), whose mean is Student's t. Shares are the fourth roots of the probabilities, scaled
to 1: with plain ones two equal arms wander to any split and stay there (Kalvit and Zeevi, "A Closer Look at the
Worst-case Behavior of Multi-armed Bandit Algorithms", 2021). Tempering is from Thall and Wathen, "Practical Bayesian
adaptive randomisation in clinical trials", European Journal of Cancer 43 (2007); see docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.core.experiments import BanditSettings, Tally, pooled
from headrace.core.tensors import Array

DRAWS = 20_000
_TEMPER = 0.25


def probability_best(tallies: Sequence[Tally], seed: int, draws: int = DRAWS) -> list[float]:
    """For each arm, by Monte Carlo; the same seed gives the same numbers. Without outcomes all are equal."""
    random = np.random.default_rng(seed)
    binary = not any(tally.others for tally in tallies)
    drawn = _beta(tallies, random, draws) if binary else _normal(tallies, random, draws)
    best = np.bincount(np.argmax(drawn, axis=0), minlength=len(tallies))
    return [float(count) / draws for count in best]


def _beta(tallies: Sequence[Tally], random: np.random.Generator, draws: int) -> Array:
    """Posterior draws [arm, draw] with a uniform prior."""
    return np.stack([_beta_of(tally, random, draws) for tally in tallies])


def _beta_of(tally: Tally, random: np.random.Generator, draws: int) -> Array:
    successes = min(max(tally.mean * tally.outcomes, 0.0), float(tally.outcomes))
    return random.beta(1 + successes, 1 + tally.outcomes - successes, draws)


def _normal(tallies: Sequence[Tally], random: np.random.Generator, draws: int) -> Array:
    """Posterior draws [arm, draw]; the prior is worth one outcome, centred on what all arms have together."""
    everything = pooled(tallies)
    spread = everything.variance or 1.0
    found = []
    for tally in tallies:
        weight, shape = 1.0 + tally.outcomes, 1.0 + tally.outcomes / 2
        step = tally.mean - everything.mean
        scale = spread + tally.squares / 2 + tally.outcomes * step * step / (2 * weight)
        middle = everything.mean + step * tally.outcomes / weight
        found.append(middle + random.standard_t(2 * shape, draws) * np.sqrt(scale / (shape * weight)))
    return np.stack(found)


def shares(tallies: Mapping[str, Tally], settings: BanditSettings, seed: int) -> dict[str, float] | None:
    """What each arm should get, in all 1 and none below the floor; None while some arm has too few outcomes."""
    if any(tally.outcomes < settings.minimum for tally in tallies.values()):
        return None
    tempered = [p**_TEMPER for p in probability_best(list(tallies.values()), seed)]
    total = sum(tempered)
    return floored({arm: p / total for arm, p in zip(tallies, tempered, strict=True)}, settings.floor)


def floored(wanted: Mapping[str, float], floor: float) -> dict[str, float]:
    """Everybody gets the floor; the rest is shared as wanted. ``floor`` is at most 1 / number of arms."""
    rest = 1.0 - floor * len(wanted)
    return {arm: floor + rest * share for arm, share in wanted.items()}


def worth_it(now: Mapping[str, float], wanted: Mapping[str, float], settings: BanditSettings) -> bool:
    """Some arm's share changes enough."""
    return any(abs(wanted[arm] - now.get(arm, 0.0)) >= settings.least_move for arm in wanted)
