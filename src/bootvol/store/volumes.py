"""Rows of volumes: add, look up, and take from one status to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from sqlalchemy import Connection, Row, func, insert, select, text, update
from sqlalchemy import delete as delete_from

from bootvol.errors import ErrorReport, VolumeNotFound
from bootvol.lifecycle import Event, Status, after
from bootvol.model import Usage, Volume
from bootvol.store.schema import volumes


def add(connection: Connection, volume: Volume) -> Volume:
    """Insert ``volume``, whose own id is ignored; return it with the id it got."""
    values = attrs.asdict(
        volume, filter=attrs.filters.exclude("id", "error", "attachments"), recurse=False
    )
    values["metadata"] = dict(volume.metadata)
    number = connection.execute(insert(volumes).values(values).returning(volumes.c.id)).scalar_one()
    return attrs.evolve(volume, id=number)


def get(connection: Connection, tenant: str, volume_id: int) -> Volume:
    """Return a tenant's volume.

    :raises VolumeNotFound: there is none, or it is another tenant's.
    """
    query = select(volumes).where(volumes.c.id == volume_id, volumes.c.tenant == tenant)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise VolumeNotFound(volume_id)
    return of_row(row)


def listed(
    connection: Connection,
    tenant: str,
    *,
    bootable: bool = False,
    limit: int | None = None,
    offset: int = 0,
) -> Sequence[Volume]:
    """Return a tenant's volumes, ascending by id; only those made from an image if ``bootable``."""
    query = select(volumes).where(volumes.c.tenant == tenant).order_by(volumes.c.id)
    if bootable:
        query = query.where(volumes.c.image_id.is_not(None))
    return [of_row(row) for row in connection.execute(query.limit(limit).offset(offset))]


def usage(connection: Connection, tenant: str) -> Usage:
    """Count what a tenant has, whatever its status, so that it can be held against the quota.

    Two transactions that count for one tenant take turns until they end: whoever counts second
    sees what the first one added.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:tenant, 0))"), {"tenant": tenant}
        )
    query = select(func.count(), func.coalesce(func.sum(volumes.c.size_gib), 0))
    count, gigabytes = connection.execute(query.where(volumes.c.tenant == tenant)).one()
    return Usage(count, int(gigabytes))


def happen(
    connection: Connection, volume_id: int, event: Event, error: ErrorReport | None = None
) -> Status:
    """Take a volume to the status that ``event`` leads to, and return that.

    :param error: the reason, with :attr:`Event.FAIL`; any other event clears the last one.
    :raises VolumeNotFound: the row is gone.
    :raises bootvol.lifecycle.IllegalTransition: the event cannot happen to it now.
    """
    mine = volumes.c.id == volume_id
    now = connection.execute(
        select(volumes.c.status).where(mine).with_for_update()
    ).scalar_one_or_none()
    if now is None:
        raise VolumeNotFound(volume_id)
    status = after(Status(now), event)
    if status is Status.GONE:
        connection.execute(delete_from(volumes).where(mine))
        return status
    connection.execute(
        update(volumes)
        .where(mine)
        .values(
            status=status,
            error_code=error.code if error else None,
            error_message=error.message if error else None,
            error_retryable=error.retryable if error else None,
            error_remedy=error.remedy if error else None,
        )
    )
    return status


def of_row(row: Row[Any]) -> Volume:
    """Return the value that a row of the table stands for."""
    return Volume(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        user=row.user,
        size_gib=row.size_gib,
        status=Status(row.status),
        created_at=row.created_at,
        availability_zone=row.availability_zone,
        backend=row.backend,
        image_id=row.image_id,
        display_name=row.display_name,
        display_description=row.display_description,
        metadata=row.metadata,
        error=ErrorReport(row.error_code, row.error_message, row.error_retryable, row.error_remedy)
        if row.error_code is not None
        else None,
    )
