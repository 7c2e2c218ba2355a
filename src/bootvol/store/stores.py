"""Rows of stores: what tells the store of each backend from every other one."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from bootvol.store.schema import stores


def remembered(connection: Connection) -> Mapping[str, str]:
    """Return the identities of all stores that are known, by the names of their backends."""
    return {row.backend: row.identity for row in connection.execute(select(stores))}


def remember(connection: Connection, backend: str, identity: str) -> str:
    """Remember the store of a backend, unless one is known; return the one that is known then."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    new = insert(stores).values(backend=backend, identity=identity)
    connection.execute(new.on_conflict_do_nothing())
    known = select(stores.c.identity).where(stores.c.backend == backend)
    found: str = connection.execute(known).scalar_one()
    return found


def forget(connection: Connection, backend: str) -> bool:
    """Forget the store of a backend; return whether one was known."""
    return connection.execute(delete(stores).where(stores.c.backend == backend)).rowcount == 1
