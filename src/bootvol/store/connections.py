"""Connections to a database of either kind: how to make, use in threads, and break off one.

A database may be silent: its machine is gone, its disk hangs, or somebody keeps a lock.  Waits to
connect, for a lock and for a statement are bounded where they happen.  All other waits of a
transaction on a server end by a break-off: bootvol shuts down the socket under the transaction, and
the thread comes back.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, local
from typing import Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.pool import ConnectionPoolEntry

from bootvol.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable
from bootvol.store import events, journal, last_writes, read_only, schema
from bootvol.store.events import StateChange
from bootvol.store.schema_lock import OtherSchema
from bootvol.store.server import Server, settings

T = TypeVar("T")

#: Longest time of a transaction in seconds, with all its waits.  Clients of the API hear of a
#: failure within ten seconds.
LIMIT: Final = 8.0
#: Longest wait for a lock on SQLite's file, in seconds.
_PATIENCE: Final = 5
#: Maximum number of tries of a transaction that collides with others.
_TRIES: Final = 3
#: Error codes of PostgreSQL (appendix A of its manual).  First: statements collided.  Then: the
#: server is a standby by now, somebody has taken the tables or the rights away, or data is damaged.
_COLLISIONS: Final = frozenset({"40001", "40P01"})
_OF_THE_SERVER: Final = (read_only.READ_ONLY, "42501", "42P01", "XX")
#: Error codes of PostgreSQL, too: a statement that psycopg has prepared is not known, or belongs to
#: another session.  This happens behind a pooler that gives each transaction any of the pooler's
#: sessions (PgBouncer, say).
_NOT_PREPARED: Final = frozenset({"26000", "42P05"})
#: The class of error codes for statements that are more than PostgreSQL can ever do.
_TOO_MUCH: Final = "54"
#: Error code of SQLite (its C interface): a mistake in a statement.
_MISTAKE: Final = 1


class BrokenOff(Exception):
    """A transaction exceeded its time limit."""

    def __init__(self) -> None:
        super().__init__("it does not answer in time")


class Transaction:
    """A transaction in one thread.  Another thread may break off the transaction.

    :ivar changes: the changes of statuses; empty until the commit has succeeded.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._socket: socket.socket | None = None
        self._broken_off = False
        self.changes: list[StateChange] = []

    def use(self, connection: socket.socket | None) -> None:
        """Set the connection to a server that the transaction uses; None for no connection.

        :raises BrokenOff: if the transaction has been broken off.
        """
        with self._lock:
            self._socket = connection
            if self._broken_off and connection is not None:
                raise BrokenOff

    def begin(self) -> None:
        """Begin the transaction.

        :raises BrokenOff: if the transaction has been broken off.
        """
        if self._broken_off:
            raise BrokenOff

    def break_off(self) -> None:
        """Let the transaction fail at once, if it has not begun or waits for a server."""
        with self._lock:
            self._broken_off = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """The connections to one database.

    :param url: ``sqlite:///…`` or ``postgresql+psycopg://…``.
    :param most: maximum number of connections at once.
    :ivar is_sqlite: whether the database is a file of SQLite.
    :raises ConfigurationError: if the driver is not installed.
    """

    def __init__(self, url: URL, most: int) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._path = Path(url.database) if self.is_sqlite and url.database else None
        self._file: tuple[int, int] | None = None
        #: SQLite's write-ahead log beside the file.  The log exists while connections are open.
        self._log: tuple[int, int] | None = None
        self._open: set[int] = set()
        self._here = local()
        try:
            # Failures reach the log, and values may be secrets: signed URLs, user data.
            more = {"hide_parameters": True} | ({} if self.is_sqlite else settings(url))
            self.engine = create_engine(url, pool_size=most, max_overflow=0, **more)
        except ImportError as error:
            raise ConfigurationError(
                f"state.url: {error}. Install the driver: pip install 'bootvol[postgresql]'"
            ) from error
        if self.is_sqlite:
            _tune_sqlite(self.engine)
            self._count()
        else:
            self._server = Server(self.engine, self._use, LIMIT)

    def begin(self) -> None:
        """Note the identity of the database file, which is in use from now on.  Blocks.

        New connections to a server require this version's schema from now on.
        """
        if not self.is_sqlite:
            self._server.revision = schema.REVISION
        if self._path is not None:
            journal.reserve(self._path)
            self._file = _identity(self._path) or (0, 0)

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """Yield a transaction without time limits.  Leave no connection afterwards.

        :raises ConfigurationError: if another process is upgrading the schema.
        """
        try:
            with self.engine.begin() as connection:
                if not self.is_sqlite:
                    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                        connection.exec_driver_sql(f"SET LOCAL {setting} = 0")
                yield connection
        except OtherSchema as error:
            raise ConfigurationError(f"the database cannot be used: {error}") from error
        finally:
            self.engine.dispose()

    def transact(
        self, transaction: Transaction, query: Callable[[Connection], T], *, writes: bool
    ) -> T:
        """Run a query in a transaction, in this thread.  Try again after a collision with others.

        :raises DatabaseUnavailable: if the database does not answer, or takes nothing for now.
        :raises DatabaseRefused: if the database will never take the data.
        """
        with self._used_by(transaction):
            self._check_file()
            tries = _TRIES
            while True:
                tries -= 1
                try:
                    return self._transact(transaction, query, writes=writes)
                except DBAPIError as error:
                    if _state(error) in _NOT_PREPARED:
                        self._server.prepares = False
                    elif _state(error) not in _COLLISIONS:
                        raise
                    if not tries:
                        raise

    def last_writes(self, transaction: Transaction) -> tuple[int, ...]:
        """Return the last writes on a server, in this thread.

        :raises DatabaseUnavailable: if the database does not answer for now.
        """
        try:
            with self._used_by(transaction):
                return self._server.last_writes()
        except self.engine.dialect.loaded_dbapi.Error as error:
            if getattr(error, "sqlstate", None) in _NOT_PREPARED:
                self._server.prepares = False
            # The server may have been restarted.
            return self.transact(transaction, last_writes.numbers, writes=False)

    @contextmanager
    def _used_by(self, transaction: Transaction) -> Iterator[None]:
        """Let a transaction use connections of this thread, and translate errors.

        :raises DatabaseUnavailable: if the database does not answer, or takes nothing for now.
        :raises DatabaseRefused: if the database will never take the data.
        """
        self._here.transaction = transaction
        try:
            transaction.begin()
            yield
        except (BrokenOff, OtherSchema, OSError) as error:
            raise DatabaseUnavailable from error
        except DataError as error:
            raise DatabaseRefused from error
        except DBAPIError as error:
            if passes(error):
                raise DatabaseUnavailable from error
            raise
        finally:
            transaction.use(None)
            self._here.transaction = None

    def _transact(
        self, transaction: Transaction, query: Callable[[Connection], T], *, writes: bool
    ) -> T:
        changes: list[StateChange] = []
        options = {"bootvol_writes": writes, **events.options(changes)}
        if not writes and not self.is_sqlite:
            # Each statement sees all data committed by then in a transaction, too.  Without one,
            # two turns to the server are saved.
            options["isolation_level"] = "AUTOCOMMIT"
        with (
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            result = query(connection)
            if self._path is not None and self._log is None:
                self._log = _identity(journal.log_of(self._path))
                journal.reserve(journal.log_of(self._path))
        transaction.changes = changes
        return result

    def _check_file(self) -> None:
        """Check that SQLite's files are still in place.  Writes to a removed file would be lost.

        :raises DatabaseUnavailable: if a file is gone or replaced.
        """
        if self._path is None or self._file is None:
            return
        _check(
            self._path,
            self._file,
            "Put the former file back, or stop the daemon, put the right file there, and"
            " start it again",
        )
        if self._log is not None:
            _check(
                journal.log_of(self._path),
                self._log,
                "End the daemon with SIGTERM, which writes down what was in that file, and start"
                " the daemon again",
            )

    def _count(self) -> None:
        """Watch for the close of the last connection: SQLite removes its log then."""

        @event.listens_for(self.engine, "connect")
        def connected(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
            self._open.add(id(connection))

        @event.listens_for(self.engine, "close")
        def closed(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
            self._open.discard(id(connection))
            if not self._open:
                self._log = None

    def _use(self, connection: socket.socket | None) -> None:
        transaction: Transaction | None = getattr(self._here, "transaction", None)
        if transaction is not None:
            transaction.use(connection)


def passes(error: DBAPIError) -> bool:
    """Return whether an error has causes outside the statement, and so passes by itself."""
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        # A damaged database raises an error of the base class.
        of_kind = isinstance(error, OperationalError) or type(error) is DatabaseError
        return of_kind and (code != _MISTAKE or "no such table" in str(error.orig))
    state = _state(error)
    if state.startswith(_OF_THE_SERVER):
        return True
    return isinstance(error, OperationalError | InterfaceError) and not state.startswith(_TOO_MUCH)


def _state(error: DBAPIError) -> str:
    """Return PostgreSQL's code of an error; empty for an error without a code."""
    return getattr(error.orig, "sqlstate", None) or ""


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the identity of a file, distinct from all others; None for a missing file."""
    try:
        return _found(path)
    except OSError:
        return None


def _found(path: Path) -> tuple[int, int]:
    """As :func:`_identity`, but fail for a missing file.

    :raises OSError: if the file is missing or cannot be seen.
    """
    found = path.stat()
    return found.st_dev, found.st_ino


def _check(path: Path, known: tuple[int, int], remedy: str) -> None:
    """Check that a file is still the same.

    :param known: former identity of the file.
    :raises DatabaseUnavailable: if the file is gone, replaced, or cannot be seen.
    """
    try:
        now = _found(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DatabaseUnavailable from FileNotFoundError(f"{path} is gone. {remedy}")
    except OSError as error:
        raise DatabaseUnavailable from error
    if now != known:
        raise DatabaseUnavailable from FileNotFoundError(f"{path} is another one by now. {remedy}")


def _tune_sqlite(engine: Engine) -> None:
    """Let SQLAlchemy begin the transactions, and SQLite lose no committed transaction."""

    @event.listens_for(engine, "connect")
    def connected(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        for pragma in (
            f"journal_mode={journal.mode(Path(engine.url.database or '').parent)}",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={_PATIENCE * 1000}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("bootvol_writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
