"""The volumes that other volumes were made from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("volumes", sa.Column("source_id", sa.Integer()))
    op.add_column("volumes", sa.Column("source_uuid", sa.String(36)))
    op.create_index("ix_volumes_source_id", "volumes", ["source_id"])
