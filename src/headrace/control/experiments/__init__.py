"""What outcomes say about the arms of an experiment, and which shares a bandit gives them. Pure.

The methods and their sources stand in ``docs/experiments.md``."""
