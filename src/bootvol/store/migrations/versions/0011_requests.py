"""The requests for volumes, snapshots and servers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the id of the request.  The log names the id when the making fails."""
    for table in "volumes", "snapshots", "servers":
        op.add_column(table, sa.Column("request_id", sa.String(64)))
