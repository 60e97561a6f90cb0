"""A trial: a new version of a deployment beside the one it is to replace, and what gateways count of both."""

from __future__ import annotations

import msgspec

from headrace.core.tallies import Tally


class Trial(msgspec.Struct, frozen=True):
    """What gateways count, of which endpoint. Deployment ids. ``baseline``: part of the old one's requests, 0..1, that
    makes a slice as large as the new one's share (``core/tallies.py``)."""

    old: str
    new: str
    baseline: float = 1.0


class TrialTally(msgspec.Struct, frozen=True):
    """What one gateway has counted since it began with this trial; sums only grow."""

    endpoint: str
    new_id: str
    """Id of the new deployment: another one is another trial."""
    new: Tally
    old: Tally
    baseline: Tally
