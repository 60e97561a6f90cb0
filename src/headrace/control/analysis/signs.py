"""Sign test by betting: in how many blocks of time was the canary worse than its equal, the baseline slice?

Latencies come in bursts and resemble their neighbours, so requests cannot be counted as independent. A block of time
gives one sign, however many requests it has and however extreme it was. While the canary is no worse, two slices of one
size and one moment are exchangeable and "the canary was worse by the margin" has probability at most 1/2, whatever
happens to both together. A bet on a sign multiplies the capital by 1 ± λ (a coin-betting martingale; Waudby-Smith,
Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024). The margin leaves room for noise that
only one of the two has.
"""

from __future__ import annotations

import msgspec

from headrace.control.analysis.evidence import Capital, all_in, capital

_BETS = (0.3, 0.6, 0.9)
_WON, _LOST = [1 + bet for bet in _BETS], [1 - bet for bet in _BETS]


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

    def begin_step(self) -> None:
        self.harm.renew()
        self.harmless = all_in(len(_BETS))
        self.blocks = self.worse = self.fine = 0

    def observe(self, *, worse: bool, fine: bool) -> None:
        self.blocks += 1
        self.worse += worse
        self.fine += fine
        self.harm.bet(_WON if worse else _LOST)
        self.harmless.bet(_WON if fine else _LOST)
