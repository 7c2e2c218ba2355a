"""Checkpoints: the durable part of each import."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the point from which an import may resume."""
    op.add_column("imports", sa.Column("durable_bytes", sa.BigInteger()))
    op.add_column("imports", sa.Column("durable_digest", sa.String(128)))
    op.add_column("imports", sa.Column("validator", sa.Text()))
