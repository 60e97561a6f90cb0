"""Load: the open-loop generator of our own, and thin wrappers around ``wrk`` and ``h2load``."""
