"""The disks of other programs that become volumes and snapshots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Add the columns."""
    for table in ("volumes", "snapshots"):
        op.add_column(table, sa.Column("place", sa.String(255)))
