"""The database: connections, transactions in threads, and the state of the schema."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import (
    URL,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from bootvol import private
from bootvol.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable
from bootvol.reactors import IReactor
from bootvol.store import last_writes, schema, schema_lock
from bootvol.store.calls import Call, ThreadLane
from bootvol.store.connections import LIMIT, Connections, Transaction
from bootvol.store.events import Publisher, Subscriber
from bootvol.threads import outlast

P = ParamSpec("P")
T = TypeVar("T")

_READERS = 3
_WRITES_ON_A_SERVER = 4
_KEEPERS = 2
#: Seconds that a call may last when the daemon is to end; and seconds to wait for the threads.
_LAST = 4.0
_PATIENCE = 1.0
#: Seconds without a failure that end an outage, if the outage only seemed to be over before.
_CALM = 60.0

#: Free bytes without which SQLite can do nothing.
ROOM: Final = 1024 * 1024

#: Alembic's table with the revision of the schema.
_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


class _Outage:
    """Logs when the database begins to fail, and when the database answers again.

    Sometimes only a part of the database fails: a table is locked, or a server has become
    read-only.  Then calls fail and succeed in turns.  So an outage that begins again soon lasts
    until :data:`_CALM` seconds have passed without a failure.

    :param done: the failing use of the database, as a participle (``read``, ``written``).
    """

    def __init__(self, clock: IReactorTime, done: str, log: Logger) -> None:
        self._clock = clock
        self._done = done
        self._log = log
        self._fails = False
        self._last = -math.inf
        self._calm = 0.0

    def failed(self, reason: str) -> None:
        """Record a failed call."""
        now = self._clock.seconds()
        if not self._fails:
            self._fails = True
            self._calm = _CALM if now - self._last < _CALM else 0.0
            self._log.error(
                "the database cannot be {done}: {failure}", done=self._done, failure=reason
            )
        self._last = now

    def succeeded(self) -> None:
        """Record a call without a failure."""
        if self._fails and self._clock.seconds() - self._last >= self._calm:
            self._fails = False
            self._log.info("the database can be {done} again", done=self._done)


class Database:
    """Runs transactions in threads of its own.

    SQLite has one thread for writes, since only one transaction can write at a time.  A queue in
    front of the thread is fairer and quicker than collisions and sleeps.

    A caller hears within :data:`~bootvol.store.connections.LIMIT` seconds that the database is
    silent.  The log says once that the database fails, and once that the database answers again.

    :param url: ``sqlite:///…`` or ``postgresql+psycopg://…``.
    :param reactor: brings results back from the threads, and is the clock.
    :raises ConfigurationError: if the driver is not installed.
    :ivar is_sqlite: whether the database is a file of SQLite, for this daemon alone.
    :ivar ending: whether the daemon is to end.
    """

    _log = Logger()

    def __init__(self, url: URL, reactor: IReactor) -> None:
        is_sqlite = url.get_backend_name() == "sqlite"
        writers = 1 if is_sqlite else _WRITES_ON_A_SERVER
        self._connections = Connections(url, _READERS + writers + (0 if is_sqlite else _KEEPERS))
        self.is_sqlite = is_sqlite
        self._engine = self._connections.engine
        self._clock: IReactor = reactor
        self._changes = 0
        self._publisher = Publisher()
        self._reading = ThreadLane(reactor, "bootvol-read", _READERS)
        self._writing = ThreadLane(reactor, "bootvol-write", writers)
        # A lane of its own renews leases in time, however much the API writes.
        self._keeping = (
            self._writing if is_sqlite else ThreadLane(reactor, "bootvol-keep", _KEEPERS)
        )
        self._lanes = {self._reading, self._writing, self._keeping}
        self._calls: set[Call[Any]] = set()
        self._read, self._written = (
            _Outage(reactor, done, self._log) for done in ("read", "written")
        )
        self.ending = False

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call ``subscriber`` in the reactor thread with each change of a status by this daemon.

        The calls follow the commit.  A transaction that is rolled back causes no call, and a
        transaction that is tried again causes one.  A commit whose answer is lost causes none.
        Changes of one transaction come in order.
        """
        self._publisher.subscribe(subscriber)

    def start(self) -> None:
        """Start the threads of transactions.  Call this method after any fork."""
        self._connections.begin()
        for lane in self._lanes:
            lane.threads.start()

    def end_soon(self) -> None:
        """Limit each call to :data:`_LAST` seconds from now on, since the daemon is to end."""
        self.ending = True
        for call in self._calls:
            call.limit(_LAST)

    def stop(self) -> None:
        """Wait a while for the running transactions.  Then close every connection."""
        ended = [lane.threads.stop(_PATIENCE) for lane in self._lanes]
        if not all(ended):
            for call in list(self._calls):
                call.give_up()
        self._engine.dispose()

    async def version(self) -> Hashable:
        """Return the version of the rows.  Each :meth:`write` of any daemon makes a new one.

        The version is new before the write is answered, and no version ever returns.

        :raises DatabaseUnavailable: if the database does not answer for now.
        """
        if self.is_sqlite:
            return self._changes
        return await self._call(self._reading, self._connections.last_writes)

    async def read(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction without writes.

        :raises DatabaseUnavailable: if the database does not answer for now.
        """
        return await self._run(self._reading, lambda db: query(db, *args, **kwargs))

    async def write(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction.  Commit unless ``query`` raises.

        After a collision with other transactions, ``query`` runs again.  A cancelled call raises
        CancelledError only when the transaction has ended, with or without a commit.

        :raises DatabaseUnavailable: if the database takes nothing for now, or the answer to the
            commit is missing.  In the latter case the data may have been written all the same.
        :raises DatabaseRefused: if the database will never take the data.
        """

        def noted(db: Connection) -> T:
            result = query(db, *args, **kwargs)
            last_writes.note(db)
            return result

        return await self._run(self._writing, noted, seen=True)

    async def write_without_invalidation(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As :meth:`write`, for data that no volume or snapshot shows: leases, progress.

        On SQLite the call has no time limit.  No request waits for the call, and a claim unknown to
        the daemon would never end.
        """
        bounded = not self.is_sqlite
        return await self._run(
            self._keeping, lambda db: query(db, *args, **kwargs), bounded=bounded
        )

    async def _run(
        self,
        lane: ThreadLane,
        query: Callable[[Connection], T],
        *,
        seen: bool = False,
        bounded: bool = True,
    ) -> T:
        def work(transaction: Transaction) -> T:
            writes = lane is not self._reading
            return self._connections.transact(transaction, query, writes=writes)

        return await self._call(lane, work, seen=seen, bounded=bounded)

    async def _call(
        self,
        lane: ThreadLane,
        work: Callable[[Transaction], T],
        *,
        seen: bool = False,
        bounded: bool = True,
    ) -> T:
        transaction = Transaction()
        writes = lane is not self._reading

        def run() -> T:
            try:
                result = work(transaction)
                if transaction.changes:
                    # Not by the caller, who may have been cancelled, or told that the database is
                    # silent.  The subscribers hear of the changes before the caller does.
                    self._clock.callFromThread(self._publisher.publish, transaction.changes)
                return result
            finally:
                if seen:
                    # Count a failed call, too: its data may be written all the same.  On SQLite
                    # only one thread gets here.
                    self._changes += 1

        call = Call(lane, run, transaction, self._clock)
        if bounded or self.ending:
            call.limit(_LAST if self.ending else LIMIT)
        self._calls.add(call)
        try:
            result: T = await outlast(call.answer.wait())
        except DatabaseUnavailable as error:
            (self._written if writes else self._read).failed(_reason(error))
            raise
        except DatabaseRefused:
            self._log.failure("the database refuses a write")
            raise
        finally:
            self._calls.discard(call)
            call.end()
        # A database that takes writes can also be read.
        for outage in (self._written, self._read) if writes else (self._read,):
            outage.succeeded()
        return result

    # --- before the reactor runs: these block, and leave no connection for a fork to share --------

    def alone(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction, in this thread.  Blocks.

        :raises ConfigurationError: if the database does not answer, or does not allow the query.
        """
        try:
            with self._connections.alone() as connection:
                return query(connection, *args, **kwargs)
        except SQLAlchemyError as error:
            raise _unusable(self._engine.url, "used", error) from error

    def upgrade(self, revision: str = schema.REVISION) -> None:
        """Upgrade the schema to this version of bootvol, or to an earlier version.  Blocks.

        Import alembic only for tables of an earlier version.  The import costs a daemon 10 MiB for
        the daemon's whole life.

        :raises ConfigurationError: if the database cannot be upgraded.
        """
        try:
            if self.is_sqlite and self._engine.url.database:
                file = Path(self._engine.url.database)
                private.make("state.url", file.parent)
                # No other user may read the file.  SQLite gives the files beside it the same mode.
                file.touch(mode=0o600)
            with self._connections.alone() as connection:
                _check_encoding(connection)
                now = _revision(connection)
                if now != revision and not self.is_sqlite:
                    schema_lock.take(connection)
                if now is None and revision == schema.REVISION:
                    _make(connection)
                elif now != revision:
                    _migrate(connection, revision)
        except (OSError, SQLAlchemyError) as error:
            raise _unusable(self._engine.url, "upgraded", error) from error

    def check(self) -> None:
        """Check that the schema is the one for this version of bootvol.  Blocks.

        :raises ConfigurationError: if the schema is another one, or the database does not answer.
        """
        self.alone(_check_encoding)
        now = self.alone(_revision)
        if now != schema.REVISION:
            raise ConfigurationError(
                f"the database's schema is {now or 'empty'}, and {schema.REVISION} is needed:"
                " run `bootvol db upgrade`"
            )


def _reason(error: Exception) -> str:
    """Return the reason of a database failure in one line, without the statement and its data."""
    cause = error.__cause__ or error if isinstance(error, DatabaseUnavailable) else error
    return " ".join(str(getattr(cause, "orig", cause)).split())


def _unusable(url: URL, done: str, error: Exception) -> ConfigurationError:
    """Return the error for a database that fails before the reactor runs.

    :param done: the failing use of the database, as a participle.
    """
    fault = f"the database cannot be {done}: {_reason(error)}"
    if url.get_backend_name() != "sqlite" or not url.database:
        return ConfigurationError(fault)
    remedy = "Repair the disk, or give the daemon's user the right to write the file and its folder"
    with suppress(OSError):
        # SQLite calls a lack of room for its index of the log an error of the disk.
        if shutil.disk_usage(Path(url.database).parent).free < ROOM:
            remedy = "The disk is full: free space there"
    if getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:
        remedy = "End the program that has the file locked"
    return ConfigurationError(f"state.url: {url.database}: {fault}. {remedy}.")


def _check_encoding(connection: Connection) -> None:
    """Check that the database takes every text.

    :raises ConfigurationError: if a database on a server has another encoding than UTF-8.
    """
    if connection.dialect.name != "postgresql":
        return
    found = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if found != "UTF8":
        raise ConfigurationError(
            f"the database has the encoding {found}, which cannot store every name: create another"
            " database with `createdb --encoding=UTF8 --template=template0 NAME`, and move the"
            " content with pg_dump and psql"
        )


def _revision(connection: Connection) -> str | None:
    """Return alembic's revision of the present schema; None for a database without a schema."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar()


def _make(connection: Connection) -> None:
    """Create the newest tables at once, and note their revision for alembic."""
    schema.METADATA.create_all(connection, checkfirst=False)
    _VERSION.create(connection)
    connection.execute(insert(_VERSION).values(version_num=schema.REVISION))


def _migrate(connection: Connection, revision: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "bootvol:store/migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise ConfigurationError(
            "the database cannot be upgraded, perhaps a later version of bootvol wrote the"
            f" database: {error}"
        ) from error
