"""Cached answers: right, dropped in time, and bounded."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any
from uuid import uuid4

import orjson
import pytest
from pytest_twisted import ensureDeferred
from sqlalchemy import URL, Connection, select
from twisted.internet.defer import Deferred, gatherResults

from bootvol.api.cache import Answers
from bootvol.errors import NotFound
from bootvol.store import last_writes, upsert
from bootvol.store.database import Database
from bootvol.store.schema import stores
from tests.daemons import reactor
from tests.waiting import until


class Rows:
    """A row with its version and the number of its reads."""

    def __init__(self) -> None:
        self.version = 0
        self.shown = "old"
        self.reads = 0
        self.answers = Answers(self.now, most=10_000)

    async def now(self) -> Hashable:
        """Return the version of the row."""
        return self.version

    async def read(self) -> Any:
        """Return the content of the row."""
        self.reads += 1
        return self.shown

    async def ask(self, key: str = "key") -> Any:
        """Return the cached answer for a key."""
        return orjson.loads(await self.answers.get(key, self.read))


@ensureDeferred
async def test_what_was_answered_is_not_read_again() -> None:
    rows = Rows()
    assert [await rows.ask() for _ in range(3)] == ["old"] * 3
    assert rows.reads == 1
    assert await rows.ask("another") == "old"
    assert rows.reads == 2


@ensureDeferred
async def test_a_write_makes_every_answer_an_old_one() -> None:
    rows = Rows()
    await rows.ask("a")
    await rows.ask("b")
    rows.version, rows.shown = 1, "new"
    assert await rows.ask("a") == await rows.ask("b") == "new"


@ensureDeferred
async def test_what_was_read_before_a_write_is_not_kept() -> None:
    rows = Rows()
    going_on: Deferred[str] = Deferred()

    async def slow() -> str:
        return await going_on

    first = Deferred.fromCoroutine(rows.answers.get("key", slow))
    rows.version, rows.shown = 1, "new"
    assert await rows.ask("another") == "new"
    going_on.callback("old")
    assert await first == b'"old"'
    assert await rows.ask() == "new"


@ensureDeferred
async def test_no_error_is_kept() -> None:
    rows = Rows()

    async def missing() -> None:
        raise NotFound

    with pytest.raises(NotFound):
        await rows.answers.get("key", missing)
    assert await rows.ask() == "old"


@ensureDeferred
async def test_what_is_kept_is_bounded() -> None:
    rows = Rows()
    rows.shown = "x" * 1000
    for number in range(50):
        await rows.ask(str(number))
        await rows.ask("0")
    assert sum(map(len, rows.answers._kept.values())) <= 10_000
    assert rows.reads == 50, "what is asked for stays"
    rows.shown = "x" * 20_000
    assert await rows.ask("large") == rows.shown
    assert await rows.ask("49") == "x" * 1000, "an answer larger than the cache drives none out"


@pytest.fixture
def daemons(url: URL) -> Iterator[Sequence[Database]]:
    """The databases of the daemons that share one database: two on a server, one on SQLite."""
    loop: Any = reactor
    made = [Database(url, loop) for _ in range(1 if url.get_backend_name() == "sqlite" else 2)]
    made[0].upgrade()
    for each in made:
        each.start()
    yield made
    for each in made:
        each.stop()


def change(db: Connection, backend: str = "b") -> None:
    """Add or change the row of a backend's store."""
    upsert.put(db, stores, {"backend": backend, "host": ""}, {"identity": uuid4().hex})


@ensureDeferred
async def test_each_write_of_each_daemon_makes_a_new_version(daemons: Sequence[Database]) -> None:
    """Break: `src/bootvol/store/database.py`: `last_writes.note(db)` -> `pass`."""
    seen: list[Hashable] = []
    for writer in [*daemons, *daemons, *daemons]:
        versions = [await each.version() for each in daemons]
        assert versions == versions[:1] * len(daemons)
        assert versions[0] not in seen
        seen += versions[:1]
        await writer.write(change)


@ensureDeferred
async def test_other_calls_make_no_new_version(daemons: Sequence[Database]) -> None:
    """Nothing is shown of leases and progress, of reads, and of what was not committed."""

    def fails(db: Connection) -> None:
        change(db)
        raise RuntimeError

    before = await daemons[0].version()
    await daemons[0].read(lambda db: None)
    await daemons[0].write_without_invalidation(change)
    if not daemons[0].is_sqlite:
        await daemons[0].write(lambda db: None)
        with pytest.raises(RuntimeError):
            await daemons[0].write(fails)
    assert await daemons[0].version() == before


@ensureDeferred
async def test_writers_at_once_wait_for_nobody(daemons: Sequence[Database]) -> None:
    """A version stands for the same rows, however the writes overlap.

    On SQLite, a write is counted just after its commit, and before its answer.
    """
    shown: dict[Hashable, set[int]] = {}

    async def watch(reader: Database) -> None:
        while not ended.called:
            before = await reader.version()
            rows = await reader.read(lambda db: db.execute(select(stores)).all())
            if await reader.version() == before:
                shown.setdefault(before, set()).add(len(rows))

    ended = gatherResults(
        Deferred.fromCoroutine(daemons[each % len(daemons)].write(change, f"b{each}"))
        for each in range(40)
    )
    watching = [Deferred.fromCoroutine(watch(each)) for each in daemons]
    await ended
    await gatherResults(watching)
    assert all(len(each) <= 1 + daemons[0].is_sqlite for each in shown.values())


@ensureDeferred
async def test_ended_sessions_are_forgotten(daemons: Sequence[Database]) -> None:
    """Break: `src/bootvol/store/last_writes.py`: `connection.execute(_FORGET)` -> `pass`."""
    if daemons[0].is_sqlite:
        assert await daemons[0].read(last_writes.numbers) == ()
        return
    await daemons[0].write(change)
    await daemons[1].write(change)
    before = await daemons[1].read(last_writes.numbers)
    daemons[0]._engine.dispose()

    async def forgotten() -> bool:
        daemons[1]._engine.dispose()
        await daemons[1].write(change)
        return not set(before) & set(await daemons[1].read(last_writes.numbers))

    # The server ends a session a moment after the client.
    await until(forgotten)


@ensureDeferred
async def test_a_restarted_server_tells_the_version(daemons: Sequence[Database]) -> None:
    """Break: `src/bootvol/store/connections.py`: `return self.transact(transaction,
    last_writes.numbers, writes=False)` -> `raise`.
    """
    if daemons[0].is_sqlite:
        return
    before = await daemons[0].version()
    await daemons[1].read(
        lambda db: db.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )
    assert await daemons[0].version() == before
