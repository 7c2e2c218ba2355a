"""The flag of volumes that servers may only read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Add the column."""
    op.add_column("volumes", sa.Column("readonly", sa.Boolean()))
