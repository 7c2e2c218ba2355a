"""Rows of stores: the identities that tell each backend's store from every other store.

A backend's volumes, snapshots, cached images and strays have the same host as the backend's store:
the one host that reaches the store, or an empty host if all hosts reach the store.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from sqlalchemy import Connection, and_, delete, insert, select, text, update

from bootvol.errors import StoreElsewhere
from bootvol.store import daemons
from bootvol.store.schema import cached_images, replacements, snapshots, stores, strays, volumes


@attrs.frozen
class Store:
    """A known store.

    :ivar host: the only host that reaches the store; empty if all hosts do.
    """

    host: str
    identity: str


def remembered(connection: Connection, host: str) -> Mapping[str, Store]:
    """Return the known stores that a host reaches, by backend name."""
    query = select(stores).where(stores.c.host.in_(["", host])).order_by(stores.c.host)
    # A store of this host alone comes last, and counts.
    return {row.backend: Store(row.host, row.identity) for row in connection.execute(query)}


def settle(
    connection: Connection, backend: str, host: str, local: bool, identity: str | None
) -> str | None:
    """Remember a backend's store, unless one is known; adopt the rows of the backend's volumes.

    The host of the rows changes if the operator has declared the backend local or shared since, if
    the daemon has got another host, or if an earlier version knew no hosts.

    :param host: the daemon's host.
    :param local: whether only that host reaches the store.
    :param identity: identity of the store; None for a backend that cannot tell.
    :returns: the known identity, which may be another one.
    :raises StoreElsewhere: if another host's daemon has the same store as its own; or if the name
        means a store of one host and, for another host, a store of all hosts.
    """
    if connection.dialect.name == "postgresql":
        # One daemon after the other, also while no row exists to lock.
        turn = text("SELECT pg_advisory_xact_lock(hashtextextended('store ' || :name, 0))")
        connection.execute(turn, {"name": backend})
    key = host if local else ""
    query = select(stores).where(stores.c.backend == backend)
    known: dict[str, str] = {row.host: row.identity for row in connection.execute(query)}
    if key in known and known[key] != identity:
        return known[key]
    if local and known.get("", identity) != identity:
        # All volumes without a host are in that store.
        return known[""]
    same = {each for each, its in known.items() if its == identity} - {key}
    for other in same - {"", host}:
        if daemons.runs_on(connection, other):
            raise StoreElsewhere(backend, other)
    others = known.keys() - same - {key, "", host}
    if not local and others:
        raise StoreElsewhere(backend, min(others))
    if identity is not None and key not in known:
        new = {"backend": backend, "host": key, "identity": identity}
        connection.execute(insert(stores).values(new))
    former = (same | {"", host}) - {key}
    moved = and_(stores.c.backend == backend, stores.c.host.in_(former))
    connection.execute(delete(stores).where(moved))
    for table in volumes, snapshots, cached_images, strays, replacements:
        mine = and_(table.c.backend == backend, table.c.host.in_(former))
        connection.execute(update(table).where(mine).values(host=key))
    return identity


def forget(connection: Connection, backend: str, host: str) -> bool:
    """Forget the store of a backend that a host reaches.  Return whether one was known."""
    known = and_(stores.c.backend == backend, stores.c.host.in_(["", host]))
    return connection.execute(delete(stores).where(known)).rowcount > 0
