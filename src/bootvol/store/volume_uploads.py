"""Rows of uploads: images that are made of volumes."""

from __future__ import annotations

from typing import Final

import attrs
from sqlalchemy import Connection, delete, insert, select, update

from bootvol.model import ImageRecord, Visibility, VolumeUpload
from bootvol.store.schema import volume_uploads

#: The parts of a record that the caller has described.
_DESCRIBED = (
    "id",
    "owner",
    "created_at",
    "updated_at",
    "name",
    "visibility",
    "disk_format",
    "container_format",
    "is_protected",
    "properties",
)
#: Beside these parts: whether the image is to be removed.
_GIVEN_UP: Final = "is_given_up"


def add(connection: Connection, upload: VolumeUpload) -> None:
    """Insert an upload."""
    image = attrs.asdict(upload.image, filter=attrs.filters.include(*_DESCRIBED))
    connection.execute(
        insert(volume_uploads).values(
            volume_id=upload.volume_id, source=upload.source, image=image, daemon=upload.daemon
        )
    )


def get(connection: Connection, volume_id: int) -> VolumeUpload | None:
    """Return the upload of a volume; None without one."""
    row = connection.execute(
        select(volume_uploads).where(volume_uploads.c.volume_id == volume_id)
    ).one_or_none()
    if row is None:
        return None
    image = {**row.image, "visibility": Visibility(row.image["visibility"])}
    given_up = bool(image.pop(_GIVEN_UP, False))
    return VolumeUpload(row.volume_id, row.source, ImageRecord(**image), row.daemon, given_up)


def give_up(connection: Connection, volume_id: int) -> None:
    """Note that the image of a volume is to be removed, and not made."""
    where = volume_uploads.c.volume_id == volume_id
    image = connection.execute(select(volume_uploads.c.image).where(where)).scalar_one()
    connection.execute(update(volume_uploads).where(where).values(image={**image, _GIVEN_UP: True}))


def remove(connection: Connection, volume_id: int) -> None:
    """Delete the upload of a volume, if any."""
    connection.execute(delete(volume_uploads).where(volume_uploads.c.volume_id == volume_id))
