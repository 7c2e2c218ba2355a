"""The indexes of cached images, and checkpoints of volumes that begin with other bytes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the table and the column."""
    op.add_column("imports", sa.Column("durable_blank", sa.Boolean()))
    op.create_table(
        "disk_indexes",
        sa.Column("cached_image", sa.String(64), nullable=False),
        sa.Column("family", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["cached_image"],
            ["goldens.name"],
            name="fk_disk_indexes_cached_image_goldens",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("cached_image", name="pk_disk_indexes"),
    )
    op.create_index("ix_disk_indexes_family", "disk_indexes", ["family"])
