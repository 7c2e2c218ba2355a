"""The marks that operators put on volumes and snapshots instead of their statuses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Add the columns."""
    for table in ("volumes", "snapshots"):
        op.add_column(table, sa.Column("marked", sa.String(32)))
    op.add_column("snapshots", sa.Column("progress", sa.String(8)))
