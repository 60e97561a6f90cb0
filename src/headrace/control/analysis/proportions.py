"""E-values for proportions: two arms of requests, or one.

The hypothesis of two arms is "the canary's proportion is at most (or at least) stable's plus a margin"; stable's own
proportion is unknown and may change from interval to interval. The e-value of an interval is the likelihood ratio of a
guessed alternative against its *reverse information projection*, the member of the hypothesis that is nearest to it in
Kullback-Leibler divergence. Because the hypothesis is convex its expectation is at most 1 under every member
(Turner, Ly, Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping",
J. Stat. Plan. Inference 2024; Turner, Grünwald, "Exact anytime-valid confidence intervals for contingency tables and
beyond", Stat. Prob. Letters 2023). It holds exactly for any counts, however unequal the arms.
"""

from __future__ import annotations

import math

_EDGE = 1e-6
"""Guessed proportions keep this distance from 0 and 1."""
_ITERATIONS = 60
_TOLERANCE = 1e-12


def clip(proportion: float) -> float:
    return min(max(proportion, _EDGE), 1 - _EDGE)


def log_e_two(
    stable: tuple[int, int], canary: tuple[int, int], guess: tuple[float, float], margin: float, *, above: bool
) -> float:
    """Logarithm of the e-value of one interval.

    stable, canary  (events, requests)
    guess           proportions (stable, canary) under the alternative, made without looking at this interval
    margin          of the hypothesis
    above           True: against "canary ≤ stable + margin"; False: against "canary ≥ stable + margin"

    0 when the guess does not contradict the hypothesis, or an arm had no request."""
    (events_s, n_s), (events_c, n_c) = stable, canary
    p_s, p_c = clip(guess[0]), clip(guess[1])
    if n_s == 0 or n_c == 0 or (p_c <= p_s + margin) is above:
        return 0.0
    null_s = _projection(n_s, p_s, n_c, p_c, margin)
    null_c = null_s + margin
    return _log_ratio(events_s, n_s, p_s, null_s) + _log_ratio(events_c, n_c, p_c, null_c)


def log_e_one(events: int, requests: int, guess: float, bound: float) -> float:
    """Logarithm of the e-value against "the proportion is on the other side of ``bound`` than ``guess``"."""
    return _log_ratio(events, requests, clip(guess), clip(bound))


def _log_ratio(events: int, n: int, p: float, null: float) -> float:
    found = events * math.log(p / null) if events else 0.0
    return found + (n - events) * math.log((1 - p) / (1 - null))


def _projection(n_s: int, p_s: float, n_c: int, p_c: float, margin: float) -> float:
    """Stable's proportion x at the point (x, x + margin) that is nearest to (p_s, p_c).

    The derivative of n_s·KL(p_s, x) + n_c·KL(p_c, x + margin), times its positive denominators, is a cubic with one
    root between p_s and p_c - margin: found by the Illinois variant of the secant method, which keeps it bracketed."""
    low, high = sorted((p_s, min(max(p_c - margin, 0.0), 1 - margin)))

    def slope(x: float) -> float:
        y = x + margin
        return n_s * (x - p_s) * y * (1 - y) + n_c * (y - p_c) * x * (1 - x)

    at_low, at_high = slope(low), slope(high)
    if at_low >= 0 or at_high <= 0:
        # A bracket without width, up to rounding.
        return low if abs(at_low) <= abs(at_high) else high
    side = 0
    for _ in range(_ITERATIONS):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        at_middle = slope(middle)
        if at_middle < 0:
            low, at_low = middle, at_middle
            at_high = at_high / 2 if side < 0 else at_high
            side = -1
        else:
            high, at_high = middle, at_middle
            at_low = at_low / 2 if side > 0 else at_low
            side = 1
        if high - low <= _TOLERANCE * high or at_middle == 0:
            break
    return middle
