"""What checks share that count events among requests, on stable and on the canary."""

from __future__ import annotations

import msgspec

PRIOR_REQUESTS = 200.0
"""So many requests at a prior rate are believed of stable before it is seen."""
_MEMORY = 0.98
"""Weight of the interval before, in running estimates."""


class Dispersion(msgspec.Struct):
    """How many events come in one clump, on average; 1 when they are independent.

    A failed batch fails all its requests. For counts of two successive intervals, given their sum, the squared
    standardised difference has expectation 1 when events are independent and grows with the size of clumps; slow
    changes of the rate cancel. Terms are cut, so that one outage does not blind the check for an hour."""

    total: float = 0.0
    terms: float = 0.0
    last: tuple[int, int] = (0, 0)

    def observe(self, events: int, requests: int) -> None:
        before, n = self.last
        self.last = (events, requests)
        both = before + events
        if not both or not n or not requests:
            return
        expected = both * requests / (n + requests)
        square = (events - expected) ** 2 * (n + requests) / (expected * n)
        self.total = self.total * _MEMORY + min(square, 25.0)
        self.terms = self.terms * _MEMORY + 1.0

    @property
    def clump(self) -> float:
        return max(1.0, (self.total + 10.0) / (self.terms + 10.0))


class CountedEvents(msgspec.Struct, kw_only=True):
    """What is known and was seen of both sides. Sides are (events, requests) of an interval."""

    clumps: tuple[Dispersion, Dispersion] = msgspec.field(default_factory=lambda: (Dispersion(), Dispersion()))
    """Of stable, of the canary."""
    known: tuple[float, float] = (0.0, 0.0)
    """Running (events, requests) of stable."""
    seen: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Events and requests of this step: stable's, the canary's."""

    def _see(self, stable: tuple[int, int], canary: tuple[int, int]) -> None:
        events_s, n_s, events_c, n_c = self.seen
        self.seen = (events_s + stable[0], n_s + stable[1], events_c + canary[0], n_c + canary[1])

    def _power(self) -> float:
        """E-values are raised to this, so that a clump counts as one event."""
        return 1.0 / max(self.clumps[0].clump, self.clumps[1].clump)

    def _running_rate(self, prior: float) -> float:
        """Stable's rate, which is believed to be ``prior`` before it is seen."""
        events, requests = self.known
        return (events + PRIOR_REQUESTS * prior) / (requests + PRIOR_REQUESTS)

    def _learn(self, stable: tuple[int, int], canary: tuple[int, int]) -> None:
        if stable[1]:
            events, requests = self.known
            self.known = (events * _MEMORY + stable[0], requests * _MEMORY + stable[1])
        self.clumps[0].observe(*stable)
        self.clumps[1].observe(*canary)
