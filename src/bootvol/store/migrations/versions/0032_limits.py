"""The limits of speed that hosts were told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Add the column."""
    op.add_column("holds", sa.Column("limits", sa.JSON()))
