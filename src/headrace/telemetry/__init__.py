"""Metrics, traces and logs: declared in one place each, written without waiting for anybody."""
