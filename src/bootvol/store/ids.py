"""Ids of rows that callers name by uuid."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, and_, exists, not_, select

from bootvol.lifecycle import Kind, Status
from bootvol.store.schema import LIVING


def owner(connection: Connection, kind: Kind, uuid: str) -> str | None:
    """Return the tenant of a volume, snapshot or server by its uuid, or None."""
    table = LIVING[kind]
    query = select(table.c.tenant).where(table.c.uuid == uuid)
    return connection.execute(query).scalar_one_or_none()


def number(connection: Connection, kind: Kind, tenant: str, uuid: str) -> int | None:
    """Return the id of a tenant's volume, snapshot or server by its uuid, or None."""
    table = LIVING[kind]
    query = select(table.c.id).where(table.c.uuid == uuid, table.c.tenant == tenant)
    return connection.execute(query).scalar_one_or_none()


def by_name(connection: Connection, kind: Kind, backend: str) -> Mapping[str, str]:
    """Return the uuids of the volumes or snapshots on a backend, by their names there."""
    table = LIVING[kind]
    query = select(table.c.name, table.c.uuid).where(table.c.backend == backend)
    return {row.name: row.uuid for row in connection.execute(query)}


def is_kept(connection: Connection, kind: Kind, name: str) -> bool:
    """Return whether a volume or snapshot has a name on its backend, and may keep the name.

    A disk that is given back in the making does not keep the name.
    """
    table = LIVING[kind]
    given_back = and_(table.c.status == Status.DELETING, table.c.place.is_not(None))
    return bool(connection.scalar(select(exists().where(table.c.name == name, not_(given_back)))))
