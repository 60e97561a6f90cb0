"""The inference port: mounts the protocols on the pipeline as a plain ASGI application."""
