"""Rows of volumes: add, look up, change, count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
from sqlalchemy import Connection, Row, Select, case, exists, func, select, text, update

from bootvol.errors import VolumeNotFound
from bootvol.lifecycle import MAKING, Kind, Status
from bootvol.model import Attachment, Image, Usage, Volume
from bootvol.store import holds, states
from bootvol.store.schema import attachments, replacements, servers, volume_types, volumes
from bootvol.store.states import error_of

#: Statuses in which a server has the volume.  In any other status the volume is at most promised.
_ATTACHED: Final = frozenset({Status.IN_USE, Status.EXTENDING, Status.DETACHING})
#: The parts of a volume that are not columns of its row, or that the database chooses.
_NOT_COLUMNS: Final = ("id", "error", "attachments", "volume_type_uuid")

#: The tables with names of types.  The end of a retype moves the name from the first one to the
#: second one, so a look at both in this order misses no name.
_TYPED: Final = (replacements, volumes)

#: The same table once more, for volumes made from other volumes.
_COPIES: Final = volumes.alias("copies")


def add(connection: Connection, volume: Volume, image: Image | None = None) -> Volume:
    """Insert ``volume``, and ignore its id.  Return the volume with its new id.

    :param image: the image that the volume is made from.
    """
    values = attrs.asdict(volume, filter=attrs.filters.exclude(*_NOT_COLUMNS), recurse=False)
    values["metadata"] = dict(volume.metadata)
    values["image_metadata"] = dict(volume.image_metadata)
    return attrs.evolve(volume, id=states.add(connection, Kind.VOLUME, values, image))


def get(connection: Connection, tenant: str, volume_id: int, *, lock: bool = False) -> Volume:
    """Return a tenant's volume.

    :param lock: whether to lock the volume against other changes until the transaction ends.
    :raises VolumeNotFound: if the volume does not exist or belongs to another tenant.
    """
    query = _shown().where(volumes.c.id == volume_id, volumes.c.tenant == tenant)
    row = connection.execute(query.with_for_update(of=volumes) if lock else query).one_or_none()
    if row is None:
        raise VolumeNotFound(volume_id)
    return _with_holds(connection, [of_row(row)], volume_id=volume_id)[0]


def listed(
    connection: Connection,
    tenant: str,
    *,
    bootable: bool = False,
    limit: int | None = None,
    offset: int = 0,
) -> Sequence[Volume]:
    """Return a tenant's volumes, ascending by id.

    :param bootable: whether to return only volumes made from an image.
    """
    query = _shown().where(volumes.c.tenant == tenant).order_by(volumes.c.id)
    if bootable:
        query = query.where(volumes.c.image_id.is_not(None))
    found = [of_row(row) for row in connection.execute(query.limit(limit).offset(offset))]
    return _with_holds(connection, found, tenant)


def every(connection: Connection) -> Sequence[Volume]:
    """Return the volumes of all tenants, ascending by id."""
    found = [of_row(row) for row in connection.execute(_shown().order_by(volumes.c.id))]
    return _with_holds(connection, found)


def change(connection: Connection, volume_id: int, values: Mapping[str, object]) -> None:
    """Change columns of a volume that callers may change.

    :param values: new values, by column name.
    """
    if values:
        mine = update(volumes).where(volumes.c.id == volume_id)
        connection.execute(mine.values({**values, **states.change_noted(Kind.VOLUME)}))


def is_copied(connection: Connection, volume_id: int, *, beside: str | None = None) -> bool:
    """Return whether another volume is being made from a volume.

    :param beside: a backend whose copies do not count, or None.
    """
    copy = exists().where(_COPIES.c.source_id == volume_id, _COPIES.c.status.in_(MAKING))
    if beside is not None:
        copy = copy.where(_COPIES.c.backend != beside)
    return bool(connection.scalar(select(copy)))


def usage(connection: Connection, tenant: str) -> Usage:
    """Count a tenant's volumes and their GiB, whatever the status, for the check of the quota.

    A volume that becomes larger counts with its new size.

    Call :func:`lock_tenant_quota` before this function.
    """
    size = func.coalesce(volumes.c.target_gib, volumes.c.size_gib)
    query = select(func.count(), func.coalesce(func.sum(size), 0))
    count, gigabytes = connection.execute(query.where(volumes.c.tenant == tenant)).one()
    return Usage(count, int(gigabytes))


def usage_by_type(connection: Connection, tenant: str) -> Mapping[str | None, Usage]:
    """Count a tenant's volumes and their GiB by the name of their type, as :func:`usage`.

    A volume that gets another type counts with its new type.
    """
    size = func.coalesce(volumes.c.target_gib, volumes.c.size_gib)
    kind = case(
        (replacements.c.retypes, replacements.c.volume_type), else_=volumes.c.volume_type
    ).label("kind")
    query = select(kind, func.count(), func.sum(size)).select_from(volumes.outerjoin(replacements))
    mine = query.where(volumes.c.tenant == tenant).group_by(kind)
    return {name: Usage(count, int(gib)) for name, count, gib in connection.execute(mine)}


def has_type(connection: Connection, name: str) -> bool:
    """Return whether any tenant has a volume of a type, or one that is to get the type."""
    return any(
        connection.scalar(select(exists().where(table.c.volume_type == name))) for table in _TYPED
    )


def rename_type(connection: Connection, former: str, name: str) -> None:
    """Give the volumes of a type its new name, and those that are to get the type."""
    for table in _TYPED:
        mine = update(table).where(table.c.volume_type == former)
        connection.execute(mine.values(volume_type=name))


def lock_tenant_quota(connection: Connection, tenant: str) -> None:
    """Serialize, until they end, the transactions that count a tenant's resources.

    The second transaction sees the additions of the first.  Call this function before any row is
    locked, so that no two transactions wait for each other.  (On SQLite only one transaction writes
    at a time in any case.)
    """
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:tenant, 0))"), {"tenant": tenant}
        )


def _shown() -> Select[object]:
    """Return the query for volumes as callers see them: with their attachments."""
    return select(
        volumes,
        attachments.c.server_id,
        attachments.c.device,
        attachments.c.delete_on_termination,
        attachments.c.uuid.label("attachment_uuid"),
        servers.c.uuid.label("server_uuid"),
        volume_types.c.uuid.label("volume_type_uuid"),
    ).select_from(
        volumes.outerjoin(attachments)
        .outerjoin(servers)
        .outerjoin(volume_types, volume_types.c.name == volumes.c.volume_type)
    )


def of_row(row: Row[object]) -> Volume:
    """Return the volume of a row, with an attachment only if the row has the attachment, too."""
    attached = row.status in _ATTACHED and getattr(row, "server_id", None) is not None
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
        snapshot_id=row.snapshot_id,
        volume_type=row.volume_type,
        display_name=row.display_name,
        display_description=row.display_description,
        metadata=row.metadata,
        attachments=(_attachment(row),) if attached else (),
        error=error_of(row),
        uuid=row.uuid,
        snapshot_uuid=row.snapshot_uuid,
        request_id=row.request_id or "",
        host=row.host,
        updated_at=row.updated_at,
        bootable=bool(row.bootable),
        image_metadata=row.image_metadata or {},
        target_gib=row.target_gib,
        place=row.place,
        source_id=row.source_id,
        source_uuid=row.source_uuid,
        readonly=row.readonly,
        moved=row.moved,
        volume_type_uuid=getattr(row, "volume_type_uuid", None),
        marked=row.marked,
    )


def _attachment(row: Row[object]) -> Attachment:
    return Attachment(
        row.id,
        row.server_id,
        row.device,
        row.delete_on_termination,
        row.uuid,
        row.server_uuid,
        row.attachment_uuid,
    )


def _with_holds(
    connection: Connection,
    found: Sequence[Volume],
    tenant: str | None = None,
    volume_id: int | None = None,
) -> Sequence[Volume]:
    """Return volumes with the servers that have them by holds of other systems.

    :param tenant: the tenant of all volumes; None for any.
    :param volume_id: the id of the only volume; None for several volumes.
    """
    # A volume that has failed meanwhile may still have holds.
    may_have = _ATTACHED | {Status.ERROR}
    if not any(not each.attachments and each.status in may_have for each in found):
        return found
    theirs = holds.attached(connection, tenant, volume_id)
    return [
        attrs.evolve(each, attachments=theirs[each.id]) if each.id in theirs else each
        for each in found
    ]
