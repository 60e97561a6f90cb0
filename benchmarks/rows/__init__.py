"""One file per row of the benchmark: each has ``run(bench) -> dict`` and measures, nothing more."""
