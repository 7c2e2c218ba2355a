"""Data for clients of Cinder v3: times of changes, metadata of snapshots, uuids of types."""

from __future__ import annotations

from uuid import NAMESPACE_OID, uuid5

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the columns.  The uuid of an earlier type follows from its id, which is never reused."""
    op.add_column("volumes", sa.Column("updated_at", sa.DateTime()))
    op.add_column("snapshots", sa.Column("updated_at", sa.DateTime()))
    op.add_column("snapshots", sa.Column("metadata", sa.JSON()))
    op.add_column("volume_types", sa.Column("uuid", sa.String(36)))
    op.add_column("volume_types", sa.Column("description", sa.String(255)))
    db = op.get_bind()
    types = sa.table("volume_types", sa.column("id"), sa.column("uuid"))
    for row in db.execute(sa.select(types.c.id)).all():
        uuid = str(uuid5(NAMESPACE_OID, f"volume_types/{row.id}"))
        db.execute(sa.update(types).where(types.c.id == row.id).values(uuid=uuid))
    op.create_index("ix_volume_types_uuid", "volume_types", ["uuid"], unique=True)
