"""A circuit breaker: a deployment that keeps failing is left alone for a while, then asked carefully."""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from headrace.core import errors

WINDOW = 20
"""Outcomes that are remembered."""
ENOUGH = 10
"""With fewer there is no verdict."""
FAILED_SHARE = 0.5
COOL_DOWN_S = 5.0


class BreakerState(StrEnum):
    CLOSED = "closed"
    """Requests pass."""
    OPEN = "open"
    """None passes until the cool-down is over."""
    HALF_OPEN = "half_open"
    """One request at a time finds out."""


_MOVES: dict[BreakerState, frozenset[BreakerState]] = {
    BreakerState.CLOSED: frozenset({BreakerState.OPEN}),
    BreakerState.OPEN: frozenset({BreakerState.HALF_OPEN}),
    BreakerState.HALF_OPEN: frozenset({BreakerState.CLOSED, BreakerState.OPEN}),
}


def move(current: BreakerState, to: BreakerState) -> BreakerState:
    """Return ``to`` when the move is legal; raise Bug otherwise."""
    if to in _MOVES[current]:
        return to
    raise errors.Bug(f"a circuit breaker cannot move from {current} to {to}")


class Breaker:
    """Of one deployment at one gateway. Every ``enter`` that is True is followed by one of ``succeeded``, ``failed``
    and ``left``. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self._outcomes: deque[bool] = deque(maxlen=WINDOW)
        self._opened = 0.0
        self._probing = False

    def enter(self, now: float) -> bool:
        """Whether a request may try the deployment."""
        if self.state is BreakerState.OPEN and now - self._opened >= COOL_DOWN_S:
            self.state = move(self.state, BreakerState.HALF_OPEN)
            self._probing = False
        if self.state is BreakerState.HALF_OPEN and not self._probing:
            self._probing = True
            return True
        return self.state is BreakerState.CLOSED

    def succeeded(self) -> None:
        self._note(True, 0.0)

    def failed(self, now: float) -> None:
        self._note(False, now)

    def left(self) -> None:
        """It ended without a verdict: the caller went away, was wrong, or was refused at the door."""
        self._probing = False

    def _note(self, fine: bool, now: float) -> None:
        match self.state:
            case BreakerState.CLOSED:
                self._outcomes.append(fine)
                bad = self._outcomes.count(False)
                if not fine and len(self._outcomes) >= ENOUGH and bad >= FAILED_SHARE * len(self._outcomes):
                    self._open(now)
            case BreakerState.HALF_OPEN:
                if fine:
                    self.state = move(self.state, BreakerState.CLOSED)
                else:
                    self._open(now)
            case BreakerState.OPEN:
                # It began before the others failed: too late to say anything.
                pass

    def _open(self, now: float) -> None:
        self.state = move(self.state, BreakerState.OPEN)
        self._opened = now
        self._outcomes.clear()
