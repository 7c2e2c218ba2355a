"""A failing database: temporary and permanent failures differ, and nobody waits for long."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import (
    JSON,
    URL,
    Connection,
    String,
    event,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError
from twisted.internet.defer import CancelledError, Deferred, DeferredList, gatherResults
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure

from bootvol import database_checks
from bootvol.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable
from bootvol.store import connections, schema, server
from bootvol.store import database as databases
from bootvol.store.columns import clean
from bootvol.store.connections import Transaction
from bootvol.store.database import Database
from tests import postgresql
from tests.daemons import reactor
from tests.unit.conftest import on_server
from tests.waiting import LIMIT

#: Quotas are the simplest of all rows.
TABLE = schema.quotas
#: A value refused by every database.
HOSTILE = ["a\0b", "\0", "half of \ud83d", "\udc00\0"]


@pytest.fixture
def running(database: Database) -> Iterator[Database]:
    """A database of either kind, ready for transactions."""
    database.start()
    yield database
    database.stop()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Database]:
    """A database in a file, ready for transactions."""
    with working(in_file(tmp_path)) as database:
        yield database


@pytest.fixture
def address(new_postgresql: Callable[[], str]) -> str:
    """The URL of an empty database on a server."""
    return new_postgresql()


@pytest.fixture
def served(address: str) -> Iterator[Database]:
    """A database on a server, ready for transactions."""
    with working(on_server(address)) as database:
        yield database


@contextmanager
def working(url: URL) -> Iterator[Database]:
    """Run the transactions of a database until the end of the block."""
    made = Database(url, reactor)
    made.upgrade()
    made.start()
    yield made
    made.stop()


def in_file(folder: Path) -> URL:
    """Return the URL of a database in a file."""
    return make_url(f"sqlite:///{folder / 'x.db'}")


def add(db: Connection, tenant: str = "t", resource: str = "r") -> None:
    """Write a row."""
    db.execute(insert(TABLE).values(tenant=tenant, resource=resource, most=1))


def count(db: Connection) -> int:
    """Count the rows."""
    return db.execute(select(func.count()).select_from(TABLE)).scalar_one()


def told(logged: Any) -> list[str]:
    """Return the log lines about the database, without the reasons."""
    formats = [each["log_format"] for each in logged if each["log_namespace"].endswith("Database")]
    assert not any("log_failure" in each for each in logged)
    reasons = [each["failure"] for each in logged if "failure" in each]
    assert all(reason and "\n" not in reason and "INSERT" not in reason for reason in reasons)
    return formats


def start(database: Database, query: Any) -> Deferred[Any]:
    """Begin to write."""
    return Deferred.fromCoroutine(database.write(query))


# --- upgrades ------------------------------------------------------------------------------------


@ensureDeferred
async def test_no_upgrade_while_a_daemon_uses_the_database(served: Database, address: str) -> None:
    await served.write(add)
    other = Database(on_server(address), reactor)
    other.upgrade()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        with pytest.raises(ConfigurationError, match=r"daemons use it \(on the server's own mach"):
            other.upgrade()
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        assert found == ("0001",)


@ensureDeferred
async def test_a_daemon_leaves_the_schema_of_another_version_alone(
    served: Database, address: str
) -> None:
    """The connections were lost, so an upgrade was possible.

    Break: `src/bootvol/store/server.py`: `share(connection, self.revision)` -> `share(connection,
    None)`.
    """
    await served.write(add)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with capturedLogs() as logged:
            for call in served.read(count), served.write(add):
                with pytest.raises(DatabaseUnavailable):
                    await call
        reasons = [each["failure"] for each in logged if "failure" in each]
        assert all(
            f"needs {schema.REVISION}" in each and "stop this daemon" in each for each in reasons
        )
        assert reasons
        assert connection.execute("SELECT count(*) FROM quotas").fetchone() == (1,)
        connection.execute("UPDATE alembic_version SET version_num = %s", [schema.REVISION])
    await served.write(add, "another")


def test_an_upgrade_is_noticed(address: str) -> None:
    database = Database(on_server(address), reactor)
    database.upgrade()
    with psycopg.connect(address) as connection:
        take = "SELECT pg_advisory_xact_lock(%s)"
        connection.execute(take, [int.from_bytes(b"bootvol", "big")])
        with pytest.raises(ConfigurationError, match="its schema is being upgraded"):
            database.check()
    database.check()


def test_an_upgrade_right_behind_the_end_of_a_daemon(address: str) -> None:
    """The server frees the locks of a connection a moment after the connection's end.

    Break: `src/bootvol/store/schema_lock.py`: `> end:` -> `> 0:`
    """
    database = Database(on_server(address), reactor)
    with psycopg.connect(address, autocommit=True) as daemon:
        daemon.execute("SELECT pg_advisory_lock_shared(%s)", [int.from_bytes(b"bootvol", "big")])
        end = threading.Timer(0.5, daemon.close)
        end.start()
        database.upgrade()
        end.join()
    database.check()


# --- foreign servers -----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_an_encoding_that_does_not_take_every_name(postgresql_server: str, encoding: str) -> None:
    form = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    address = postgresql.create_database(postgresql_server, f"test-{uuid4()}", form)
    database = Database(on_server(address), reactor)
    for call in database.upgrade, database.check:
        with pytest.raises(ConfigurationError, match="createdb --encoding=UTF8"):
            call()
    (found,) = database_checks.check(on_server(address), reactor)
    assert f"has the encoding {encoding}" in str(found)
    assert "Start the database" not in str(found)


@ensureDeferred
async def test_what_a_database_sets_for_its_sessions(postgresql_server: str) -> None:
    settings = "DateStyle = 'German'", "client_encoding = 'latin1'", "TimeZone = 'Asia/Kolkata'"
    address = postgresql.create_database(postgresql_server, f"test-{uuid4()}", "", *settings)
    with working(on_server(address)) as database:
        moment = datetime(2026, 2, 1, 23, 59, tzinfo=UTC)
        values = {"tenant": "t", "user": "€日", "name": "n", "public_key": "", "fingerprint": ""}
        await database.write(
            lambda db: db.execute(insert(schema.keypairs).values(**values, created_at=moment))
        )
        row = await database.read(lambda db: db.execute(select(schema.keypairs)).one())
        assert (row.user, row.created_at) == ("€日", moment)


@ensureDeferred
async def test_a_session_that_stays_read_only_is_given_up(served: Database) -> None:
    """After a failover, a session may lead to a standby for ever; later transactions use another.

    Break: `src/bootvol/store/read_only.py`: `context.is_disconnect = True` -> `pass`
    """
    read_only = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    await served.write(lambda db: db.exec_driver_sql(read_only))
    with pytest.raises(DatabaseUnavailable):
        await served.write(add)
    await served.write(add)
    assert await served.read(count) == 1


@ensureDeferred
async def test_a_pooler_that_drops_what_was_prepared(served: Database) -> None:
    """PgBouncer may give a transaction any session, without the prepared statements of another.

    Nobody notices, no matter which query runs.
    """

    @event.listens_for(served._engine, "checkin")
    def give_back(connection: Any, _record: Any) -> None:
        connection.pgconn.exec_(b"DISCARD ALL")

    for number in range(30):
        await served.write(add, f"{number}")
        assert await served.read(count) == number + 1


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_is_clean_wherever_it_comes_from(db: Connection, hostile: str) -> None:
    add(db, hostile)
    kept = db.execute(select(TABLE.c.tenant).where(TABLE.c.tenant == hostile)).scalar_one()
    assert kept == clean(hostile)
    assert not set(kept) & set("\0\ud83d\udc00")
    db.execute(
        insert(schema.volume_types).values(name="x", extra_specs={"k": [hostile], hostile: 1})
    )
    shown = db.execute(select(schema.volume_types.c.extra_specs)).scalar_one()
    assert shown == {"k": [kept], kept: 1}


def test_what_is_clean_stays_as_it_is() -> None:
    assert clean("\x01\t\ufffd\U0001f600é") == "\x01\t\ufffd\U0001f600é"
    assert clean({"a": [1, None, True, 1.5]}) == {"a": [1, None, True, 1.5]}


def test_no_column_takes_text_as_it_comes() -> None:
    bare = [
        str(column)
        for table in schema.METADATA.tables.values()
        for column in table.c
        if isinstance(column.type, String | JSON)
    ]
    assert bare == []


@ensureDeferred
async def test_what_never_passes_is_no_outage(served: Database) -> None:
    with capturedLogs() as logged, pytest.raises(DatabaseRefused):
        await served.write(add, "t" * 300)
    (failed,) = [each for each in logged if "log_failure" in each]
    assert "value too long" in str(failed["log_failure"].value.__cause__)
    assert await served.read(count) == 0


@ensureDeferred
async def test_failures_show_no_values(running: Database) -> None:
    """Values may be secrets: signed URLs of images, and users' data for guests.

    Break: `src/bootvol/store/connections.py`: `"hide_parameters": True` ->
    `"hide_parameters": False`.
    """
    wrong = text("SELECT nonsense FROM volumes WHERE name = :name").bindparams(name="SECRET")
    with pytest.raises(Exception, match="nonsense") as caught:
        await running.read(lambda db: db.execute(wrong))
    assert "SECRET" not in Failure(caught.value).getTraceback()


@ensureDeferred
async def test_a_mistake_is_a_mistake(running: Database) -> None:
    with pytest.raises(Exception, match="nonsense") as caught:
        await running.read(lambda db: db.execute(text("SELECT nonsense")))
    assert not isinstance(caught.value, DatabaseUnavailable)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "why"), [("query_only=ON", "readonly"), ("max_page_count=1", "full")]
)
@ensureDeferred
async def test_a_file_that_takes_nothing_is_told_once(
    embedded: Database, pragma: str, why: str
) -> None:
    def much(db: Connection) -> None:
        db.exec_driver_sql(f"PRAGMA {pragma}")
        for number in range(2000):
            add(db, "t" * 250, str(number))

    with capturedLogs() as logged:
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable) as caught:
                await embedded.write(much)
            assert why in str(caught.value.__cause__)
            # Reading continues, and tells nothing about writing.
            await embedded.read(count)
        assert len(told(logged)) == 1
        # No connection keeps the pragma.
        embedded._engine.dispose()
        await embedded.write(add)
        await embedded.write(lambda _: None)
    assert [each["log_level"] for each in logged] == [LogLevel.error, LogLevel.info]
    assert await embedded.read(count) == 1


@ensureDeferred
async def test_a_file_that_another_process_keeps_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_PATIENCE", 0.1)
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    with working(in_file(tmp_path)) as database, closing(other), capturedLogs() as logged:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable):
                await database.write(add)
        assert await database.read(count) == 0
        other.execute("ROLLBACK")
        await database.write(add)
    assert told(logged) == [
        "the database cannot be {done}: {failure}",
        "the database can be {done} again",
    ]


@pytest.mark.parametrize(
    ("how", "words"),
    [("gone", "is gone"), ("another", "is another"), ("hidden", "Too many levels of symbolic")],
)
@ensureDeferred
async def test_a_file_that_is_not_there_any_more_takes_nothing(
    embedded: Database, tmp_path: Path, how: str, words: str
) -> None:
    file, away = tmp_path / "x.db", tmp_path / "away"
    await embedded.write(add)
    file.rename(away)
    if how == "another":
        sqlite3.connect(file).close()
        file.touch()
    elif how == "hidden":
        file.symlink_to(file)
    with capturedLogs() as logged:
        for ask in (
            embedded.write(add, "more"),
            embedded.write_without_invalidation(add),
            embedded.read(count),
        ):
            with pytest.raises(DatabaseUnavailable) as caught:
                await ask
            assert "x.db" in str(caught.value.__cause__)
            assert words in str(caught.value.__cause__)
        assert len(told(logged)) == 2, "of writing, and of reading"
    assert file.exists() == (how == "another"), "none is made instead"
    away.rename(file)
    assert await embedded.read(count) == 1
    await embedded.write(add, "more")


@ensureDeferred
async def test_a_log_of_sqlite_that_is_removed_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "x.db-wal"
    with working(in_file(tmp_path)) as database:
        await database.write(add)
        log.unlink()
        for ask in (
            database.write(add, "more"),
            database.write_without_invalidation(add),
            database.read(count),
        ):
            with pytest.raises(DatabaseUnavailable) as caught:
                await ask
            assert "x.db-wal is gone. End the daemon" in str(caught.value.__cause__)
        assert not log.exists(), "none is begun that would hide the one that is still open"
    with working(in_file(tmp_path)) as database:
        assert await database.read(count) == 1


def test_a_start_that_a_lock_hinders_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_PATIENCE", 0.1)
    database = Database(in_file(tmp_path), reactor)
    database.upgrade()
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConfigurationError) as caught:
            database.alone(add)
    assert str(caught.value) == (
        f"state.url: {tmp_path}/x.db: the database cannot be used: database is locked."
        " End the program that has the file locked."
    )


@ensureDeferred
async def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    with working(in_file(tmp_path)) as database:
        with (tmp_path / "x.db").open("r+b") as file:
            file.write(b"something else" * 1000)
        with pytest.raises(DatabaseUnavailable):
            await database.read(count)


@ensureDeferred
async def test_a_disk_that_hangs_holds_no_request(
    embedded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LIMIT", 0.3)
    goes_on = threading.Event()

    def hanging(db: Connection) -> None:
        add(db)
        assert goes_on.wait(LIMIT)

    def late(db: Connection) -> None:
        add(db, "late")

    first = start(embedded, hanging)
    waiting = [start(embedded, late) for _ in range(50)]
    unseen = Deferred.fromCoroutine(embedded.write_without_invalidation(add, "unseen"))
    results = await DeferredList([first, *waiting], consumeErrors=True)
    for succeeded, failure in results:
        assert not succeeded
        assert isinstance(failure, Failure)
        assert failure.check(DatabaseUnavailable)
    assert not unseen.called, "nobody would know of a claim"
    goes_on.set()
    await unseen
    # After a failure, the write must not happen later; only the first write had begun.
    kept = await embedded.read(lambda db: db.scalars(select(TABLE.c.tenant)).all())
    assert sorted(kept) == ["t", "unseen"]


@ensureDeferred
async def test_the_end_waits_for_nothing_that_hangs(
    embedded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "_LAST", 0.1)
    goes_on = threading.Event()
    hanging = Deferred.fromCoroutine(
        embedded.write_without_invalidation(lambda _: goes_on.wait(LIMIT))
    )
    embedded.end_soon()
    with pytest.raises(DatabaseUnavailable):
        await hanging
    with pytest.raises(DatabaseUnavailable):
        await embedded.write_without_invalidation(add)
    goes_on.set()


# --- servers -------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_server_that_is_silent_holds_nobody(
    served: Database, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LIMIT", 0.5)
    await gatherResults([start(served, add_nothing) for _ in range(8)])
    with capturedLogs() as logged:
        with postgresql.silent(address):
            for _ in range(2):
                asked = [
                    Deferred.fromCoroutine(ask)
                    for _ in range(20)
                    for ask in (
                        served.read(count),
                        served.write(add),
                        served.write_without_invalidation(add),
                    )
                ]
                for succeeded, failure in await DeferredList(asked, consumeErrors=True):
                    assert not succeeded
                    assert isinstance(failure, Failure)
                    assert failure.check(DatabaseUnavailable)
        monkeypatch.undo()
        assert await served.read(count) == 0
        await served.write(add)
    assert sorted(told(logged)) == [
        *["the database can be {done} again"] * 2,
        *["the database cannot be {done}: {failure}"] * 2,
    ]
    assert await served.read(count) == 1


def add_nothing(db: Connection) -> None:
    """Use a connection without a statement."""
    db.execute(text("SELECT 1"))


@ensureDeferred
async def test_the_end_does_not_wait_for_a_silent_server(address: str) -> None:
    served = Database(on_server(address), reactor)
    served.upgrade()
    served.start()
    await gatherResults([start(served, add_nothing) for _ in range(4)])
    with postgresql.silent(address):
        hanging = start(served, add)
        hanging.addErrback(lambda failure: failure.type)
        served.stop()
        # The thread of the call has noticed the end.
        assert await hanging is DatabaseUnavailable


def allow(url: str, *, connections: bool) -> None:
    """Allow connections to a database; or cut all connections and refuse new ones."""
    name = make_url(url).database
    with psycopg.connect(url.replace(f"/{name}?", "/postgres?"), autocommit=True) as db:
        db.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {connections}'.encode())
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )


@ensureDeferred
async def test_a_server_that_is_down_passes(served: Database, address: str) -> None:
    await served.write(add)
    allow(address, connections=False)
    with pytest.raises(DatabaseUnavailable):
        await served.read(count)
    allow(address, connections=True)
    assert await served.read(count) == 1


@ensureDeferred
async def test_a_server_that_was_restarted_is_connected_to_again(
    served: Database, address: str
) -> None:
    await gatherResults([Deferred.fromCoroutine(served.read(count)) for _ in range(3)])
    allow(address, connections=True)
    with capturedLogs() as logged:
        for _ in range(3):
            assert await served.read(count) == 0
    assert told(logged) == []


def test_the_version_is_told_after_an_outage(served: Database, address: str) -> None:
    """The pool then has connections that have ended.

    Break: `src/bootvol/store/server.py`: `self._here.trusts = False` -> `pass`.
    """
    one_thread = served._connections
    allow(address, connections=False)
    with pytest.raises(DatabaseUnavailable):
        one_thread.last_writes(Transaction())
    for _ in range(2):
        allow(address, connections=True)
        assert one_thread.transact(Transaction(), count, writes=False) == 0


@ensureDeferred
async def test_a_server_that_became_a_standby_passes(served: Database) -> None:
    def read_only(db: Connection) -> None:
        db.execute(text("SET LOCAL transaction_read_only = on"))
        add(db)

    with pytest.raises(DatabaseUnavailable):
        await served.write(read_only)


@ensureDeferred
async def test_a_server_with_damaged_tables_is_an_outage(served: Database) -> None:
    # A page with a wrong checksum, say.
    damaged = "DO $$ BEGIN RAISE 'invalid page in block 0' USING ERRCODE = 'XX001'; END $$"
    with capturedLogs() as logged, pytest.raises(DatabaseUnavailable):
        await served.read(lambda db: db.exec_driver_sql(damaged))
    assert told(logged) == ["the database cannot be {done}: {failure}"]


@ensureDeferred
async def test_a_session_for_which_no_descriptor_is_left(
    served: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dup(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", dup)
        served._engine.dispose()
        with capturedLogs() as logged, pytest.raises(DatabaseUnavailable):
            await served.write(add)
    assert told(logged) == ["the database cannot be {done}: {failure}"]
    await served.write(add)


@ensureDeferred
async def test_what_fails_in_turns_with_what_does_not_floods_no_log(served: Database) -> None:
    clock = Clock()
    for outage in (served._read, served._written):
        outage._clock = clock

    def read_only(db: Connection) -> None:
        db.execute(text("SET LOCAL transaction_read_only = on"))
        add(db)

    with capturedLogs() as logged:
        for _ in range(5):
            with pytest.raises(DatabaseUnavailable):
                await served.write(read_only)
            # An empty transaction works on a standby, too.
            await served.write(lambda _: None)
        again = [LogLevel.error, LogLevel.info]
        assert [each["log_level"] for each in logged] == [*again, LogLevel.error]
        clock.advance(databases._CALM)
        await served.write(lambda _: None)
        assert [each["log_level"] for each in logged] == [*again, *again]


@ensureDeferred
async def test_those_that_collide_try_again(served: Database) -> None:
    for tenant in "ab":
        await served.write(add, tenant)
    both = threading.Barrier(2)

    def cross(first: str, second: str) -> Callable[[Connection], None]:
        tries: list[str] = []

        def write(db: Connection) -> None:
            more = update(TABLE).values(most=TABLE.c.most + 1)
            db.execute(more.where(TABLE.c.tenant == first))
            if not tries:
                tries.append(first)
                both.wait(LIMIT)
            db.execute(more.where(TABLE.c.tenant == second))

        return write

    await gatherResults([start(served, cross("a", "b")), start(served, cross("b", "a"))])
    kept = await served.read(lambda db: db.scalars(select(TABLE.c.most)).all())
    assert kept == [3, 3]


@ensureDeferred
async def test_what_is_broken_off_disturbs_no_other(
    served: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "LIMIT", 1.0)
    slow = Deferred.fromCoroutine(
        served.read(lambda db: db.execute(text("SELECT pg_sleep(60)")).all())
    )
    await gatherResults([start(served, add_nothing) for _ in range(40)])
    with pytest.raises(DatabaseUnavailable):
        await slow
    assert await served.read(count) == 0


@ensureDeferred
async def test_leases_do_not_wait_for_what_clients_write(served: Database) -> None:
    goes_on = threading.Event()

    def hanging(db: Connection) -> None:
        add_nothing(db)
        assert goes_on.wait(LIMIT)

    writing = [start(served, hanging) for _ in range(20)]
    await served.write_without_invalidation(add)
    assert not any(each.called for each in writing)
    goes_on.set()
    await gatherResults(writing)


@ensureDeferred
async def test_a_daemon_that_stops_half_way_locks_nothing_for_long(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_IDLE", 1)
    with working(on_server(address)) as stopped, working(on_server(address)) as other:
        await other.write(add)
        goes_on, locked = threading.Event(), threading.Event()

        def half_way(db: Connection) -> None:
            db.execute(update(TABLE).values(most=2))
            locked.set()
            # On a sleeping machine, the whole daemon stands still.
            assert goes_on.wait(LIMIT)
            db.execute(update(TABLE).values(most=3))

        writing = start(stopped, half_way)
        writing.addErrback(lambda failure: failure.type)
        await deferToThread(locked.wait, 60)
        await other.write(lambda db: db.execute(update(TABLE).values(most=TABLE.c.most + 10)))
        goes_on.set()
        assert await writing is DatabaseUnavailable
        assert await other.read(lambda db: db.scalars(select(TABLE.c.most)).all()) == [11]


@ensureDeferred
async def test_a_cancellation_waits_for_the_end(served: Database) -> None:
    goes_on = threading.Event()

    def query(db: Connection) -> None:
        assert goes_on.wait(LIMIT)
        add(db)

    writing = start(served, query)
    ended: list[object] = []
    writing.addErrback(lambda failure: ended.append(failure.type))
    writing.cancel()
    await served.read(count)
    assert not ended
    goes_on.set()
    await writing
    assert ended == [CancelledError]
    assert await served.read(count) == 1


def test_what_a_statement_is_to_blame_for_does_not_pass(served: Database) -> None:
    too_much = psycopg.errors.ProgramLimitExceeded("index row size exceeds maximum")
    too_much.sqlstate = "54000"
    assert not connections.passes(OperationalError("", {}, too_much))
    assert connections.passes(OperationalError("", {}, psycopg.errors.TooManyConnections()))


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'bootvol\[postgresql\]'"):
        Database(make_url("postgresql+psycopg://h/d"), reactor)
