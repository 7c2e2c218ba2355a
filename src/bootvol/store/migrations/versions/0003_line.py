"""The source of each import, for limits of sources; and the turns of tenants."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_IMPORTS = sa.table("imports", sa.column("image", sa.JSON()), sa.column("source", sa.String(64)))


def upgrade() -> None:
    """Add the turns, and the source.  The source of an existing import comes from its image."""
    op.add_column("imports", sa.Column("source", sa.String(64)))
    op.execute(sa.update(_IMPORTS).values(source=_IMPORTS.c.image["source"].as_string()))
    with op.batch_alter_table("imports") as table:
        table.alter_column("source", existing_type=sa.String(64), nullable=False)
    op.create_table(
        "turns",
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_turns"),
    )
