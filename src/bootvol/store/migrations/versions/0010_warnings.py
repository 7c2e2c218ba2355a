"""Warnings for people about imports, and about cached images (golden volumes)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the warnings: lists of codes and messages."""
    op.add_column("imports", sa.Column("warnings", sa.JSON()))
    op.add_column("goldens", sa.Column("warnings", sa.JSON()))
