"""Counts of volumes, snapshots and remaining work, by status, backend or source."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Connection, Table, exists, func, or_, select, true

from bootvol.lifecycle import MAKING, MOVING, REPLACING, Kind, Status
from bootvol.store.schema import LIVING, attachments, imports, snapshots, volumes

#: Statuses that mean work for a worker.
_UNSETTLED = (
    MAKING
    | MOVING
    | REPLACING
    | {Status.EXTENDING, Status.UPLOADING, Status.DELETING, Status.GIVING_UP}
)


def work(connection: Connection) -> Mapping[tuple[Kind, Status], int]:
    """Count the remaining work, by kind and status."""
    return {
        (kind, Status(status)): count
        for kind, table in LIVING.items()
        for status, count in connection.execute(
            select(table.c.status, func.count())
            .where(table.c.status.in_(_UNSETTLED), _ours(table))
            .group_by(table.c.status)
        )
    }


def _ours(table: Table) -> ColumnElement[bool]:
    """Return the SQL condition for rows that bootvol works on.

    Other systems attach and detach the volumes that they hold.
    """
    plugged = exists().where(attachments.c.volume_id == table.c.id)
    return or_(table.c.status.not_in(MOVING), plugged) if table is volumes else true()


def elsewhere(
    connection: Connection, backends: Collection[str], host: str
) -> Mapping[tuple[str, Kind], int]:
    """Count the volumes and snapshots on other backends than these, by backend and kind.

    :param host: the daemon's host; volumes that only other hosts reach do not count.
    """
    return {
        (backend, kind): count
        for kind, table in ((Kind.VOLUME, volumes), (Kind.SNAPSHOT, snapshots))
        for backend, count in connection.execute(
            select(table.c.backend, func.count())
            .where(table.c.backend.not_in(backends), table.c.host.in_(["", host]))
            .group_by(table.c.backend)
        )
    }


def imports_elsewhere(connection: Connection, sources: Collection[str]) -> Mapping[str, int]:
    """Count the remaining imports from other sources than these, by source."""
    query = (
        select(imports.c.source, func.count())
        .select_from(volumes.join(imports))
        .where(volumes.c.status.in_(MAKING), imports.c.source.not_in(sources))
        .group_by(imports.c.source)
    )
    return {row[0]: row[1] for row in connection.execute(query)}
