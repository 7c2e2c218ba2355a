"""Rows of default types: the types of new volumes whose requests name no type, by tenant."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, select

from bootvol.model import VolumeType
from bootvol.store import upsert
from bootvol.store.schema import default_types, volume_types
from bootvol.store.volume_types import of_row

_SHOWN = select(default_types.c.tenant, volume_types).select_from(default_types.join(volume_types))


def of(connection: Connection, tenant: str) -> VolumeType | None:
    """Return the default type of a tenant; None for a tenant without one."""
    row = connection.execute(_SHOWN.where(default_types.c.tenant == tenant)).one_or_none()
    return None if row is None else of_row(row)


def listed(connection: Connection) -> Mapping[str, VolumeType]:
    """Return all default types, by tenant in ascending order."""
    query = _SHOWN.order_by(default_types.c.tenant)
    return {row.tenant: of_row(row) for row in connection.execute(query)}


def put(connection: Connection, tenant: str, type_id: int) -> None:
    """Set the default type of a tenant."""
    upsert.put(connection, default_types, {"tenant": tenant}, {"type_id": type_id})


def remove(connection: Connection, tenant: str) -> None:
    """Forget the default type of a tenant, if the tenant has one."""
    connection.execute(delete(default_types).where(default_types.c.tenant == tenant))
