"""Inference statistics in the shape of Triton's statistics extension, from the pages of all processes.

Two blocks per model and version: totals over requests, and one row per batch size (exact up to 64, then one row per
power of two, which counts the sizes above the row before). Triton's stages are ours as follows: ``queue`` is the
queue, ``compute_input`` the transport and the wait behind the running batch, ``compute_infer`` the model call,
``compute_output`` the encoding. Triton counts stages of successful requests only; so do we.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from headrace.core.tensors import Array
from headrace.telemetry import pages

TOTALS = "statistics"
"""Block key: ``(TOTALS, model, version)``."""
SUCCESS, SUCCESS_S, FAIL, FAIL_S, QUEUE_S, INPUT_S, INFER_S, OUTPUT_S, ROWS, BATCHES, LAST_S = range(11)
"""Cells of the totals: counts, seconds, rows inferred, batches executed, Unix time of the last inference."""
TOTALS_CELLS = 11

BATCH_SIZES = "batch_statistics"
"""Block key: ``(BATCH_SIZES, model, version)``; cells are ``[size row][BATCH_COLUMNS]``, flattened."""
BATCH_COLUMNS = 4
"""Batches, then seconds of compute_input, compute_infer, compute_output."""

EXACT_SIZES = 64
SIZES = (*range(1, EXACT_SIZES + 1), *(2**power for power in range(7, 17)))
"""Batch size that each row stands for; sizes above the last are counted in it."""
BATCH_CELLS = len(SIZES) * BATCH_COLUMNS

_SIZE_EDGES = np.array(SIZES[:-1], dtype=np.float64)

Model = tuple[str, str]
"""Name and version."""


def size_rows(batch_rows: Array) -> Array:
    """Row of ``SIZES`` for each batch size in ``batch_rows`` (any number type, 1-d)."""
    return np.searchsorted(_SIZE_EDGES, batch_rows)


def render(directory: Path, models: Iterable[Model]) -> dict[str, Any]:
    """``{"model_stats": [...]}`` for these models, in this order; models without traffic have zeros.

    Reads files (about a millisecond); the fields are named as in the JSON and in the gRPC message."""
    totals, sizes = _merge(directory)
    empty_totals, empty_sizes = np.zeros(TOTALS_CELLS), np.zeros(BATCH_CELLS)
    return {
        "model_stats": [
            _model(model, totals.get(model, empty_totals), sizes.get(model, empty_sizes)) for model in models
        ]
    }


def _merge(directory: Path) -> tuple[dict[Model, Array], dict[Model, Array]]:
    totals: dict[Model, Array] = {}
    sizes: dict[Model, Array] = {}
    for _, key, values in pages.read_pages(directory):
        if key[0] == TOTALS and len(values) == TOTALS_CELLS:
            model = (key[1], key[2])
            cells = np.array(values)
            before = totals.get(model)
            if before is not None:
                last = max(before[LAST_S], cells[LAST_S])
                cells += before
                cells[LAST_S] = last
            totals[model] = cells
        elif key[0] == BATCH_SIZES and len(values) == BATCH_CELLS:
            model = (key[1], key[2])
            sizes[model] = sizes.get(model, 0.0) + np.array(values)
    return totals, sizes


def _model(model: Model, totals: Array, sizes: Array) -> dict[str, Any]:
    success = totals[SUCCESS]
    return {
        "name": model[0],
        "version": model[1],
        "last_inference": int(totals[LAST_S] * 1e3),
        "inference_count": int(totals[ROWS]),
        "execution_count": round(totals[BATCHES]),
        "inference_stats": {
            "success": _duration(success, totals[SUCCESS_S]),
            "fail": _duration(totals[FAIL], totals[FAIL_S]),
            "queue": _duration(success, totals[QUEUE_S]),
            "compute_input": _duration(success, totals[INPUT_S]),
            "compute_infer": _duration(success, totals[INFER_S]),
            "compute_output": _duration(success, totals[OUTPUT_S]),
            "cache_hit": _duration(0, 0),
            "cache_miss": _duration(0, 0),
        },
        "response_stats": {},
        "batch_stats": [
            _batch(size, row) for size, row in zip(SIZES, sizes.reshape(-1, BATCH_COLUMNS), strict=True) if row[0] > 0
        ],
        "memory_usage": [],
    }


def _batch(size: int, row: Array) -> dict[str, Any]:
    count, input_s, infer_s, output_s = row.tolist()
    return {
        "batch_size": size,
        "compute_input": _duration(count, input_s),
        "compute_infer": _duration(count, infer_s),
        "compute_output": _duration(count, output_s),
    }


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": round(count), "ns": round(seconds * 1e9)}
