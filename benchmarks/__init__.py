"""The benchmark of Headrace: ``python -m benchmarks``. Nothing in the package ``headrace`` imports it."""
