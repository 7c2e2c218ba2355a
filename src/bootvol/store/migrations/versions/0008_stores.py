"""The identities that tell each backend's store from every other store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the table of stores."""
    op.create_table(
        "stores",
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("identity", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("backend", name="pk_stores"),
    )
