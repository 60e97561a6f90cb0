"""Python environments that versions run in: built once with uv, kept under the hash of what is in them."""
