"""The disabled services."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "disabled",
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("host", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(255)),
        sa.PrimaryKeyConstraint("backend", "host", name=op.f("pk_disabled")),
    )
