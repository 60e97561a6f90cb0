"""Capital: the evidence against a hypothesis, as the money of someone who bets against it.

Each bet multiplies the stake by an *e-value*, a factor whose expectation is at most 1 while the hypothesis holds.
Capital that starts at 1 then reaches 1/α with probability at most α, however often one looks (Ville's inequality; see
Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid inference", Statistical Science 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

MOST_PER_INTERVAL = 2.5
"""Largest gain of one interval, as a logarithm: no single interval decides, three to five very bad ones do.
Lowering an e-value keeps the guarantee."""
_HUGE = 1e250
"""Capital is cut here: multiplication must not reach infinity. Cutting down keeps the guarantee."""
_PATIENCE = 64
"""Bets after which half of the reserve is staked, when no step begins in between."""


class Capital(msgspec.Struct):
    """A mixture of bettors, one per alternative, and a reserve that enters the game later.

    A bettor who was in the game while all was well has lost nearly everything and is slow to see a harm that begins
    late. So half of the reserve is staked at each step of a rollout and a little at every bet: a mixture over the
    moment at which the harm begins, which is still an e-process."""

    reserve: float = 1.0
    stakes: list[float] = []
    bets: int = 0

    @property
    def value(self) -> float:
        return self.reserve + sum(self.stakes)

    def renew(self, share: float = 0.5) -> None:
        """Stake this share of the reserve with the next bet."""
        fresh = self.reserve * share
        self.reserve -= fresh
        count = len(self.stakes)
        self.stakes = [stake + fresh / count for stake in self.stakes]

    def bet(self, factors: Sequence[float]) -> None:
        """Multiply the stake of each alternative by its e-value. The number of alternatives never changes."""
        self.bets += 1
        fresh = self.reserve / (_PATIENCE + self.bets)
        self.reserve -= fresh
        fresh /= len(factors)
        self.stakes = [min((stake + fresh) * factor, _HUGE) for stake, factor in zip(self.stakes, factors, strict=True)]


def capital(alternatives: int) -> Capital:
    """Capital that keeps a reserve; ``renew`` it when a step begins."""
    return Capital(1.0, [0.0] * alternatives)


def all_in(alternatives: int) -> Capital:
    """Capital that is staked at once: for a question that is asked anew at each step."""
    return Capital(0.0, [1.0 / alternatives] * alternatives)


def proof(harm: Capital, alarm: float, what: Callable[[], str]) -> str:
    """Why a check fails, once there is evidence enough: what was seen, and how much that is. Empty before."""
    return f"{what()}; evidence {harm.value:.3g} ≥ {alarm:.3g}" if harm.value >= alarm else ""
