"""Columns for the bootable flag of volumes, and for the facts about their images."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the columns.  So far, the volumes of images are bootable."""
    for table in "volumes", "snapshots":
        op.add_column(table, sa.Column("bootable", sa.Boolean()))
        op.add_column(table, sa.Column("image_metadata", sa.JSON()))
    volumes = sa.table("volumes", sa.column("bootable", sa.Boolean()), sa.column("image_id"))
    op.execute(sa.update(volumes).values(bootable=volumes.c.image_id.is_not(None)))
    snapshots = sa.table("snapshots", sa.column("bootable", sa.Boolean()))
    op.execute(sa.update(snapshots).values(bootable=sa.false()))
    _note_images()


def _note_images() -> None:
    """Note the image of each volume, and give snapshots what their volumes have."""
    db = op.get_bind()
    volumes = sa.table("volumes", sa.column("id"), sa.column("image_id"))
    volumes.append_column(sa.column("image_metadata", sa.JSON()))
    snapshots = sa.table("snapshots", sa.column("volume_id"), sa.column("bootable", sa.Boolean()))
    snapshots.append_column(sa.column("image_metadata", sa.JSON()))
    of_images = sa.select(volumes.c.id, volumes.c.image_id).where(volumes.c.image_id.is_not(None))
    for row in db.execute(of_images).all():
        known = {"image_id": row.image_id}
        mine = volumes.c.id == row.id
        db.execute(sa.update(volumes).where(mine).values(image_metadata=known))
        of_volume = snapshots.c.volume_id == row.id
        db.execute(
            sa.update(snapshots).where(of_volume).values(bootable=True, image_metadata=known)
        )
