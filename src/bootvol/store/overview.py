"""Counts over all tenants: daemons, stores, and the volumes in each store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from bootvol.model import Daemon, StoreUsage
from bootvol.store.claims import LEASE, LeaseClock, shared_time
from bootvol.store.schema import daemons, snapshots, stores, volumes


def running(connection: Connection) -> Sequence[Daemon]:
    """Return all known daemons, by host and id.

    With SQLite no lease tells a time.  The only daemon asks, so its last word is from now.
    """
    now = shared_time(connection) if connection.dialect.name == "sqlite" else None
    query = select(daemons, (daemons.c.lease_until > LeaseClock()).label("runs"))
    return [
        Daemon(
            row.id,
            row.host,
            bool(row.runs),
            datetime.fromtimestamp(row.lease_until - LEASE if now is None else now, UTC),
        )
        for row in connection.execute(query.order_by(daemons.c.host, daemons.c.id))
    ]


def known_stores(connection: Connection) -> Sequence[tuple[str, str]]:
    """Return the backends with a known store: their names, and the only host or an empty host."""
    query = select(stores.c.backend, stores.c.host).order_by(stores.c.backend, stores.c.host)
    return [(row.backend, row.host) for row in connection.execute(query)]


def usage(connection: Connection, backend: str, host: str) -> Sequence[StoreUsage]:
    """Return the usage of a backend's store by each tenant.

    :param host: the only host that reaches the store; empty if all hosts do.
    """
    counted: dict[str, list[int]] = {}
    for place, table in enumerate((volumes, snapshots)):
        query = (
            select(table.c.tenant, func.count(), func.coalesce(func.sum(table.c.size_gib), 0))
            .where(table.c.backend == backend, table.c.host == host)
            .group_by(table.c.tenant)
        )
        for tenant, number, gib in connection.execute(query):
            counted.setdefault(tenant, [0, 0, 0, 0])[2 * place : 2 * place + 2] = [number, int(gib)]
    return [StoreUsage(tenant, *numbers) for tenant, numbers in sorted(counted.items())]
