"""The end of a volume's last move to another backend."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    """Add the column."""
    op.add_column("volumes", sa.Column("moved", sa.Boolean()))
