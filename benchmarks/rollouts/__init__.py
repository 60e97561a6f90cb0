"""Simulated rollouts through the code that judges and steers real ones: `python -m benchmarks.rollouts`."""
