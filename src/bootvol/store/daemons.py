"""Rows of daemons: which daemons run, and on which hosts."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, exists, select

from bootvol.store import upsert
from bootvol.store.claims import LEASE, LeaseClock, lasts
from bootvol.store.schema import daemons


def announce(connection: Connection, daemon: str, host: str, *, serves: bool = False) -> None:
    """Note that a daemon runs on a host for the next :data:`.LEASE` seconds.

    :param serves: whether the daemon runs servers.
    """
    if connection.dialect.name == "sqlite":
        # This daemon has the file to itself.
        connection.execute(delete(daemons).where(daemons.c.id != daemon))
    values = {"host": host, "lease_until": LeaseClock() + LEASE, "serves": serves}
    upsert.put(connection, daemons, {"id": daemon}, values)


def runs_on(connection: Connection, host: str, *, serving: bool = False) -> bool:
    """Return whether any daemon runs on a host.

    :param serving: whether only daemons that run servers count.
    """
    running = exists().where(daemons.c.host == host, lasts(daemons.c.lease_until))
    if serving:
        running = running.where(daemons.c.serves)
    return bool(connection.execute(select(running)).scalar())


def runs(connection: Connection, daemon: str | None) -> bool:
    """Return whether a daemon runs."""
    running = exists().where(daemons.c.id == daemon, lasts(daemons.c.lease_until))
    return bool(connection.execute(select(running)).scalar())


def host_of(connection: Connection, daemon: str | None) -> str | None:
    """Return the last known host of a daemon; None if the daemon is not known."""
    found: str | None = connection.execute(
        select(daemons.c.host).where(daemons.c.id == daemon)
    ).scalar_one_or_none()
    return found


def hosts(connection: Connection) -> Collection[str]:
    """Return the hosts where daemons run."""
    query = select(daemons.c.host).where(lasts(daemons.c.lease_until)).distinct()
    return connection.scalars(query).all()
