"""Draws the throughput of every server. Runs in the ``tools`` environment: ``plot.py FIGURES.json OUT.png``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS, YARDSTICK, OTHERS = "#1f6feb", "#9aa4b2", "#d08770"


def color(name: str) -> str:
    return {"headrace": OURS, "prototype": YARDSTICK}.get(name, OTHERS)


def bars(axes: Any, title: str, rates: dict[str, list[float]]) -> None:
    """One bar a server; the whisker spans the rounds."""
    names = sorted(rates, key=lambda name: median(rates[name]))
    middles = [median(rates[name]) for name in names]
    low = [middle - min(rates[name]) for name, middle in zip(names, middles, strict=True)]
    high = [max(rates[name]) - middle for name, middle in zip(names, middles, strict=True)]
    axes.barh(names, middles, xerr=[low, high], color=[color(name) for name in names], error_kw={"lw": 0.8})
    for index, middle in enumerate(middles):
        axes.annotate(
            f"{middle:,.0f}",
            (middle + high[index], index),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(0, max(m + h for m, h in zip(middles, high, strict=True)) * 1.18)
    axes.tick_params(labelsize=8)


def rates_of(figures: dict[str, Any], shape: str) -> dict[str, list[float]]:
    return {name: [one["per_second"] for one in found[shape]] for name, found in figures.items()}


def main(source: Path, target: Path) -> None:
    rows = json.loads(source.read_text())["rows"]
    panels = [
        (f"REST, {count} connection{'s' if count != '1' else ''}, requests/s", rates_of(rows["rest"]["figures"], count))
        for count in ("1", "16", "64")
        if "rest" in rows
    ]
    panels += [
        (f"gRPC, {count} connections, calls/s", rates_of(rows["grpc"]["figures"], count))
        for count in ("16", "64")
        if "grpc" in rows
    ]
    if not panels:
        sys.exit("neither rest nor grpc was measured")
    figure, axes = plt.subplots(len(panels), 1, figsize=(7.5, 0.6 + sum(0.5 + 0.24 * len(r) for _, r in panels)),
                                height_ratios=[0.5 + 0.24 * len(r) for _, r in panels], squeeze=False)  # fmt: skip
    for axis, (title, rates) in zip(axes[:, 0], panels, strict=True):
        bars(axis, title, rates)
    machine = next(iter(rows.values()))["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores, {machine['at'][:10]}", fontsize=9)
    figure.tight_layout()
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
