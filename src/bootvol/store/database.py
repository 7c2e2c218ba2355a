"""The database: connections, transactions in threads, and the state of its schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import (
    URL,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.interfaces import IReactorFromThreads

from bootvol.errors import ConfigurationError
from bootvol.store import schema
from bootvol.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

_READERS = 3
_WRITES_ON_A_SERVER = 4

#: Where alembic keeps the schema's revision.
_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


class Database:
    """Runs transactions in threads of its own.

    On SQLite there is one thread for writing, since only one transaction can write at a time:
    a line in front of it is fairer and quicker than colliding and sleeping.

    :param url: ``sqlite:///…`` or ``postgresql+psycopg://…``.
    :param reactor: brings results back.
    :raises ConfigurationError: the driver is not installed.
    """

    def __init__(self, url: URL, reactor: IReactorFromThreads) -> None:
        self.embedded = url.get_backend_name() == "sqlite"
        writers = 1 if self.embedded else _WRITES_ON_A_SERVER
        try:
            self._engine = create_engine(
                url, pool_size=_READERS + writers, max_overflow=0, **_connecting(self.embedded)
            )
        except ImportError as error:
            raise ConfigurationError(
                f"state.url: {error}. Install it: pip install 'bootvol[postgresql]'"
            ) from error
        if self.embedded:
            _tune_sqlite(self._engine)
        self._changes = 0
        self._reading = Threads(reactor, "bootvol-read", _READERS)
        self._writing = Threads(reactor, "bootvol-write", writers)

    def start(self) -> None:
        """Let transactions run.  Call it after any fork."""
        self._reading.start()
        self._writing.start()

    def stop(self) -> None:
        """Wait for the transactions under way, then close every connection."""
        self._reading.stop()
        self._writing.stop()
        self._engine.dispose()

    @property
    def version(self) -> int | None:
        """A number that grows with every :meth:`write`, before that is answered.

        None where other daemons write, too.
        """
        return self._changes if self.embedded else None

    async def read(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction that does not write."""
        return await self._reading.run(
            lambda: self._transact(False, lambda db: query(db, *args, **kwargs))
        )

    async def write(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction that commits unless ``query`` raises.

        Cancelled, it raises that only when the transaction has ended, one way or the other.
        """

        def run() -> T:
            try:
                return self._transact(True, lambda db: query(db, *args, **kwargs))
            finally:
                # Even when it is not known to have failed; there is one such thread on SQLite.
                self._changes += 1

        return await self._writing.run(run)

    async def write_unseen(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As :meth:`write`, of what shows in no volume or snapshot: leases, progress."""
        return await self._writing.run(
            lambda: self._transact(True, lambda db: query(db, *args, **kwargs))
        )

    def _transact(self, writes: bool, query: Callable[[Connection], T]) -> T:
        with (
            self._engine.connect().execution_options(bootvol_writes=writes) as connection,
            connection.begin(),
        ):
            return query(connection)

    # --- before the reactor runs: these block, and leave no connection that a fork would share ----

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        finally:
            self._engine.dispose()

    def alone(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` here and now, in a transaction."""
        with self._alone() as connection:
            return query(connection, *args, **kwargs)

    def upgrade(self, revision: str = schema.REVISION) -> None:
        """Bring the schema up to this version of bootvol, or to an earlier one's.

        Alembic comes in only if there are tables of an earlier version: it costs a daemon 10 MiB
        for as long as it runs.

        :raises ConfigurationError: the database does not let itself be upgraded.
        """
        try:
            if self.embedded and self._engine.url.database:
                file = Path(self._engine.url.database)
                file.parent.mkdir(parents=True, exist_ok=True)
                # Nobody else's to read; SQLite gives the files beside it the same mode.
                file.touch(mode=0o600)
            with self._alone() as connection:
                now = _revision(connection)
                if now is None and revision == schema.REVISION:
                    _make(connection)
                elif now != revision:
                    _migrate(connection, revision)
        except (OSError, SQLAlchemyError) as error:
            raise ConfigurationError(f"the database cannot be upgraded: {error}") from error

    def check(self) -> None:
        """See that the schema is the one this version of bootvol needs.

        :raises ConfigurationError: it is not, or the database does not answer.
        """
        try:
            now = self.alone(_revision)
        except SQLAlchemyError as error:
            raise ConfigurationError(f"the database does not answer: {error}") from error
        if now != schema.REVISION:
            raise ConfigurationError(
                f"the database's schema is {now or 'empty'}, and {schema.REVISION} is needed:"
                " run `bootvol db upgrade`"
            )


def _connecting(embedded: bool) -> dict[str, Any]:
    """Return how to connect: a server may be restarted, and has an isolation of its own mind.

    What :func:`bootvol.store.volumes.take_turns` promises holds where each statement sees what has
    been committed by then.
    """
    return {} if embedded else {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}


def _revision(connection: Connection) -> str | None:
    """Return what alembic calls the schema that there is; None where there is none."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar()


def _make(connection: Connection) -> None:
    """Make the newest tables at once, and note for alembic that they are."""
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
            f"the database cannot be upgraded, perhaps it is a later bootvol's: {error}"
        ) from error


def _tune_sqlite(engine: Any) -> None:
    """Let SQLAlchemy say when a transaction begins, and SQLite lose nothing that it ended."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=30000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("bootvol_writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
