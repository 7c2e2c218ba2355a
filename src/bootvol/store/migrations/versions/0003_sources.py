"""Imports name their source, so that it can have a limit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_IMPORTS = sa.table("imports", sa.column("image", sa.JSON()), sa.column("source", sa.String(64)))


def upgrade() -> None:
    """Add the source; the image of an import that is there already says which it is."""
    op.add_column("imports", sa.Column("source", sa.String(64)))
    op.execute(sa.update(_IMPORTS).values(source=_IMPORTS.c.image["source"].as_string()))
    with op.batch_alter_table("imports") as table:
        table.alter_column("source", existing_type=sa.String(64), nullable=False)
