"""The batch limit as a table: settings, signature, slots and what was learned → limit and reason."""

from __future__ import annotations

import msgspec
import pytest

from headrace.core.endpoints import BatchingSettings, BatchMode
from headrace.core.models import Signature, SlotKind, Slots
from headrace.core.padding import PaddedInput, Padding
from headrace.pipeline.batching import MIN_GAIN, decide
from headrace.pipeline.latency import LatencyModel
from tests.fakes import ROWS

SINGLE = msgspec.structs.replace(ROWS, batchable=False)


def learned(a: float, b: float, batches: int = 100) -> LatencyModel:
    model = LatencyModel()
    for index in range(batches):
        rows = (1, 8, 64)[index % 3]
        model.observe(rows, a + b * rows)
    return model


@pytest.mark.parametrize(
    ("batching", "signature", "slots", "latency", "limit", "alone", "words"),
    [
        ({}, ROWS, Slots(), LatencyModel(), 64, False, "still learning (0 batches seen)"),
        ({}, ROWS, Slots(), learned(0.01, 0.01, 29), 64, False, "still learning (29 batches seen)"),
        ({}, ROWS, Slots(), learned(0.01, 0.0001), 64, False, "times as fast|x as fast"),
        ({}, ROWS, Slots(), learned(0.0001, 0.01), 1, False, "off: a batch takes"),
        ({"max_batch_size": 8}, ROWS, Slots(), learned(0.01, 0.0), 8, False, "up to 8 rows"),
        ({"max_batch_size": 1}, ROWS, Slots(), LatencyModel(), 1, True, "max_batch_size is 1"),
        ({"mode": BatchMode.ALWAYS}, ROWS, Slots(), learned(0.0, 0.01), 64, False, "batching.mode: always"),
        ({"mode": BatchMode.OFF}, ROWS, Slots(), LatencyModel(), 1, True, "batching.mode: off"),
        ({"mode": BatchMode.EXACT}, ROWS, Slots(), LatencyModel(), 1, True, "batching.mode: exact"),
        ({}, SINGLE, Slots(), LatencyModel(), 1, True, "one request at a time"),
        ({"mode": BatchMode.ALWAYS}, SINGLE, Slots(), LatencyModel(), 1, True, "one request at a time"),
        ({}, ROWS, Slots(SlotKind.CONCURRENT, 7), LatencyModel(), 1, True, "up to 7 requests side by side"),
    ],
)
def test_decisions(
    batching: dict[str, object],
    signature: Signature,
    slots: Slots,
    latency: LatencyModel,
    limit: int,
    alone: bool,
    words: str,
) -> None:
    decision = decide(msgspec.convert(batching, BatchingSettings), signature, slots, latency)
    assert (decision.limit, decision.alone) == (limit, alone)
    assert any(part in decision.explanation for part in words.split("|"))


@pytest.mark.parametrize(("mode", "said"), [("auto", True), ("always", True), ("exact", False), ("off", False)])
def test_the_explanation_tells_what_is_padded(mode: str, said: bool) -> None:
    padding = Padding(("tokens",), (16, 32), {"ids": PaddedInput(((0, 0),), 0)}, {})
    signature = msgspec.structs.replace(ROWS, padding=padding)
    settings = msgspec.convert({"mode": mode}, BatchingSettings)
    plain, padded = (decide(settings, of, Slots(), LatencyModel()) for of in (ROWS, signature))
    assert (padded.limit, padded.alone) == (plain.limit, plain.alone)
    more = "; requests of tokens up to 16, 32 go together, with ids padded" if said else ""
    assert padded.explanation == plain.explanation + more


def test_the_gain_decides() -> None:
    # limit·(a + b) / (a + limit·b) = gain, solved for a with b = 1.
    def cost(gain: float) -> float:
        return 64 * (gain - 1) / (64 - gain)

    just_enough, not_quite = learned(cost(MIN_GAIN + 0.05), 1.0), learned(cost(MIN_GAIN - 0.05), 1.0)
    assert decide(BatchingSettings(), ROWS, Slots(), just_enough).limit == 64
    assert decide(BatchingSettings(), ROWS, Slots(), not_quite).limit == 1


def test_explanation_shows_what_was_learned() -> None:
    text = decide(BatchingSettings(), ROWS, Slots(), learned(0.002, 0.0005)).explanation
    assert (
        text == "up to 64 rows: a batch takes 2 ms + 0.5 ms per row, so 64 rows together are 4.7x as fast as one by one"
    )
