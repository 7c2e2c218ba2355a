"""Volume types, and quotas of single tenants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the tables, and the requested type of each volume."""
    op.add_column("volumes", sa.Column("volume_type", sa.String(255)))
    op.create_table(
        "volume_types",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("extra_specs", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_volume_types"),
        sa.UniqueConstraint("name", name="uq_volume_types_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "quotas",
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("resource", sa.String(32), nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "resource", name="pk_quotas"),
    )
