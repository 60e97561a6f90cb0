"""Experiments while they run."""
