"""Attachments that other systems manage, and ids of the attachments of bootvol's own."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Add the table, and the column with the ids."""
    op.create_table(
        "holds",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("volume_id", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("instance", sa.String(36)),
        sa.Column("host", sa.String(255)),
        sa.Column("mountpoint", sa.String(255)),
        sa.Column("mode", sa.String(8)),
        sa.Column("connector", sa.JSON()),
        sa.Column("route", sa.JSON()),
        sa.Column("attached_at", sa.DateTime()),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.id"], name="fk_holds_volume_id_volumes"),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
        sa.UniqueConstraint("uuid", name="uq_holds_uuid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_holds_volume_id", "holds", ["volume_id"])
    op.create_index("ix_holds_tenant_id", "holds", ["tenant", "id"])
    op.add_column("attachments", sa.Column("uuid", sa.String(36)))
    attachments = sa.table("attachments", sa.column("volume_id"), sa.column("uuid"))
    db = op.get_bind()
    for number in db.scalars(sa.select(attachments.c.volume_id)).all():
        mine = attachments.c.volume_id == number
        db.execute(sa.update(attachments).where(mine).values(uuid=str(uuid4())))
    op.create_index("ix_attachments_uuid", "attachments", ["uuid"], unique=True)
