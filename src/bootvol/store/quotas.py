"""Rows of quotas: bounds of single tenants, where they differ from the default."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, select, update

from bootvol.store import upsert
from bootvol.store.schema import quotas, type_quotas

#: Bounds by the names of types and of resources.  The empty name stands for no type.
TypeBounds = Mapping[str, Mapping[str, int]]


def of(connection: Connection, *tenants: str) -> dict[str, int]:
    """Return the bounds set for tenants, by resource; those of the last tenant by name count."""
    query = select(quotas).where(quotas.c.tenant.in_(tenants)).order_by(quotas.c.tenant)
    return {row.resource: row.most for row in connection.execute(query)}


def remove(connection: Connection, tenant: str) -> None:
    """Forget all bounds of a tenant."""
    for table in quotas, type_quotas:
        connection.execute(delete(table).where(table.c.tenant == tenant))


def put(connection: Connection, tenant: str, bounds: Mapping[str, int]) -> None:
    """Set a tenant's bounds for some resources.  The other bounds stay as they are."""
    for resource, most in bounds.items():
        key = {"tenant": tenant, "resource": resource}
        upsert.put(connection, quotas, key, {"most": most})


def of_types(connection: Connection, *tenants: str) -> TypeBounds:
    """Return the bounds set for tenants' volumes of single types, as :func:`of`."""
    found = dict[str, dict[str, int]]()
    query = select(type_quotas).where(type_quotas.c.tenant.in_(tenants))
    for row in connection.execute(query.order_by(type_quotas.c.tenant)):
        found.setdefault(row.volume_type, {})[row.resource] = row.most
    return found


def put_types(connection: Connection, tenant: str, bounds: TypeBounds) -> None:
    """Set a tenant's bounds for volumes of some types.  The other bounds stay as they are."""
    for name, of_type in bounds.items():
        for resource, most in of_type.items():
            key = {"tenant": tenant, "volume_type": name, "resource": resource}
            upsert.put(connection, type_quotas, key, {"most": most})


def rename_type(connection: Connection, former: str, name: str) -> None:
    """Give the bounds for volumes of a type its new name."""
    mine = update(type_quotas).where(type_quotas.c.volume_type == former)
    connection.execute(mine.values(volume_type=name))


def remove_type(connection: Connection, name: str) -> None:
    """Forget the bounds for volumes of a type."""
    connection.execute(delete(type_quotas).where(type_quotas.c.volume_type == name))
