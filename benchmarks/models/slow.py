"""Models that take five milliseconds a call, whatever the batch: they load the scheduler, not the processor.

``Batchable`` is what a GPU looks like from outside (a batch costs as much as a row); ``Unbatchable`` answers about 200
requests a second and no more, so the overload row knows exactly what is too much. ruff takes the output name in the
annotation for a quoted type, hence the two noqa.
"""

from __future__ import annotations

import time

import headrace

CALL_SECONDS = 0.005


class Batchable(headrace.Model):
    def predict(self, x: headrace.Float32[30]) -> {"y": headrace.Float32}:  # noqa: F821, UP037
        time.sleep(CALL_SECONDS)
        return {"y": x.sum(axis=1)}


class Unbatchable(headrace.Model):
    batchable = False

    def predict(self, x: headrace.Float32[30]) -> {"y": headrace.Float32}:  # noqa: F821, UP037
        time.sleep(CALL_SECONDS)
        return {"y": x.sum(axis=1)}
