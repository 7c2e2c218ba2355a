"""The new size of volumes that become larger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the column."""
    op.add_column("volumes", sa.Column("target_gib", sa.Integer()))
