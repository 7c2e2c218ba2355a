"""A table for images that are made of volumes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "volume_uploads",
        sa.Column("volume_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("image", sa.JSON(), nullable=False),
        sa.Column("daemon", sa.String(64)),
        sa.PrimaryKeyConstraint("volume_id", name="pk_volume_uploads"),
        sa.ForeignKeyConstraint(
            ["volume_id"],
            ["volumes.id"],
            name="fk_volume_uploads_volume_id_volumes",
            ondelete="CASCADE",
        ),
    )
