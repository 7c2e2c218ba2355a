"""A table for data that are to take the place of a volume's data."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "replacements",
        sa.Column("volume_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("host", sa.String(64), nullable=False, server_default=""),
        sa.Column("snapshot_id", sa.Integer()),
        sa.Column("retypes", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("volume_type", sa.String(255)),
        sa.Column("durable_bytes", sa.BigInteger()),
        sa.Column("durable_digest", sa.String(128)),
        sa.Column("durable_blank", sa.Boolean()),
        sa.Column("validator", sa.Text()),
        sa.PrimaryKeyConstraint("volume_id", name="pk_replacements"),
        sa.UniqueConstraint("name", name="uq_replacements_name"),
        sa.ForeignKeyConstraint(
            ["volume_id"],
            ["volumes.id"],
            name="fk_replacements_volume_id_volumes",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_replacements_snapshot_id", "replacements", ["snapshot_id"])
