"""Connections to a database server: their settings, and waits that are bounded at the server."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from threading import local
from typing import Any, Final

from sqlalchemy import URL, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from bootvol.store import last_writes, read_only
from bootvol.store.schema_lock import share

#: Longest wait for a connection, in seconds.
_PATIENCE: Final = 5
#: Seconds after which a server ends a transaction whose daemon has stopped half way (on a sleeping
#: machine, say).  Others wait for the rows locked by such a transaction.
_IDLE: Final = 30
#: Settings to notice a server that went away without a word.  The names are libpq's.
_TCP: Final = {
    "connect_timeout": _PATIENCE,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def settings(url: URL) -> dict[str, object]:
    """Return the settings of connections to a server.  The operator's URL takes precedence.

    The promise of :func:`bootvol.store.volumes.lock_tenant_quota` needs READ COMMITTED: each
    statement sees all data committed by then.
    """
    bounds = {key: value for key, value in _TCP.items() if key not in url.query}
    # The database or the role may set another encoding, in which some texts could not be sent.
    arguments = {**bounds, "client_encoding": "UTF8"}
    return {"isolation_level": "READ COMMITTED", "connect_args": arguments}


class Server:
    """The server behind an engine.

    :param use: called in a thread with the socket of each connection that the thread uses from then
        on, and with None at the end of the use.
    :param limit: longest time of a statement in seconds.
    :ivar revision: the schema that new connections require; None accepts every schema.
    :ivar prepares: whether a prepared statement stays known to a session.
    """

    def __init__(
        self, engine: Engine, use: Callable[[socket.socket | None], None], limit: float
    ) -> None:
        self.revision: str | None = None
        self.prepares = True
        self._engine = engine
        self._use = use
        self._limit = limit
        self._here = local()
        read_only.watch(engine)
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "checkout", self._taken)
        event.listen(engine, "checkin", self._given_back)
        event.listen(engine, "close", self._closed)

    def last_writes(self) -> tuple[int, ...]:
        """Return the last writes, as :func:`bootvol.store.last_writes.numbers` does.  Blocks.

        The fastest way: nearly every request waits for this query.  So the query needs neither a
        transaction nor a trial of the connection.

        :raises Exception: an error of the driver, also if the server was restarted.
        """
        self._here.trusts = True
        try:
            connection = self._engine.raw_connection()
        finally:
            self._here.trusts = False
        try:
            driver: Any = connection.dbapi_connection
            driver.autocommit = True
            rows = driver.execute(last_writes.QUERY, prepare=self.prepares).fetchall()
            driver.autocommit = False
        except BaseException:
            connection.invalidate()
            raise
        finally:
            connection.close()
        return tuple(number for (number,) in rows)

    def _connected(self, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        # A descriptor of its own: the connection may close its descriptor, and the number may
        # then mean another file.
        own = socket.socket(fileno=os.dup(connection.fileno()))
        try:
            self._use(own)
            was, connection.autocommit = connection.autocommit, True
            connection.execute(f"SET statement_timeout = {self._limit * 1000:.0f}")
            connection.execute(f"SET idle_in_transaction_session_timeout = {_IDLE * 1000}")
            # psycopg reads no other format of dates.
            connection.execute("SET DateStyle = 'ISO'")
            share(connection, self.revision)
            connection.autocommit = was
        except BaseException:
            own.close()
            connection.close()
            raise
        record.info.update(socket=own, fresh=True)

    def _taken(
        self, connection: DBAPIConnection, record: ConnectionPoolEntry, _fairy: object
    ) -> None:
        self._use(record.info["socket"])
        if not self.prepares:
            connection.prepare_threshold = None
        trusted = record.info.pop("fresh", False) or getattr(self._here, "trusts", False)
        if not trusted:
            try:
                self._engine.dialect.do_ping(connection)
            except self._engine.dialect.loaded_dbapi.Error as error:
                # The server may have been restarted.
                raise InvalidatePoolError from error

    def _given_back(self, _connection: object, _record: ConnectionPoolEntry) -> None:
        self._use(None)

    def _closed(self, _connection: object, record: ConnectionPoolEntry) -> None:
        if (own := record.info.pop("socket", None)) is not None:
            own.close()
