"""Rows of cached images: hidden volumes with one image each, to make others from.

A cached image is first ``making``: a worker fills the cached image.  The worker holds the claim
on the origin, the volume from which the cached image is made.  Then the cached image is
``ready`` for use.  A ``doomed`` cached image is to be removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    exists,
    insert,
    select,
    update,
)
from sqlalchemy import delete as delete_from

from bootvol.lifecycle import MAKING, Status
from bootvol.model import CachedImage, Digest, DiskIndex, Volume
from bootvol.store import disk_indexes
from bootvol.store.cautions import warnings_of
from bootvol.store.schema import cached_images, imports, volumes

_MAKING, _READY, _DOOMED = "making", "ready", "doomed"
#: The fewest bytes that count for a cached image: also a tiny one takes space for metadata, and LVM
#: slows down with each volume.
LEAST: Final = 64 * 1024 * 1024


def begin(connection: Connection, cached_image: CachedImage, volume_id: int) -> bool:
    """Insert a cached image that is about to be made from the volume ``volume_id``.

    :returns: False if the backend already has a cached image of the same content.
    """
    same = and_(
        cached_images.c.backend == cached_image.backend,
        cached_images.c.host == cached_image.host,
        cached_images.c.content == cached_image.content,
        cached_images.c.state != _DOOMED,
    )
    if connection.execute(select(exists().where(same))).scalar():
        return False
    connection.execute(
        insert(cached_images).values(
            name=cached_image.name,
            backend=cached_image.backend,
            host=cached_image.host,
            image_id=cached_image.image_id,
            content=cached_image.content,
            bytes=cached_image.size,
            digest_algorithm=cached_image.digest.algorithm if cached_image.digest else None,
            digest=cached_image.digest.value if cached_image.digest else None,
            state=_MAKING,
            volume_id=volume_id,
            hits=0,
            used_at=cached_image.used_at,
            warnings=[attrs.asdict(each) for each in cached_image.warnings],
        )
    )
    return True


def complete(connection: Connection, name: str, index: DiskIndex | None = None) -> bool:
    """Mark a cached image as ready.  Return False for one that was given up meanwhile.

    :param index: the index of the cached image, if known.
    """
    mine = and_(cached_images.c.name == name, cached_images.c.state == _MAKING)
    made = update(cached_images).where(mine).values(state=_READY, volume_id=None)
    if not connection.execute(made).rowcount:
        return False
    if index is not None:
        disk_indexes.keep(connection, name, index)
    return True


def use(
    connection: Connection, backend: str, host: str, content: str, now: float
) -> CachedImage | None:
    """Return the cached image of a content on a backend, and count the use.

    The cached image stays while an import of the content goes on there.

    :param host: host of the backend's volumes; empty for a backend that all hosts reach.
    :param now: seconds since 1970.
    """
    same = and_(
        cached_images.c.backend == backend,
        cached_images.c.host == host,
        cached_images.c.content == content,
    )
    ready = and_(same, cached_images.c.state == _READY)
    name = (
        select(cached_images.c.name)
        .where(ready)
        .order_by(cached_images.c.id)
        .limit(1)
        .scalar_subquery()
    )
    row = connection.execute(
        update(cached_images)
        .where(cached_images.c.name == name, cached_images.c.state == _READY)
        .values(hits=cached_images.c.hits + 1, used_at=now)
        .returning(*cached_images.c)
    ).one_or_none()
    return None if row is None else _of_row(row)


def mark_for_eviction(connection: Connection, name: str) -> None:
    """Mark a cached image for removal, and end its use."""
    connection.execute(
        update(cached_images).where(cached_images.c.name == name).values(state=_DOOMED)
    )


def mark_unfinished_for_eviction(connection: Connection, volume_id: int) -> bool:
    """Doom the unfinished cached images of a volume.  Return whether any existed."""
    begun = and_(cached_images.c.volume_id == volume_id, cached_images.c.state == _MAKING)
    return connection.execute(update(cached_images).where(begun).values(state=_DOOMED)).rowcount > 0


def mark_surplus_for_eviction(
    connection: Connection, backend: str, host: str, limit: int, but_for: int = 0
) -> Sequence[str]:
    """Doom the least recently used cached images of a backend beyond ``limit`` bytes in total.

    A cached image counts as at least :data:`LEAST` bytes.

    Keep a cached image whose content is still wanted by an import there.  Doom unfinished golden
    volumes, too, if the work on their origin volume has ended: nothing will complete them.

    :param host: host of the backend's volumes; empty for a backend that all hosts reach.
    :param but_for: id of a volume whose import does not count.
    :returns: the names of all doomed cached images of the backend.
    """
    here = and_(cached_images.c.backend == backend, cached_images.c.host == host)
    # During the removal of a volume, the work on the volume may not have stopped yet.
    at_work = volumes.c.status.in_({*MAKING, Status.DELETING})
    ended = exists().where(volumes.c.id == cached_images.c.volume_id, ~at_work)
    left = and_(here, cached_images.c.state == _MAKING, ended)
    connection.execute(update(cached_images).where(left).values(state=_DOOMED))
    rows = connection.execute(
        select(
            cached_images.c.name,
            cached_images.c.bytes,
            cached_images.c.used_at,
            _wanted(but_for).label("wanted"),
        )
        .where(here, cached_images.c.state == _READY)
        .order_by(cached_images.c.used_at)
    ).all()
    counted = [max(row.bytes, LEAST) for row in rows]
    total = sum(counted)
    for row, size in zip(rows, counted, strict=True):
        if total > limit and not row.wanted:
            # A cached image that was used meanwhile has another time, and stays.
            unused = and_(cached_images.c.name == row.name, cached_images.c.used_at == row.used_at)
            connection.execute(update(cached_images).where(unused).values(state=_DOOMED))
            total -= size
    doomed = select(cached_images.c.name).where(here, cached_images.c.state == _DOOMED)
    return connection.execute(doomed).scalars().all()


def forget(connection: Connection, name: str) -> None:
    """Delete the row of a removed cached image."""
    connection.execute(delete_from(cached_images).where(cached_images.c.name == name))


def is_awaited(connection: Connection, volume: Volume, content: str) -> bool:
    """Return whether another import than the volume's wants the same content beside the volume."""
    others = and_(
        imports.c.content == content,
        volumes.c.backend == volume.backend,
        volumes.c.host == volume.host,
    )
    return bool(
        connection.execute(
            select(exists().where(_unsettled(), others, volumes.c.id != volume.id))
        ).scalar()
    )


