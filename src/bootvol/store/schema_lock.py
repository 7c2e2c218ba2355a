"""Keeps the daemons of a database on a server apart from an upgrade of its schema.

A daemon of another version would write rows that lack values, and would not understand others.
So each connection holds a lock of the server (PostgreSQL's manual, "Advisory Locks") together with
all other connections of bootvol.  An upgrade needs the lock alone.  The server frees the lock when
the connection ends.
"""

from __future__ import annotations

import time
from typing import Any, Final

from sqlalchemy import Connection, text

from bootvol.errors import ConfigurationError

#: The number of the lock in its database: "bootvol" in ASCII.
_KEY: Final = int.from_bytes(b"bootvol", "big")
#: Seconds for the server to free the locks of a daemon that has just ended, and between two tries.
_MOMENT: Final = 5.0
_PAUSE: Final = 0.1
#: The other connections with the lock.  The server splits the number into two halves.
_OTHERS: Final = text(
    "SELECT DISTINCT coalesce(host(client_addr), 'the server''s own machine') FROM pg_locks"
    " JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND pg_locks.database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = :high"
    " AND objid = :low AND pid <> pg_backend_pid() ORDER BY 1"
)


class OtherSchema(Exception):
    """The schema is being upgraded, or is another version's."""


def share(connection: Any, revision: str | None) -> None:
    """Take the lock, together with others, until the connection ends.  Check the schema.

    :param connection: a new connection of psycopg, which commits each statement.
    :param revision: the schema that the daemon needs; None accepts every schema.
    :raises OtherSchema: if the schema is being upgraded, or is another one.
    """
    (is_ours,) = connection.execute("SELECT pg_try_advisory_lock_shared(%s)", [_KEY]).fetchone()
    if not is_ours:
        raise OtherSchema("its schema is being upgraded")
    if revision is None:
        return
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if found != (revision,):
        raise OtherSchema(
            f"its schema is {found and found[0]}, and this daemon needs {revision}: stop this"
            " daemon, and start the version of bootvol that upgraded the database"
        )


def take(connection: Connection) -> None:
    """Take the lock alone, until the end of the transaction.  Block for up to 5 seconds.

    :raises ConfigurationError: if other connections of bootvol exist.
    """
    query = text("SELECT pg_try_advisory_xact_lock(:key)")
    end = time.monotonic() + _MOMENT
    # No wait in the server: new connections of a running daemon would be refused meanwhile.
    while not connection.execute(query, {"key": _KEY}).scalar_one():
        if time.monotonic() > end:
            halves = {"high": _KEY >> 32, "low": _KEY & 0xFFFF_FFFF}
            hosts = ", ".join(connection.execute(_OTHERS, halves).scalars())
            raise ConfigurationError(
                f"the database cannot be upgraded while daemons use it (on {hosts}): stop all of"
                " them, upgrade, and start daemons of this version"
            )
        time.sleep(_PAUSE)
