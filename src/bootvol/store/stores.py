"""Rows of stores: the identities that tell each backend's store from every other store."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from bootvol.store.schema import stores


def remembered(connection: Connection) -> Mapping[str, str]:
    """Return the identities of all known stores, by backend name."""
    return {row.backend: row.identity for row in connection.execute(select(stores))}


def remember(connection: Connection, backend: str, identity: str) -> str:
    """Remember the store of a backend, unless one is known.  Return the known identity."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    new = insert(stores).values(backend=backend, identity=identity)
    connection.execute(new.on_conflict_do_nothing())
    known = select(stores.c.identity).where(stores.c.backend == backend)
    found: str = connection.execute(known).scalar_one()
    return found


def forget(connection: Connection, backend: str) -> bool:
    """Forget the store of a backend.  Return whether one was known."""
    return connection.execute(delete(stores).where(stores.c.backend == backend)).rowcount == 1
