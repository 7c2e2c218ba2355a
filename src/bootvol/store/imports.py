"""Rows of imports: what is to be copied onto a volume, and how far that has come."""

from __future__ import annotations

from typing import Any

import attrs
from sqlalchemy import Connection, Row, exists, func, insert, select, update

from bootvol.errors import VolumeNotFound
from bootvol.model import STARTED_OVER, Caution, Checkpoint, Digest, Image, Import, Phase, Volume
from bootvol.store import line
from bootvol.store import volumes as volume_rows
from bootvol.store.schema import imports, volumes


def add(connection: Connection, volume_id: int, image: Image, content: str | None = None) -> None:
    """Insert the import of ``image`` onto a volume; nothing of it has been done.

    :param content: stands for the image's bytes, if anything does.
    """
    connection.execute(
        insert(imports).values(
            volume_id=volume_id,
            image=attrs.asdict(image),
            source=image.source,
            content=content,
            phase=Phase.QUEUED,
            bytes_done=0,
            bytes_total=image.size_bytes,
            bytes_per_second=0,
            attempt=0,
        )
    )


def get(connection: Connection, tenant: str, volume_id: int) -> Import:
    """Return how a tenant's volume is being, or was, filled, as the tenant may see it.

    Nothing shows of other tenants: neither that their imports wait in the same line, nor that one
    of them copies or has copied the same image.

    :raises VolumeNotFound: the tenant has no such volume, or it was made without an image.
    """
    volume = volume_rows.get(connection, tenant, volume_id)
    found = find(connection, volume_id)
    if found is None:
        raise VolumeNotFound(volume_id)
    leader = line.leader(connection, volume_id, tenant)
    if leader is not None and (led := find(connection, leader)) is not None:
        # What it waits for is how far the other one has come.
        return attrs.evolve(led, volume_id=volume_id, phase=Phase.WAITING, attempt=found.attempt)
    place = line.position(connection, volume_id)
    if place is not None:
        # The rate that was written down last is of an attempt that has ended.
        found = attrs.evolve(found, bytes_per_second=0)
    if found.cached and not _has_made(connection, volume, found.content):
        # Whether another tenant has had the same image is nobody else's business.
        phase = Phase.DOWNLOADING if found.phase is Phase.CLONING else found.phase
        found = attrs.evolve(found, cached=False, phase=phase)
    return attrs.evolve(found, error=volume.error, position=place)


def _has_made(connection: Connection, volume: Volume, content: str | None) -> bool:
    """Tell whether a volume's tenant has an older volume of the same content beside it."""
    older = (
        imports.c.content == content,
        imports.c.phase == Phase.DONE,
        volumes.c.tenant == volume.tenant,
        volumes.c.backend == volume.backend,
        volumes.c.id < volume.id,
    )
    query = select(exists().where(*older).select_from(imports.join(volumes)))
    return bool(connection.scalar(query))


def find(connection: Connection, volume_id: int) -> Import | None:
    """Return the import of a volume, or None if it was made without an image."""
    row = connection.execute(select(imports).where(imports.c.volume_id == volume_id)).one_or_none()
    if row is None:
        return None
    return Import(
        volume_id=row.volume_id,
        image=_image(row.image),
        phase=Phase(row.phase),
        bytes_done=row.bytes_done,
        bytes_total=row.bytes_total,
        bytes_per_second=row.bytes_per_second,
        attempt=row.attempt,
        content=row.content,
        cached=row.cached,
        checkpoint=_checkpoint(row),
        durable_name=row.durable_name,
        warnings=warnings_of(row),
    )


def begin(connection: Connection, volume_id: int) -> Import:
    """Note that another attempt starts; return the import as it then stands.

    :raises VolumeNotFound: there is no such import.
    """
    before = find(connection, volume_id)
    # What came is lost if no checkpoint tells of it: of images that are unpacked there is none.
    over = before is not None and before.bytes_done and before.checkpoint is None
    connection.execute(
        update(imports)
        .where(imports.c.volume_id == volume_id)
        .values(
            phase=Phase.ALLOCATING,
            warnings=[attrs.asdict(STARTED_OVER)] if over else [],
            bytes_done=func.coalesce(imports.c.durable_bytes, 0),
            bytes_per_second=0,
            attempt=imports.c.attempt + 1,
        )
    )
    begun = find(connection, volume_id)
    if begun is None:
        raise VolumeNotFound(volume_id)
    return begun


def record(connection: Connection, volume_id: int, **columns: Any) -> None:
    """Set columns of an import, if it is still there."""
    connection.execute(update(imports).where(imports.c.volume_id == volume_id).values(**columns))


def warnings_of(row: Row[Any]) -> tuple[Caution, ...]:
    """Return the warnings in a row of an import, or of a golden volume."""
    return tuple(Caution(**each) for each in row.warnings or ())


def _checkpoint(row: Row[Any]) -> Checkpoint | None:
    if row.durable_bytes is None:
        return None
    return Checkpoint(row.durable_bytes, row.durable_digest, row.validator)


def _image(fields: dict[str, Any]) -> Image:
    digest = fields["digest"]
    return Image(**{**fields, "digest": Digest(**digest) if digest else None})
