"""Alembic's entry point: runs the migrations on the connection that ``store/database.py`` hands over."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
context.run_migrations()
