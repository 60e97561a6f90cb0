"""The state that outlives a run: where it is, who owns it, what is restored from it."""