def listed(connection: Connection) -> Sequence[CachedImage]:
    """Return all ready cached images, the last used ones first."""
    query = (
        select(cached_images)
        .where(cached_images.c.state == _READY)
        .order_by(cached_images.c.used_at.desc())
    )
    return [_of_row(row) for row in connection.execute(query)]


def ready() -> Select[tuple[str, str, str]]:
    """Return the query for the backend, host and content of all ready cached images."""
    return select(cached_images.c.backend, cached_images.c.host, cached_images.c.content).where(
        cached_images.c.state == _READY
    )


def _wanted(but_for: int) -> ColumnElement[bool]:
    same = and_(
        imports.c.content == cached_images.c.content,
        volumes.c.backend == cached_images.c.backend,
        volumes.c.host == cached_images.c.host,
    )
    return exists().where(_unsettled(), same, volumes.c.id != but_for)


def _unsettled() -> ColumnElement[bool]:
    return and_(imports.c.volume_id == volumes.c.id, volumes.c.status.in_(MAKING))


def _of_row(row: Row[tuple[object, ...]]) -> CachedImage:
    return CachedImage(
        name=row.name,
        backend=row.backend,
        image_id=row.image_id,
        content=row.content,
        size=row.bytes,
        digest=Digest(row.digest_algorithm, row.digest) if row.digest else None,
        hits=row.hits,
        used_at=row.used_at,
        warnings=warnings_of(row),
        host=row.host,
    )
