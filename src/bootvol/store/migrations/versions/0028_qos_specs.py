"""Limits of speed for the volumes of some types."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Add the table and the column."""
    op.create_table(
        "qos_specs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("consumer", sa.String(16), nullable=False),
        sa.Column("specs", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_qos_specs"),
        sa.UniqueConstraint("name", name="uq_qos_specs_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_qos_specs_uuid", "qos_specs", ["uuid"], unique=True)
    op.add_column("volume_types", sa.Column("qos", sa.String(36)))
