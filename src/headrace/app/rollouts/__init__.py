"""Rollouts while they run."""
