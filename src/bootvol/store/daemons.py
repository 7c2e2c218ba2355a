"""Rows of daemons: which daemons run, and on which hosts."""

from __future__ import annotations

from sqlalchemy import Connection, delete, exists, select
from sqlalchemy.dialects import postgresql, sqlite

from bootvol.store.claims import LEASE, LeaseClock
from bootvol.store.schema import daemons


def announce(connection: Connection, daemon: str, host: str) -> None:
    """Note that a daemon runs on a host for the next :data:`.LEASE` seconds."""
    embedded = connection.dialect.name == "sqlite"
    if embedded:
        # This daemon has the file to itself.
        connection.execute(delete(daemons).where(daemons.c.id != daemon))
    new = (sqlite if embedded else postgresql).insert(daemons)
    values = {"host": host, "lease_until": LeaseClock() + LEASE}
    connection.execute(
        new.values(id=daemon, **values).on_conflict_do_update(index_elements=["id"], set_=values)
    )


def runs_on(connection: Connection, host: str) -> bool:
    """Return whether any daemon runs on a host."""
    running = exists().where(daemons.c.host == host, daemons.c.lease_until >= LeaseClock())
    return bool(connection.execute(select(running)).scalar())


def host_of(connection: Connection, daemon: str | None) -> str | None:
    """Return the last known host of a daemon; None if the daemon is not known."""
    found: str | None = connection.execute(
        select(daemons.c.host).where(daemons.c.id == daemon)
    ).scalar_one_or_none()
    return found
