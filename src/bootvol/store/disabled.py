"""Rows of disabled services: stores and hosts where no volume is begun.

Work that has begun goes on, and so does all work on volumes that exist.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Table,
    and_,
    delete,
    exists,
    or_,
    select,
)

from bootvol.lifecycle import Status
from bootvol.store import upsert
from bootvol.store.columns import METADATA, CleanString

disabled = Table(
    "disabled",
    METADATA,
    # The backend of a store; empty for all daemons of a host.
    Column("backend", CleanString(64), primary_key=True),
    # The only host that reaches the store, empty if all hosts do; or the host of the daemons.
    Column("host", CleanString(64), primary_key=True),
    Column("reason", CleanString(255)),
)

#: A backend and a host, in the meaning of the columns.
Key = tuple[str, str]


def listed(connection: Connection) -> Mapping[Key, str | None]:
    """Return the reasons of the disabled services; None for a service disabled without a reason."""
    rows = connection.execute(select(disabled))
    return {(row.backend, row.host): row.reason for row in rows}


def put(connection: Connection, key: Key, reason: str | None) -> None:
    """Disable a service."""
    backend, host = key
    upsert.put(connection, disabled, {"backend": backend, "host": host}, {"reason": reason})


def remove(connection: Connection, key: Key) -> None:
    """Enable a service."""
    mine = and_(disabled.c.backend == key[0], disabled.c.host == key[1])
    connection.execute(delete(disabled).where(mine))


def begins(table: FromClause, host: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the SQL condition for volumes that the daemons of a host may begin to make.

    The condition holds for volumes that need other work, too.

    :param table: the table of volumes, or an alias.
    """
    store = and_(disabled.c.backend == table.c.backend, disabled.c.host == table.c.host)
    daemons = and_(disabled.c.backend == "", disabled.c.host == host)
    return or_(table.c.status != Status.CREATING, ~exists().where(or_(store, daemons)))
