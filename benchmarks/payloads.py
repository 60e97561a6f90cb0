"""Requests for the open-loop generator, with the answers that are right for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks import dialects
from benchmarks.assets import Sample
from benchmarks.contenders import Served
from benchmarks.load.plan import Check, RequestKind

SINGLE_ROWS = 64


def single_rows(served: Served, name: str = "small", share: float = 1.0, headers: Sequence[str] = ()) -> RequestKind:
    """Rows of the contender's sample, one a request."""
    contender = served.contender
    dialect = contender.rest
    assert dialect is not None
    rows, outputs = contender.sample.rows[:SINGLE_ROWS], contender.sample.outputs[:SINGLE_ROWS]
    lines = (*dialect.headers, *headers)
    return RequestKind(
        name=name,
        requests=[
            dialects.http_request(dialect.path, lines, dialect.encode(rows[i : i + 1]), served.port)
            for i in range(len(rows))
        ],
        expected=[{contender.output: np.ravel(output).tolist()} for output in outputs],
        share=share,
    )


def large_json(served: Served, endpoint: str, sample: Sample, output: str, count: int, share: float) -> RequestKind:
    """One request with ``count`` rows in JSON; the sample's rows are repeated as often as it takes."""
    repeat = -(-count // len(sample.rows))
    rows = np.concatenate([sample.rows] * repeat)[:count]
    outputs = np.concatenate([sample.outputs] * repeat)[:count]
    body = dialects.oip_body(rows)
    path = f"/v2/models/{endpoint}/infer"
    return RequestKind(
        name=f"{len(body) / 1e6:.1f} MB",
        requests=[dialects.http_request(path, (dialects.JSON_HEADER,), body, served.port)],
        expected=[{output: outputs.ravel().tolist()}],
        share=share,
        check=Check.JSON_LATER,
    )
