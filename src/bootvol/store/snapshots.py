"""Rows of snapshots: add, look up, change, count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
from sqlalchemy import Connection, Row, exists, func, select, update

from bootvol.errors import SnapshotNotFound
from bootvol.lifecycle import MAKING, Kind, Status
from bootvol.model import Snapshot, Usage
from bootvol.store import states
from bootvol.store.schema import snapshots, volumes
from bootvol.store.states import error_of


def add(connection: Connection, snapshot: Snapshot) -> Snapshot:
    """Insert ``snapshot``, and ignore its id.  Return the snapshot with its new id."""
    values = attrs.asdict(snapshot, filter=attrs.filters.exclude("id", "error"), recurse=False)
    values["metadata"] = dict(snapshot.metadata)
    values["image_metadata"] = dict(snapshot.image_metadata)
    return attrs.evolve(snapshot, id=states.add(connection, Kind.SNAPSHOT, values))


def get(connection: Connection, tenant: str, snapshot_id: int, *, lock: bool = False) -> Snapshot:
    """Return a tenant's snapshot.

    :param lock: whether to lock the snapshot against other changes until the transaction ends.
    :raises SnapshotNotFound: if the snapshot does not exist or belongs to another tenant.
    """
    query = select(snapshots).where(snapshots.c.id == snapshot_id, snapshots.c.tenant == tenant)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise SnapshotNotFound(snapshot_id)
    return of_row(row)


def listed(
    connection: Connection, tenant: str, *, limit: int | None = None, offset: int = 0
) -> Sequence[Snapshot]:
    """Return a tenant's snapshots, ascending by id."""
    query = select(snapshots).where(snapshots.c.tenant == tenant).order_by(snapshots.c.id)
    return [of_row(row) for row in connection.execute(query.limit(limit).offset(offset))]


def every(connection: Connection) -> Sequence[Snapshot]:
    """Return the snapshots of all tenants, ascending by id."""
    query = select(snapshots).order_by(snapshots.c.id)
    return [of_row(row) for row in connection.execute(query)]


def of_volume(connection: Connection, tenant: str, volume_id: int) -> Sequence[int]:
    """Return the ids of a volume's snapshots, and lock them, except those that go already."""
    query = select(snapshots.c.id).where(
        snapshots.c.volume_id == volume_id,
        snapshots.c.tenant == tenant,
        snapshots.c.status != Status.DELETING,
    )
    return connection.execute(query.order_by(snapshots.c.id).with_for_update()).scalars().all()


def exist(connection: Connection, volume_id: int) -> bool:
    """Return whether a volume has snapshots, whatever their status."""
    return bool(connection.scalar(select(exists().where(snapshots.c.volume_id == volume_id))))


def latest(connection: Connection, tenant: str, volume_id: int) -> Snapshot | None:
    """Return the latest snapshot of a volume, and lock it; None without snapshots."""
    query = select(snapshots).where(
        snapshots.c.volume_id == volume_id,
        snapshots.c.tenant == tenant,
        snapshots.c.status != Status.DELETING,
    )
    row = connection.execute(
        query.order_by(snapshots.c.id.desc()).limit(1).with_for_update()
    ).one_or_none()
    return None if row is None else of_row(row)


def is_copied(connection: Connection, snapshot_id: int) -> bool:
    """Return whether a volume is being made from a snapshot."""
    copy = exists().where(volumes.c.snapshot_id == snapshot_id, volumes.c.status.in_(MAKING))
    return bool(connection.scalar(select(copy)))


def are_made(connection: Connection, volume_id: int) -> bool:
    """Return whether snapshots of a volume are being made."""
    mine = snapshots.c.volume_id == volume_id, snapshots.c.status.in_(MAKING)
    query = select(snapshots.c.id).where(*mine).limit(1)
    return connection.execute(query).first() is not None


def change(connection: Connection, snapshot_id: int, values: Mapping[str, object]) -> None:
    """Change columns of a snapshot that callers may change.

    :param values: new values, by column name.
    """
    if values:
        changed = update(snapshots).where(snapshots.c.id == snapshot_id)
        connection.execute(changed.values({**values, **states.change_noted(Kind.SNAPSHOT)}))


def count(connection: Connection, tenant: str) -> int:
    """Count a tenant's snapshots, whatever their status."""
    query = select(func.count()).select_from(snapshots).where(snapshots.c.tenant == tenant)
    return connection.execute(query).scalar_one()


def gigabytes(connection: Connection, tenant: str) -> int:
    """Add up the sizes of a tenant's snapshots in GiB, whatever their status."""
    query = select(func.coalesce(func.sum(snapshots.c.size_gib), 0))
    return int(connection.execute(query.where(snapshots.c.tenant == tenant)).scalar_one())


def usage_by_type(
    connection: Connection, tenant: str, volume_id: int | None = None
) -> Mapping[str | None, Usage]:
    """Count a tenant's snapshots and their GiB by the type of their volumes.

    :param volume_id: the only volume to count; None for all volumes.
    """
    query = select(volumes.c.volume_type, func.count(), func.sum(snapshots.c.size_gib))
    joined = snapshots.outerjoin(volumes, volumes.c.id == snapshots.c.volume_id)
    mine = query.select_from(joined).where(snapshots.c.tenant == tenant)
    if volume_id is not None:
        mine = mine.where(snapshots.c.volume_id == volume_id)
    found = connection.execute(mine.group_by(volumes.c.volume_type))
    return {name: Usage(count, int(gib)) for name, count, gib in found}


def of_row(row: Row[object]) -> Snapshot:
    """Return the snapshot of a row."""
    return Snapshot(
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        user=row.user,
        volume_id=row.volume_id,
        size_gib=row.size_gib,
        status=Status(row.status),
        created_at=row.created_at,
        backend=row.backend,
        display_name=row.display_name,
        display_description=row.display_description,
        error=error_of(row),
        uuid=row.uuid,
        volume_uuid=row.volume_uuid,
        request_id=row.request_id or "",
        host=row.host,
        updated_at=row.updated_at,
        bootable=bool(row.bootable),
        image_metadata=row.image_metadata or {},
        metadata=row.metadata or {},
        marked=row.marked,
        progress=row.progress,
        place=row.place,
    )
