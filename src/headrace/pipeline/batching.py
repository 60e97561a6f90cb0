"""How large a batch may be, and why: a pure decision from settings and the learned latency model."""

from __future__ import annotations

import msgspec

from headrace.core.endpoints import BatchingSettings, BatchMode
from headrace.core.models import Signature, SlotKind, Slots
from headrace.pipeline.latency import LatencyModel

MIN_GAIN = 1.15
"""Batching must raise a replica's throughput at least this much to be worth making rows wait for each other."""
EXPLORE_EVERY = 200
"""While batching is off because it does not pay, every so many batches one is allowed to grow, to look again."""
EXPLORE_ROWS = 8
_ENOUGH = 30


class Decision(msgspec.Struct, frozen=True):
    """``limit``: rows of one batch; 1 with ``alone``: exactly one call per batch, whatever its rows."""

    limit: int
    alone: bool
    explanation: str


def decide(settings: BatchingSettings, signature: Signature, slots: Slots, latency: LatencyModel) -> Decision:
    """The batch limit of a deployment now."""
    decision = _decide(settings, signature, slots, latency)
    padding = signature.padding
    if padding is None or decision.alone:
        return decision
    sizes = ", ".join(map(str, padding.buckets))
    return msgspec.structs.replace(
        decision,
        explanation=f"{decision.explanation}; requests of {' and '.join(padding.dims)} up to {sizes} go together, with"
        f" {', '.join(padding.inputs)} padded",
    )


def _decide(settings: BatchingSettings, signature: Signature, slots: Slots, latency: LatencyModel) -> Decision:
    if slots.kind is SlotKind.CONCURRENT:
        return Decision(1, True, f"the model runs up to {slots.count} requests side by side; they are not joined")
    if not signature.batchable:
        return Decision(1, True, "the model takes one request at a time (fixed shape or batchable = False)")
    if settings.mode is BatchMode.OFF:
        return Decision(1, True, "batching is off by setting (batching.mode: off)")
    if settings.mode is BatchMode.EXACT:
        return Decision(1, True, "every request is computed alone by setting (batching.mode: exact)")
    limit = settings.max_batch_size
    if limit <= 1:
        return Decision(1, True, "max_batch_size is 1")
    if settings.mode is BatchMode.ALWAYS:
        return Decision(limit, False, f"up to {limit} rows by setting (batching.mode: always)")
    if latency.samples < _ENOUGH:
        return Decision(limit, False, f"up to {limit} rows; still learning ({latency.samples} batches seen)")
    return _weigh(limit, latency)


def _weigh(limit: int, latency: LatencyModel) -> Decision:
    alone, together = latency.predict(1), latency.predict(limit)
    gain = limit * alone / together if together > 0 else 1.0
    learned = f"a batch takes {latency.a * 1e3:.3g} ms + {latency.b * 1e3:.3g} ms per row"
    if gain < MIN_GAIN:
        return Decision(
            1,
            False,
            f"off: {learned}, so {limit} rows together would be only {gain:.2f}x as fast as one by one"
            f" (worth it from {MIN_GAIN}x)",
        )
    return Decision(
        limit, False, f"up to {limit} rows: {learned}, so {limit} rows together are {gain:.1f}x as fast as one by one"
    )
