"""Rows of imports: the image to copy onto a volume, and the progress of the copy."""

from __future__ import annotations

import attrs
from sqlalchemy import Connection, Row, delete, exists, func, insert, select, update

from bootvol.errors import ErrorReport, VolumeNotFound
from bootvol.jsons import JsonObject
from bootvol.model import STARTED_OVER, Checkpoint, Digest, Image, Import, Phase, Volume
from bootvol.store import import_queue
from bootvol.store import volumes as volume_rows
from bootvol.store.cautions import warnings_of
from bootvol.store.schema import imports, volumes


def add(connection: Connection, volume_id: int, image: Image, content: str | None = None) -> None:
    """Insert a new import of ``image`` onto a volume, without any progress.

    :param content: key of the image's bytes, if any.
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


def remove(connection: Connection, volume_id: int) -> None:
    """Delete the import of a volume, if any."""
    connection.execute(delete(imports).where(imports.c.volume_id == volume_id))


def get(connection: Connection, tenant: str, volume_id: int) -> Import:
    """Return the present or past import of a tenant's volume, as the tenant may see the import.

    Hide other tenants: their imports in the same queue, and their past and present copies of the
    same image.

    :raises VolumeNotFound: if the tenant has no such volume, or the volume was made without an
        image.
    """
    volume = volume_rows.get(connection, tenant, volume_id)
    found = find(connection, volume_id)
    if found is None:
        raise VolumeNotFound(volume_id)
    leader = import_queue.leader(connection, volume_id, tenant)
    if leader is not None and (led := find(connection, leader)) is not None:
        # Show the progress of the import that this import waits for.
        return attrs.evolve(led, volume_id=volume_id, phase=Phase.WAITING, attempt=found.attempt)
    place = import_queue.position(connection, volume_id)
    if place is not None:
        # The last recorded rate belongs to an attempt that has ended.
        found = attrs.evolve(found, bytes_per_second=0)
    if found.cached and not _has_made(connection, volume, found.content):
        # A tenant must not learn that another tenant has had the same image.
        phase = Phase.DOWNLOADING if found.phase is Phase.CLONING else found.phase
        found = attrs.evolve(found, cached=False, phase=phase)
    return attrs.evolve(found, error=volume.error or found.error, position=place)


def _has_made(connection: Connection, volume: Volume, content: str | None) -> bool:
    """Return whether the volume's tenant has an older volume of the same content beside it."""
    older = (
        imports.c.content == content,
        imports.c.phase == Phase.DONE,
        volumes.c.tenant == volume.tenant,
        volumes.c.backend == volume.backend,
        volumes.c.host == volume.host,
        volumes.c.id < volume.id,
    )
    query = select(exists().where(*older).select_from(imports.join(volumes)))
    return bool(connection.scalar(query))


def find(connection: Connection, volume_id: int) -> Import | None:
    """Return the import of a volume, or None if the volume was made without an image."""
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
        stated_size=row.stated_size,
        stated_validator=row.stated_validator,
        error=ErrorReport(**row.failure) if row.failure else None,
        warnings=warnings_of(row),
    )


def begin(connection: Connection, volume_id: int) -> Import:
    """Note the start of another attempt.  Return the import after this change.

    :raises VolumeNotFound: if no such import exists.
    """
    before = find(connection, volume_id)
    # Without a checkpoint the copied bytes are lost.  Images that are unpacked have no checkpoint.
    over = before is not None and before.bytes_done and before.checkpoint is None
    connection.execute(
        update(imports)
        .where(imports.c.volume_id == volume_id)
        .values(
            phase=Phase.ALLOCATING,
            warnings=[attrs.asdict(STARTED_OVER)] if over else [],
            bytes_done=func.coalesce(imports.c.durable_bytes, 0),
            bytes_per_second=0,
            failure=None,
            attempt=imports.c.attempt + 1,
        )
    )
    begun = find(connection, volume_id)
    if begun is None:
        raise VolumeNotFound(volume_id)
    return begun


def record(connection: Connection, volume_id: int, **columns: object) -> None:
    """Set columns of an import.  Do nothing if the import is gone."""
    connection.execute(update(imports).where(imports.c.volume_id == volume_id).values(**columns))


def _checkpoint(row: Row[object]) -> Checkpoint | None:
    if row.durable_bytes is None:
        return None
    # Rows of former versions do not state whether the volume is blank: it always was.
    blank = row.durable_blank is not False
    return Checkpoint(row.durable_bytes, row.durable_digest, row.validator, blank)


def _image(fields: JsonObject) -> Image:
    digest = fields["digest"]
    return Image(**{**fields, "digest": Digest(**digest) if digest else None})
