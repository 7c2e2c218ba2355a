"""Daemons with a hypervisor."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column.  Each daemon sets its own value at its start."""
    serves: sa.Column[bool] = sa.Column(
        "serves", sa.Boolean(), nullable=False, server_default=sa.false()
    )
    op.add_column("daemons", serves)
