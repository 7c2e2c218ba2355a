"""Names of lost claims, and imports that resume from the data under such a name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the table of strays, and the name under which an import's prefix is stored."""
    op.add_column("imports", sa.Column("durable_name", sa.String(64)))
    op.create_index("ix_imports_durable_name", "imports", ["durable_name"])
    op.create_table(
        "strays",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("daemon", sa.String(64)),
        sa.Column("due", sa.Float()),
        sa.Column("since", sa.Float()),
        sa.PrimaryKeyConstraint("id", name="pk_strays"),
    )
    op.create_index("ix_strays_name", "strays", ["name"])
