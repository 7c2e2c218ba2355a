"""Rows of quotas: bounds of single tenants, where they differ from the default."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, select

from bootvol.store import upsert
from bootvol.store.schema import quotas


def of(connection: Connection, tenant: str) -> dict[str, int]:
    """Return the bounds set for a tenant, by resource."""
    query = select(quotas.c.resource, quotas.c.most).where(quotas.c.tenant == tenant)
    return {row.resource: row.most for row in connection.execute(query)}


def remove(connection: Connection, tenant: str) -> None:
    """Forget all bounds of a tenant."""
    connection.execute(delete(quotas).where(quotas.c.tenant == tenant))


def put(connection: Connection, tenant: str, bounds: Mapping[str, int]) -> None:
    """Set a tenant's bounds for some resources.  The other bounds stay as they are."""
    for resource, most in bounds.items():
        key = {"tenant": tenant, "resource": resource}
        upsert.put(connection, quotas, key, {"most": most})
