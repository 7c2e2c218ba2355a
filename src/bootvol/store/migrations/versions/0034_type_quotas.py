"""The quotas of single volume types."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    """Add the table."""
    key = ("tenant", "volume_type", "resource")
    op.create_table(
        "type_quotas",
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("volume_type", sa.String(255), nullable=False),
        sa.Column("resource", sa.String(32), nullable=False),
        sa.Column("most", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(*key, name=op.f("pk_type_quotas")),
    )
