"""Experiments, and what their outcomes add up to by arm and hour."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("endpoint", sa.Text, nullable=False, index=True),
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
    )
    op.create_table(
        "experiment_tallies",
        sa.Column("experiment", sa.Text, primary_key=True),
        sa.Column("arm", sa.Text, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True),
        sa.Column("tally", sa.Text, nullable=False),
    )
