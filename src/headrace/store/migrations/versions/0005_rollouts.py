"""Rollouts: those under way, and the stories of those that ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("rollout", sa.Text, nullable=False),
    )
    op.create_index("rollouts_of_endpoint", "rollouts", ["endpoint", "started_at"])
    # Two at a time would undo each other's traffic, whatever the program does.
    op.create_index(
        "one_active_rollout",
        "rollouts",
        ["endpoint"],
        unique=True,
        sqlite_where=sa.text("NOT ended"),
        postgresql_where=sa.text("NOT ended"),
    )
