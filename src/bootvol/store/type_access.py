"""Rows of the tenants that may see and use a volume type that is not public."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from bootvol.store.schema import type_access


def tenants(connection: Connection, type_id: int) -> Sequence[str]:
    """Return the tenants with access to a type, in ascending order."""
    query = select(type_access.c.tenant).where(type_access.c.type_id == type_id)
    return connection.execute(query.order_by(type_access.c.tenant)).scalars().all()


def give(connection: Connection, type_id: int, tenant: str) -> bool:
    """Give a tenant access to a type; return False if the tenant has access already."""
    try:
        connection.execute(insert(type_access).values(type_id=type_id, tenant=tenant))
    except IntegrityError:
        return False
    return True


def take(connection: Connection, type_id: int, tenant: str) -> bool:
    """Take a tenant's access to a type; return False if the tenant has no access."""
    mine = delete(type_access).where(
        type_access.c.type_id == type_id, type_access.c.tenant == tenant
    )
    return bool(connection.execute(mine).rowcount)
