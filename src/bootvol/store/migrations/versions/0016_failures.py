"""The errors of failed attempts of imports that wait for the next attempt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the column."""
    op.add_column("imports", sa.Column("failure", sa.JSON()))
