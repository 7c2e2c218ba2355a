"""Rows of the indexes of cached images: see :class:`bootvol.model.DiskIndex`."""

from __future__ import annotations

from sqlalchemy import Connection, exists, insert, or_, select

from bootvol.model import DiskIndex, Volume
from bootvol.store.schema import cached_images, disk_indexes, imports, volumes

_READY = "ready"


def keep(connection: Connection, cached_image: str, index: DiskIndex) -> None:
    """Insert the index of a cached image.  The index goes with the cached image."""
    connection.execute(
        insert(disk_indexes).values(
            cached_image=cached_image,
            family=index.family,
            tenant=index.tenant,
            depth=index.depth,
            chunks=index.chunks,
        )
    )


def find(
    connection: Connection, volume: Volume, family: str, deepest: int
) -> tuple[str, int, DiskIndex] | None:
    """Return the newest cached image that may be the base of a volume: name, bytes and index.

    The cached image is on the volume's backend.  The volume's tenant got the image from the source:
    the tenant's import made the cached image, or filled another volume of the tenant.  So the time
    of an import tells nothing about the images of others.

    :param deepest: the largest depth of a base.
    """
    received = exists().where(
        imports.c.volume_id == volumes.c.id,
        imports.c.content == cached_images.c.content,
        volumes.c.tenant == volume.tenant,
    )
    row = connection.execute(
        select(disk_indexes, cached_images.c.bytes)
        .join(cached_images, cached_images.c.name == disk_indexes.c.cached_image)
        .where(
            cached_images.c.state == _READY,
            cached_images.c.backend == volume.backend,
            cached_images.c.host == volume.host,
            disk_indexes.c.family == family,
            disk_indexes.c.depth <= deepest,
            or_(disk_indexes.c.tenant == volume.tenant, received),
        )
        .order_by(cached_images.c.id.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    index = DiskIndex(row.family, row.tenant, row.depth, row.chunks)
    return row.cached_image, row.bytes, index
