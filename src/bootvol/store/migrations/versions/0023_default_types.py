"""Default types of tenants, and offers of volumes without their snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Add the table and the column."""
    op.create_table(
        "default_types",
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("type_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["type_id"],
            ["volume_types.id"],
            name="fk_default_types_type_id_volume_types",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant", name="pk_default_types"),
    )
    op.add_column(
        "transfers",
        sa.Column("no_snapshots", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
