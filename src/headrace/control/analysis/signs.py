"""Sign test by betting: in how many blocks of time was the canary worse than its equal, the baseline slice?

Latencies come in bursts and resemble their neighbours, so requests cannot be counted as independent. A block of time
gives one sign, however many requests it has and however extreme it was. While the canary is no worse, two slices of one
size and one moment are exchangeable and "the canary was worse by the margin" has probability at most 1/2, whatever
happens to both together. Bets on signs are a coin-betting martingale (Waudby-Smith, Ramdas, "Estimating means of
bounded random variables by betting", JRSS B 2024).

Noise that only one side has, and that lasts, makes signs come in runs. So after a block that was worse the hypothesis
of no harm grants the next one a probability of 0.6, which is what a correlation of 0.3 between neighbours amounts to;
the margin leaves room for more.
"""

from __future__ import annotations

import msgspec

from headrace.control.analysis.evidence import Capital, all_in, capital

_BETS = (0.3, 0.6, 0.9)
_GRANTED, _GRANTED_AGAIN = 0.5, 0.6
"""Probability that the hypothesis of no harm grants to "worse", and to "worse" after a block that was worse."""


def _factors(*, won: bool, granted: float) -> list[float]:
    """E-values of the bets, with expectation 1 when the sign has the probability ``granted``, less when it has less."""
    return [1 + bet * (1 - granted) / granted if won else 1 - bet for bet in _BETS]


_FACTORS = {
    (won, again): _factors(won=won, granted=_GRANTED_AGAIN if again else _GRANTED)
    for won in (False, True)
    for again in (False, True)
}


class SignTest(msgspec.Struct):
    """Evidence of harm over the whole rollout, of harmlessness within a step."""

    harm: Capital = msgspec.field(default_factory=lambda: capital(len(_BETS)))
    harmless: Capital = msgspec.field(default_factory=lambda: all_in(len(_BETS)))
    blocks: int = 0
    """Of this step; so are the next two."""
    worse: int = 0
    """Blocks that were worse by more than the margin."""
    fine: int = 0
    """Blocks that stayed below the tolerance."""
    again: bool = False
    """The last block of this step was worse."""

    def begin_step(self) -> None:
        self.harm.renew()
        self.harmless = all_in(len(_BETS))
        self.blocks = self.worse = self.fine = 0
        self.again = False

    def observe(self, *, worse: bool, fine: bool) -> None:
        self.blocks += 1
        self.worse += worse
        self.fine += fine
        self.harm.bet(_FACTORS[worse, self.again])
        self.harmless.bet(_FACTORS[fine, False])
        self.again = worse
