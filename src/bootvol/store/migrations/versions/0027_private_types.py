"""Volume types that only some tenants see."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column(
        "volume_types",
        sa.Column("is_public", sa.Boolean(), nullable=False, server_default=sa.true()),
    )
    op.create_table(
        "type_access",
        sa.Column("type_id", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.ForeignKeyConstraint(
            ["type_id"],
            ["volume_types.id"],
            name="fk_type_access_type_id_volume_types",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("type_id", "tenant", name="pk_type_access"),
    )
