"""Judges a canary against the stable version beside it: tallies of an interval in, a verdict with reasons out.

Pure: no I/O, no clock, no randomness; the same observations give the same verdicts. The method, its error rates and
its sources stand in ``docs/rollout-analysis.md``."""
