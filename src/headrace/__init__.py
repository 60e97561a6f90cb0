"""Headrace: serve machine-learning models over REST and gRPC."""

__version__ = "0.1.0"
