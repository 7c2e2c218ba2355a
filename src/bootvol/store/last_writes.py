"""The last write of each session of a database server.

A daemon notices by them whether any daemon has changed rows: each transaction that writes leaves
its number in its session's row.  Two transactions never change the same row at once, so they never
wait for each other.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Integer, Table, text

from bootvol.store.columns import METADATA

# SQLite has one daemon, which counts its writes in memory.  There the table stays empty.
last_writes = Table(
    "last_writes",
    METADATA,
    # The process of the server that serves the session.
    Column("session", Integer, primary_key=True, autoincrement=False),
    # The transaction.  The server uses no number twice.
    Column("number", BigInteger, nullable=False),
)

#: Changes nothing after a transaction that has only read: such a transaction has no number.
#: The row is new if no other transaction has deleted or updated an earlier form of the row (xmax).
_NOTE: Final = text(
    "INSERT INTO last_writes (session, number)"
    " SELECT pg_backend_pid(), number FROM txid_current_if_assigned() AS number"
    " WHERE number IS NOT NULL"
    " ON CONFLICT (session) DO UPDATE SET number = excluded.number"
    " RETURNING xmax = 0"
)
#: Two sessions may forget the same rows at once, and must not wait for each other in turns.
_FORGET: Final = text(
    "DELETE FROM last_writes WHERE session IN (SELECT session FROM last_writes"
    " WHERE session NOT IN (SELECT pid FROM pg_stat_activity) FOR UPDATE SKIP LOCKED)"
)
#: The numbers.
QUERY: Final = "SELECT number FROM last_writes ORDER BY number"


def note(connection: Connection) -> None:
    """Note the present transaction on a server, which is about to end, if the transaction wrote.

    The first such transaction of a session forgets the sessions that have ended.
    """
    if connection.dialect.name == "sqlite":
        return
    if connection.execute(_NOTE).scalar():
        connection.execute(_FORGET)


def numbers(connection: Connection) -> tuple[int, ...]:
    """Return the last writes of all sessions.  Each committed write changes the result.

    No result ever returns: a session's number grows, and no transaction has another's number.
    """
    return tuple(connection.exec_driver_sql(QUERY).scalars())
