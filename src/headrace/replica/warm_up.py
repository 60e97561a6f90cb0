"""Runs sample inputs through a loaded model before its first request."""

from __future__ import annotations

import sys
import time

import numpy as np

from headrace.core.tensors import Array
from headrace.replica import execution, messages
from headrace.replica.spec import ReplicaSpec
from headrace.replica.status_page import StatusPageWriter
from headrace.runtimes.runtime import Runtime

_BUDGET_S = 2.0
"""A slow model must not spend its start on warming up."""


def warm_up(runtime: Runtime, spec: ReplicaSpec, page: StatusPageWriter) -> list[messages.WarmupTiming]:
    """Run sample inputs so that the first request does not pay for lazy initialisation; sizes 1 and the batch
    limit seed the latency model. A model that refuses the samples is served all the same, and says so in its log;
    one that hangs on them is seen in the status page."""
    signature = runtime.signature
    if signature.streaming or (signature.any_inputs and runtime.samples() is None):
        return []
    timings: list[messages.WarmupTiming] = []
    began = time.monotonic()
    sizes = [1, 1, 1, spec.options.batch_limit, spec.options.batch_limit] if signature.batchable else [1, 1, 1]
    try:
        for rows in sizes:
            inputs = _samples(runtime, rows)
            started = time.monotonic()
            page.begin(0, int(started * 1e9), 0, 0, rows)
            runtime.predict(inputs, {})
            took = time.monotonic() - started
            timings.append(messages.WarmupTiming(rows, took))
            if time.monotonic() - began + took > _BUDGET_S:
                break
    except execution.Raised as error:
        sys.stderr.write(f"warm-up of {spec.id} failed ({type(error).__name__}: {error}); serving without it\n")
        return []
    finally:
        page.end(0)
    return timings[1:]


def _samples(runtime: Runtime, rows: int) -> dict[str, Array]:
    given = runtime.samples()
    if given is None:
        return execution.zeros(runtime.signature, rows)
    if not runtime.signature.batchable:
        return given
    return {name: np.repeat(array[:1], rows, axis=0) for name, array in given.items()}
