"""Many models, many endpoints, and what a request pays for being routed (``benchmarks/rows/fleet.py``)."""
