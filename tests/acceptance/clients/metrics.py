"""Metrics of a running server, as Prometheus reads them."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import Served


def counts(server: Served, model: str) -> dict[str, float]:
    """Sums of the counters and histograms of one model over their other labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(f"{server.management_url}/metrics").text):
        for sample in family.samples:
            if sample.labels.get("model") == model and "le" not in sample.labels:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found
